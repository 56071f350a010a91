//! From a verified manifest to a measured image.

use std::path::Path;

use protocols::image::{ImageMeasurement, Platform};
use protocols::time::Timestamp;
use registry::{Descriptor, ImageReference, Registry};

use crate::error::ImageError;
use crate::limits::Limits;
use crate::manifest::VerifiedManifest;
use crate::mount::MountedRootfs;
use crate::progress::Progress;
use crate::store::LayerStore;

/// An image whose every blob and diffID was checked and whose root file system was measured.
#[derive(Debug)]
pub struct MeasuredImage {
    manifest: VerifiedManifest,
    measurement: ImageMeasurement,
}

impl MeasuredImage {
    /// What was measured: what a golden value is compared with.
    #[must_use]
    pub const fn measurement(&self) -> &ImageMeasurement {
        &self.measurement
    }

    /// The reference, pinned to what its tag stood for when it was fetched (perhaps an index).
    #[must_use]
    pub const fn reference(&self) -> &ImageReference {
        self.manifest.reference()
    }

    /// Media type, digest and size of the platform manifest: the subject golden values refer to.
    #[must_use]
    pub const fn descriptor(&self) -> &Descriptor {
        self.manifest.descriptor()
    }

    /// When the config says the image was made; `None` where it names no time from 1970 on.
    #[must_use]
    pub const fn created(&self) -> Option<Timestamp> {
        self.manifest.created()
    }

    /// The platform in the image's config.
    #[must_use]
    pub const fn platform(&self) -> &Platform {
        self.manifest.platform()
    }

    /// Mounts the layers with a fresh writable layer; everything is made below `dir`, which must not
    /// exist yet. Blocking.
    ///
    /// # Errors
    /// `store.io`, `store.full`; nothing stays mounted or on disk.
    pub fn mount(&self, dir: &Path) -> Result<MountedRootfs, ImageError> {
        MountedRootfs::stub(dir)
    }
}

/// Fetches every layer by digest, checks size, digest and diffID while it streams, stores and measures it.
/// Layers stored before are measured again instead. When dropped or failed, nothing half-written stays.
///
/// # Errors
/// [`ImageError`]: `image.blob_digest`, `image.blob_size`, `image.diff_id`, `image.layer_format`,
/// `image.unsafe`, `image.limit`, `store.*`, and the registry's own.
pub async fn pull(
    manifest: VerifiedManifest,
    registry: &dyn Registry,
    store: &dyn LayerStore,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<MeasuredImage, ImageError> {
    let _ = (registry, store, limits, progress);
    Err(ImageError::Manifest { subject: manifest.reference().to_string(), problem: "not built yet".to_owned() })
}
