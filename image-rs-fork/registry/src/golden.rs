//! Golden values and revocation lists in a registry: OCI 1.1 artifact manifests that refer to an image's
//! manifest, each with one DSSE envelope. Bytes only; whether an envelope counts is for the verifier.

use bytes::Bytes;
use protocols::digest::Sha256Digest;
use protocols::dsse::MAX_ENVELOPE;
use protocols::golden::{ARTIFACT_TYPE, ENVELOPE_MEDIA_TYPE, REVOCATION_ARTIFACT_TYPE, REVOCATION_TAG};

use crate::error::RegistryError;
use crate::oci::{self, Descriptor, Document};
use crate::reference::{Repository, Target};
use crate::storage::{ManifestBytes, Registry, RegistryPush};

/// The most golden values of one manifest we read.
pub const MAX_GOLDEN_VALUES: usize = 64;

/// What the registry holds about one image: unverified envelopes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GoldenStorage {
    /// Every golden value's envelope, in the registry's order.
    pub envelopes: Vec<Vec<u8>>,
    /// The revocation list's envelope; `None` when the repository has none.
    pub revocations: Option<Vec<u8>>,
}

/// Fetches every golden value that refers to `manifest`, and the repository's revocation list. Every byte
/// has the digest and size it was listed with; no golden value is an empty list.
///
/// # Errors
/// [`RegistryError`]; in particular `Unavailable` when anything listed could not be fetched, so that an
/// outage is never taken for an absence.
pub async fn fetch(
    registry: &dyn Registry,
    repository: &Repository,
    manifest: &Sha256Digest,
) -> Result<GoldenStorage, RegistryError> {
    // Neither says anything about the other, and every launch waits for both.
    let values = fetch_values(registry, repository, manifest);
    let (envelopes, revocations) = tokio::try_join!(values, fetch_revocations(registry, repository))?;
    Ok(GoldenStorage { envelopes, revocations })
}

async fn fetch_values(
    registry: &dyn Registry,
    repository: &Repository,
    manifest: &Sha256Digest,
) -> Result<Vec<Vec<u8>>, RegistryError> {
    let listed = registry.referrers(repository, manifest, ARTIFACT_TYPE).await?;
    if listed.len() > MAX_GOLDEN_VALUES {
        return Err(RegistryError::Artifact {
            host: repository.host().to_owned(),
            what: format!("manifest {manifest}"),
            reason: format!("{} golden values refer to it, at most {MAX_GOLDEN_VALUES} are read", listed.len()),
        });
    }
    let mut envelopes = Vec::with_capacity(listed.len());
    for descriptor in &listed {
        let found = registry.manifest(repository, &Target::Digest(descriptor.digest)).await?;
        envelopes.push(envelope(registry, repository, &found, descriptor, Some(manifest)).await?);
    }
    Ok(envelopes)
}

/// Fetches the repository's revocation list; `None` when there is none.
///
/// # Errors
/// [`RegistryError`].
pub async fn fetch_revocations(
    registry: &dyn Registry,
    repository: &Repository,
) -> Result<Option<Vec<u8>>, RegistryError> {
    let found = match registry.manifest(repository, &Target::Tag(REVOCATION_TAG.to_owned())).await {
        Err(RegistryError::NotFound { .. }) => return Ok(None),
        other => other?,
    };
    let descriptor = Descriptor::of(oci::MANIFEST, &found.bytes);
    envelope(registry, repository, &found, &descriptor, None).await.map(Some)
}

/// Stores a golden value's envelope as a referrer of `subject`, the platform manifest's descriptor, and
/// gives the artifact manifest's descriptor. Pushing the same envelope again changes nothing.
///
/// # Errors
/// [`RegistryError`].
pub async fn push(
    registry: &dyn RegistryPush,
    repository: &Repository,
    subject: &Descriptor,
    envelope: &[u8],
) -> Result<Descriptor, RegistryError> {
    let manifest = artifact(registry, repository, ARTIFACT_TYPE, envelope, Some(subject)).await?;
    registry.attach(repository, manifest).await
}

/// Stores a revocation list's envelope under [`REVOCATION_TAG`], in place of an older one.
///
/// # Errors
/// [`RegistryError`].
pub async fn push_revocations(
    registry: &dyn RegistryPush,
    repository: &Repository,
    envelope: &[u8],
) -> Result<Descriptor, RegistryError> {
    let manifest = artifact(registry, repository, REVOCATION_ARTIFACT_TYPE, envelope, None).await?;
    let descriptor = Descriptor::of(oci::MANIFEST, &manifest);
    let target = Target::Tag(REVOCATION_TAG.to_owned());
    registry.push_manifest(repository, &target, oci::MANIFEST, manifest).await?;
    Ok(descriptor)
}

async fn artifact(
    registry: &dyn RegistryPush,
    repository: &Repository,
    artifact_type: &str,
    envelope: &[u8],
    subject: Option<&Descriptor>,
) -> Result<Bytes, RegistryError> {
    let limit = MAX_ENVELOPE as u64;
    if envelope.len() > MAX_ENVELOPE {
        let (host, what) = (repository.host().to_owned(), "envelope".to_owned());
        return Err(RegistryError::TooLarge { host, what, limit });
    }
    registry.push_blob(repository, oci::EMPTY, Bytes::from_static(oci::EMPTY_BLOB)).await?;
    let layer = registry.push_blob(repository, ENVELOPE_MEDIA_TYPE, Bytes::copy_from_slice(envelope)).await?;
    let manifest = oci::artifact_manifest(artifact_type, &layer, subject).map_err(|e| RegistryError::Artifact {
        host: repository.host().to_owned(),
        what: "new artifact".to_owned(),
        reason: e.to_string(),
    })?;
    Ok(Bytes::from(manifest))
}

/// The one envelope of an artifact manifest.
async fn envelope(
    registry: &dyn Registry,
    repository: &Repository,
    found: &ManifestBytes,
    descriptor: &Descriptor,
    subject: Option<&Sha256Digest>,
) -> Result<Vec<u8>, RegistryError> {
    let (host, what) = (repository.host().to_owned(), format!("artifact {}", descriptor.digest));
    if found.digest != descriptor.digest {
        return Err(RegistryError::Digest { host, what, expected: descriptor.digest, actual: found.digest });
    }
    let actual = found.bytes.len() as u64;
    if actual != descriptor.size {
        return Err(RegistryError::Size { host, what, expected: descriptor.size, actual });
    }
    let refused = |reason: String| RegistryError::Artifact { host: host.clone(), what: what.clone(), reason };
    let manifest = match Document::parse(&found.bytes) {
        Ok(Document::Manifest(manifest)) => manifest,
        Ok(Document::Index(_)) => return Err(refused("it is an index".to_owned())),
        Err(e) => return Err(refused(e.to_string())),
    };
    if manifest.subject.as_ref().map(|s| &s.digest) != subject {
        return Err(refused("it refers to another manifest".to_owned()));
    }
    let [layer] = manifest.layers.as_slice() else {
        return Err(refused(format!("{} layers, not one", manifest.layers.len())));
    };
    if layer.media_type != ENVELOPE_MEDIA_TYPE {
        return Err(refused(format!("a layer of media type {}", layer.media_type)));
    }
    registry.small_blob(repository, layer, MAX_ENVELOPE as u64).await
}
