//! How far a pull has come, for people who wait.

use protocols::digest::Sha256Digest;

/// One layer of the image that is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerPlace<'a> {
    /// Its place in the image; 0 is the lowest.
    pub index: usize,
    /// Digest of its blob.
    pub blob: &'a Sha256Digest,
    /// Bytes of its blob.
    pub size: u64,
    /// `host[:port]` of the registry in the image's reference.
    pub registry: &'a str,
}

/// What happens to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerEvent {
    /// Another pull in this process is fetching it; this one waits for that.
    Waiting,
    /// It was stored before and is measured again.
    Reused,
    /// It was stored before, but is not what was measured then; it is fetched again.
    Corrupt,
    /// Its blob is asked for.
    Started,
    /// So many more bytes of its blob have arrived.
    Received(u64),
    /// It was received, verified and unpacked, and is completed once the layers below it are.
    Unpacked,
    /// It is complete.
    Stored,
}

/// Told while a pull goes on; called from several threads, and must not block.
pub trait Progress: Send + Sync {
    /// The pull starts: how many layers, and how many bytes they have as blobs.
    fn start(&self, layers: usize, bytes: u64) {
        let _ = (layers, bytes);
    }

    /// `bytes` more of the blobs have arrived, or need not be fetched because their layer is stored.
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// One layer is verified and stored; `reused` when it was stored before.
    fn layer(&self, digest: &Sha256Digest, reused: bool) {
        let _ = (digest, reused);
    }

    /// Something has happened to one layer. In finer steps what the other calls tell of the whole image.
    fn event(&self, layer: &LayerPlace<'_>, event: LayerEvent) {
        let _ = (layer, event);
    }

    /// The pull has ended, well or not.
    fn finish(&self) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}
