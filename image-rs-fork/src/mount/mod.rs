//! The root file system: measured layers below a fresh writable one.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocols::image::Layout;
use rustix::fs::{CWD, OFlags, lgetxattr, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};

use crate::erofs_store::LayerMount;
use crate::error::ImageError;
use crate::layer::attributes::OPAQUE;
use crate::store::StoredLayer;
use crate::tree::disk::{copy_directory, open_directory, store_error};

/// What keeps mounted layers as they were measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// The kernel checks every block against the measurement when it is read.
    DmVerity,
    /// They lie in the guest's memory, and were measured there.
    GuestMemory,
    /// Nothing: whoever has the storage can alter them.
    Nothing,
}

impl Enforcement {
    /// The name in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DmVerity => "dm-verity",
            Self::GuestMemory => "re-measured in guest memory",
            Self::Nothing => "nothing",
        }
    }
}

/// Whether layers are mounted that nothing keeps as they were measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unenforced {
    /// `store.unenforced`.
    Refused,
    /// For development, and for people who only want to look.
    Allowed,
}

/// The most layers that overlayfs stacks (`OVL_MAX_STACK` of the kernel).
pub(crate) const MOST_LAYERS: u32 = 500;
/// The options of mount(2), with their NUL.
const PAGE: usize = 4096;
/// Where the file system is mounted, below its directory.
const ROOTFS: &str = "rootfs";

/// A mounted root file system; unmounted and removed when dropped.
#[derive(Debug)]
pub struct MountedRootfs {
    dir: PathBuf,
    path: PathBuf,
    kept: bool,
    layout: Layout,
    enforcement: Enforcement,
    /// Both stay until after the mount's end, which dropping this value begins with.
    _mounts: Vec<Arc<LayerMount>>,
    _layers: Vec<StoredLayer>,
}

impl MountedRootfs {
    pub(crate) fn mount(layers: &[StoredLayer], dir: &Path) -> Result<Self, ImageError> {
        let Some(lowers) = Lowers::of(layers)? else {
            let source = std::io::Error::other("the image was measured, not stored");
            return Err(ImageError::StoreIo { path: dir.to_owned(), doing: "mount the image", source });
        };
        let Lowers { layout, enforcement, paths, mounts } = lowers;
        let fail = |e| store_error(dir, "make the root file system's directories", e);
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder.create(dir).map_err(fail)?;
        // From here on dropping it removes all there is.
        let rootfs = Self {
            dir: dir.to_owned(),
            path: dir.join(ROOTFS),
            kept: false,
            layout,
            enforcement,
            _mounts: mounts,
            _layers: layers.to_vec(),
        };
        for name in ["upper", "work", ROOTFS] {
            builder.create(dir.join(name)).map_err(fail)?;
        }
        // The root's attributes are the upper directory's.
        if let Some(top) = paths.last() {
            copy_directory(top, &dir.join("upper"))?;
        }
        overlay(&paths, dir, &rootfs.path).map_err(|e| store_error(dir, "mount the image's layers", e))?;
        Ok(rootfs)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The layout of its layers.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// What keeps its layers as they were measured.
    #[must_use]
    pub const fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    /// Unmounts it and removes everything written into it. Blocking.
    ///
    /// # Errors
    /// `store.io`.
    pub fn unmount(mut self) -> Result<(), ImageError> {
        self.kept = true;
        remove_rootfs(&self.dir)
    }

    /// Leaves it mounted beyond this value's life; [`remove_rootfs`] with the same directory ends it. A store with
    /// a quota that stays open may remove its layers.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        self.kept = true;
        self.path.clone()
    }
}

impl Drop for MountedRootfs {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = remove_rootfs(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "a root file system stays");
        }
    }
}

/// Unmounts and removes what [`crate::MeasuredImage::mount`] made below `dir`, in this process or one
/// that has died. Nothing there is fine. Blocking.
///
/// # Errors
/// `store.io`.
pub fn remove_rootfs(dir: &Path) -> Result<(), ImageError> {
    let path = dir.join(ROOTFS);
    loop {
        // Detached, because a process of the container may still be ending in it.
        match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Not mounted, or not there.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => break,
            Err(e) => return Err(store_error(&path, "unmount the root file system", e)),
        }
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(store_error(dir, "remove the root file system", e)),
        _ => Ok(()),
    }
}

/// The directories to stack, lowest first, and what holds them.
struct Lowers {
    layout: Layout,
    enforcement: Enforcement,
    paths: Vec<PathBuf>,
    mounts: Vec<Arc<LayerMount>>,
}

impl Lowers {
    /// `None` for layers that were measured only. Overlayfs takes no notice of an opaque root: the layers it hides
    /// are left out.
    fn of(layers: &[StoredLayer]) -> Result<Option<Self>, ImageError> {
        let mut lowers = Self::trees(layers)?;
        if lowers.paths.is_empty() {
            lowers = Self::images(layers)?;
        }
        Ok(if lowers.paths.is_empty() { None } else { Some(lowers) })
    }

    fn trees(layers: &[StoredLayer]) -> Result<Self, ImageError> {
        let mut paths = Vec::new();
        for layer in layers.iter().rev().filter_map(|layer| layer.tree.as_ref()) {
            paths.extend(layer.directory.clone());
            if layer.table.root_is_opaque() {
                break;
            }
        }
        paths.reverse();
        let in_memory = paths.last().map_or(Ok(false), |path| crate::tree::in_memory(path))?;
        let enforcement = if in_memory { Enforcement::GuestMemory } else { Enforcement::Nothing };
        Ok(Self { layout: Layout::TreeV1, enforcement, paths, mounts: Vec::new() })
    }

    fn images(layers: &[StoredLayer]) -> Result<Self, ImageError> {
        let mut mounts: Vec<Arc<LayerMount>> = Vec::new();
        let mut enforcement = Enforcement::Nothing;
        for layer in layers.iter().rev().filter_map(|layer| layer.erofs.as_ref()) {
            let Some(mount) = layer.mount()? else { continue };
            // Overlayfs refuses one layer twice. All of the lower one, whiteouts too, is hidden by the same above it.
            if mounts.iter().any(|above| Arc::ptr_eq(above, &mount)) {
                continue;
            }
            // Asked of what is mounted: only that is sure to be what was measured.
            let opaque = is_opaque(mount.path()).map_err(|e| store_error(mount.path(), "read a layer's root", e))?;
            enforcement = mount.enforcement();
            mounts.push(mount);
            if opaque {
                break;
            }
        }
        mounts.reverse();
        let paths = mounts.iter().map(|mount| mount.path().to_owned()).collect();
        Ok(Self { layout: Layout::ErofsV1, enforcement, paths, mounts })
    }
}

fn is_opaque(root: &Path) -> Result<bool, Errno> {
    let mut value = [0; 1];
    match lgetxattr(root, OPAQUE, &mut value) {
        Ok(length) => Ok(length == 1 && value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Mounts `layers` (lowest first) below `dir/upper`. Nothing is mounted anywhere before the last step.
fn overlay(layers: &[PathBuf], dir: &Path, target: &Path) -> Result<(), Errno> {
    // Each layer by itself since Linux 6.5.
    match overlay_of_layers(layers, dir, target) {
        Err(Errno::INVAL) => overlay_of_list(layers, dir, target),
        other => other,
    }
}

/// For 500 layers of any path.
fn overlay_of_layers(layers: &[PathBuf], dir: &Path, target: &Path) -> Result<(), Errno> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let overlay = overlay.as_fd();
    for layer in layers.iter().rev() {
        fsconfig_set_string(overlay, "lowerdir+", layer)?;
    }
    fsconfig_set_string(overlay, "upperdir", dir.join("upper"))?;
    fsconfig_set_string(overlay, "workdir", dir.join("work"))?;
    fsconfig_create(overlay)?;
    let mount = fsmount(overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let to = open_directory(target)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&mount, "", &to, "", flags)
}

/// In the one page of options that mount(2) takes; fsconfig takes 256 bytes. Layers are named by the numbers of open
/// files and found from `/proc/self/fd`, so 500 fit as long as the path of `dir` has less than 700 bytes.
fn overlay_of_list(layers: &[PathBuf], dir: &Path, target: &Path) -> Result<(), Errno> {
    let open =
        |path: &Path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty());
    let by_number = |fd: &OwnedFd| fd.as_raw_fd().to_string();
    // Open until the file system stands.
    let lowers = layers.iter().rev().map(|layer| open(layer)).collect::<Result<Vec<_>, _>>()?;
    let mut options = b"lowerdir=".to_vec();
    options.extend(lowers.iter().map(by_number).collect::<Vec<_>>().join(":").into_bytes());
    for (key, name) in [(",upperdir=", "upper"), (",workdir=", "work")] {
        options.extend(key.as_bytes());
        // These are shown in the mount table, where whoever looks for them must find them.
        for byte in dir.join(name).as_os_str().as_bytes() {
            if b"\\,:".contains(byte) {
                options.push(b'\\');
            }
            options.push(*byte);
        }
    }
    if options.len() >= PAGE {
        // The kernel would cut them.
        return Err(Errno::NAMETOOLONG);
    }
    let options = CString::new(options).map_err(|_| Errno::INVAL)?;
    let target = open(target)?;
    let mount = || mount("overlay", by_number(&target), "overlay", MountFlags::empty(), Some(options.as_c_str()));
    sys::working_directory::within(Path::new("/proc/self/fd"), mount)?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kernels before 6.5 need it, on any kernel; needs root.
    #[test]
    fn five_hundred_layers_fit_into_the_options_of_one_mount() {
        let home = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = home.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let layers: Vec<PathBuf> = (0..MOST_LAYERS)
            .map(|number| {
                let layer = make(&format!("a layer, with: an odd\\name {number}"));
                fs::write(layer.join("last"), number.to_string()).unwrap();
                fs::write(layer.join(number.to_string()), "").unwrap();
                layer
            })
            .collect();
        let before = std::env::current_dir().unwrap();
        let dir = make("rootfs, here");
        for name in ["upper", "work", ROOTFS] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        overlay_of_list(&layers, &dir, &dir.join(ROOTFS)).unwrap();
        assert_eq!(std::env::current_dir().unwrap(), before, "other threads stay where they were");
        let seen = fs::read_to_string(dir.join(ROOTFS).join("last")).unwrap();
        let names = fs::read_dir(dir.join(ROOTFS)).unwrap().count();
        remove_rootfs(&dir).unwrap();
        assert_eq!((seen.as_str(), names), ("499", 501));

        let long = make(&"d".repeat(250));
        let deep = (0..8).fold(long, |path, _| path.join("d".repeat(250)));
        assert_eq!(overlay_of_list(&layers, &deep, home.path()).unwrap_err(), Errno::NAMETOOLONG);
    }
}
