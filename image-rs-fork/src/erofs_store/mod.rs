//! The layout `erofs-v1` in a store: one file per layer, the image with its dm-verity tree behind it.
//!
//! Below `erofs-v1/`: `images/<diffID>-<inherited>/image` is the layer, `root-hash` beside it what it measured when it
//! was stored (hexadecimal), `inherits` what it asked of the layers below; a layer on its way is
//! `images/<diffID>.partial-<number>`. `chains/<chain ID>` is a symbolic link that holds the name of that chain's
//! topmost layer: a diffID above the same inherited attributes is stored once, whatever the chain. `mounts/` is where
//! layers are mounted while containers use them.

mod inherits;
mod layer;
mod measured;
mod mounts;
mod output;
mod stream;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use protocols::digest::Sha256Digest;
use protocols::image::Layout;
use rustix::fs::fsync;

use self::inherits::Asked;
pub(crate) use self::layer::ErofsLayer;
use self::layer::{Source, Stored};
pub(crate) use self::mounts::LayerMount;
use self::mounts::Mounts;
pub(crate) use self::output::Output;
pub(crate) use self::stream::Streaming;
use crate::erofs::LayerReader;
use crate::error::ImageError;
use crate::layer::Budget;
use crate::limits::Limits;
use crate::mount::{Enforcement, Unenforced};
use crate::pull::Flights;
use crate::space::{Lease, Space};
use crate::store::{Candidate, LayerKey, LayerStore, LayerWriter, Room, StoredLayer};
use crate::store_dir::{self, Partial, Published};
use crate::tree::disk::{open_directory, store_error};
use crate::verity::{BLOCK, tree_blocks};

/// The image, in its layer's directory.
const IMAGE: &str = "image";
/// Its root hash when it was stored, in hexadecimal.
const ROOT_HASH: &str = "root-hash";
/// What it asked of the layers below.
const INHERITS: &str = "inherits";
/// Hashes that do not stay in memory while an image is written.
const SPILL: &str = "spill";

/// Layers as EROFS images below one root. Mounting them needs root's rights.
#[derive(Debug, Clone)]
pub struct ErofsStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    images: PathBuf,
    chains: PathBuf,
    /// How many names were made up.
    count: AtomicU64,
    /// Held while a complete layer gets its name.
    turn: Mutex<()>,
    space: Arc<Space>,
    mounts: Mounts,
    /// Locked while the store is open.
    _lock: File,
}

impl ErofsStore {
    /// Opens or makes the store at `root` (0700), alone: leftovers of broken pulls and of mounts are removed.
    /// `quota` is in bytes: layers that nobody uses are removed where it is reached. What may be mounted without
    /// dm-verity and outside guest memory is for the caller to say.
    ///
    /// # Errors
    /// `store.io`, also when another process has the store open; `store.full`.
    pub fn open(root: &Path, quota: Option<u64>, unenforced: Unenforced) -> Result<Self, ImageError> {
        let base = root.join(Layout::ErofsV1.as_str());
        let (images, chains) = (base.join("images"), base.join("chains"));
        store_dir::make(&images)?;
        store_dir::make(&chains)?;
        let lock = store_dir::lock(root)?;
        let mounts = Mounts::open(&base.join("mounts"), unenforced)?;
        let names = store_dir::clear(&images)?;
        let below = images.clone();
        let space = Space::new(root, quota, move |name| store_dir::remove_layer(&below, name));
        let inner =
            Inner { images, chains, count: AtomicU64::new(0), turn: Mutex::default(), space, mounts, _lock: lock };
        for name in names {
            // A layer without its image is found corrupt when it is asked for.
            let bytes = fs::symlink_metadata(inner.image(&name)).map_or(0, |data| data.len());
            inner.space.track(&name, bytes);
        }
        if inner.space.is_limited() {
            inner.space.count(crate::tree::bytes_below(root)?);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What keeps mounted layers as they were measured.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.inner.mounts.enforcement()
    }

    /// Mounts an empty layer in the way layers are mounted: says whether this kernel can.
    ///
    /// # Errors
    /// `store.layout` when it does not; `store.unenforced` when nothing may be mounted from here; `store.*`.
    pub fn probe(&self) -> Result<(), ImageError> {
        let partial = Partial::make(&self.inner.images, "probe", &self.inner.count)?;
        let diff_id = Sha256Digest::of(&[]);
        let budget = Budget::new(&Limits::default());
        let mut streaming = self.inner.streaming(&partial, diff_id, &budget)?;
        let written = streaming.push(&[0; 1024]).and_then(|()| streaming.end()).and_then(|()| streaming.finish(&[]));
        let (finished, output) = written.map_err(|e| e.into_image("an empty layer"))?;
        let (file, _) = output.into_parts();
        match self.inner.mounts.mount(&partial.path.join(IMAGE), &file, &finished.tree.root_hash) {
            Ok(_) => Ok(()),
            Err(ImageError::StoreIo { source, .. }) => {
                Err(ImageError::StoreLayout { layout: Layout::ErofsV1, problem: source.to_string() })
            }
            Err(error) => Err(error),
        }
    }
}

/// What the layers of a store at `root` count for; nothing where there is none in this layout.
pub(crate) fn bytes_below(root: &Path) -> Result<u64, ImageError> {
    let images = root.join(Layout::ErofsV1.as_str()).join("images");
    let names = store_dir::names(&images)?;
    let bytes = |name: &String| fs::symlink_metadata(images.join(name).join(IMAGE)).map_or(0, |data| data.len());
    Ok(names.iter().map(bytes).fold(0, u64::saturating_add))
}

impl Inner {
    fn image(&self, name: &str) -> PathBuf {
        self.images.join(name).join(IMAGE)
    }

    fn streaming(
        &self,
        partial: &Partial,
        diff_id: Sha256Digest,
        budget: &Arc<Budget>,
    ) -> Result<Streaming, ImageError> {
        let make = |name| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            options.open(partial.path.join(name)).map_err(|e| store_error(&partial.path, "make a layer's file", e))
        };
        let output = Output::stored(make(IMAGE)?, self.space.begin());
        Ok(Streaming::new(output, Box::new(make(SPILL)?), &partial.path, diff_id, budget, true))
    }

    /// Lets a chain ID stand for a stored layer.
    fn link(&self, chain: &Sha256Digest, name: &str) -> Result<(), ImageError> {
        let link = self.chains.join(chain.hex());
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let new = self.chains.join(format!("{}{}{number}", chain.hex(), store_dir::PARTIAL));
        let _ = fs::remove_file(&new); // of a process that died
        std::os::unix::fs::symlink(name, &new)
            .and_then(|()| fs::rename(&new, &link))
            .map_err(|e| store_error(&link, "name a layer", e))
    }
}

impl LayerStore for ErofsStore {
    fn layout(&self) -> Layout {
        Layout::ErofsV1
    }

    fn flights(&self) -> Option<&Flights> {
        Some(self.inner.space.flights())
    }

    fn stored(&self, layer: &LayerKey) -> Result<Option<Box<dyn Candidate>>, ImageError> {
        let link = self.inner.chains.join(layer.chain.hex());
        let name = match fs::read_link(&link) {
            Ok(name) => name,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => return Ok(None),
            Err(e) => return Err(store_error(&link, "look for a stored layer", e)),
        };
        // Only names of stored layers have a lease; the link says nothing that is trusted.
        let found = name.to_str().and_then(|name| Found::look(&self.inner, name, &layer.subject));
        Ok(found.map(|found| Box::new(found) as _))
    }

    fn knows(&self, diff_id: &Sha256Digest) -> bool {
        !self.inner.space.names(&format!("{}-", diff_id.hex())).is_empty()
    }

    fn stored_above(&self, layer: &LayerKey, lower: &[StoredLayer]) -> Result<Option<Box<dyn Candidate>>, ImageError> {
        for name in self.inner.space.names(&format!("{}-", layer.diff_id.hex())) {
            let path = self.inner.images.join(&name).join(INHERITS);
            // Without a readable record the layer is fetched as if it were not there.
            let Some(asked) = Asked::read(&path) else { continue };
            let inherited = asked.inherited(|path| stream::inherited(lower, path));
            let inherited = inherited.map_err(|e| store_error(&path, "read the layers below", e))?;
            if name == format!("{}-{}", layer.diff_id.hex(), inherited.hex())
                && let Some(found) = Found::look(&self.inner, &name, &layer.subject)
            {
                self.inner.link(&layer.chain, &name)?;
                return Ok(Some(Box::new(found)));
            }
        }
        Ok(None)
    }

    fn begin(&self, layer: &LayerKey, room: Room) -> Result<Box<dyn LayerWriter>, ImageError> {
        let partial = Partial::make(&self.inner.images, &layer.diff_id.hex(), &self.inner.count)?;
        let streaming = self.inner.streaming(&partial, layer.diff_id, &room.0)?;
        Ok(Box::new(Writer { streaming, partial, key: layer.clone(), store: Arc::clone(&self.inner) }))
    }

    fn prune(&self) -> Result<usize, ImageError> {
        self.inner.space.clear()
    }
}

#[derive(Debug)]
struct Writer {
    streaming: Streaming,
    partial: Partial,
    key: LayerKey,
    store: Arc<Inner>,
}

impl LayerWriter for Writer {
    fn push(&mut self, archive: &[u8]) -> Result<(), ImageError> {
        self.streaming.push(archive).map_err(|e| e.into_image(&self.key.subject))
    }

    fn end(&mut self) -> Result<(), ImageError> {
        self.streaming.end().map_err(|e| e.into_image(&self.key.subject))
    }

    fn commit(self: Box<Self>, lower: &[StoredLayer]) -> Result<StoredLayer, ImageError> {
        let Self { streaming, partial, key, store } = *self;
        let (finished, output) = streaming.finish(lower).map_err(|e| e.into_image(&key.subject))?;
        let root_hash = finished.tree.root_hash;
        let asked = Asked { implied: finished.implied, marked: finished.marked };
        let (file, growth) = output.into_parts();
        let path = partial.path.clone();
        let written = fs::remove_file(path.join(SPILL))
            .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o400)))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::write(path.join(ROOT_HASH), root_hash.hex()))
            .and_then(|()| File::open(path.join(ROOT_HASH))?.sync_all())
            .and_then(|()| asked.write(&path.join(INHERITS)))
            .and_then(|()| Ok(fsync(open_directory(&path)?)?));
        written.map_err(|e| store_error(&path, "complete a layer", e))?;
        let name = format!("{}-{}", key.diff_id.hex(), finished.inherited.hex());
        let known = || Found::look(&store, &name, &key.subject);
        let layer = match partial.publish(&name, &store.turn, || growth.map(|growth| growth.keep(&name)), known)? {
            Published::New(lease) => {
                let stored = Stored { store: Arc::clone(&store), name: name.clone(), _lease: lease };
                ErofsLayer { root_hash, source: Source::Stored(stored) }.into()
            }
            // Another chain, or a faster pull, has stored the same. It is measured all the same.
            Published::Known(found) => Box::new(found).measure()?,
        };
        store.link(&key.chain, &name)?;
        Ok(layer)
    }
}

/// A stored layer that is not measured yet.
#[derive(Debug)]
struct Found {
    name: String,
    subject: String,
    /// So that it is not removed while it is measured.
    lease: Lease,
    store: Arc<Inner>,
}

impl Found {
    /// The store is ours alone: what it holds is what the account knows.
    fn look(store: &Arc<Inner>, name: &str, subject: &str) -> Option<Self> {
        let lease = store.space.lease(name)?;
        Some(Self { name: name.to_owned(), subject: subject.to_owned(), lease, store: Arc::clone(store) })
    }

    /// The root hash of the stored image, by its blocks: an altered layer is fetched again before it is used, even
    /// where dm-verity would refuse to read it.
    fn root_hash(&self) -> io::Result<Sha256Digest> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let file = File::open(self.store.image(&self.name))?;
        let size = file.metadata()?.len();
        let blocks = LayerReader::open(&file)?.data_blocks();
        if size != blocks.saturating_add(tree_blocks(blocks)).saturating_mul(BLOCK as u64) {
            return Err(wrong("an image and hash tree of another size"));
        }
        self.store.mounts.measured().root_hash(&file, blocks)?.ok_or_else(|| wrong("an image without a block"))
    }
}

impl Candidate for Found {
    fn measure(self: Box<Self>) -> Result<StoredLayer, ImageError> {
        let record = fs::read_to_string(self.store.images.join(&self.name).join(ROOT_HASH)).unwrap_or_default();
        let recorded: Option<Sha256Digest> = format!("sha256:{record}").parse().ok();
        let actual = match self.root_hash() {
            Ok(actual) if recorded == Some(actual) => {
                let stored = Stored { store: self.store, name: self.name, _lease: Some(self.lease) };
                return Ok(ErofsLayer { root_hash: actual, source: Source::Stored(stored) }.into());
            }
            Ok(actual) => actual.to_string(),
            Err(e) if is_damage(&e) => e.to_string(),
            Err(e) => return Err(store_error(&self.store.image(&self.name), "measure a stored layer", e)),
        };
        store_dir::remove_layer(&self.store.images, &self.name)?;
        self.store.space.forget(&self.name);
        let expected = recorded.map_or_else(|| "a recorded root hash".to_owned(), |hash| hash.to_string());
        Err(ImageError::StoreCorrupt { subject: self.subject, expected, actual })
    }
}

/// Whether an image could not be measured because of what is there: an authenticated device gives `EIO` for a block that
/// was altered.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, IsADirectory, NotADirectory, NotFound, UnexpectedEof};
    let altered = error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error());
    altered || matches!(error.kind(), InvalidData | UnexpectedEof | NotFound | NotADirectory | IsADirectory)
}
