//! From an appraised image to a bundle on disk whose spec is final.

use std::path::{Path, PathBuf};

use image_rs_fork::MountedRootfs;
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::events::{Launch, hash_str};
use protocols::image::{Layout, RootfsMeasurement};

use super::AppraisedImage;
use crate::bundle::{Bundle, Plan};
use crate::container_id::ContainerId;
use crate::error::{AgentError, blocking};

/// What a container is besides its image and process.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    /// Its id.
    pub id: ContainerId,
    /// Launch number.
    pub seq: u64,
    /// Whether its process has a terminal.
    pub terminal: bool,
    /// Whether its input stays open for the caller.
    pub stdin: bool,
}

/// Where bundles and root file systems of containers are.
#[derive(Debug, Clone)]
pub struct Places {
    /// Parent of the bundles.
    pub bundles: PathBuf,
    /// Parent of the mounted root file systems.
    pub rootfs: PathBuf,
}

impl Places {
    /// The agent's own places beneath its state directory.
    #[must_use]
    pub fn beneath(state_dir: &Path) -> Self {
        Self { bundles: state_dir.join("bundles"), rootfs: state_dir.join("rootfs") }
    }
}

/// An appraised image laid out as a bundle; nothing of it has been recorded or run.
///
/// Only an appraised image can be loaded:
///
/// ```compile_fail,E0599
/// async fn skip(
///     image: image_rs_fork::MeasuredImage,
///     spec: guest_agent::launch::ContainerSpec,
///     places: guest_agent::launch::Places,
/// ) {
///     let _ = image.load(spec, places).await;
/// }
/// ```
///
/// ```no_run
/// async fn load(
///     image: guest_agent::launch::AppraisedImage,
///     spec: guest_agent::launch::ContainerSpec,
///     places: guest_agent::launch::Places,
/// ) {
///     let _ = image.load(spec, places).await;
/// }
/// ```
#[derive(Debug)]
pub struct LoadedContainer {
    pub(super) spec: ContainerSpec,
    pub(super) policy: Sha256Digest,
    pub(super) manifest: Sha256Digest,
    pub(super) measured: RootfsMeasurement,
    pub(super) held: Held,
}

/// What a container has on disk, gone when dropped: first the mount, then the bundle. Dropping blocks.
#[derive(Debug)]
pub(super) struct Held {
    rootfs: MountedRootfs,
    pub(super) bundle: Bundle,
}

impl Held {
    /// The layout that is mounted.
    pub(super) const fn layout(&self) -> Layout {
        self.rootfs.layout()
    }

    /// Unmounts and removes everything.
    pub(super) async fn release(self) {
        let released = blocking(move || {
            let Self { rootfs, bundle } = self;
            let unmounted = rootfs.unmount();
            drop(bundle);
            unmounted
        });
        match released.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a root file system could not be unmounted"),
            Err(error) => tracing::error!(%error, "a root file system could not be unmounted"),
        }
    }
}

impl AppraisedImage {
    /// Mounts the root file system, looks the user up in it, fixes the OCI spec and writes the bundle.
    ///
    /// # Errors
    /// [`AgentError::Image`] when the root file system cannot be mounted, [`AgentError::Bundle`] when user,
    /// working directory or mounts cannot be. Nothing stays mounted or on disk.
    pub async fn load(self, spec: ContainerSpec, places: Places) -> Result<LoadedContainer, AgentError> {
        blocking(move || self.load_blocking(spec, &places)).await?
    }

    fn load_blocking(self, spec: ContainerSpec, places: &Places) -> Result<LoadedContainer, AgentError> {
        let io = |error: std::io::Error| AgentError::Bundle { what: error.to_string() };
        crate::paths::private_dir(&places.rootfs).map_err(io)?;
        let rootfs = self.image().mount(&places.rootfs.join(spec.id.as_str()))?;
        let plan = Plan { id: &spec.id, process: self.process(), rootfs: rootfs.path(), terminal: spec.terminal };
        let bundle = Bundle::lay_out(&places.bundles, &plan)?;
        let measured = self.image().measurement();
        Ok(LoadedContainer {
            policy: self.policy(),
            manifest: measured.manifest,
            measured: measured.rootfs,
            held: Held { rootfs, bundle },
            spec,
        })
    }
}

impl LoadedContainer {
    /// SHA-384 of the final spec's canonical JSON.
    #[must_use]
    pub const fn oci_digest(&self) -> Sha384Digest {
        self.held.bundle.spec().oci_h
    }

    /// The record of everything about to run.
    pub(super) fn launch_event(&self, runtime: Sha256Digest) -> Launch {
        let oci = self.held.bundle.spec();
        Launch {
            seq: self.spec.seq,
            cid_h: hash_str(self.spec.id.as_str()),
            image_manifest: Some(self.manifest),
            rootfs: self.measured,
            args_h: oci.args_h,
            env_h: oci.env_h,
            cwd_h: oci.cwd_h,
            uid: oci.uid,
            gid: oci.gid,
            caps_h: oci.caps_h,
            mounts_h: oci.mounts_h,
            oci_h: oci.oci_h,
            policy_h: self.policy,
            runtime,
        }
    }
}
