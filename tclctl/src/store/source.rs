//! Manifests and configs of pulled images: noted while they pass, read again where there is no network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use protocols::digest::Sha256Digest;
use registry::{BlobStream, Descriptor, ManifestBytes, Registry, RegistryError, Repository, Target};

/// A registry whose small documents are noted and whose blobs are counted while they pass.
pub(crate) struct Recorder<'r> {
    registry: &'r dyn Registry,
    documents: Mutex<BTreeMap<Sha256Digest, Bytes>>,
    received: std::sync::Arc<AtomicU64>,
}

impl<'r> Recorder<'r> {
    pub(crate) fn new(registry: &'r dyn Registry) -> Self {
        Self { registry, documents: Mutex::default(), received: std::sync::Arc::default() }
    }

    /// The manifest or config with this digest, as it passed.
    pub(crate) fn document(&self, digest: &Sha256Digest) -> Option<Bytes> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// Bytes of blobs and manifests that have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn note(&self, digest: Sha256Digest, bytes: Bytes) {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, bytes);
    }

    fn count(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[async_trait]
impl Registry for Recorder<'_> {
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        let found = self.registry.manifest(repository, target).await?;
        self.count(found.bytes.len());
        self.note(found.digest, found.bytes.clone());
        Ok(found)
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        let stream = self.registry.blob(repository, digest, size).await?;
        Ok(Box::new(Counted { stream, received: std::sync::Arc::clone(&self.received) }))
    }

    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        self.registry.referrers(repository, subject, artifact_type).await
    }

    fn lookaside(&self, repository: &Repository) -> Option<String> {
        self.registry.lookaside(repository)
    }

    async fn lookaside_signature(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        number: usize,
        limit: usize,
    ) -> Result<Option<Bytes>, RegistryError> {
        self.registry.lookaside_signature(repository, digest, number, limit).await
    }

    async fn small_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let bytes = self.registry.small_blob(repository, descriptor, limit).await?;
        self.count(bytes.len());
        self.note(descriptor.digest, Bytes::from(bytes.clone()));
        Ok(bytes)
    }
}

struct Counted {
    stream: Box<dyn BlobStream>,
    received: std::sync::Arc<AtomicU64>,
}

#[async_trait]
impl BlobStream for Counted {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let chunk = self.stream.next().await?;
        if let Some(chunk) = &chunk {
            self.received.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        Ok(chunk)
    }
}

/// The documents of a store in place of a registry: no network, and no layers. What it gives is checked by
/// digest like every registry's answer.
pub(crate) struct Recorded {
    folder: PathBuf,
}

impl Recorded {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn read(&self, digest: &Sha256Digest, what: &str, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let (host, what) = ("the image store".to_owned(), format!("{what} {digest}"));
        let path = self.folder.join(digest.hex());
        let unusable = |reason: String| RegistryError::Unavailable { host: host.clone(), what: what.clone(), reason };
        match std::fs::metadata(&path) {
            Ok(found) if found.len() > limit => return Err(RegistryError::TooLarge { host, what, limit }),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(RegistryError::NotFound { host, what });
            }
            Err(error) => return Err(unusable(error.to_string())),
        }
        std::fs::read(&path).map_err(|error| unusable(error.to_string()))
    }
}

#[async_trait]
impl Registry for Recorded {
    async fn manifest(&self, _: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        let Target::Digest(digest) = target else {
            let (host, what) = ("the image store".to_owned(), "a manifest by tag".to_owned());
            return Err(RegistryError::NotFound { host, what });
        };
        let bytes = self.read(digest, "manifest", registry::MAX_MANIFEST as u64)?;
        let digest = Sha256Digest::of(&bytes);
        Ok(ManifestBytes { bytes: bytes.into(), media_type: String::new(), digest, claimed: None })
    }

    async fn blob(&self, _: &Repository, digest: &Sha256Digest, _: u64) -> Result<Box<dyn BlobStream>, RegistryError> {
        Err(RegistryError::NotFound { host: "the image store".to_owned(), what: format!("layer {digest}") })
    }

    async fn referrers(&self, _: &Repository, _: &Sha256Digest, _: &str) -> Result<Vec<Descriptor>, RegistryError> {
        Ok(Vec::new())
    }

    async fn small_blob(&self, _: &Repository, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let bytes = self.read(&blob.digest, "config", limit)?;
        let actual = Sha256Digest::of(&bytes);
        if actual != blob.digest {
            let (host, what) = ("the image store".to_owned(), format!("config {}", blob.digest));
            return Err(RegistryError::Digest { host, what, expected: blob.digest, actual });
        }
        Ok(bytes)
    }
}
