//! From a reference to a verified manifest and config.

use protocols::digest::Sha256Digest;
use protocols::image::{ImageProcess, Platform};
use protocols::time::Timestamp;
use registry::oci::{self, Document, Index, Manifest};
use registry::{Descriptor, ImageReference, ManifestBytes, Registry, Target};

use crate::config::ImageConfig;
use crate::error::ImageError;
use crate::framing::Compression;
use crate::ocicrypt::{self, Encryption};
use crate::policy::{SignaturePolicy, Subject};

/// The largest image config we read, in bytes.
pub(crate) const MAX_CONFIG: u64 = 4 * 1024 * 1024;

/// What an image must satisfy before any of its layers is fetched or found in the store.
#[derive(Debug, Clone)]
pub struct ImagePolicy {
    platform: Platform,
    signatures: SignaturePolicy,
    now: Timestamp,
}

/// The platform this program was built for.
#[must_use]
pub fn host_platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None }
}

impl ImagePolicy {
    /// Images for `platform` only, and only those that `signatures` accepts at the time `now`.
    #[must_use]
    pub const fn for_platform(platform: Platform, signatures: SignaturePolicy, now: Timestamp) -> Self {
        Self { platform, signatures, now }
    }

    /// Images for the platform this program was built for, and only those that `signatures` accepts at the time `now`.
    #[must_use]
    pub fn host(signatures: SignaturePolicy, now: Timestamp) -> Self {
        Self::for_platform(host_platform(), signatures, now)
    }

    /// The platform.
    #[must_use]
    pub const fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Whether an image for `found` runs where this policy's platform is wanted.
    fn admits(&self, found: &Platform) -> bool {
        found.os == self.platform.os
            && found.architecture == self.platform.architecture
            && variant(found) == variant(&self.platform)
    }
}

/// The variant with the defaults of the OCI specification's platform table: `v8` for arm64, `v7` for arm,
/// `v1` for amd64.
fn variant(platform: &Platform) -> &str {
    let default = match platform.architecture.as_str() {
        "arm64" => "v8",
        "arm" => "v7",
        "amd64" => "v1",
        _ => "",
    };
    platform.variant.as_deref().filter(|variant| !variant.is_empty()).unwrap_or(default)
}

/// One layer of a verified manifest.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) blob: Sha256Digest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
    /// Present where the blob is ciphertext.
    pub(crate) encryption: Option<Encryption>,
    pub(crate) diff_id: Sha256Digest,
    /// OCI chain ID: this layer and everything below it.
    pub(crate) chain: Sha256Digest,
    /// Layer, digest and registry, for errors.
    pub(crate) subject: String,
}

/// A manifest or index as the registry sent it: opaque, unverified bytes.
///
/// Layers cannot be pulled from it; it must be verified first:
/// ```compile_fail
/// # async fn skip(found: image_rs_fork::FetchedManifest, registry: &dyn registry::Registry) {
/// let store = image_rs_fork::MeasureOnly;
/// let limits = image_rs_fork::Limits::default();
/// let _ = image_rs_fork::pull(found, registry, &store, &image_rs_fork::NoKeys, &limits, &image_rs_fork::NoProgress).await;
/// # }
/// ```
/// Verified, it can be:
/// ```
/// # async fn verified(found: image_rs_fork::VerifiedManifest, registry: &dyn registry::Registry) {
/// let store = image_rs_fork::MeasureOnly;
/// let limits = image_rs_fork::Limits::default();
/// let _ = image_rs_fork::pull(found, registry, &store, &image_rs_fork::NoKeys, &limits, &image_rs_fork::NoProgress).await;
/// # }
/// ```
#[derive(Debug)]
pub struct FetchedManifest {
    reference: ImageReference,
    found: ManifestBytes,
}

impl FetchedManifest {
    /// SHA-256 of the bytes: what the reference's tag stood for when it was asked.
    #[must_use]
    pub const fn digest(&self) -> &Sha256Digest {
        &self.found.digest
    }

    /// Checks the digest, chooses the platform's manifest where this is an index, asks the signature policy, and
    /// fetches and checks the image's config.
    ///
    /// A signature counts that speaks of the document fetched or of the platform's manifest chosen from it. No
    /// store is asked here: a layer that is already there excuses nothing.
    ///
    /// # Errors
    /// [`ImageError`]: `image.manifest_digest`, `image.manifest`, `image.platform`, `image.signature`,
    /// `image.blob_digest`, `image.blob_size`, and the registry's own.
    pub async fn verify(self, policy: &ImagePolicy, registry: &dyn Registry) -> Result<VerifiedManifest, ImageError> {
        let Self { reference: asked, found } = self;
        // For a tag the registry's own claim is all there is to compare with; a mismatch is still a fault.
        let expected = asked.digest().copied().or(found.claimed).unwrap_or(found.digest);
        if found.digest != expected {
            return Err(ImageError::ManifestDigest { subject: asked.to_string(), expected, actual: found.digest });
        }
        let reference = asked.pinned(found.digest);
        let (manifest, bytes) = match parse(&reference, &found)? {
            Document::Manifest(manifest) => {
                policy.signatures.enforce(&asked, &[subject(&found)], registry, policy.now).await?;
                (manifest, found)
            }
            Document::Index(index) => {
                let chosen = resolve(&reference, &index, policy, registry).await?;
                let subjects = [subject(&found), subject(&chosen)];
                policy.signatures.enforce(&asked, &subjects, registry, policy.now).await?;
                let Document::Manifest(manifest) = parse(&reference, &chosen)? else {
                    return Err(refused(&reference, &chosen.digest, "an index inside an index"));
                };
                (manifest, chosen)
            }
        };
        complete(reference, &manifest, &bytes, policy, registry).await
    }
}

fn subject(found: &ManifestBytes) -> Subject<'_> {
    Subject { digest: found.digest, bytes: &found.bytes }
}

fn refused(reference: &ImageReference, digest: &Sha256Digest, problem: &str) -> ImageError {
    ImageError::Manifest { subject: format!("{digest} in {}", reference.repository()), problem: problem.to_owned() }
}

fn parse(reference: &ImageReference, found: &ManifestBytes) -> Result<Document, ImageError> {
    Document::parse(&found.bytes).map_err(|e| refused(reference, &found.digest, &e.to_string()))
}

/// Fetches the index entry for the policy's platform: the first one that fits, as all clients do.
async fn resolve(
    reference: &ImageReference,
    index: &Index,
    policy: &ImagePolicy,
    registry: &dyn Registry,
) -> Result<ManifestBytes, ImageError> {
    let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|p| policy.admits(&Platform::from(p)));
    let Some(entry) = index.manifests.iter().find(fits) else {
        let there: Vec<String> =
            index.manifests.iter().filter_map(|d| d.platform.as_ref()).map(|p| Platform::from(p).to_string()).collect();
        return Err(ImageError::Platform {
            subject: reference.to_string(),
            expected: policy.platform.clone(),
            actual: if there.is_empty() { "no platforms".to_owned() } else { there.join(", ") },
        });
    };
    let found = registry.manifest(reference.repository(), &Target::Digest(entry.digest)).await?;
    if found.digest != entry.digest {
        let subject = format!("{} in {}", entry.digest, reference.repository());
        return Err(ImageError::ManifestDigest { subject, expected: entry.digest, actual: found.digest });
    }
    if found.bytes.len() as u64 != entry.size {
        return Err(refused(reference, &entry.digest, "the index gives it another size"));
    }
    Ok(found)
}

/// Checks the manifest's members and its config.
async fn complete(
    reference: ImageReference,
    manifest: &Manifest,
    bytes: &ManifestBytes,
    policy: &ImagePolicy,
    registry: &dyn Registry,
) -> Result<VerifiedManifest, ImageError> {
    let fail = |problem: &str| refused(&reference, &bytes.digest, problem);
    let implied = match manifest.config.media_type.as_str() {
        "application/vnd.oci.image.config.v1+json" => oci::MANIFEST,
        "application/vnd.docker.container.image.v1+json" => oci::DOCKER_MANIFEST,
        other => return Err(fail(&format!("a config of media type {other}, so it is no image"))),
    };
    let media_type = manifest.media_type.as_deref().unwrap_or(implied);
    let config = registry.small_blob(reference.repository(), &manifest.config, MAX_CONFIG).await?;
    let config = ImageConfig::parse(&config).map_err(|problem| fail(&problem))?;
    if !policy.admits(&config.platform) {
        return Err(ImageError::Platform {
            subject: reference.to_string(),
            expected: policy.platform.clone(),
            actual: config.platform.to_string(),
        });
    }
    if manifest.layers.is_empty() {
        return Err(fail("no layers"));
    }
    if manifest.layers.len() != config.diff_ids.len() {
        return Err(fail(&format!("{} layers and {} diffIDs", manifest.layers.len(), config.diff_ids.len())));
    }
    let mut layers: Vec<Layer> = Vec::with_capacity(manifest.layers.len());
    for (blob, diff_id) in manifest.layers.iter().zip(&config.diff_ids) {
        let inner = ocicrypt::media_type(&blob.media_type);
        let compression = Compression::of_media_type(inner.unwrap_or(&blob.media_type))
            .ok_or_else(|| fail(&format!("a layer of media type {}", blob.media_type)))?;
        let chain = match layers.last() {
            None => *diff_id,
            Some(below) => Sha256Digest::of(format!("{} {diff_id}", below.chain).as_bytes()),
        };
        let subject = format!("layer {} of {}", blob.digest, reference.repository());
        let encryption = inner.map(|_| Encryption::parse(blob)).transpose();
        let encryption = encryption.map_err(|problem| ImageError::Decrypt { subject: subject.clone(), problem })?;
        let (size, blob) = (blob.size, blob.digest);
        layers.push(Layer { blob, size, compression, encryption, diff_id: *diff_id, chain, subject });
    }
    Ok(VerifiedManifest {
        descriptor: Descriptor::of(media_type, &bytes.bytes),
        config_digest: manifest.config.digest,
        config,
        layers,
        reference,
    })
}

/// A platform manifest and config whose bytes are what the reference asked for.
///
/// Nobody else can make one:
/// ```compile_fail
/// let forged = image_rs_fork::VerifiedManifest { layers: Vec::new() };
/// ```
#[derive(Debug)]
pub struct VerifiedManifest {
    reference: ImageReference,
    descriptor: Descriptor,
    config_digest: Sha256Digest,
    config: ImageConfig,
    layers: Vec<Layer>,
}

impl VerifiedManifest {
    /// The reference, pinned to what its tag stood for when it was fetched (perhaps an index).
    #[must_use]
    pub const fn reference(&self) -> &ImageReference {
        &self.reference
    }

    /// Media type, digest and size of the platform manifest.
    #[must_use]
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Digest of the image's config.
    #[must_use]
    pub const fn config(&self) -> &Sha256Digest {
        &self.config_digest
    }

    /// The platform in the image's config.
    #[must_use]
    pub const fn platform(&self) -> &Platform {
        &self.config.platform
    }

    /// The process in the image's config.
    #[must_use]
    pub const fn process(&self) -> &ImageProcess {
        &self.config.process
    }

    /// When the config says the image was made; `None` where it names no time from 1970 on.
    #[must_use]
    pub const fn created(&self) -> Option<Timestamp> {
        self.config.created
    }

    /// DiffIDs in the image's config, lowest layer first; not yet verified against unpacked bytes.
    #[must_use]
    pub fn diff_ids(&self) -> &[Sha256Digest] {
        &self.config.diff_ids
    }

    /// Size of all layer blobs together, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layers.iter().fold(0, |sum, layer| sum.saturating_add(layer.size))
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }
}

/// Asks the registry for what `reference` stands for. The only place where a tag is resolved.
///
/// # Errors
/// The registry's own.
pub async fn fetch(reference: &ImageReference, registry: &dyn Registry) -> Result<FetchedManifest, ImageError> {
    let found = registry.manifest(reference.repository(), &reference.target()).await?;
    Ok(FetchedManifest { reference: reference.clone(), found })
}
