//! A registry in memory: the real artifact manifests, without HTTP. It can be made to fail.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use protocols::digest::Sha256Digest;
use registry::oci::{self, Document};
use registry::{
    BlobStream, Descriptor, ImageReference, ManifestBytes, Registry, RegistryError, RegistryPush, Repository, Target,
};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Up,
    /// Refuses every connection.
    Down,
    /// Never answers.
    Stalled,
}

#[derive(Debug, Default)]
pub(crate) struct MemoryRegistry {
    blobs: Mutex<BTreeMap<Sha256Digest, Bytes>>,
    manifests: Mutex<BTreeMap<String, Bytes>>,
    referrers: Mutex<BTreeMap<Sha256Digest, Vec<(String, Descriptor)>>>,
    mood: Mutex<Mood>,
}

/// A way to it that something else can wrap.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub(crate) std::sync::Arc<MemoryRegistry>);

#[async_trait]
impl Registry for Shared {
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        self.0.manifest(repository, target).await
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        self.0.blob(repository, digest, size).await
    }

    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        self.0.referrers(repository, subject, artifact_type).await
    }
}

struct Once(Option<Bytes>);

#[async_trait]
impl BlobStream for Once {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        Ok(self.0.take())
    }
}

impl MemoryRegistry {
    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// Forgets every golden value.
    pub(crate) fn clear(&self) {
        self.referrers.lock().unwrap().clear();
    }

    /// Forgets the revocation list.
    pub(crate) fn withhold_revocations(&self) {
        self.manifests.lock().unwrap().retain(|name, _| !name.contains(protocols::golden::REVOCATION_TAG));
    }

    pub(crate) async fn push_revocations(&self, reference: &str, envelope: &[u8]) {
        let reference: ImageReference = reference.parse().unwrap();
        registry::golden::push_revocations(self, reference.repository(), envelope).await.unwrap();
    }

    pub(crate) async fn push_golden(&self, reference: &str, manifest: Sha256Digest, envelope: &[u8]) {
        let reference: ImageReference = reference.parse().unwrap();
        let subject =
            Descriptor { media_type: oci::MANIFEST.into(), digest: manifest, size: 8, ..Descriptor::of("", b"") };
        registry::golden::push(self, reference.repository(), &subject, envelope).await.unwrap();
    }

    async fn up(&self, repository: &Repository) -> Result<(), RegistryError> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Up => Ok(()),
            Mood::Down => Err(RegistryError::Unavailable {
                host: repository.host().into(),
                what: "anything".into(),
                reason: "connection refused".into(),
            }),
            Mood::Stalled => std::future::pending().await,
        }
    }
}

fn not_found(repository: &Repository, what: &str) -> RegistryError {
    RegistryError::NotFound { host: repository.host().into(), what: what.into() }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        self.up(repository).await?;
        let bytes = self.manifests.lock().unwrap().get(&target.to_string()).cloned();
        let bytes = bytes.ok_or_else(|| not_found(repository, &target.to_string()))?;
        let digest = Sha256Digest::of(&bytes);
        Ok(ManifestBytes { bytes, media_type: oci::MANIFEST.into(), digest, claimed: None })
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        _: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        self.up(repository).await?;
        let bytes = self.blobs.lock().unwrap().get(digest).cloned();
        Ok(Box::new(Once(Some(bytes.ok_or_else(|| not_found(repository, "blob"))?))))
    }

    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        self.up(repository).await?;
        let all = self.referrers.lock().unwrap().get(subject).cloned().unwrap_or_default();
        Ok(all.into_iter().filter(|(kind, _)| kind == artifact_type).map(|(_, descriptor)| descriptor).collect())
    }
}

#[async_trait]
impl RegistryPush for MemoryRegistry {
    async fn push_blob(&self, _: &Repository, media_type: &str, bytes: Bytes) -> Result<Descriptor, RegistryError> {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs.lock().unwrap().insert(descriptor.digest, bytes);
        Ok(descriptor)
    }

    async fn push_manifest(
        &self,
        _: &Repository,
        target: &Target,
        _: &str,
        bytes: Bytes,
    ) -> Result<bool, RegistryError> {
        self.manifests.lock().unwrap().insert(target.to_string(), bytes);
        Ok(true)
    }

    async fn attach(&self, repository: &Repository, manifest: Bytes) -> Result<Descriptor, RegistryError> {
        let Ok(Document::Manifest(parsed)) = Document::parse(&manifest) else { panic!("an artifact manifest") };
        let descriptor = Descriptor::of(oci::MANIFEST, &manifest);
        self.push_manifest(repository, &Target::Digest(descriptor.digest), oci::MANIFEST, manifest).await?;
        let entry = (parsed.artifact_type.unwrap(), descriptor.clone());
        self.referrers.lock().unwrap().entry(parsed.subject.unwrap().digest).or_default().push(entry);
        Ok(descriptor)
    }
}
