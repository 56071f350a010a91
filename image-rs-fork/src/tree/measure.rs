//! The layout `tree-v1` without a disk.

use std::io::Read;
use std::sync::Arc;

use protocols::digest::Sha256Digest;
use protocols::image::Layout;

use crate::error::ImageError;
use crate::layer::Budget;
use crate::layer::sink::NoSink;
use crate::layer::unpack::Unpacker;
use crate::limits::Limits;
use crate::pull::Flights;
use crate::store::{Candidate, LayerKey, LayerStore, LayerWriter, Room, StoredLayer, TreeLayer, tables};

/// Measures layers in the layout `tree-v1` without writing anything; needs no rights. An image pulled
/// into it cannot be mounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct MeasureOnly;

impl LayerStore for MeasureOnly {
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
        Ok(Box::new(Measurer { unpacker: Unpacker::new(NoSink, room.0), subject: layer.subject.clone() }))
    }
}

#[derive(Debug)]
struct Measurer {
    unpacker: Unpacker<NoSink>,
    subject: String,
}

impl LayerWriter for Measurer {
    fn push(&mut self, archive: &[u8]) -> Result<(), ImageError> {
        self.unpacker.push(archive).map_err(|e| e.into_image(&self.subject))
    }

    fn end(&mut self) -> Result<(), ImageError> {
        self.unpacker.end().map_err(|e| e.into_image(&self.subject))
    }

    fn commit(self: Box<Self>, lower: &[StoredLayer]) -> Result<StoredLayer, ImageError> {
        let (table, _) = self.unpacker.finish(&tables(lower)).map_err(|e| e.into_image(&self.subject))?;
        Ok(TreeLayer { digest: table.digest(), table: Arc::new(table), directory: None, _lease: None }.into())
    }
}

/// The layer digest of one tar archive with nothing below it.
///
/// # Errors
/// `image.layer_format`, `image.unsafe`, `image.limit`.
pub fn measure_archive(archive: impl Read, limits: &Limits) -> Result<Sha256Digest, ImageError> {
    let mut unpacker = Unpacker::new(NoSink, Budget::new(limits));
    let subject = "the archive";
    unpacker.unpack(archive).map_err(|e| e.into_image(subject))?;
    let (table, _) = unpacker.finish(&[]).map_err(|e| e.into_image(subject))?;
    Ok(table.digest())
}
