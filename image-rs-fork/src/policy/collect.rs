//! Where signatures are found: cosign's tag, bundles that refer to the manifest, and the lookaside.

use protocols::digest::Sha256Digest;
use protocols::encoding;
use registry::oci::{Document, Manifest};
use registry::{Descriptor, ManifestBytes, Registry, RegistryError, Repository, Target};

use super::MAX_SIGNATURES;
use super::bundle::{self, Bundle};
use super::openpgp::Message;
use super::payload::MAX_PAYLOAD;

/// Media type of a payload in the tag scheme.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the payload's signature.
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The largest OpenPGP signature we read, in bytes.
const MAX_OPENPGP: usize = 4 * 1024 * 1024;

/// Where signatures lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    /// The tag `sha256-<hex>.sig`.
    Tag,
    /// Referrers of the manifest.
    Bundle,
    /// The lookaside of `registries.d`.
    Lookaside,
}

/// One signature as it was found, unverified.
#[derive(Debug)]
pub(super) enum Found {
    /// From the tag.
    Simple { payload: Vec<u8>, signature: Vec<u8> },
    /// From a referrer.
    Bundle(Bundle),
    /// From the lookaside.
    OpenPgp(Message),
    /// Something in a signature's place.
    Unreadable(String),
}

/// Everything of one scheme that speaks of `digest`, as the registry has it. Nothing there is an empty list; an
/// outage is an error and never an absence.
pub(super) async fn collect(
    registry: &dyn Registry,
    repository: &Repository,
    digest: &Sha256Digest,
    scheme: Scheme,
) -> Result<Vec<Found>, Collecting> {
    match scheme {
        Scheme::Tag => by_tag(registry, repository, digest).await,
        Scheme::Bundle => by_referrers(registry, repository, digest).await,
        Scheme::Lookaside => by_lookaside(registry, repository, digest).await,
    }
}

/// Why signatures could not be collected.
#[derive(Debug)]
pub(super) enum Collecting {
    Registry(RegistryError),
    /// More than [`MAX_SIGNATURES`].
    TooMany(usize),
}

impl From<RegistryError> for Collecting {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

async fn by_tag(
    registry: &dyn Registry,
    repository: &Repository,
    digest: &Sha256Digest,
) -> Result<Vec<Found>, Collecting> {
    let tag = Target::Tag(format!("sha256-{}.sig", digest.hex()));
    let found = match registry.manifest(repository, &tag).await {
        Err(RegistryError::NotFound { .. }) => return Ok(Vec::new()),
        found => found?,
    };
    let manifest = match manifest(&found) {
        Ok(manifest) => manifest,
        Err(problem) => return Ok(vec![Found::Unreadable(problem)]),
    };
    let layers: Vec<&Descriptor> = manifest.layers.iter().filter(|it| it.media_type == SIMPLE_SIGNING).collect();
    if layers.len() > MAX_SIGNATURES {
        return Err(Collecting::TooMany(layers.len()));
    }
    let mut all = Vec::with_capacity(layers.len());
    for layer in layers {
        let signature = layer.annotations.get(ANNOTATION).and_then(|text| encoding::un_b64(text).ok());
        let Some(signature) = signature else {
            all.push(Found::Unreadable("a payload without a signature beside it".to_owned()));
            continue;
        };
        all.push(match bytes(registry, repository, layer, MAX_PAYLOAD).await? {
            Ok(payload) => Found::Simple { payload, signature },
            Err(problem) => Found::Unreadable(problem),
        });
    }
    Ok(all)
}

async fn by_referrers(
    registry: &dyn Registry,
    repository: &Repository,
    digest: &Sha256Digest,
) -> Result<Vec<Found>, Collecting> {
    let listed = registry.referrers(repository, digest, bundle::MEDIA_TYPE).await?;
    if listed.len() > MAX_SIGNATURES {
        return Err(Collecting::TooMany(listed.len()));
    }
    let mut all = Vec::with_capacity(listed.len());
    for descriptor in &listed {
        all.push(match referrer(registry, repository, descriptor, digest).await? {
            Ok(bundle) => Found::Bundle(bundle),
            Err(problem) => Found::Unreadable(problem),
        });
    }
    Ok(all)
}

/// Numbered from one without a gap, as the format has it.
async fn by_lookaside(
    registry: &dyn Registry,
    repository: &Repository,
    digest: &Sha256Digest,
) -> Result<Vec<Found>, Collecting> {
    let mut all = Vec::new();
    loop {
        let number = all.len().saturating_add(1);
        let found = match registry.lookaside_signature(repository, digest, number, MAX_OPENPGP).await {
            Ok(None) => return Ok(all),
            Ok(Some(bytes)) => Message::parse(&bytes).map_or_else(Found::Unreadable, Found::OpenPgp),
            Err(error @ RegistryError::TooLarge { .. }) => Found::Unreadable(error.to_string()),
            Err(error) => return Err(error.into()),
        };
        if number > MAX_SIGNATURES {
            return Err(Collecting::TooMany(number));
        }
        all.push(found);
    }
}

async fn referrer(
    registry: &dyn Registry,
    repository: &Repository,
    descriptor: &Descriptor,
    subject: &Sha256Digest,
) -> Result<Result<Bundle, String>, RegistryError> {
    let found = registry.manifest(repository, &Target::Digest(descriptor.digest)).await?;
    if found.digest != descriptor.digest {
        return Ok(Err("a referrer with another digest than it is listed with".to_owned()));
    }
    let manifest = match manifest(&found) {
        Ok(manifest) => manifest,
        Err(problem) => return Ok(Err(problem)),
    };
    if manifest.subject.as_ref().map(|it| &it.digest) != Some(subject) {
        return Ok(Err("a bundle that refers to another manifest".to_owned()));
    }
    let [layer] = manifest.layers.as_slice() else {
        return Ok(Err(format!("an artifact of {} layers, not one bundle", manifest.layers.len())));
    };
    if layer.media_type != bundle::MEDIA_TYPE {
        return Ok(Err(format!("a layer of media type {}", layer.media_type)));
    }
    let bytes = bytes(registry, repository, layer, bundle::MAX_BUNDLE).await?;
    Ok(bytes.and_then(|bytes| Bundle::parse(&bytes)))
}

fn manifest(found: &ManifestBytes) -> Result<Box<Manifest>, String> {
    match Document::parse(&found.bytes) {
        Ok(Document::Manifest(manifest)) => Ok(manifest),
        Ok(Document::Index(_)) => Err("an index in the place of signatures".to_owned()),
        Err(e) => Err(format!("a manifest of signatures that cannot be read: {e}")),
    }
}

/// A small blob. What is wrong with its bytes is that signature's fault alone; everything else is an error.
async fn bytes(
    registry: &dyn Registry,
    repository: &Repository,
    descriptor: &Descriptor,
    limit: u64,
) -> Result<Result<Vec<u8>, String>, RegistryError> {
    match registry.small_blob(repository, descriptor, limit).await {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(
            error @ (RegistryError::TooLarge { .. }
            | RegistryError::Size { .. }
            | RegistryError::Digest { .. }
            | RegistryError::NotFound { .. }),
        ) => Ok(Err(error.to_string())),
        Err(error) => Err(error),
    }
}
