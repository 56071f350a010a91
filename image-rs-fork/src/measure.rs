//! Measures without a store.

use std::io::Read;
use std::sync::Arc;

use protocols::digest::Sha256Digest;
use protocols::image::Layout;

use crate::erofs_store::{ErofsLayer, Output, Streaming};
use crate::error::ImageError;
use crate::layer::Budget;
use crate::layer::sink::NoSink;
use crate::layer::table::Table;
use crate::layer::unpack::Unpacker;
use crate::limits::Limits;
use crate::pull::Flights;
use crate::store::{Candidate, LayerKey, LayerStore, LayerWriter, Room, StoredLayer, TreeLayer, tables};
use crate::tree::disk::store_error;

/// Measures layers in every layout in one pass; needs no rights. An image pulled into it cannot be mounted: what a
/// layer above may have to read of one below, names and small files, is kept in files without names below the
/// system's temporary directory until the image is dropped.
#[derive(Debug, Clone, Copy, Default)]
pub struct MeasureOnly;

impl LayerStore for MeasureOnly {
    /// What the measurement itself names; [`crate::MeasuredImage::rootfs_digests`] has both.
    fn layout(&self) -> Layout {
        Layout::TreeV1
    }

    fn flights(&self) -> Option<&Flights> {
        None
    }

    fn stored(&self, _: &LayerKey) -> Result<Option<Box<dyn Candidate>>, ImageError> {
        Ok(None)
    }

    fn begin(&self, layer: &LayerKey, room: Room) -> Result<Box<dyn LayerWriter>, ImageError> {
        let dir = std::env::temp_dir();
        let file = || tempfile::tempfile_in(&dir).map_err(|e| store_error(&dir, "make a temporary file", e));
        // The unpacker counts entries and holes for both.
        let (output, spill) = (Output::measured(file()?), Box::new(file()?));
        let erofs = Streaming::new(output, spill, &dir, layer.diff_id, &room.0, false);
        let table = Table::spilling(file()?, &dir);
        Ok(Box::new(Measurer {
            unpacker: Unpacker::with_table(table, NoSink, room.0),
            erofs,
            subject: layer.subject.clone(),
        }))
    }
}

#[derive(Debug)]
struct Measurer {
    unpacker: Unpacker<NoSink>,
    erofs: Streaming,
    subject: String,
}

impl LayerWriter for Measurer {
    fn push(&mut self, archive: &[u8]) -> Result<(), ImageError> {
        let pushed = self.unpacker.push(archive).and_then(|()| self.erofs.push(archive));
        pushed.map_err(|e| e.into_image(&self.subject))
    }

    fn end(&mut self) -> Result<(), ImageError> {
        let ended = self.unpacker.end().and_then(|()| self.erofs.end());
        ended.map_err(|e| e.into_image(&self.subject))
    }

    fn commit(self: Box<Self>, lower: &[StoredLayer]) -> Result<StoredLayer, ImageError> {
        let Self { unpacker, erofs, subject } = *self;
        let named = |e: crate::layer::LayerError| e.into_image(&subject);
        let (table, _) = unpacker.finish(&tables(lower)).map_err(named)?;
        let (finished, output) = erofs.finish(lower).map_err(named)?;
        let tree = TreeLayer { digest: table.digest()?, table: table.sealed(), directory: None, _lease: None };
        let erofs = ErofsLayer::measured(finished.tree.root_hash, output.into_parts().0);
        Ok(StoredLayer { tree: Some(tree), erofs: Some(Arc::new(erofs)) })
    }
}

/// The digest in the layout `tree-v1` of one tar archive with nothing below it.
///
/// # Errors
/// `image.layer_format`, `image.unsafe`, `image.limit`.
pub fn measure_archive(archive: impl Read, limits: &Limits) -> Result<Sha256Digest, ImageError> {
    let mut unpacker = Unpacker::new(NoSink, Budget::new(limits));
    let subject = "the archive";
    unpacker.unpack(archive).map_err(|e| e.into_image(subject))?;
    let (table, _) = unpacker.finish(&[]).map_err(|e| e.into_image(subject))?;
    table.digest()
}
