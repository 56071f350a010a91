//! A measured layer in the layout `erofs-v1`.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use protocols::digest::Sha256Digest;

use super::Inner;
use super::mounts::LayerMount;
use crate::erofs::{Found, LayerReader};
use crate::error::ImageError;
use crate::space::Lease;
use crate::tar::TarPath;

/// One image. Its digest is its dm-verity root hash.
#[derive(Debug)]
pub(crate) struct ErofsLayer {
    pub(super) root_hash: Sha256Digest,
    pub(super) source: Source,
}

/// Where the image is.
#[derive(Debug)]
pub(super) enum Source {
    /// In a store.
    Stored(Stored),
    /// In a file without a name, as far as a layer above may have to read it.
    Measured(File),
}

/// A stored image. Files are opened when they are needed: an image may have more layers than a process files.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) store: Arc<Inner>,
    pub(super) name: String,
    /// Keeps it in the store while it is used.
    pub(super) _lease: Option<Lease>,
}

impl Stored {
    /// The image's file.
    pub(super) fn path(&self) -> PathBuf {
        self.store.image(&self.name)
    }
}

impl ErofsLayer {
    /// A layer that was measured only.
    pub(crate) const fn measured(root_hash: Sha256Digest, file: File) -> Self {
        Self { root_hash, source: Source::Measured(file) }
    }

    pub(crate) const fn root_hash(&self) -> &Sha256Digest {
        &self.root_hash
    }

    /// What the layer has at a path.
    pub(crate) fn find(&self, path: &[u8]) -> io::Result<Found> {
        let Some(path) = TarPath::from_clean(path) else { return Ok(Found::Absent) };
        match &self.source {
            Source::Stored(stored) => LayerReader::open(File::open(stored.path())?)?.find(path),
            Source::Measured(file) => LayerReader::open(file)?.find(path),
        }
    }

    /// Mounts it, or gives the mount that others use already; `None` when it was measured only.
    pub(crate) fn mount(&self) -> Result<Option<Arc<LayerMount>>, ImageError> {
        match &self.source {
            Source::Stored(stored) => stored.store.mounts.get(stored, &self.root_hash).map(Some),
            Source::Measured(_) => Ok(None),
        }
    }
}
