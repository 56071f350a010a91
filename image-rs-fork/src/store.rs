//! Where verified layers are kept: the seam between pulling and a layout on disk.

use std::path::PathBuf;
use std::sync::Arc;

use protocols::digest::Sha256Digest;
use protocols::image::Layout;

use crate::erofs_store::ErofsLayer;
use crate::error::ImageError;
use crate::layer::Budget;
use crate::layer::table::Table;
use crate::pull::Flights;
use crate::space::Lease;

/// A place for layers in one layout. It is given bytes of a layer while they are being verified, and
/// shows nothing before they are; what it gives back of a layer stored before, it measures again.
///
/// Only this crate's stores make a [`StoredLayer`], so only they can implement it.
pub trait LayerStore: Send + Sync + std::fmt::Debug {
    /// The layout that is measured and, where layers are stored, mounted.
    fn layout(&self) -> Layout;

    /// What pulls into this store are at work on; `None` where nothing is stored, and so nothing can be shared.
    fn flights(&self) -> Option<&Flights>;

    /// A layer stored before, to be measured again; `None` when there is none.
    ///
    /// # Errors
    /// `store.io`.
    fn stored(&self, layer: &LayerKey) -> Result<Option<Box<dyn Candidate>>, ImageError>;

    /// Whether a layer of that archive is stored, perhaps above others than it is asked for.
    fn knows(&self, _diff_id: &Sha256Digest) -> bool {
        false
    }

    /// A layer stored above other layers that is the same above `lower` (lowest first), to be measured again; `None`
    /// when there is none. Blocking, for a moment.
    ///
    /// # Errors
    /// `store.io`.
    fn stored_above(
        &self,
        _layer: &LayerKey,
        _lower: &[StoredLayer],
    ) -> Result<Option<Box<dyn Candidate>>, ImageError> {
        Ok(None)
    }

    /// Starts to store a layer.
    ///
    /// # Errors
    /// `store.io`, `store.full`.
    fn begin(&self, layer: &LayerKey, room: Room) -> Result<Box<dyn LayerWriter>, ImageError>;

    /// Removes every stored layer that nobody holds, as a candidate or as part of an image; says how many.
    ///
    /// # Errors
    /// `store.io`.
    fn prune(&self) -> Result<usize, ImageError> {
        Ok(0)
    }
}

/// Which layer, on top of which others.
#[derive(Debug, Clone)]
pub struct LayerKey {
    /// OCI chain ID. Implied directories take attributes of the layers below, so one diffID on top of
    /// other layers may be another layer.
    pub chain: Sha256Digest,
    /// Digest of the layer's own archive.
    pub diff_id: Sha256Digest,
    /// Layer, digest and registry, for errors.
    pub subject: String,
}

/// What is left of the image's limits; made by [`crate::pull`].
#[derive(Debug, Clone)]
pub struct Room(pub(crate) Arc<Budget>);

/// A layer found in the store, not yet trusted. Blocking.
pub trait Candidate: Send + std::fmt::Debug {
    /// Measures it and compares with what was measured when it was stored. When they differ it is removed.
    ///
    /// # Errors
    /// `store.corrupt`, `store.io`.
    fn measure(self: Box<Self>) -> Result<StoredLayer, ImageError>;
}

/// A layer on its way into the store. Blocking. Dropped before [`LayerWriter::commit`], it leaves nothing.
pub trait LayerWriter: Send + std::fmt::Debug {
    /// Unpacks the next bytes of the layer's tar archive, any number of them.
    ///
    /// # Errors
    /// `image.layer_format`, `image.unsafe`, `image.limit`, `store.*`; the writer is of no use after it.
    fn push(&mut self, archive: &[u8]) -> Result<(), ImageError>;

    /// The archive has no more bytes.
    ///
    /// # Errors
    /// `image.layer_format` when it is cut short.
    fn end(&mut self) -> Result<(), ImageError>;

    /// Completes the layer by those below it (lowest first) and makes it visible. Called only after the
    /// blob's size and digest and the archive's diffID have been found right.
    ///
    /// # Errors
    /// `store.*`.
    fn commit(self: Box<Self>, lower: &[StoredLayer]) -> Result<StoredLayer, ImageError>;
}

/// A measured layer, in one layout or, where it was measured only, in several; only this crate's stores make one.
#[derive(Debug, Clone)]
pub struct StoredLayer {
    pub(crate) tree: Option<TreeLayer>,
    pub(crate) erofs: Option<Arc<ErofsLayer>>,
}

/// A layer in the layout `tree-v1`.
#[derive(Debug, Clone)]
pub(crate) struct TreeLayer {
    pub(crate) digest: Sha256Digest,
    pub(crate) table: Arc<Table>,
    /// Its directory; `None` when it was measured only.
    pub(crate) directory: Option<PathBuf>,
    /// Keeps it in the store while it is used.
    pub(crate) _lease: Option<Lease>,
}

impl StoredLayer {
    /// The layer's digest in a layout it was measured in.
    #[must_use]
    pub fn digest(&self, layout: Layout) -> Option<&Sha256Digest> {
        match layout {
            Layout::TreeV1 => self.tree.as_ref().map(|layer| &layer.digest),
            Layout::ErofsV1 => self.erofs.as_ref().map(|layer| layer.root_hash()),
        }
    }
}

impl From<TreeLayer> for StoredLayer {
    fn from(layer: TreeLayer) -> Self {
        Self { tree: Some(layer), erofs: None }
    }
}

impl From<ErofsLayer> for StoredLayer {
    fn from(layer: ErofsLayer) -> Self {
        Self { tree: None, erofs: Some(Arc::new(layer)) }
    }
}

/// The tables of layers that were measured as `tree-v1`.
pub(crate) fn tables(layers: &[StoredLayer]) -> Vec<Arc<Table>> {
    layers.iter().filter_map(|layer| layer.tree.as_ref()).map(|layer| Arc::clone(&layer.table)).collect()
}

/// The layers' digests in a layout that all of them were measured in, lowest first.
pub(crate) fn digests(layout: Layout, layers: &[StoredLayer]) -> Option<Vec<Sha256Digest>> {
    layers.iter().map(|layer| layer.digest(layout).copied()).collect()
}

/// SHA-256 over the layers' digests, lowest first (`docs/measurement.md`).
pub(crate) fn rootfs_digest(layout: Layout, layers: &[Sha256Digest]) -> Sha256Digest {
    let mut bytes = format!("tcl-rootfs {}\0", layout.as_str()).into_bytes();
    bytes.extend_from_slice(&(layers.len() as u64).to_be_bytes());
    for layer in layers {
        bytes.extend_from_slice(layer.as_bytes());
    }
    Sha256Digest::of(&bytes)
}
