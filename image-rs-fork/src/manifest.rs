//! From a reference to a verified manifest and config.

use protocols::digest::Sha256Digest;
use protocols::image::{ImageProcess, Platform};
use protocols::time::Timestamp;
use registry::{Descriptor, ImageReference, ManifestBytes, Registry};

use crate::error::ImageError;

/// What an image must satisfy before any of its layers is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePolicy {
    platform: Platform,
}

impl ImagePolicy {
    /// Images for `platform` only.
    #[must_use]
    pub const fn for_platform(platform: Platform) -> Self {
        Self { platform }
    }

    /// Images for the platform this program was built for.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self::for_platform(Platform { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: None })
    }

    /// The platform.
    #[must_use]
    pub const fn platform(&self) -> &Platform {
        &self.platform
    }
}

/// A manifest or index as the registry sent it: opaque, unverified bytes.
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

    /// Checks digests and sizes, chooses the platform's manifest where this is an index, and fetches and
    /// checks the image's config.
    ///
    /// # Errors
    /// [`ImageError`]: `image.manifest_digest`, `image.manifest`, `image.platform`, `image.blob_digest`,
    /// `image.blob_size`, and the registry's own.
    pub async fn verify(self, policy: &ImagePolicy, registry: &dyn Registry) -> Result<VerifiedManifest, ImageError> {
        let _ = (policy, registry);
        Err(ImageError::Manifest { subject: self.reference.to_string(), problem: "not built yet".to_owned() })
    }
}

/// A platform manifest and config whose bytes are what the reference asked for.
#[derive(Debug)]
pub struct VerifiedManifest {
    reference: ImageReference,
    descriptor: Descriptor,
    platform: Platform,
    process: ImageProcess,
    created: Option<Timestamp>,
    diff_ids: Vec<Sha256Digest>,
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

    /// The platform in the image's config.
    #[must_use]
    pub const fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The process in the image's config.
    #[must_use]
    pub const fn process(&self) -> &ImageProcess {
        &self.process
    }

    /// When the config says the image was made; `None` where it names no time from 1970 on.
    #[must_use]
    pub const fn created(&self) -> Option<Timestamp> {
        self.created
    }

    /// DiffIDs in the image's config, lowest layer first; not yet verified against unpacked bytes.
    #[must_use]
    pub fn diff_ids(&self) -> &[Sha256Digest] {
        &self.diff_ids
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
