//! Layers while they are mounted: each once, whoever uses it.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use protocols::digest::Sha256Digest;
use rustix::fs::{Dir, flistxattr_query};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use sys::DeviceError;
use sys::device_mapper::{DeviceMapper, VerityTable};
use sys::loop_device::LoopDevice;

use super::layer::Stored;
use super::measured::Measured;
use crate::erofs::{LayerReader, SALT};
use crate::error::ImageError;
use crate::mount::{Enforcement, Unenforced};
use crate::store_dir;
use crate::tree::disk::{open_directory, store_error};
use crate::tree::in_memory;

/// Device and inode number of an image file, and the root hash it was mounted under.
type MountKey = (u64, u64, [u8; 32]);

/// Where and how the layers of a store are mounted.
#[derive(Debug)]
pub(super) struct Mounts {
    dir: PathBuf,
    mapper: Option<DeviceMapper>,
    memory: bool,
    unenforced: Unenforced,
    count: AtomicU64,
    /// By device and inode number of the image, which nothing else has as long as it is mounted, and by the root hash
    /// that was asked for: another record of the same file gets no mount that was made for this one.
    mounted: Mutex<HashMap<MountKey, Weak<LayerMount>>>,
    measured: Measured,
}

/// A mounted layer; unmounted when nobody has it any more. What was stacked from it stays.
#[derive(Debug)]
pub(crate) struct LayerMount {
    path: PathBuf,
    enforcement: Enforcement,
}

impl LayerMount {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn enforcement(&self) -> Enforcement {
        self.enforcement
    }
}

impl Drop for LayerMount {
    fn drop(&mut self) {
        if let Err(error) = release(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a layer stays mounted");
        }
    }
}

impl Mounts {
    /// Ends the mounts of a process that has died; loop and device-mapper devices go with them.
    pub(super) fn open(dir: &Path, unenforced: Unenforced) -> Result<Self, ImageError> {
        store_dir::make(dir)?;
        let fail = |e| store_error(dir, "unmount leftovers", e);
        for entry in fs::read_dir(dir).map_err(fail)? {
            release(&entry.map_err(fail)?.path()).map_err(fail)?;
        }
        let memory = in_memory(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            mapper: mapper(),
            memory,
            measured: Measured::new(memory),
            unenforced,
            count: AtomicU64::new(0),
            mounted: Mutex::default(),
        })
    }

    /// What this process has measured of the store.
    pub(super) const fn measured(&self) -> &Measured {
        &self.measured
    }

    pub(super) const fn enforcement(&self) -> Enforcement {
        match (&self.mapper, self.memory) {
            (Some(_), _) => Enforcement::DmVerity,
            (None, true) => Enforcement::GuestMemory,
            (None, false) => Enforcement::Nothing,
        }
    }

    /// The mount of a stored layer, made where there is none.
    pub(super) fn get(&self, layer: &Stored, root_hash: &Sha256Digest) -> Result<Arc<LayerMount>, ImageError> {
        let mut mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
        mounted.retain(|_, mount| mount.strong_count() > 0);
        let path = layer.path();
        let file = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        let (data, file) = file.map_err(|e| store_error(&path, "mount a layer", e))?;
        // Not by its name: a layer that was found corrupt and stored anew must not get the mount it had before.
        let key = (data.dev(), data.ino(), *root_hash.as_bytes());
        if let Some(mount) = mounted.get(&key).and_then(Weak::upgrade) {
            return Ok(mount);
        }
        let mount = Arc::new(self.mount(&path, &file, root_hash)?);
        mounted.insert(key, Arc::downgrade(&mount));
        Ok(mount)
    }

    /// Mounts an image. Devices beneath the mount go with it: nothing else holds them.
    pub(super) fn mount(&self, image: &Path, file: &File, root_hash: &Sha256Digest) -> Result<LayerMount, ImageError> {
        if self.enforcement() == Enforcement::Nothing && self.unenforced == Unenforced::Refused {
            return Err(ImageError::StoreUnenforced { path: self.dir.clone() });
        }
        let fail = |e: std::io::Error| failed(image, root_hash, e);
        let mount = match &self.mapper {
            Some(mapper) => {
                let data_blocks = LayerReader::open(file).map_err(fail)?.data_blocks();
                let below = LoopDevice::attach(file).map_err(|e| fail(std::io::Error::other(e)))?;
                let table = VerityTable {
                    data: below.device(),
                    hash: below.device(),
                    data_blocks,
                    hash_start: data_blocks,
                    root: *root_hash.as_bytes(),
                    salt: &SALT,
                };
                let device = mapper.verity(&table).map_err(|e| fail(std::io::Error::other(e)))?;
                erofs(device.path()).map_err(|e| fail(e.into()))?
            }
            None => {
                // What was measured at the pull may have been altered since.
                let data_blocks = LayerReader::open(file).map_err(fail)?.data_blocks();
                let actual = self.measured.root_hash(file, data_blocks).map_err(fail)?;
                if actual != Some(*root_hash) {
                    let (subject, expected) = (image.display().to_string(), root_hash.to_string());
                    let actual = actual.map_or_else(|| "no block".to_owned(), |hash| hash.to_string());
                    return Err(ImageError::StoreCorrupt { subject, expected, actual });
                }
                match erofs(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))) {
                    Ok(mount) => mount,
                    // A kernel before 6.12, or a file on tmpfs.
                    Err(Errno::NOTBLK | Errno::INVAL | Errno::OPNOTSUPP) => {
                        let device = LoopDevice::attach(file).map_err(|e| fail(std::io::Error::other(e)))?;
                        erofs(device.path()).map_err(|e| fail(e.into()))?
                    }
                    Err(e) => return Err(fail(e.into())),
                }
            }
        };
        // Overlayfs of older kernels stacks only what is mounted somewhere.
        let path = self.dir.join(self.count.fetch_add(1, Ordering::Relaxed).to_string());
        DirBuilder::new().mode(0o700).create(&path).map_err(fail)?;
        let layer = LayerMount { path, enforcement: self.enforcement() };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        open_directory(&layer.path)
            .and_then(|to| move_mount(&mount, "", &to, "", flags))
            .and_then(|()| read_root(&layer.path))
            .map_err(|e| fail(e.into()))?;
        Ok(layer)
    }
}

/// Reads the root directory of a mounted image, as mounting has read its superblock: beneath dm-verity another root
/// hash, or an alteration there, is found now and not by the container.
fn read_root(root: &Path) -> Result<(), Errno> {
    let root = open_directory(root)?;
    Dir::read_from(&root)?.try_for_each(|entry| entry.map(|_| ()))?;
    match flistxattr_query(&root) {
        Ok(_) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Why an image is not mounted. A block that cannot be read beneath dm-verity is one that was altered, and so is an
/// image that makes no sense.
fn failed(image: &Path, root_hash: &Sha256Digest, error: std::io::Error) -> ImageError {
    let altered = [Errno::IO, Errno::UCLEAN].iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()));
    if altered || super::is_damage(&error) && error.kind() != std::io::ErrorKind::NotFound {
        let (subject, expected) = (image.display().to_string(), root_hash.to_string());
        return ImageError::StoreCorrupt { subject, expected, actual: error.to_string() };
    }
    store_error(image, "mount a layer", error)
}

/// Device-mapper where there is one; why not is told where it is for another reason than that it is absent.
fn mapper() -> Option<DeviceMapper> {
    match DeviceMapper::open() {
        Ok(mapper) => Some(mapper),
        Err(DeviceError::Absent(_)) => None,
        Err(error) => {
            tracing::warn!(%error, "dm-verity cannot be used: layers must lie in guest memory");
            None
        }
    }
}

/// A read-only mount of the image that `source` names, not attached anywhere.
fn erofs(source: &Path) -> Result<OwnedFd, Errno> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    fsconfig_set_string(context, "source", source)?;
    fsconfig_set_flag(context, "ro")?;
    fsconfig_create(context)?;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// Unmounts what is at `path` and removes the mount point.
fn release(path: &Path) -> std::io::Result<()> {
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(e) => return Err(e.into()),
        }
    }
    fs::remove_dir(path)
}
