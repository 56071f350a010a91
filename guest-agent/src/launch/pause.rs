//! The pause container of a pod: no image and no golden value, but a bundle of the guest image whose digest the
//! measured configuration pins.
//!
//! The digest is [`protocols::events::Pause::bundle`]: of the measured root file system, arguments, environment,
//! working directory and user.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use image_rs_fork::measure_directory;
use protocols::digest::Sha256Digest;
use protocols::events::Pause;
use protocols::image::ProcessRequest;
use protocols::pause::{PauseProcess, PauseUser};
use protocols::reason::{self, Refusal};
use rustix::fs::{Mode, OFlags};

use super::loaded::{ContainerSpec, LoadedContainer, Places, Root, lay_out};
use super::pod::CapabilitySets;
use crate::bundle::binds::Binds;
use crate::error::{AgentError, blocking};

/// The most of a bundle's `config.json` that is read, in bytes.
const MAX_CONFIG: u64 = 1024 * 1024;

/// The configured pause bundle: a directory with `rootfs` and `config.json`, and the digest it must have.
///
/// ```compile_fail,E0624
/// async fn unpinned(bundle: guest_agent::launch::PauseBundle, spec: guest_agent::launch::ContainerSpec,
///     places: guest_agent::launch::Places, policy: protocols::digest::Sha256Digest) {
///     let _ = bundle.load(spec, places, policy).await;
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseBundle {
    /// Its directory in the guest image.
    pub path: PathBuf,
    /// What [`protocols::events::Pause::bundle`] must give.
    pub digest: Sha256Digest,
}

impl PauseBundle {
    /// Mounts the bundle's root file system, measures what is mounted, lays the bundle out with the process of its
    /// own configuration, and compares. `policy` is the digest of the measured configuration.
    ///
    /// # Errors
    /// `policy.pause`, [`AgentError::Bundle`]. Nothing stays mounted or on disk.
    pub(super) async fn load(
        self,
        spec: ContainerSpec,
        places: Places,
        policy: Sha256Digest,
    ) -> Result<LoadedContainer, AgentError> {
        blocking(move || self.load_blocking(spec, &places, policy)).await?
    }

    fn load_blocking(
        self,
        mut spec: ContainerSpec,
        places: &Places,
        policy: Sha256Digest,
    ) -> Result<LoadedContainer, AgentError> {
        let failed = |error: std::io::Error| AgentError::Bundle { what: format!("pause bundle: {error}") };
        let process = self.process().map_err(failed)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(self.path.join("rootfs"), flags, Mode::empty());
        let root = root.map_err(|error| failed(error.into()))?;
        let mut binds = Binds::beneath(&places.mounts, &spec.id).map_err(failed)?;
        let mounted = binds.add("rootfs", &root).map_err(failed)?;
        let measured = measure_directory(&mounted)?;
        if let Some(pod) = &mut spec.pod {
            // It only waits: it is given nothing that it could do more with.
            pod.spec.capabilities = Some(CapabilitySets::default());
            pod.spec.read_only_root = true;
            pod.spec.user = None;
            pod.spec.mounts.clear();
            pod.spec.devices.clear();
        }
        spec.terminal = false;
        let root = Root::Pause(&mounted, measured.layout);
        let held = lay_out(&mut spec, &process, root, binds, places)?;
        let loaded = LoadedContainer { policy, manifest: None, measured, held, spec };
        let bundle = loaded.pause().bundle().map_err(|error| AgentError::from(error.refusal()))?;
        if bundle != self.digest {
            let subject = format!("pause bundle {}", self.path.display());
            let refusal = Refusal::new(reason::POLICY_PAUSE, subject, self.digest.to_string(), bundle.to_string());
            return Err(refusal.into());
        }
        Ok(loaded)
    }

    fn process(&self) -> std::io::Result<ProcessRequest> {
        let process = read(&self.path.join("config.json"))?;
        let PauseUser { uid, gid } = process.user;
        Ok(ProcessRequest {
            args: process.args,
            env: process.env,
            user: format!("{uid}:{gid}"),
            cwd: process.cwd,
            mounts: Vec::new(),
        })
    }
}

fn read(path: &Path) -> std::io::Result<PauseProcess> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(std::io::Error::other("config.json is larger than 1 MiB"));
    }
    Ok(PauseProcess::parse(&bytes)?)
}

impl LoadedContainer {
    /// What is recorded of the pause container before its launch; `None` for an image's container.
    pub(super) fn pause_event(&self) -> Option<Pause> {
        self.manifest.is_none().then(|| self.pause())
    }

    fn pause(&self) -> Pause {
        let oci = self.spec_digests();
        Pause {
            seq: self.spec.seq,
            rootfs: self.measured,
            args_h: oci.args_h,
            env_h: oci.env_h,
            cwd_h: oci.cwd_h,
            uid: oci.uid,
            gid: oci.gid,
        }
    }
}
