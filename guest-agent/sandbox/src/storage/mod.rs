//! Storages: what containers mount beside their root. Each is mounted once, counted by its users, and gone with the
//! last of them.
//!
//! A mount point lies beneath `sandbox/` or `shared/containers/`, made by descriptor and through no link: never at a
//! container's root, which comes from a measured image alone.

mod group;
mod host;
mod joined;
mod memory;
mod options;
mod plan;
mod request;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, Gid, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, UnmountFlags, fsconfig_reconfigure, fsconfig_set_string, fspick, unmount};

pub use self::options::MountOptions;
use self::plan::{Plan, Source};
pub use self::request::{Driver, FsGroup, GroupChange, StorageConfig, StorageRequest};
use crate::beneath::{Relative, Root, by_number, explain, open_dir};
use crate::devices::Devices;
use crate::error::SandboxError;
use crate::roots::Roots;

/// Mode of the directories that are made on the way to a mount point.
const WAY: Mode = Mode::from_raw_mode(0o755);

/// The storages of one sandbox. Clones are the same.
#[derive(Debug, Clone)]
pub struct Storages(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    run: PathBuf,
    sys: PathBuf,
    root: Root,
    config: StorageConfig,
    devices: Devices,
    /// By the mount point beneath `run`.
    mounted: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<String, Entry>,
    /// Directories of `local` storages without a user that still hold data.
    kept: HashSet<String>,
}

#[derive(Debug)]
struct Entry {
    request: StorageRequest,
    fd: Arc<OwnedFd>,
    is_mount: bool,
    users: usize,
}

/// One use of a storage; dropped, the use ends.
#[derive(Debug)]
pub struct Mounted {
    storages: Storages,
    key: String,
    mount_point: PathBuf,
    fd: Arc<OwnedFd>,
}

impl Mounted {
    /// Where it is.
    #[must_use]
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Its root, whatever is later at the path.
    #[must_use]
    pub fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.storages.release(&self.key);
    }
}

impl Storages {
    /// None yet, beneath the directories that [`Roots::recreate`] made.
    ///
    /// # Errors
    /// [`SandboxError::System`].
    pub fn new(roots: &Roots, config: StorageConfig) -> Result<Self, SandboxError> {
        let root = Root::open(&roots.run).map_err(SandboxError::system(format!("open {}", roots.run.display())))?;
        let devices = Devices::new(roots, config.device_timeout);
        let (run, sys) = (roots.run.clone(), roots.sys.clone());
        Ok(Self(Arc::new(Inner { run, sys, root, config, devices, mounted: Mutex::default() })))
    }

    /// Mounts a storage, or adds a user to it when the very same one is there. Blocks while a device is waited for.
    ///
    /// # Errors
    /// [`SandboxError::Storage`] and [`SandboxError::Path`] for what is not permitted, [`SandboxError::Device`] when
    /// the device does not appear, [`SandboxError::System`] when the kernel refuses. Nothing is left mounted.
    pub fn add(&self, request: &StorageRequest) -> Result<Mounted, SandboxError> {
        let inner = &self.0;
        if !inner.config.permitted.contains(&request.driver) {
            return Err(request.refused(format!("the driver `{}` is not permitted", request.driver)));
        }
        let at = self.place(request)?;
        if let Some(shared) = self.share(&mut inner.mounted(), at, request)? {
            return Ok(shared);
        }
        let plan = self.plan(request)?;
        let mut mounted = inner.mounted();
        // Another may have been quicker while a device was waited for.
        if let Some(shared) = self.share(&mut mounted, at, request)? {
            return Ok(shared);
        }
        if mounted.entries.len() >= inner.config.most {
            return Err(request.refused(format!("more than {} storages", inner.config.most)));
        }
        let (fd, is_mount) = self.mount(&mut mounted, request, at, &plan)?;
        let fd = Arc::new(fd);
        let entry = Entry { request: request.clone(), fd: Arc::clone(&fd), is_mount, users: 1 };
        mounted.entries.insert(at.as_str().to_owned(), entry);
        drop(mounted);
        Ok(self.used(at, fd))
    }

    /// A use of what is there already; only the same request may share it.
    fn share(
        &self,
        mounted: &mut Table,
        at: Relative<'_>,
        request: &StorageRequest,
    ) -> Result<Option<Mounted>, SandboxError> {
        let Some(entry) = mounted.entries.get_mut(at.as_str()) else { return Ok(None) };
        if entry.request != *request {
            return Err(request.refused("another storage is there"));
        }
        entry.users += 1;
        let fd = Arc::clone(&entry.fd);
        Ok(Some(self.used(at, fd)))
    }

    fn used(&self, at: Relative<'_>, fd: Arc<OwnedFd>) -> Mounted {
        let key = at.as_str().to_owned();
        Mounted { storages: self.clone(), mount_point: self.0.run.join(&key), key, fd }
    }

    /// The mount point, if it is one where a storage may be.
    fn place<'a>(&self, request: &'a StorageRequest) -> Result<Relative<'a>, SandboxError> {
        let at = Relative::of(&self.0.run, &request.mount_point)
            .map_err(|why| SandboxError::path(&request.mount_point, why))?;
        let beneath = |dir: &str| at.as_str().strip_prefix(dir).is_some_and(|rest| !rest.is_empty());
        if !(beneath("sandbox/") || beneath("shared/containers/")) || at.as_str() == "sandbox/resolv.conf" {
            return Err(request.refused("its mount point is not beneath sandbox/ or shared/containers/"));
        }
        Ok(at)
    }

    fn plan(&self, request: &StorageRequest) -> Result<Plan, SandboxError> {
        let inner = &self.0;
        match request.driver {
            Driver::Ephemeral => memory::ephemeral(request, &inner.sys),
            Driver::Local => memory::local(request),
            Driver::Blk | Driver::Scsi | Driver::MmioBlk | Driver::Nvdimm => host::block(request, &inner.devices),
            Driver::VirtioFs | Driver::NineP => host::directory(request),
            Driver::Bind => joined::bind(request, |path| self.directory(path)),
            Driver::Overlay => joined::overlay(request, |path| self.directory(path)),
        }
    }

    fn mount(
        &self,
        table: &mut Table,
        request: &StorageRequest,
        at: Relative<'_>,
        plan: &Plan,
    ) -> Result<(OwnedFd, bool), SandboxError> {
        let refused = |errno: Errno| SandboxError::path(&request.mount_point, explain(errno));
        let root = &self.0.root;
        let fresh = matches!(root.entry(at, OFlags::PATH, ResolveFlags::NO_XDEV), Err(Errno::NOENT));
        let target = root.make(Some(at), WAY, ResolveFlags::NO_XDEV).map_err(refused)?;
        // What was copied there, and logged, is neither hidden nor given another mode.
        let again = matches!(plan.source, Source::Directory) && table.kept.contains(at.as_str());
        if !(fresh || again || is_empty(&target).map_err(refused)?) {
            return Err(request.refused("its mount point is not empty"));
        }
        let failed = |is_mount: bool, errno: Errno| {
            self.0.remove(at.as_str(), is_mount, fresh);
            SandboxError::system(format!("mount {}", request.mount_point.escape_debug()))(errno)
        };
        let (fd, is_mount) = plan.mount(target).map_err(|errno| failed(false, errno))?;
        plan.restrict(&fd)
            .and_then(|()| own(&fd, plan))
            .and_then(|()| request.fs_group.map_or(Ok(()), |group| group::apply(&fd, group, plan.options.read_only())))
            .map_err(|errno| failed(is_mount, errno))?;
        table.kept.remove(at.as_str());
        Ok((fd, is_mount))
    }

    /// Gives tmpfs storages new options, after the guest got more memory. Only `size=` and `nr_inodes=` change.
    ///
    /// # Errors
    /// [`SandboxError::Storage`] for one that is not there or no tmpfs, [`SandboxError::System`].
    pub fn resize(&self, requests: &[StorageRequest]) -> Result<(), SandboxError> {
        for request in requests {
            let at = self.place(request)?;
            let known = ["size=", "nr_inodes=", "mode=", "uid=", "gid=", "fsgid="];
            let options = MountOptions::parse(&request.options, &known).map_err(|why| request.refused(why))?;
            let mounted = self.0.mounted();
            let entry = mounted.entries.get(at.as_str());
            let entry =
                entry.filter(|entry| entry.request.driver == Driver::Ephemeral && entry.request.fstype == "tmpfs");
            let entry = entry.ok_or_else(|| request.refused("there is no such tmpfs"))?;
            let change = || {
                let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
                let context = fspick(entry.fd.as_fd(), "", flags)?;
                for (key, value) in &options.data {
                    if let (true, Some(value)) = (matches!(key.as_str(), "size" | "nr_inodes"), value) {
                        fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str())?;
                    }
                }
                fsconfig_reconfigure(context.as_fd())
            };
            change().map_err(SandboxError::system(format!("resize {}", request.mount_point.escape_debug())))?;
        }
        Ok(())
    }

    /// Opens what a bind mount's source names at or beneath a mounted storage, with `O_PATH` and through no link.
    ///
    /// # Errors
    /// [`SandboxError::Path`], also when no storage is there.
    pub fn open(&self, path: &str) -> Result<OwnedFd, SandboxError> {
        let at = Relative::of(&self.0.run, path).map_err(|why| SandboxError::path(path, why))?;
        let mounted = self.0.mounted();
        let holds =
            |key: &str| at.as_str().strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let found = mounted.entries.iter().filter(|(key, _)| holds(key)).max_by_key(|(key, _)| key.len());
        let (key, entry) = found.ok_or_else(|| SandboxError::path(path, "no storage is there"))?;
        let refused = |errno| SandboxError::path(path, explain(errno));
        let rest = at.as_str().get(key.len()..).unwrap_or_default().trim_start_matches('/');
        let rest = if rest.is_empty() { "." } else { rest };
        let plain = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&*entry.fd, rest, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), plain).map_err(refused)
    }

    /// A directory that `bind` or `overlayfs` names: of a storage, or copied in.
    fn directory(&self, path: &str) -> Result<OwnedFd, SandboxError> {
        let at = Relative::of(&self.0.run, path).map_err(|why| SandboxError::path(path, why))?;
        if !(at.as_str().starts_with("sandbox/") || at.as_str().starts_with("shared/containers/")) {
            return Err(SandboxError::path(path, "it is not beneath sandbox/ or shared/containers/"));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let opened = self.0.root.entry(at, flags, ResolveFlags::empty());
        opened.map_err(|errno| SandboxError::path(path, explain(errno)))
    }

    fn release(&self, key: &str) {
        let mut mounted = self.0.mounted();
        let Some(entry) = mounted.entries.get_mut(key) else { return };
        entry.users -= 1;
        if entry.users == 0 {
            let is_mount = entry.is_mount;
            mounted.entries.remove(key);
            if self.0.remove(key, is_mount, true) {
                mounted.kept.insert(key.to_owned());
            }
        }
    }
}

impl Inner {
    fn mounted(&self) -> MutexGuard<'_, Table> {
        // An entry is inserted whole and removed whole.
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unmounts, and removes the directory. One with data in it stays, and says so: a `local` storage lives as long as
    /// the sandbox, since its containers may be started again.
    fn remove(&self, key: &str, is_mount: bool, directory: bool) -> bool {
        let (parent, name) = key.rsplit_once('/').unwrap_or((".", key));
        let Ok(parent) = open_dir(&self.root, parent, ResolveFlags::empty()) else { return false };
        if is_mount {
            let path = by_number(&parent).join(name);
            if let Err(errno) = unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                tracing::warn!(key, %errno, "a storage stays mounted");
            }
        }
        directory && rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) == Err(Errno::NOTEMPTY)
    }
}

fn is_empty(dir: &OwnedFd) -> Result<bool, Errno> {
    for entry in Dir::read_from(dir)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Mode and group of the root, where the options name them.
fn own(root: &OwnedFd, plan: &Plan) -> Result<(), Errno> {
    if plan.mode.is_none() && plan.group.is_none() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(root, ".", flags, Mode::empty())?;
    let before = rustix::fs::fstat(&root)?.st_mode & 0o7777;
    let mut mode = plan.mode.unwrap_or(before);
    if let Some(gid) = plan.group {
        rustix::fs::fchown(&root, None, Some(Gid::from_raw(gid)))?;
        mode |= 0o2000;
    }
    rustix::fs::fchmod(&root, Mode::from_raw_mode(mode))
}
