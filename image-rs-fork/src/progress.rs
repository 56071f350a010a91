//! How far a pull has come, for people who wait.

use protocols::digest::Sha256Digest;

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

    /// The pull has ended, well or not.
    fn finish(&self) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {}
