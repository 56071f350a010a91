//! From a verified manifest to a measured image.

mod blob;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use protocols::digest::Sha256Digest;
use protocols::image::{ImageMeasurement, Layout, Platform, RootfsMeasurement};
use protocols::time::Timestamp;
use registry::{Descriptor, ImageReference, Registry, Repository};
use tokio::sync::{Semaphore, mpsc};

use self::blob::Part;
use crate::error::ImageError;
use crate::layer::Budget;
use crate::limits::Limits;
use crate::manifest::{Layer, VerifiedManifest};
use crate::mount::MountedRootfs;
use crate::ocicrypt::{self, KeyProvider, LayerSecret};
use crate::progress::Progress;
use crate::store::{LayerKey, LayerStore, LayerWriter, Room, StoredLayer, digests, rootfs_digest};

/// Chunks between receiving and unpacking one layer; each is what one read of the connection gives.
const CHUNKS: usize = 4;

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
/// Layers stored before are measured again instead. Keys of encrypted layers are asked for first. When it fails, nothing half-written stays; when its
/// future is dropped, what was under way is removed a moment later.
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
    let parallel = usize::try_from(limits.parallel.clamp(1, 16)).unwrap_or(1);
    let puller = Puller {
        repository: manifest.reference().repository(),
        registry,
        store,
        progress,
        budget: Budget::new(limits),
        jobs: Arc::new(Semaphore::new(parallel)),
    };
    let pulled = puller.layers(layers, secrets, parallel).await;
    // Jobs of other layers may still be removing what they wrote.
    let _ended = puller.jobs.acquire_many(u32::try_from(parallel).unwrap_or(1)).await;
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
    if manifest.layers().len() as u64 > u64::from(limits.layers) {
        return Err(ImageError::Limit { subject: subject(), what: "layers", limit: limits.layers.into() });
    }
    match manifest.layers().iter().find(|layer| layer.size > limits.blob_bytes) {
        Some(layer) => {
            let (subject, what) = (layer.subject.clone(), "bytes in one layer's blob");
            Err(ImageError::Limit { subject, what, limit: limits.blob_bytes })
        }
        None => Ok(()),
    }
}

/// A layer that needs nothing more but those below it.
enum Ready {
    Stored(StoredLayer),
    Unpacked(Box<dyn LayerWriter>),
}

struct Puller<'a> {
    repository: &'a Repository,
    registry: &'a dyn Registry,
    store: &'a dyn LayerStore,
    progress: &'a dyn Progress,
    budget: Arc<Budget>,
    /// One permit for each job on a blocking thread.
    jobs: Arc<Semaphore>,
}

impl Puller<'_> {
    /// Layers are received and unpacked several at a time, and completed in order.
    async fn layers(
        &self,
        layers: &[Layer],
        secrets: Vec<Option<LayerSecret>>,
        parallel: usize,
    ) -> Result<Vec<StoredLayer>, ImageError> {
        // Collected first: a lazy map borrows in a way that makes this future not `Send`.
        let waiting: Vec<_> = layers.iter().zip(secrets).map(|(layer, secret)| self.layer(layer, secret)).collect();
        let mut ready = stream::iter(waiting).buffered(parallel);
        let mut stored: Vec<StoredLayer> = Vec::with_capacity(layers.len());
        for layer in layers {
            let Some(next) = ready.next().await else { break };
            let (done, reused) = match next? {
                Ready::Stored(done) => (done, true),
                Ready::Unpacked(writer) => {
                    let lower = stored.clone();
                    (blocking(move || writer.commit(&lower)).await?, false)
                }
            };
            self.progress.layer(&layer.blob, reused);
            stored.push(done);
        }
        Ok(stored)
    }

    async fn layer(&self, layer: &Layer, secret: Option<LayerSecret>) -> Result<Ready, ImageError> {
        let key = LayerKey { chain: layer.chain, diff_id: layer.diff_id, subject: layer.subject.clone() };
        if let Some(candidate) = self.store.stored(&key)? {
            let stored = self.job(move || candidate.measure()).await?;
            self.progress.advance(layer.size);
            return Ok(Ready::Stored(stored));
        }
        let mut stream = self.registry.blob(self.repository, &layer.blob, layer.size).await?;
        let mut writer = self.store.begin(&key, Room(Arc::clone(&self.budget)))?;
        let (send, receive) = mpsc::channel(CHUNKS);
        let (about, budget) = (layer.clone(), Arc::clone(&self.budget));
        let job = self.job(move || {
            let unpacked = blob::unpack(receive, &about, secret.as_ref(), &budget, writer.as_mut());
            unpacked.map(|()| writer)
        });
        let receiving = async move {
            let mut received = 0u64;
            while let Some(chunk) = stream.next().await? {
                received = received.saturating_add(chunk.len() as u64);
                if received > layer.size {
                    let subject = layer.subject.clone();
                    return Err(ImageError::BlobSize { subject, expected: layer.size, actual: received });
                }
                self.progress.advance(chunk.len() as u64);
                // Nobody receives any more: the job has failed and says why itself.
                if send.send(Part::Chunk(chunk)).await.is_err() {
                    return Ok(());
                }
            }
            let _ = send.send(Part::End).await;
            Ok(())
        };
        let (received, unpacked) = futures_util::future::join(receiving, job).await;
        // When receiving failed, the job was abandoned and has only that to tell.
        received?;
        Ok(Ready::Unpacked(unpacked?))
    }

    /// Runs `work` on a blocking thread that counts as a job.
    async fn job<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let permit = Arc::clone(&self.jobs).acquire_owned().await.ok();
        blocking(move || {
            let done = work();
            drop(permit);
            done
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        let source = std::io::Error::other(e);
        Err(ImageError::StoreIo { path: PathBuf::new(), doing: "run a job", source })
    })
}
