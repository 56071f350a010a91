//! A registry in memory: what an image and its golden value are made of, under their digests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use image_rs_fork::registry::oci::{self, Document};
use image_rs_fork::registry::{
    BlobStream, Descriptor, ImageReference, ManifestBytes, Registry, RegistryError, RegistryPush, Repository, Target,
};
use image_rs_fork::{
    ImagePolicy, Limits, MeasureOnly, NoKeys, NoProgress, SignaturePolicy, fetch, host_platform, pull,
};
use protocols::digest::Sha256Digest;
use protocols::dsse::Envelope;
use protocols::environment::Environment;
use protocols::golden::{Issue, PAYLOAD_TYPE, ProcessPolicy, default_series, statement_in};
use protocols::keys::SigningKey;
use protocols::time::Timestamp;
use serde_json::json;

/// The image's reference.
pub(crate) const REFERENCE: &str = "127.0.0.1:9/app:1";
/// The name of the key that signs.
pub(crate) const ISSUER: &str = "release@example.com";

#[derive(Default)]
pub(crate) struct MemoryRegistry {
    manifests: Mutex<BTreeMap<String, (String, Bytes)>>,
    blobs: Mutex<BTreeMap<Sha256Digest, Bytes>>,
    /// How long every answer takes.
    pub(crate) delay: std::time::Duration,
}

struct Whole(Option<Bytes>);

#[async_trait]
impl BlobStream for Whole {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        Ok(self.0.take())
    }
}

fn not_found(what: impl ToString) -> RegistryError {
    RegistryError::NotFound { host: "memory".to_owned(), what: what.to_string() }
}

#[async_trait]
impl Registry for MemoryRegistry {
    async fn manifest(&self, _: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        tokio::time::sleep(self.delay).await;
        let found = self.manifests.lock().unwrap().get(&target.to_string()).cloned();
        let (media_type, bytes) = found.ok_or_else(|| not_found(target))?;
        Ok(ManifestBytes { digest: Sha256Digest::of(&bytes), media_type, bytes, claimed: None })
    }

    async fn blob(&self, _: &Repository, digest: &Sha256Digest, _: u64) -> Result<Box<dyn BlobStream>, RegistryError> {
        let found = self.blobs.lock().unwrap().get(digest).cloned();
        Ok(Box::new(Whole(Some(found.ok_or_else(|| not_found(digest))?))))
    }

    async fn referrers(
        &self,
        _: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let manifests = self.manifests.lock().unwrap();
        let refers = |(name, (_, bytes)): (&String, &(String, Bytes))| match Document::parse(bytes) {
            Ok(Document::Manifest(manifest))
                if name.starts_with("sha256:")
                    && manifest.artifact_type.as_deref() == Some(artifact_type)
                    && manifest.subject.as_ref().is_some_and(|s| s.digest == *subject) =>
            {
                Some(Descriptor::of(oci::MANIFEST, bytes))
            }
            _ => None,
        };
        Ok(manifests.iter().filter_map(refers).collect())
    }
}

#[async_trait]
impl RegistryPush for MemoryRegistry {
    async fn push_blob(&self, _: &Repository, media_type: &str, bytes: Bytes) -> Result<Descriptor, RegistryError> {
        Ok(self.put_blob(media_type, bytes))
    }

    async fn push_manifest(&self, _: &Repository, _: &Target, _: &str, bytes: Bytes) -> Result<bool, RegistryError> {
        self.put_manifest(None, bytes);
        Ok(true)
    }

    async fn attach(&self, _: &Repository, manifest: Bytes) -> Result<Descriptor, RegistryError> {
        Ok(self.put_manifest(None, manifest))
    }
}

impl MemoryRegistry {
    fn put_blob(&self, media_type: &str, bytes: Bytes) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs.lock().unwrap().insert(descriptor.digest, bytes);
        descriptor
    }

    fn put_manifest(&self, tag: Option<&str>, bytes: Bytes) -> Descriptor {
        let descriptor = Descriptor::of(oci::MANIFEST, &bytes);
        let entry = (oci::MANIFEST.to_owned(), bytes);
        let mut manifests = self.manifests.lock().unwrap();
        manifests.insert(descriptor.digest.to_string(), entry.clone());
        if let Some(tag) = tag {
            manifests.insert(tag.to_owned(), entry);
        }
        descriptor
    }

    /// Stores an image of one layer: busybox, running `script`.
    pub(crate) fn image(&self, script: &str) {
        let layer = layer();
        let diff_id = Sha256Digest::of(&layer).to_string();
        let layer = self.put_blob("application/vnd.oci.image.layer.v1.tar", layer.into());
        let config = json!({
            "architecture": host_platform().architecture,
            "os": "linux",
            "created": "2026-01-02T03:04:05Z",
            "config": {"Cmd": ["/bin/sh", "-c", script], "Env": ["PATH=/bin", "BASE=image"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [],
        });
        let config = self.put_blob("application/vnd.oci.image.config.v1+json", config.to_string().into());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": oci::MANIFEST,
            "config": {"mediaType": config.media_type, "digest": config.digest, "size": config.size},
            "layers": [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}],
        });
        self.put_manifest(Some("1"), manifest.to_string().into());
    }

    /// Signs what the image measures.
    pub(crate) async fn sign(&self, key: &SigningKey, version: u64, process: Option<ProcessPolicy>) {
        let reference: ImageReference = REFERENCE.parse().unwrap();
        let policy = ImagePolicy::host(SignaturePolicy::insecure_accept_anything(), Timestamp::now());
        let manifest = fetch(&reference, self).await.unwrap().verify(&policy, self).await.unwrap();
        let image = pull(manifest, self, &MeasureOnly, &NoKeys, &Limits::default(), &NoProgress).await.unwrap();
        let issue = Issue {
            name: reference.repository().to_string(),
            issuer: ISSUER.to_owned(),
            series: default_series(&reference.repository().to_string(), image.platform(), "1"),
            version,
            issued_at: image.created().unwrap(),
            expires: Timestamp::now().plus(3600),
            environment: Environment::Development,
            process,
        };
        let payload = statement_in(image.measurement(), image.rootfs_digests(), issue).payload().unwrap();
        let envelope = Envelope::sign(PAYLOAD_TYPE, payload, key).to_bytes();
        let descriptor = image.descriptor();
        image_rs_fork::registry::golden::push(self, reference.repository(), descriptor, &envelope).await.unwrap();
    }
}

/// Busybox with the applets that scripts here use.
fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut entry = |kind: tar::EntryType, path: &str, link: Option<&str>, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        match link {
            Some(target) => tar.append_link(&mut header, path, target).unwrap(),
            None => tar.append_data(&mut header, path, content).unwrap(),
        }
    };
    for dir in ["bin/", "etc/", "proc/", "dev/", "sys/", "tmp/"] {
        entry(tar::EntryType::Directory, dir, None, 0o755, b"");
    }
    entry(tar::EntryType::Regular, "bin/busybox", None, 0o755, &std::fs::read("/bin/busybox").unwrap());
    for applet in ["sh", "cat", "echo", "sleep", "id", "touch"] {
        entry(tar::EntryType::Symlink, &format!("bin/{applet}"), Some("busybox"), 0o777, b"");
    }
    entry(tar::EntryType::Regular, "etc/passwd", None, 0o644, b"root:x:0:0::/:/bin/sh\n");
    tar.into_inner().unwrap()
}
