//! Pushing: blobs in one piece, manifests, and the fallback tag's index. Always to the location, never to a mirror.

use async_trait::async_trait;
use bytes::Bytes;
use protocols::digest::Sha256Digest;
use reqwest::Method;
use reqwest::header::LOCATION;
use serde_json::{Value, json};

use super::session::{Action, Call, malformed};
use super::{HttpRegistry, fallback_tag, manifest_name};
use crate::error::RegistryError;
use crate::oci::{self, Descriptor, Document};
use crate::reference::{Repository, Target};
use crate::storage::RegistryPush;

/// How often a fallback index is written again because another writer was faster.
const MAX_RACES: usize = 4;

impl HttpRegistry {
    async fn has_blob(&self, repository: &Repository, digest: &Sha256Digest) -> Result<bool, RegistryError> {
        let url = self.session.endpoint(repository, &format!("blobs/{digest}"))?;
        let call = Call::new(Method::HEAD, repository, url, Action::Push, format!("blob {digest}"));
        match self.session.send(&call).await {
            Ok(_) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn put_manifest(
        &self,
        repository: &Repository,
        target: &Target,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<bool, RegistryError> {
        let url = self.session.endpoint(repository, &format!("manifests/{target}"))?;
        let what = format!("upload of {}", manifest_name(repository, target));
        let mut call = Call::new(Method::PUT, repository, url, Action::Push, what);
        call.body = Some((media_type, bytes));
        Ok(self.session.send(&call).await?.headers().contains_key("oci-subject"))
    }

    /// Adds `entry` to the fallback index of `subject`. There is no compare-and-swap: the index is read
    /// again after it was written, and written again where a concurrent writer dropped the entry.
    async fn extend_fallback(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        entry: &Descriptor,
    ) -> Result<(), RegistryError> {
        let tag = fallback_tag(subject);
        let what = format!("referrers of {subject}");
        let refused = |reason: String| RegistryError::Malformed {
            host: repository.host().to_owned(),
            what: what.clone(),
            reason,
        };
        for _ in 0..MAX_RACES {
            let old = match self.manifest_at(repository, &tag, false).await {
                Ok(found) => Some(found.bytes),
                Err(RegistryError::NotFound { .. }) => None,
                Err(e) => return Err(e),
            };
            let Some(new) = extended(old.as_deref(), entry).map_err(refused)? else { return Ok(()) };
            self.put_manifest(repository, &tag, oci::INDEX, Bytes::from(new)).await?;
        }
        Err(refused("other writers keep replacing the index".to_owned()))
    }
}

/// The index `old` with `entry` added, other entries and members untouched; `None` when it is there.
fn extended(old: Option<&[u8]>, entry: &Descriptor) -> Result<Option<Vec<u8>>, String> {
    let entry_json = serde_json::to_value(entry).map_err(|e| e.to_string())?;
    let Some(old) = old else {
        let new = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [entry_json] });
        return serde_json::to_vec(&new).map(Some).map_err(|e| e.to_string());
    };
    match Document::parse(old).map_err(|e| e.to_string())? {
        Document::Index(index) if index.manifests.iter().any(|d| d.digest == entry.digest) => return Ok(None),
        Document::Index(_) => {}
        Document::Manifest(_) => return Err("the fallback tag holds a manifest".to_owned()),
    }
    let mut new: Value = serde_json::from_slice(old).map_err(|e| e.to_string())?;
    let manifests = new.get_mut("manifests").and_then(Value::as_array_mut).ok_or("no list of manifests")?;
    manifests.push(entry_json);
    serde_json::to_vec(&new).map(Some).map_err(|e| e.to_string())
}

#[async_trait]
impl RegistryPush for HttpRegistry {
    async fn push_blob(
        &self,
        repository: &Repository,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Descriptor, RegistryError> {
        let descriptor = Descriptor::of(media_type, &bytes);
        let repository = &self.location(repository)?;
        if self.has_blob(repository, &descriptor.digest).await? {
            return Ok(descriptor);
        }
        let what = format!("upload of blob {}", descriptor.digest);
        let url = self.session.endpoint(repository, "blobs/uploads/")?;
        let mut start = Call::new(Method::POST, repository, url, Action::Push, what);
        start.body = Some(("application/octet-stream", Bytes::new()));
        let response = self.session.send(&start).await?;
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.and_then(|location| response.url().join(location).ok());
        let mut url = location.ok_or_else(|| malformed(&start, "an upload without a usable Location"))?;
        url.query_pairs_mut().append_pair("digest", &descriptor.digest.to_string());
        let body = Some(("application/octet-stream", bytes));
        self.session.send(&Call { method: Method::PUT, url, body, ..start }).await?;
        Ok(descriptor)
    }

    async fn push_manifest(
        &self,
        repository: &Repository,
        target: &Target,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<bool, RegistryError> {
        self.put_manifest(&self.location(repository)?, target, media_type, bytes).await
    }

    async fn attach(&self, repository: &Repository, manifest: Bytes) -> Result<Descriptor, RegistryError> {
        let mut descriptor = Descriptor::of(oci::MANIFEST, &manifest);
        let refused = |reason: &str| RegistryError::Artifact {
            host: repository.host().to_owned(),
            what: "new artifact".to_owned(),
            reason: reason.to_owned(),
        };
        let Ok(Document::Manifest(parsed)) = Document::parse(&manifest) else {
            return Err(refused("it is not a manifest"));
        };
        let subject = parsed.subject.ok_or_else(|| refused("it has no subject"))?;
        let target = Target::Digest(descriptor.digest);
        let repository = &self.location(repository)?;
        let indexed = self.put_manifest(repository, &target, oci::MANIFEST, manifest).await?;
        descriptor.artifact_type = Some(parsed.artifact_type.unwrap_or(parsed.config.media_type));
        if !indexed {
            self.extend_fallback(repository, &subject.digest, &descriptor).await?;
        }
        Ok(descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_index_keeps_what_others_wrote() {
        let entry = Descriptor::of(oci::MANIFEST, b"ours");
        let other = Descriptor::of(oci::MANIFEST, b"theirs").digest;
        let old = format!(
            r#"{{"schemaVersion":2,"annotations":{{"kept":"yes"}},"manifests":[
               {{"mediaType":"x","digest":"{other}","size":6,"unknown":[1]}}]}}"#
        );
        let new = extended(Some(old.as_bytes()), &entry).unwrap().unwrap();
        let value: Value = serde_json::from_slice(&new).unwrap();
        assert_eq!(value["annotations"]["kept"], "yes");
        assert_eq!(value["manifests"][0]["unknown"][0], 1);
        assert_eq!(value["manifests"][1]["digest"], entry.digest.to_string());
        assert_eq!(extended(Some(&new), &entry).unwrap(), None, "no entry twice");
    }

    #[test]
    fn a_fallback_tag_that_holds_something_else_is_left_alone() {
        let entry = Descriptor::of(oci::MANIFEST, b"ours");
        let layer = Descriptor::of("l", b"");
        let manifest = oci::artifact_manifest("a", &layer, None).unwrap();
        assert!(extended(Some(&manifest), &entry).is_err());
        assert!(extended(Some(b"not json"), &entry).is_err());
    }
}
