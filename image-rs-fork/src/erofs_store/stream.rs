//! A layer's archive on its way into an image: parser, limits, writer.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::digest::Sha256Digest;

use super::output::Output;
use crate::erofs::{DirAttributes, ErofsError, ErofsLimits, Finished, LayerWriter, Problem, StreamedLayer};
use crate::error::ImageError;
use crate::layer::{Budget, LayerError};
use crate::store::StoredLayer;
use crate::tar::{EntryMeta, EntrySink, Parser, TarError, TarLimits};
use crate::tree::disk::store_error;
use crate::verity::BlockOut;

/// An image that is being written.
pub(crate) struct Streaming {
    parser: Option<Box<Parser>>,
    sink: Option<Sink>,
    streamed: Option<StreamedLayer<Output>>,
    path: PathBuf,
    diff_id: Sha256Digest,
}

/// The writer behind the image's limits.
struct Sink {
    writer: LayerWriter<Output>,
    /// Absent where another reader of the same archive counts.
    budget: Option<Arc<Budget>>,
    path: PathBuf,
}

impl std::fmt::Debug for Streaming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streaming").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Streaming {
    /// Writes to `output`, which is at `path`; most hashes wait in `spill`.
    pub(crate) fn new(
        output: Output,
        spill: Box<dyn BlockOut + Send>,
        path: &Path,
        diff_id: Sha256Digest,
        budget: &Arc<Budget>,
        counts: bool,
    ) -> Self {
        let limits = budget.limits();
        let parser = Parser::new(TarLimits {
            archive_bytes: limits.layer_bytes,
            file_bytes: limits.layer_bytes,
            entries: limits.entries,
            ..TarLimits::default()
        });
        let erofs = ErofsLimits { entries: limits.entries, ..ErofsLimits::default() };
        let writer = LayerWriter::spilling(output, spill, erofs);
        let sink = Sink { writer, budget: counts.then(|| Arc::clone(budget)), path: path.to_owned() };
        Self { parser: Some(Box::new(parser)), sink: Some(sink), streamed: None, path: path.to_owned(), diff_id }
    }

    /// The next bytes of the archive, any number of them.
    pub(crate) fn push(&mut self, archive: &[u8]) -> Result<(), LayerError> {
        // Not put back after an error: a refused archive stays refused.
        let mut parser = self.parser.take().ok_or(TarError::Refused)?;
        parser.push(archive, self.sink.as_mut().ok_or(TarError::Refused)?)?;
        self.parser = Some(parser);
        Ok(())
    }

    /// The archive has no more bytes.
    pub(crate) fn end(&mut self) -> Result<(), LayerError> {
        self.parser.take().ok_or(TarError::Refused)?.finish()?;
        let sink = self.sink.take().ok_or(TarError::Refused)?;
        self.streamed = Some(sink.writer.into_streamed().map_err(|e| layer_error(e, &self.path))?);
        Ok(())
    }

    /// Completes the image by the layers below, lowest first.
    pub(crate) fn finish(self, lower: &[StoredLayer]) -> Result<(Finished, Output), LayerError> {
        let mut streamed = self.streamed.ok_or(TarError::Refused)?;
        let fail = |e| layer_error(e, &self.path);
        for path in streamed.implied_directories() {
            let found = inherited(lower, &path);
            let found = found.map_err(|e| store_error(&self.path, "read the layers below", e))?;
            if let Some(attributes) = found {
                streamed.set_attributes(&path, &attributes).map_err(fail)?;
            }
        }
        streamed
            .settle_whiteouts(|path| Ok(inherited(lower, path)?.is_some()))
            .map_err(|e| store_error(&self.path, "read the layers below", e))?;
        streamed.finish(&self.diff_id).map_err(fail)
    }
}

/// What the layers below, the nearest first, show at an implied directory's path.
pub(super) fn inherited(lower: &[StoredLayer], path: &[u8]) -> io::Result<Option<DirAttributes>> {
    let layers = lower.iter().rev().filter_map(|layer| layer.erofs.as_ref());
    crate::erofs::shown(layers.map(|layer| layer.find(path)))
}

impl EntrySink for Sink {
    type Error = LayerError;

    fn entry(&mut self, meta: &EntryMeta<'_>) -> Result<(), LayerError> {
        if let Some(budget) = &self.budget {
            budget.take_entry()?;
        }
        self.writer.entry(meta).map_err(|e| layer_error(e, &self.path))
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.writer.data(bytes).map_err(|e| layer_error(e, &self.path))
    }

    fn hole(&mut self, len: u64) -> Result<(), LayerError> {
        // The archive does not hold these bytes, so its reader has not counted them.
        if let Some(budget) = &self.budget {
            budget.take_unpacked(len)?;
        }
        self.writer.hole(len).map_err(|e| layer_error(e, &self.path))
    }

    fn end(&mut self) -> Result<(), LayerError> {
        self.writer.end().map_err(|e| layer_error(e, &self.path))
    }
}

fn layer_error(error: ErofsError, path: &Path) -> LayerError {
    match error {
        ErofsError::Tar(error) => error.into(),
        ErofsError::Entry { problem: Problem::ReservedAttribute, .. } => LayerError::Unsafe(error.to_string()),
        ErofsError::Entry { .. } => LayerError::Format(error.to_string()),
        ErofsError::Limit { what, limit } => LayerError::Limit { what, limit },
        // The quota's refusal came through as an I/O error.
        ErofsError::Io { doing, source } => {
            LayerError::Store(source.downcast::<ImageError>().unwrap_or_else(|source| store_error(path, doing, source)))
        }
    }
}
