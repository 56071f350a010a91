//! From an appraised image, or the pinned pause bundle, to a bundle on disk whose spec is final.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image_rs_fork::MountedRootfs;
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::events::{Launch, hash_str};
use protocols::image::{Layout, ProcessRequest, RootfsMeasurement};

use super::AppraisedImage;
use super::pod::PodSpec;
use crate::bundle::binds::Binds;
use crate::bundle::{Bundle, FinalSpec, Plan, PodParts};
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
    /// What it has besides as a container of a pod.
    pub(crate) pod: Option<Pod>,
}

/// A pod's container and the PID namespace it joins.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) spec: PodSpec,
    /// `None`: one of its own.
    pub(crate) pid: Option<Arc<OwnedFd>>,
}

/// Where bundles and root file systems of containers are.
#[derive(Debug, Clone)]
pub struct Places {
    /// Parent of the bundles.
    pub bundles: PathBuf,
    /// Parent of the mounted root file systems.
    pub rootfs: PathBuf,
    /// Parent of what containers of pods have mounted besides.
    pub mounts: PathBuf,
}

impl Places {
    /// The agent's own places beneath its state directory.
    #[must_use]
    pub fn beneath(state_dir: &Path) -> Self {
        Self { bundles: state_dir.join("bundles"), rootfs: state_dir.join("rootfs"), mounts: state_dir.join("mounts") }
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
    /// `None` for the pause container.
    pub(super) manifest: Option<Sha256Digest>,
    pub(super) measured: RootfsMeasurement,
    pub(super) held: Held,
}

/// What a container has on disk, gone when dropped: first the mounts, then the bundle. Dropping blocks.
#[derive(Debug)]
pub(super) struct Held {
    /// `None` for the pause container, whose root is among the binds.
    rootfs: Option<MountedRootfs>,
    binds: Binds,
    layout: Layout,
    pub(super) bundle: Bundle,
}

impl Held {
    /// The layout that is mounted.
    pub(super) const fn layout(&self) -> Layout {
        self.layout
    }

    /// Unmounts and removes everything.
    pub(super) async fn release(self) {
        let released = blocking(move || {
            let Self { rootfs, binds, layout: _, bundle } = self;
            let unmounted = rootfs.map_or(Ok(()), MountedRootfs::unmount);
            drop(binds);
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

/// The root file system to lay out a bundle over.
pub(super) enum Root<'r> {
    /// An image's, mounted.
    Image(MountedRootfs, Layout),
    /// The pause bundle's, mounted among the binds.
    Pause(&'r Path, Layout),
}

/// Opens the pod's mounts to the runtime, fixes the OCI spec and writes the bundle.
pub(super) fn lay_out(
    spec: &mut ContainerSpec,
    process: &ProcessRequest,
    root: Root<'_>,
    mut binds: Binds,
    places: &Places,
) -> Result<Held, AgentError> {
    let io = |error: std::io::Error| AgentError::Bundle { what: error.to_string() };
    let mut sources = Vec::new();
    let mut pid = None;
    // What the host's descriptors were needed for is done when this returns.
    let pod = spec.pod.take();
    if let Some(pod) = &pod {
        for (number, mount) in pod.spec.mounts.iter().enumerate() {
            let lost = |error| AgentError::Bundle { what: format!("mount at {}: {error}", mount.asked.destination) };
            sources.push(binds.add(&number.to_string(), &mount.source).map_err(lost)?);
        }
        if let Some(namespace) = &pod.pid {
            pid = Some(binds.add("pid", namespace).map_err(io)?);
        }
    }
    let parts = pod.as_ref().map(|pod| PodParts { spec: &pod.spec, pid: pid.as_deref(), sources: sources.as_slice() });
    let rootfs = match &root {
        Root::Image(rootfs, _) => rootfs.path(),
        Root::Pause(path, _) => path,
    };
    let plan = Plan { id: &spec.id, process, rootfs, terminal: spec.terminal, pod: parts.as_ref() };
    let bundle = Bundle::lay_out(&places.bundles, &plan)?;
    let (rootfs, layout) = match root {
        Root::Image(rootfs, layout) => (Some(rootfs), layout),
        Root::Pause(_, layout) => (None, layout),
    };
    Ok(Held { rootfs, binds, layout, bundle })
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

    fn load_blocking(self, mut spec: ContainerSpec, places: &Places) -> Result<LoadedContainer, AgentError> {
        let io = |error: std::io::Error| AgentError::Bundle { what: error.to_string() };
        crate::paths::private_dir(&places.rootfs).map_err(io)?;
        let rootfs = self.image().mount(&places.rootfs.join(spec.id.as_str()))?;
        let binds = Binds::beneath(&places.mounts, &spec.id).map_err(io)?;
        let measured = self.image().measurement();
        let root = Root::Image(rootfs, measured.rootfs.layout);
        let held = lay_out(&mut spec, self.process(), root, binds, places)?;
        Ok(LoadedContainer {
            policy: self.policy(),
            manifest: Some(measured.manifest),
            measured: measured.rootfs,
            held,
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

    pub(super) const fn spec_digests(&self) -> &FinalSpec {
        self.held.bundle.spec()
    }

    /// The record of everything about to run.
    pub(super) fn launch_event(&self, runtime: Sha256Digest) -> Launch {
        let oci = self.held.bundle.spec();
        Launch {
            seq: self.spec.seq,
            cid_h: hash_str(self.spec.id.as_str()),
            image_manifest: self.manifest,
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
