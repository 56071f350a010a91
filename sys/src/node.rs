//! Device nodes: those of devtmpfs, or our own where it did not make one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::DeviceError;

/// Where nodes of our own are made: seen by root alone, on the filesystem that may hold devices.
const PRIVATE: &str = "/dev/tcl";

/// A block device by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockDevice {
    /// Major number: the driver.
    pub major: u32,
    /// Minor number: the device.
    pub minor: u32,
}

impl BlockDevice {
    /// The block device that `fd` has open.
    ///
    /// # Errors
    /// [`DeviceError::NotABlockDevice`] when it is something else.
    pub fn of(fd: impl AsFd) -> Result<Self, DeviceError> {
        let stat = rustix::fs::fstat(fd).map_err(DeviceError::request("fstat"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
            return Err(DeviceError::NotABlockDevice);
        }
        Ok(Self { major: rustix::fs::major(stat.st_rdev), minor: rustix::fs::minor(stat.st_rdev) })
    }

    /// The device that sysfs has as `/sys/block/NAME`.
    pub(crate) fn of_sysfs(name: &str) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/sys/block/{name}/dev")).ok()?;
        let (major, minor) = text.trim_end().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// Its size in sectors of 512 bytes, as sysfs tells it.
    ///
    /// # Errors
    /// [`DeviceError::Answer`] where sysfs has no such device.
    pub fn sectors(self) -> Result<u64, DeviceError> {
        let text = std::fs::read_to_string(format!("/sys/dev/block/{self}/size")).ok();
        text.and_then(|text| text.trim_end().parse().ok()).ok_or(DeviceError::Answer("/sys/dev/block/size"))
    }

    fn number(self) -> u64 {
        rustix::fs::makedev(self.major, self.minor)
    }
}

impl std::fmt::Display for BlockDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// An open device and the path it was opened by; a node of our own goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
    ours: bool,
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.ours {
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

impl Node {
    /// Opens a block device by `usual`, if that node is this very device, else by a node of our own.
    pub(crate) fn block(usual: &Path, device: BlockDevice) -> Result<Self, DeviceError> {
        Self::open(usual, FileType::BlockDevice, device.number(), OFlags::RDONLY)
    }

    /// The same, opened for reading and writing.
    pub(crate) fn writable_block(usual: &Path, device: BlockDevice) -> Result<Self, DeviceError> {
        Self::open(usual, FileType::BlockDevice, device.number(), OFlags::RDWR)
    }

    /// The same for a character device, opened for reading and writing.
    pub(crate) fn control(usual: &Path, major: u32, minor: u32) -> Result<Self, DeviceError> {
        Self::open(usual, FileType::CharacterDevice, rustix::fs::makedev(major, minor), OFlags::RDWR)
    }

    fn open(usual: &Path, kind: FileType, number: u64, flags: OFlags) -> Result<Self, DeviceError> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        // A stale or planted node is passed over: what counts is the device it opens.
        if let Ok(fd) = rustix::fs::open(usual, flags, Mode::empty())
            && is_device(&fd, kind, number)
        {
            return Ok(Self { fd, path: usual.to_path_buf(), ours: false });
        }
        let path = make(kind, number)?;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        match opened {
            Ok(fd) if is_device(&fd, kind, number) => Ok(Self { fd, path, ours: true }),
            other => {
                let _ = rustix::fs::unlink(&path);
                Err(DeviceError::Node { path, errno: other.err().unwrap_or(Errno::NODEV) })
            }
        }
    }
}

fn is_device(fd: &OwnedFd, kind: FileType, number: u64) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind && stat.st_rdev == number)
}

/// Makes a node with a name nobody else of ours has.
fn make(kind: FileType, number: u64) -> Result<PathBuf, DeviceError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    match rustix::fs::mkdir(PRIVATE, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(DeviceError::Node { path: PRIVATE.into(), errno }),
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = Path::new(PRIVATE).join(format!("{}-{count}", std::process::id()));
    let make = || rustix::fs::mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, number);
    let made = match make() {
        // Left by an earlier process with our id.
        Err(Errno::EXIST) => rustix::fs::unlink(&path).and_then(|()| make()),
        made => made,
    };
    made.map_err(|errno| DeviceError::Node { path: path.clone(), errno })?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_node_is_made_privately_and_goes_with_its_user() {
        let node = Node::control(Path::new("/dev/no-such-node"), 1, 3).unwrap(); // 1:3 is the null device
        assert!(node.path.starts_with(PRIVATE));
        rustix::io::write(&node.fd, b"gone").unwrap();
        let path = node.path.clone();
        drop(node);
        assert!(!path.exists());
    }

    #[test]
    fn a_node_of_another_device_is_passed_over() {
        let node = Node::control(Path::new("/dev/zero"), 1, 3).unwrap();
        assert!(node.path.starts_with(PRIVATE), "/dev/zero is 1:5, not the 1:3 that was asked for");
    }

    #[test]
    fn only_block_devices_are_block_devices() {
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(BlockDevice::of(null), Err(DeviceError::NotABlockDevice)));
    }
}
