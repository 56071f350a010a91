//! Loop devices: a file as a read-only block device that vanishes with its last user.
//!
//! Structures and request numbers are those of `include/uapi/linux/loop.h`.
#![allow(unsafe_code)] // ioctls

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fd::{AsFd, AsRawFd as _, BorrowedFd};
use rustix::io::Errno;
use rustix::ioctl::{Getter, Ioctl, IoctlOutput, Opcode, Setter, ioctl};

use crate::error::DeviceError;
use crate::node::{BlockDevice, Node};

/// Logical block size, in bytes: EROFS and dm-verity work in such blocks, and every page size holds one.
pub const BLOCK_SIZE: u32 = 4096;

/// How often a free device is asked for; between the question and the claim others may take it.
const ATTEMPTS: u32 = 64;
/// The longest pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

const MISC_MAJOR: u32 = 10; // include/uapi/linux/major.h
const LOOP_CTRL_MINOR: u32 = 237; // include/linux/miscdevice.h
const LOOP_MAJOR: u32 = 7; // include/uapi/linux/major.h

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}
const _: () = assert!(size_of::<LoopInfo64>() == 232);

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}
const _: () = assert!(size_of::<LoopConfig>() == 304);

/// `LOOP_CTL_GET_FREE`: no argument, the answer is the ioctl's own value.
struct GetFree;

// SAFETY: the request takes no argument and gives a number, which is all that `output_from_ptr` looks at.
unsafe impl Ioctl for GetFree {
    type Output = u32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut std::ffi::c_void) -> rustix::io::Result<u32> {
        u32::try_from(out).map_err(|_| Errno::RANGE)
    }
}

/// A read-only block device over a file. The kernel takes it away when this value and every mount and
/// mapping over it are gone, whatever happens to the process.
#[derive(Debug)]
pub struct LoopDevice {
    node: Node,
    number: u32,
    device: BlockDevice,
}

/// What the kernel says of a loop device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoopStatus {
    /// Writes are refused.
    pub read_only: bool,
    /// It goes with its last user.
    pub autoclear: bool,
    /// Device number of the filesystem that holds the file behind it.
    pub backing_device: u64,
    /// Inode number of the file behind it.
    pub backing_inode: u64,
}

impl LoopDevice {
    /// Makes a read-only device over the whole of `file`. The device keeps the file open. Needs root.
    ///
    /// # Errors
    /// [`DeviceError::Absent`] without a loop driver, [`DeviceError::Contended`] when others always come
    /// first, otherwise what the kernel said.
    pub fn attach(file: impl AsFd) -> Result<Self, DeviceError> {
        let file = file.as_fd();
        let control = Node::control(Path::new("/dev/loop-control"), MISC_MAJOR, LOOP_CTRL_MINOR).map_err(absent)?;
        for attempt in 0..ATTEMPTS {
            // SAFETY: `GetFree` describes this request, see there.
            let number = unsafe { ioctl(&control.fd, GetFree) }.map_err(DeviceError::request("LOOP_CTL_GET_FREE"))?;
            if let Some(device) = Self::claim(number, file)? {
                return Ok(device);
            }
            std::thread::sleep(PAUSE.min(Duration::from_millis(attempt.into())));
        }
        Err(DeviceError::Contended { driver: "loop device", attempts: ATTEMPTS })
    }

    /// Puts `file` behind device `number`; `None` when somebody else was faster.
    fn claim(number: u32, file: BorrowedFd<'_>) -> Result<Option<Self>, DeviceError> {
        // Minor and number differ where the driver was told to leave room for partitions.
        let device =
            BlockDevice::of_sysfs(&format!("loop{number}")).unwrap_or(BlockDevice { major: LOOP_MAJOR, minor: number });
        let node = match Node::block(Path::new(&format!("/dev/loop{number}")), device) {
            Ok(node) => node,
            // Somebody removed the device that was free a moment ago.
            Err(DeviceError::Node { errno: Errno::NXIO | Errno::NODEV, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let config = LoopConfig {
            fd: u32::try_from(file.as_raw_fd()).map_err(|_| DeviceError::request("LOOP_CONFIGURE")(Errno::BADF))?,
            block_size: BLOCK_SIZE,
            info: LoopInfo64 {
                device: 0,
                inode: 0,
                rdevice: 0,
                offset: 0,
                size_limit: 0,
                number: 0,
                encrypt_type: 0,
                encrypt_key_size: 0,
                flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
                file_name: [0; 64],
                crypt_name: [0; 64],
                encrypt_key: [0; 32],
                init: [0; 2],
            },
            reserved: [0; 8],
        };
        // SAFETY: the request reads one `struct loop_config`, whose layout `LoopConfig` has.
        match unsafe { ioctl(&node.fd, Setter::<LOOP_CONFIGURE, LoopConfig>::new(config)) } {
            Ok(()) => Ok(Some(Self { node, number, device })),
            Err(Errno::BUSY) => Ok(None),
            Err(errno) => Err(DeviceError::Request { request: "LOOP_CONFIGURE", errno }),
        }
    }

    /// Path of the device's node, to mount it by; valid while this value lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.node.path
    }

    /// The open device.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.node.fd.as_fd()
    }

    /// The N of `loopN`.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The device's numbers, as a device-mapper table names it.
    #[must_use]
    pub const fn device(&self) -> BlockDevice {
        self.device
    }

    /// What the kernel says of it.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn status(&self) -> Result<LoopStatus, DeviceError> {
        // SAFETY: the request fills one `struct loop_info64`, whose layout `LoopInfo64` has.
        let info = unsafe { ioctl(&self.node.fd, Getter::<LOOP_GET_STATUS64, LoopInfo64>::new()) }
            .map_err(DeviceError::request("LOOP_GET_STATUS64"))?;
        Ok(LoopStatus {
            read_only: info.flags & LO_FLAGS_READ_ONLY != 0,
            autoclear: info.flags & LO_FLAGS_AUTOCLEAR != 0,
            backing_device: info.device,
            backing_inode: info.inode,
        })
    }
}

/// Loop devices that have a file behind them, by number, with the path the kernel shows for that file.
///
/// # Errors
/// When `/sys/block` cannot be read.
pub fn attached() -> std::io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/block")?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop")).and_then(|number| number.parse().ok());
        // The file is there only while something is attached.
        if let (Some(number), Ok(path)) = (number, std::fs::read_to_string(entry.path().join("loop/backing_file"))) {
            found.push((number, PathBuf::from(path.trim_end_matches('\n'))));
        }
    }
    Ok(found)
}

fn absent(error: DeviceError) -> DeviceError {
    match error {
        DeviceError::Node { errno: Errno::NXIO | Errno::NODEV | Errno::NOENT, .. } => {
            DeviceError::Absent("loop devices")
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use rustix::fs::{MemfdFlags, SealFlags};

    use super::*;

    fn file(name: &str, blocks: usize) -> File {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        let mut file = File::from(fd);
        for block in 0..blocks {
            file.write_all(&[u8::try_from(block % 251).unwrap(); 4096]).unwrap();
        }
        file
    }

    fn is_attached(name: &str) -> bool {
        attached().unwrap().iter().any(|(_, path)| path.to_string_lossy().contains(name))
    }

    #[test]
    fn shows_the_file_and_vanishes_with_its_last_user() {
        let file = file("loop-test-vanishes", 5);
        let device = LoopDevice::attach(&file).unwrap();
        let status = device.status().unwrap();
        assert!(status.read_only && status.autoclear);
        assert_eq!(status.backing_inode, file.metadata().unwrap().ino());
        let reader = File::open(device.path()).unwrap();
        let mut block = [0; 4096];
        reader.read_exact_at(&mut block, 3 * 4096).unwrap();
        assert_eq!(block, [3; 4096]);
        assert_eq!(reader.read_at(&mut block, 5 * 4096).unwrap(), 0, "the device ends where the file does");

        assert_eq!(BlockDevice::of(device.fd()).unwrap(), device.device());
        drop(device);
        assert!(is_attached("loop-test-vanishes"), "the reader still uses it");
        drop(reader);
        assert!(!is_attached("loop-test-vanishes"), "nobody uses it any more");
    }

    #[test]
    fn refuses_writers() {
        let device = LoopDevice::attach(file("loop-test", 1)).unwrap();
        let error =
            File::options().write(true).open(device.path()).and_then(|file| file.write_at(&[1; 4096], 0).map(drop));
        assert!(error.is_err(), "a read-only device took a write");
    }

    #[test]
    fn takes_a_sealed_memory_file() {
        let file = file("loop-test", 2);
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
        rustix::fs::fcntl_add_seals(&file, seals).unwrap();
        let device = LoopDevice::attach(&file).unwrap();
        let mut block = [0; 4096];
        rustix::io::pread(device.fd(), &mut block, 4096).unwrap();
        assert_eq!(block, [1; 4096]);
    }

    #[test]
    fn many_at_once_get_one_each() {
        let threads: Vec<_> =
            (0..8).map(|_| std::thread::spawn(|| LoopDevice::attach(file("loop-test", 1)).unwrap())).collect();
        let devices: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let mut numbers: Vec<_> = devices.iter().map(LoopDevice::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 8);
    }

    #[test]
    fn a_pipe_is_not_a_file() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(matches!(LoopDevice::attach(&reader), Err(DeviceError::Request { request: "LOOP_CONFIGURE", .. })));
    }
}
