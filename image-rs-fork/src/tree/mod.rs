//! The layout `tree-v1`: one directory per layer.
//!
//! `layers/<chain ID>/fs` is the layer, `layers/<chain ID>/measurement` its digest when it was stored.
//! A layer on its way is `layers/<chain ID>.partial-<number>`.

pub(crate) mod disk;
mod memory;
pub(crate) mod walk;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use protocols::digest::Sha256Digest;
use protocols::image::{Layout, RootfsMeasurement};
use rustix::fs::syncfs;
use rustix::io::Errno;

use self::disk::{Disk, open_directory, store_error};
pub use self::memory::in_memory;
use crate::error::ImageError;
use crate::layer::table::Table;
use crate::layer::unpack::Unpacker;
use crate::pull::Flights;
use crate::space::{Lease, Space};
use crate::store::{Candidate, LayerKey, LayerStore, LayerWriter, Room, StoredLayer, TreeLayer, rootfs_digest, tables};
use crate::store_dir::{self, Partial, Published};

/// The layer's digest, in text, beside its directory.
const MEASUREMENT: &str = "measurement";
/// All layers, below the store's root.
const LAYERS: &str = "layers";
/// The layer itself.
const FS: &str = "fs";

/// Layers as directories below one root, kept by chain ID; needs root's rights.
#[derive(Debug, Clone)]
pub struct TreeStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layers: PathBuf,
    /// How many partial layers there have been.
    partials: AtomicU64,
    /// Held while a complete layer gets its name.
    turn: Mutex<()>,
    space: Arc<Space>,
    /// Locked while the store is open.
    _lock: File,
}

impl TreeStore {
    /// Opens or makes the store at `root` (0700), alone: leftovers of broken pulls are removed.
    ///
    /// # Errors
    /// `store.io`, also when another process has the store open; `store.full`.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        Self::open_within(root, None)
    }

    /// The same, with a quota in bytes: layers that nobody uses are removed where it is reached.
    ///
    /// # Errors
    /// As [`TreeStore::open`].
    pub fn open_within(root: &Path, quota: Option<u64>) -> Result<Self, ImageError> {
        let layers = root.join(LAYERS);
        store_dir::make(&layers)?;
        let lock = store_dir::lock(root)?;
        let found = store_dir::clear(&layers)?;
        let below = layers.clone();
        let space = Space::new(root, quota, move |name| store_dir::remove_layer(&below, name));
        for name in found {
            let bytes = if space.is_limited() { taken(&layers.join(&name))? } else { 0 };
            space.track(&name, bytes);
        }
        if space.is_limited() {
            space.count(crate::erofs_store::bytes_below(root)?);
        }
        Ok(Self {
            inner: Arc::new(Inner { layers, partials: AtomicU64::new(0), turn: Mutex::default(), space, _lock: lock }),
        })
    }
}

/// A file without a name for what is measured of one layer, until its digest is taken.
fn spill(dir: &Path) -> Result<File, ImageError> {
    tempfile::tempfile_in(dir).map_err(|e| store_error(dir, "make a temporary file", e))
}

/// What the layers of a store at `root` count for; nothing where there is none in this layout.
pub(crate) fn bytes_below(root: &Path) -> Result<u64, ImageError> {
    let layers = root.join(LAYERS);
    let names = store_dir::names(&layers)?;
    // What a broken pull left is removed when a store of this layout is next opened.
    let mut whole = names.iter().filter(|name| !name.contains(store_dir::PARTIAL));
    whole.try_fold(0u64, |bytes, name| Ok(bytes.saturating_add(taken(&layers.join(name))?)))
}

/// Measures a directory as the root file system of one layer that it would be in `tree-v1`. Blocking.
///
/// # Errors
/// `store.io`.
pub fn measure_directory(path: &Path) -> Result<RootfsMeasurement, ImageError> {
    let layout = Layout::TreeV1;
    let digest = rootfs_digest(layout, &[walk::walk(path, Table::new())?.digest()?]);
    Ok(RootfsMeasurement { layout, digest })
}

/// What a stored layer counts for: what [`Disk`] counted when it was written.
fn taken(path: &Path) -> Result<u64, ImageError> {
    let fail = |e| store_error(path, "measure a stored layer", e);
    let (mut bytes, mut waiting) = (0u64, vec![path.join(FS)]);
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let data = entry.metadata().map_err(fail)?;
            let content = if data.is_file() { data.len() } else { 0 };
            bytes = bytes.saturating_add(disk::ENTRY).saturating_add(disk::blocks(content));
            if data.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

impl LayerStore for TreeStore {
    fn layout(&self) -> Layout {
        Layout::TreeV1
    }

    fn flights(&self) -> Option<&Flights> {
        Some(self.inner.space.flights())
    }

    fn stored(&self, layer: &LayerKey) -> Result<Option<Box<dyn Candidate>>, ImageError> {
        Ok(Found::look(&self.inner, &layer.chain.hex(), &layer.subject).map(|found| Box::new(found) as _))
    }

    fn begin(&self, layer: &LayerKey, room: Room) -> Result<Box<dyn LayerWriter>, ImageError> {
        let partial = Partial::make(&self.inner.layers, &layer.chain.hex(), &self.inner.partials)?;
        store_dir::make(&partial.path.join(FS))?;
        let disk = Disk::new(&partial.path.join(FS), self.inner.space.begin())?;
        let table = Table::spilling(spill(&partial.path)?, &partial.path);
        Ok(Box::new(Writer {
            unpacker: Unpacker::with_table(table, disk, room.0),
            partial,
            chain: layer.chain.hex(),
            subject: layer.subject.clone(),
            store: Arc::clone(&self.inner),
        }))
    }

    fn prune(&self) -> Result<usize, ImageError> {
        self.inner.space.clear()
    }
}

#[derive(Debug)]
struct Writer {
    unpacker: Unpacker<Disk>,
    partial: Partial,
    chain: String,
    subject: String,
    store: Arc<Inner>,
}

impl LayerWriter for Writer {
    fn push(&mut self, archive: &[u8]) -> Result<(), ImageError> {
        self.unpacker.push(archive).map_err(|e| e.into_image(&self.subject))
    }

    fn end(&mut self) -> Result<(), ImageError> {
        self.unpacker.end().map_err(|e| e.into_image(&self.subject))
    }

    fn commit(self: Box<Self>, lower: &[StoredLayer]) -> Result<StoredLayer, ImageError> {
        let Self { unpacker, partial, chain, subject, store } = *self;
        let home = store.layers.join(&chain);
        let (table, disk) = unpacker.finish(&tables(lower)).map_err(|e| e.into_image(&subject))?;
        let digest = table.digest()?;
        let fail = |e: std::io::Error| store_error(&partial.path, "complete a layer", e);
        let mut measurement = File::create(partial.path.join(MEASUREMENT)).map_err(fail)?;
        measurement.write_all(digest.to_string().as_bytes()).map_err(fail)?;
        // One call for all the layer's files, and one that reports what could not be written.
        let directory: OwnedFd = open_directory(&partial.path).map_err(|e| fail(e.into()))?;
        syncfs(&directory).map_err(|e| fail(e.into()))?;
        let growth = disk.into_growth();
        let known = || Found::look(&store, &chain, &subject);
        let lease = match partial.publish(&chain, &store.turn, || growth.keep(&chain), known)? {
            Published::New(lease) => lease,
            // Another pull was faster; the chain ID says it stored the same. It is measured all the same.
            Published::Known(found) => return Box::new(found).measure(),
        };
        let (table, directory) = (table.sealed(), Some(home.join(FS)));
        Ok(TreeLayer { digest, table, directory, _lease: Some(lease) }.into())
    }
}

/// A directory with a chain ID's name.
#[derive(Debug)]
struct Found {
    chain: String,
    path: PathBuf,
    subject: String,
    /// So that it is not removed while it is measured.
    lease: Lease,
    store: Arc<Inner>,
}

impl Found {
    /// The store is ours alone: what it holds is what the account knows.
    fn look(store: &Arc<Inner>, chain: &str, subject: &str) -> Option<Self> {
        let lease = store.space.lease(chain)?;
        let (chain, path) = (chain.to_owned(), store.layers.join(chain));
        Some(Self { chain, path, subject: subject.to_owned(), lease, store: Arc::clone(store) })
    }
}

impl Candidate for Found {
    fn measure(self: Box<Self>) -> Result<StoredLayer, ImageError> {
        let expected = fs::read_to_string(self.path.join(MEASUREMENT)).unwrap_or_default();
        let fs = self.path.join(FS);
        let spill = spill(&self.store.layers)?;
        let walked = walk::walk(&fs, Table::spilling(spill, &self.store.layers));
        let (actual, table) = match walked.and_then(|table| Ok((table.digest()?, table))) {
            Ok((digest, table)) => (digest.to_string(), Some(table)),
            Err(e) if is_shape(&e) => (e.to_string(), None),
            Err(e) => return Err(e),
        };
        if let (Some(table), Ok(digest)) = (table, expected.parse::<Sha256Digest>())
            && expected == actual
        {
            let (table, directory) = (table.sealed(), Some(fs));
            return Ok(TreeLayer { digest, table, directory, _lease: Some(self.lease) }.into());
        }
        store_dir::remove_layer(&self.store.layers, &self.chain)?;
        self.store.space.forget(&self.chain);
        let expected = if expected.is_empty() { "a recorded measurement".to_owned() } else { expected };
        Err(ImageError::StoreCorrupt { subject: self.subject, expected, actual })
    }
}

/// Whether a walk failed because of what is there, rather than because it could not be read.
fn is_shape(error: &ImageError) -> bool {
    let shapes = [Errno::INVAL, Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::XDEV, Errno::NAMETOOLONG];
    match error {
        ImageError::StoreIo { source, .. } => shapes.iter().any(|e| source.raw_os_error() == Some(e.raw_os_error())),
        _ => false,
    }
}
