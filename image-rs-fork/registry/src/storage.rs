//! The two narrow traits a registry is used through: reading and pushing.

use async_trait::async_trait;
use bytes::Bytes;
use protocols::digest::Sha256Digest;

use crate::error::RegistryError;
use crate::oci::{Descriptor, Document};
use crate::reference::{Repository, Target};

/// A manifest or index as the registry sent it: bytes, not yet compared with anything.
#[derive(Debug, Clone)]
pub struct ManifestBytes {
    /// The exact bytes, at most [`crate::MAX_MANIFEST`].
    pub bytes: Bytes,
    /// `Content-Type` of the answer; information only, the digest does not cover it.
    pub media_type: String,
    /// SHA-256 of `bytes`, computed here.
    pub digest: Sha256Digest,
    /// The digest the registry claims in a header, where it does.
    pub claimed: Option<Sha256Digest>,
}

impl ManifestBytes {
    /// The descriptor of these bytes. The media type is the document's own where it names one.
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        let own = match Document::parse(&self.bytes) {
            Ok(Document::Manifest(manifest)) => manifest.media_type,
            Ok(Document::Index(index)) => index.media_type,
            Err(_) => None,
        };
        Descriptor::of(own.as_deref().unwrap_or(&self.media_type), &self.bytes)
    }
}

/// A blob on its way: chunks as they arrive, neither hashed nor counted.
#[async_trait]
pub trait BlobStream: Send {
    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when the connection breaks or stalls.
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError>;
}

/// The reading side of a registry. Nothing it gives has been verified.
#[async_trait]
pub trait Registry: Send + Sync {
    /// Fetches a manifest or index.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::TooLarge`] above [`crate::MAX_MANIFEST`].
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError>;

    /// Opens a blob. `size` is its size by the manifest: an answer that announces another one ends here.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::Size`] when another size is announced.
    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError>;

    /// Lists what refers to `subject` with `artifact_type`: by the referrers API, or by the fallback tag
    /// `sha256-<hex>` where the registry has no such API. Nothing there is an empty list.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError>;

    /// The place where OpenPGP signatures of the repository's images lie, for people; `None` where the configuration
    /// names none, which no reader takes for a reason to look elsewhere.
    fn lookaside(&self, _repository: &Repository) -> Option<String> {
        None
    }

    /// Reads the `number`th OpenPGP signature of `digest` in the lookaside, counted from one; `None` where there is
    /// none, or no lookaside.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::TooLarge`] above `limit` bytes.
    async fn lookaside_signature(
        &self,
        _repository: &Repository,
        _digest: &Sha256Digest,
        _number: usize,
        _limit: usize,
    ) -> Result<Option<Bytes>, RegistryError> {
        Ok(None)
    }

    /// Reads a whole small blob and checks its size and digest.
    ///
    /// # Errors
    /// [`RegistryError::Size`] and [`RegistryError::Digest`] for other bytes, [`RegistryError::TooLarge`]
    /// above `limit`.
    async fn small_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let (host, what) = (repository.host().to_owned(), format!("blob {}", descriptor.digest));
        let expected = descriptor.size;
        if expected > limit {
            return Err(RegistryError::TooLarge { host, what, limit });
        }
        let mut stream = self.blob(repository, &descriptor.digest, expected).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await? {
            let actual = (bytes.len() as u64).saturating_add(chunk.len() as u64);
            if actual > expected {
                return Err(RegistryError::Size { host, what, expected, actual });
            }
            bytes.extend_from_slice(&chunk);
        }
        let actual = bytes.len() as u64;
        if actual != expected {
            return Err(RegistryError::Size { host, what, expected, actual });
        }
        let actual = Sha256Digest::of(&bytes);
        if actual != descriptor.digest {
            return Err(RegistryError::Digest { host, what, expected: descriptor.digest, actual });
        }
        Ok(bytes)
    }
}

/// The pushing side of a registry.
#[async_trait]
pub trait RegistryPush: Registry {
    /// Stores a blob, unless it is there already, and gives its descriptor.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn push_blob(
        &self,
        repository: &Repository,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Descriptor, RegistryError>;

    /// Stores a manifest or index under a tag or its own digest. `true` when the registry said (by
    /// `OCI-Subject`) that it has indexed the manifest's subject itself.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn push_manifest(
        &self,
        repository: &Repository,
        target: &Target,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<bool, RegistryError>;

    /// Stores an artifact manifest that has a subject, and makes it findable: where the registry does not
    /// index subjects itself, the fallback tag's index is read, extended and written back.
    ///
    /// # Errors
    /// [`RegistryError`].
    async fn attach(&self, repository: &Repository, manifest: Bytes) -> Result<Descriptor, RegistryError>;
}
