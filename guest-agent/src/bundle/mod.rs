//! The bundle: a directory of the agent's own with the final `config.json`, opened by descriptor.

pub(crate) mod binds;
pub(crate) mod cwd;
pub(crate) mod mounts;
mod pod;
mod seccomp;
mod spec;
mod user;

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;
use protocols::image::ProcessRequest;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

pub(crate) use pod::{PodParts, rlimit};
pub(crate) use spec::{CAPABILITIES, FinalSpec};

use crate::container_id::ContainerId;
use crate::error::AgentError;

const CONFIG: &str = "config.json";

/// What a bundle is made from.
#[derive(Debug)]
pub(crate) struct Plan<'p> {
    pub(crate) id: &'p ContainerId,
    pub(crate) process: &'p ProcessRequest,
    pub(crate) rootfs: &'p Path,
    pub(crate) terminal: bool,
    /// What a pod's container has besides.
    pub(crate) pod: Option<&'p PodParts<'p>>,
}

/// A bundle on disk; removed when dropped.
#[derive(Debug)]
pub(crate) struct Bundle {
    path: PathBuf,
    dir: OwnedFd,
    spec: FinalSpec,
}

impl Bundle {
    /// Fixes the spec and lays the bundle out in `<parent>/<container id>`.
    pub(crate) fn lay_out(parent: &Path, plan: &Plan<'_>) -> Result<Self, AgentError> {
        let refused = |what: String| AgentError::Bundle { what };
        let io = |error: std::io::Error| AgentError::Bundle { what: error.to_string() };
        let rootfs = open_dir(plan.rootfs).map_err(io)?;
        let mut user = user::resolve(rootfs.as_fd(), &plan.process.user).map_err(refused)?;
        if let Some(asked) = plan.pod.and_then(|pod| pod.spec.user.as_ref()) {
            let of_uid = user::resolve(rootfs.as_fd(), &user.uid.to_string()).map_err(refused)?;
            user = pod::user(user, &of_uid, asked)?;
        }
        cwd::check(rootfs.as_fd(), &plan.process.cwd).map_err(refused)?;
        let Plan { id, process, rootfs: path, terminal, pod } = *plan;
        let blueprint = spec::Blueprint { id, process, user: &user, rootfs: path, terminal, pod };
        let spec = spec::build(blueprint).map_err(refused)?;

        let path = parent.join(plan.id.as_str());
        crate::paths::private_dir(parent).map_err(io)?;
        // A leftover of a launch that is not known any more must not lend its files to this one.
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        crate::paths::private_dir(&path).map_err(io)?;
        let dir = open_dir(&path).map_err(io)?;
        let bundle = Self { path, dir, spec };
        bundle.write_config().map_err(io)?;
        Ok(bundle)
    }

    fn write_config(&self) -> std::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, CONFIG, flags, Mode::from_raw_mode(0o400))?;
        std::fs::File::from(file).write_all(&self.spec.bytes)
    }

    pub(crate) const fn spec(&self) -> &FinalSpec {
        &self.spec
    }

    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Hashes `config.json` as it lies in the bundle's directory now, by descriptor.
    pub(crate) fn hash_config(&self) -> std::io::Result<Sha256Digest> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut file = std::fs::File::from(rustix::fs::openat(&self.dir, CONFIG, flags, Mode::empty())?);
        let mut hasher = Sha256::new();
        let mut buffer = [0u8; 4096];
        loop {
            let read = file.read(&mut buffer)?;
            let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
            hasher.update(part);
        }
        Ok(Sha256Digest::new(hasher.finalize().into()))
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the bundle could not be removed");
        }
    }
}

fn open_dir(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
