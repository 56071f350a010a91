//! A disk of the host as the image store.
//!
//! The host can read and alter what lies on its disks, so every block is encrypted and authenticated at its place, under
//! a key that is made at this start and is never written anywhere. What an earlier start left on the disk is lost, and
//! meant to be. A block that was altered, moved, taken from another disk or never written is a read error. An earlier
//! state of one block is not told from the present one: layers are read through dm-verity, which tells.
//!
//! Nothing is wiped first, so a start costs the same whatever the disk's size; see `docs/image-disk.md`.

mod error;
mod find;
mod format;
mod settings;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use sys::device_mapper::{DeviceMapper, SealKey, SealedDevice};

pub use error::DiskError;
pub use settings::{ImageDiskSettings, MAX_SERIAL};

/// The smallest disk, in bytes: less holds no image worth it.
pub const MINIMUM: u64 = 64 * 1024 * 1024;
/// The file system's name, for the kernel.
const FILE_SYSTEM: &str = "ext4";
/// Where the kernel lists disks.
const DISKS: &str = "/sys/block";
/// How far files are read ahead, in KiB: the kernel's own default.
const READ_AHEAD: u32 = 128;
/// How long an earlier agent's device may take to go, once nothing is mounted from it.
const LETTING_GO: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// A mounted disk. When it is dropped it is unmounted, and its key is gone with its last user.
#[derive(Debug)]
pub struct ImageDisk {
    at: PathBuf,
    // Dropped after the mount, which would keep it.
    device: SealedDevice,
}

impl ImageDisk {
    /// Finds the disk, waiting for it so long, makes it anew under a fresh key, and mounts it at the directory `at`.
    /// What an earlier agent of this boot mounted there is let go first. Blocks. Needs root.
    ///
    /// # Errors
    /// [`DiskError`]; then nothing is mounted, and the disk may have lost what was on it.
    pub fn open(settings: &ImageDiskSettings, at: &Path, patience: Duration) -> Result<Self, DiskError> {
        let serial = &settings.serial;
        let disk = find::wait(Path::new(DISKS), serial, patience)?;
        if disk.bytes < MINIMUM {
            return Err(DiskError::TooSmall { disk: disk.node, bytes: disk.bytes });
        }
        let fail = |source| DiskError::Seal { disk: disk.node.clone(), source };
        let mapper = DeviceMapper::open_for_sealing().map_err(fail)?;
        let name = format!("trusted-images-{serial}");
        let_go(&mapper, &name, at)?;
        let device = mapper.seal(&disk.node, &name, &SealKey::random().map_err(fail)?).map_err(fail)?;
        format::ext4(&settings.mke2fs, device.path(), device.bytes())?;
        // Nothing on it is a program, a device or a set-id file for anybody: layers are images.
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
        mount(device.path(), at, FILE_SYSTEM, flags, c"errors=remount-ro")
            .map_err(|errno| DiskError::Mount { at: at.to_owned(), errno })?;
        let mounted = Self { at: at.to_owned(), device };
        mounted.device.read_ahead(READ_AHEAD).map_err(fail)?;
        let private = fs::set_permissions(at, Permissions::from_mode(0o700));
        private.map_err(|source| DiskError::Root { at: at.to_owned(), source })?;
        tracing::info!(disk = %disk.node.display(), bytes = mounted.device.bytes(), "the image disk is mounted, with a new key");
        Ok(mounted)
    }

    /// Its size, in bytes, before the file system took its part.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.device.bytes()
    }
}

impl Drop for ImageDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            tracing::warn!(at = %self.at.display(), %error, "the image disk stays mounted");
        }
    }
}

/// Ends what a killed agent left: its containers must have been ended before.
fn let_go(mapper: &DeviceMapper, name: &str, at: &Path) -> Result<(), DiskError> {
    let deadline = Instant::now() + LETTING_GO;
    let unsealed = || mapper.unseal(name).map_err(|source| DiskError::Seal { disk: PathBuf::from(name), source });
    if unsealed()? {
        return Ok(());
    }
    tracing::info!(%name, "letting go of the image disk of an earlier agent");
    match unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(DiskError::Mount { at: at.to_owned(), errno }),
    }
    while !unsealed()? {
        if Instant::now() > deadline {
            return Err(DiskError::InUse { name: name.to_owned() });
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
