//! From a verified manifest to a measured image.

mod blob;
mod flight;
mod layers;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;
use protocols::image::{ImageMeasurement, Layout, Platform, RootfsMeasurement};
use protocols::time::Timestamp;
use registry::{Descriptor, ImageReference, Registry};

pub use self::flight::Flights;
use self::layers::Puller;
use crate::error::ImageError;
use crate::limits::Limits;
use crate::manifest::VerifiedManifest;
use crate::mount::{MOST_LAYERS, MountedRootfs};
use crate::ocicrypt::{self, KeyProvider};
use crate::progress::Progress;
use crate::store::{LayerStore, StoredLayer, digests, rootfs_digest};

/// An image whose every blob and diffID was checked and whose root file system was measured.
///
/// Only [`pull`] makes one:
/// ```compile_fail
/// # fn forge(manifest: image_rs_fork::VerifiedManifest, measurement: protocols::image::ImageMeasurement) {
/// let forged = image_rs_fork::MeasuredImage { manifest, measurement, layers: Vec::new() };
/// # }
/// ```
/// ```compile_fail
/// # fn forge(manifest: image_rs_fork::VerifiedManifest) {
/// let forged = image_rs_fork::MeasuredImage::from(manifest);
/// # }
/// ```
#[derive(Debug)]
pub struct MeasuredImage {
    manifest: VerifiedManifest,
    measurement: ImageMeasurement,
    /// Lowest first.
    layers: Vec<StoredLayer>,
}

impl MeasuredImage {
    /// What was measured: what a golden value is compared with.
    #[must_use]
    pub const fn measurement(&self) -> &ImageMeasurement {
        &self.measurement
    }

    /// The root file system's digest in every layout it was measured in: what a golden value is made of.
    #[must_use]
    pub fn rootfs_digests(&self) -> BTreeMap<Layout, Sha256Digest> {
        let digest = |layout| digests(layout, &self.layers).map(|digests| (layout, rootfs_digest(layout, &digests)));
        Layout::ALL.into_iter().filter_map(digest).collect()
    }

    /// The layers' digests in the layout of the store, lowest first.
    #[must_use]
    pub fn layer_digests(&self) -> Vec<Sha256Digest> {
        digests(self.measurement.rootfs.layout, &self.layers).unwrap_or_default()
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
        MountedRootfs::mount(&self.layers, dir)
    }
}

/// Fetches every layer by digest, checks size, digest and diffID while it streams, stores and measures it.
/// Layers stored before are measured again instead, and fetched again where they are not what they were. Keys of
/// encrypted layers are asked for first. A blob that several layers or several pulls of this process need is fetched
/// once. When it fails, nothing half-written stays; when its future is dropped, what was under way is removed a
/// moment later.
///
/// # Errors
/// [`ImageError`]: `image.blob_digest`, `image.blob_size`, `image.diff_id`, `image.layer_format`,
/// `image.unsafe`, `image.limit`, `image.key`, `image.decrypt`, `store.*`, and the registry's own.
pub async fn pull(
    manifest: VerifiedManifest,
    registry: &dyn Registry,
    store: &dyn LayerStore,
    keys: &dyn KeyProvider,
    limits: &Limits,
    progress: &dyn Progress,
) -> Result<MeasuredImage, ImageError> {
    let layers = manifest.layers();
    check_announced(&manifest, limits)?;
    // Before the store is looked at: what another pull's key unlocked is not for whoever has none.
    let secrets = ocicrypt::resolve(layers, keys).await?;
    progress.start(layers.len(), manifest.size());
    let puller = Puller::new(manifest.reference().repository(), registry, store, progress, limits);
    let pulled = puller.layers(layers, secrets).await;
    progress.finish();
    let stored = pulled?;
    let layout = store.layout();
    let digests = digests(layout, &stored).ok_or_else(|| {
        let source = std::io::Error::other("the store gave a layer in another layout than its own");
        ImageError::StoreIo { path: PathBuf::new(), doing: "measure the image", source }
    })?;
    let measurement = ImageMeasurement {
        manifest: manifest.descriptor().digest,
        config: *manifest.config(),
        layers: manifest.diff_ids().to_vec(),
        rootfs: RootfsMeasurement { layout, digest: rootfs_digest(layout, &digests) },
        platform: manifest.platform().clone(),
        process: manifest.process().clone(),
    };
    Ok(MeasuredImage { manifest, measurement, layers: stored })
}

/// Limits that need no byte of a layer.
fn check_announced(manifest: &VerifiedManifest, limits: &Limits) -> Result<(), ImageError> {
    let subject = || manifest.reference().to_string();
    // What overlayfs does not stack is not worth fetching, whatever the configuration says.
    let most = limits.layers.min(MOST_LAYERS);
    if manifest.layers().len() as u64 > u64::from(most) {
        return Err(ImageError::Limit { subject: subject(), what: "layers", limit: most.into() });
    }
    match manifest.layers().iter().find(|layer| layer.size > limits.blob_bytes) {
        Some(layer) => {
            let (subject, what) = (layer.subject.clone(), "bytes in one layer's blob");
            Err(ImageError::Limit { subject, what, limit: limits.blob_bytes })
        }
        None => Ok(()),
    }
}
