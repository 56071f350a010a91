//! Writable devices on storage that somebody else can read and alter: every block is encrypted and authenticated under
//! one key, at its place. `Documentation/admin-guide/device-mapper/{dm-crypt,dm-integrity}.rst`.
//!
//! A `crypt` target lies over an `integrity` target, which only finds room for the tags. A block that was altered,
//! moved or never written under this key is a read error. An earlier state of the same block is not told from the
//! present one.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fd::{AsFd as _, BorrowedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::DeviceMapper;
use super::mapped::{Mapped, remove};
use super::request::SECURE_DATA;
use crate::error::DeviceError;
use crate::node::{BlockDevice, Node};

/// AES-256-XTS and HMAC-SHA-256, a random initialisation vector in each block's tag.
const CIPHER: &str = "capi:authenc(hmac(sha256),xts(aes))-random";
/// Two keys of AES-256 and one of HMAC-SHA-256, in bytes.
const KEY: usize = 64 + 32;
/// Bytes of a block's tag: the HMAC and the vector.
const TAG: usize = 32 + 16;
/// Bytes of a block, encrypted and authenticated as a whole; a file system on it must not write less.
const BLOCK: usize = 4096;
/// The same in sectors of 512 bytes.
const BLOCK_SECTORS: u64 = 8;
/// More bytes than a table with a key has.
const MAX_TABLE: usize = 512;
/// Bytes at the start that are written before anybody reads them: file systems look for each other there.
const CLEARED: u64 = 1024 * 1024;

/// A key of one sealed device. It is overwritten when dropped; the kernel has its own copy while the device lives.
pub struct SealKey(Zeroizing<[u8; KEY]>);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey")
    }
}

impl SealKey {
    /// A key of the kernel's random numbers, known to nobody.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn random() -> Result<Self, DeviceError> {
        let mut key = Zeroizing::new([0; KEY]);
        let errno = |error: getrandom::Error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
        getrandom::fill(key.as_mut_slice()).map_err(|error| DeviceError::request("getrandom")(errno(error)))?;
        Ok(Self(key))
    }

    fn hex(&self) -> Zeroizing<String> {
        self.0.iter().fold(Zeroizing::new(String::with_capacity(2 * KEY)), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// A device that keeps what is written to it secret and unaltered. When this value is dropped, the kernel removes the
/// device, and forgets its key, as soon as nobody has it open or mounted.
#[derive(Debug)]
pub struct SealedDevice {
    // Dropped in this order: our own descriptor, what lies above, what lies below.
    node: Node,
    sealed: Mapped,
    _tags: Mapped,
    bytes: u64,
}

impl DeviceMapper {
    /// Takes the device at `path` and everything on it for a new sealed device called `name`. Its first 1 MiB are
    /// zeros, the rest cannot be read before it is written.
    ///
    /// # Errors
    /// [`DeviceError::Node`] with `EBUSY` where somebody uses the device, [`DeviceError::Table`] where it is too
    /// small, [`DeviceError::Request`] with `EBUSY` where the name is taken, otherwise what the kernel said. No device is
    /// left behind.
    pub fn seal(&self, path: &Path, name: &str, key: &SealKey) -> Result<SealedDevice, DeviceError> {
        let below = clear(path)?;
        let tags_name = tags_name(name);
        let table = format!("{below} 0 {TAG} D 2 block_size:{BLOCK} journal_sectors:8");
        // A first block tells how many the target finds room for; under a name of its own, should its removal be late.
        let sectors = {
            let first = Mapped::create(&self.control, &format_name(name), "", 0)?;
            first.start(BLOCK_SECTORS, "integrity", &table, 0)?;
            provided(&first.status()?)?
        };
        let sectors = sectors - sectors % BLOCK_SECTORS;
        let bytes = sectors.saturating_mul(512);
        if bytes < 2 * CLEARED {
            return Err(DeviceError::Table("the device is too small"));
        }
        let tags = Mapped::create(&self.control, &tags_name, "", 0)?;
        tags.start(sectors, "integrity", &table, 0)?;
        let sealed = Mapped::create(&self.control, name, "", 0)?;
        let options = format!("{} 0 2 integrity:{TAG}:aead sector_size:{BLOCK}", tags.device());
        // Of a size that it does not grow out of: a copy would not be overwritten.
        let mut table = Zeroizing::new(String::with_capacity(MAX_TABLE));
        let _ = write!(table, "{CIPHER} {} 0 {options}", key.hex().as_str());
        sealed.start(sectors, "crypt", &table, SECURE_DATA)?;
        let device = sealed.device();
        let node = Node::writable_block(Path::new(&format!("/dev/dm-{}", device.minor)), device)?;
        // Whoever reads ahead would meet blocks that were never written.
        let device = SealedDevice { node, sealed, _tags: tags, bytes };
        device.read_ahead(0)?;
        zero(&device.node, CLEARED)?;
        Ok(device)
    }

    /// Asks for the removal of an earlier sealed device of that name, when its last user is gone; whether it is gone.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn unseal(&self, name: &str) -> Result<bool, DeviceError> {
        let mut gone = true;
        for name in [name.to_owned(), tags_name(name), format_name(name)] {
            match remove(&self.control, &name) {
                // Deferred, or done: only the next question tells.
                Ok(()) | Err(DeviceError::Request { errno: Errno::BUSY, .. }) => gone = false,
                Err(DeviceError::Request { errno: Errno::NXIO, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }
}

impl SealedDevice {
    /// Path of the device's node; valid while this value lives.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.node.path
    }

    /// The open device.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.node.fd.as_fd()
    }

    /// The device's numbers.
    #[must_use]
    pub const fn device(&self) -> BlockDevice {
        self.sealed.device()
    }

    /// Its size, in bytes: that of the device below less the tags.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets how far readers read ahead, in KiB; nothing at first. Only what was written can be read ahead.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn read_ahead(&self, kib: u32) -> Result<(), DeviceError> {
        let path = format!("/sys/dev/block/{}/queue/read_ahead_kb", self.device());
        std::fs::write(path, kib.to_string()).map_err(io("read_ahead_kb"))
    }
}

/// Makes the driver take the device for a new one: no superblock at its start.
fn clear(path: &Path) -> Result<BlockDevice, DeviceError> {
    // EXCL: nobody has it mounted or mapped.
    let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let node = |errno| DeviceError::Node { path: path.to_owned(), errno };
    let device = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(node)?);
    let number = BlockDevice::of(&device)?;
    device.write_all_at(&[0; BLOCK], 0).and_then(|()| device.sync_all()).map_err(io("clear the device"))?;
    Ok(number)
}

fn zero(node: &Node, bytes: u64) -> Result<(), DeviceError> {
    let file = node.fd.try_clone().map(File::from).map_err(io("dup"))?;
    let block = [0; BLOCK];
    let mut at = 0;
    while at < bytes {
        file.write_all_at(&block, at).map_err(io("write the sealed device"))?;
        at += BLOCK as u64;
    }
    file.sync_all().map_err(io("write the sealed device"))
}

fn tags_name(name: &str) -> String {
    format!("{name}-tags")
}

fn format_name(name: &str) -> String {
    format!("{name}-format")
}

/// The sectors that an integrity target has beside its tags: the second number of its status.
fn provided(status: &str) -> Result<u64, DeviceError> {
    status.split(' ').nth(1).and_then(|number| number.parse().ok()).ok_or(DeviceError::Answer("DM_TABLE_STATUS"))
}

fn io(request: &'static str) -> impl Fn(std::io::Error) -> DeviceError {
    move |error| DeviceError::Request { request, errno: Errno::from_io_error(&error).unwrap_or(Errno::IO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_differ_and_none_is_shown() {
        let (one, other) = (SealKey::random().unwrap(), SealKey::random().unwrap());
        assert_eq!(one.hex().len(), 192);
        assert_ne!(*one.hex(), *other.hex());
        assert!(one.0.chunks(16).all(|part| part.iter().any(|byte| *byte != 0)), "filled to its end");
        assert_eq!(format!("{one:?}"), "SealKey");
    }

    #[test]
    fn the_room_an_integrity_target_found_is_its_second_number() {
        assert_eq!(provided("0 2031616 -").unwrap(), 2_031_616);
        assert!(provided("").is_err());
        assert!(provided("0 -").is_err());
    }

    #[test]
    fn what_is_no_block_device_is_not_sealed() {
        let file = std::env::temp_dir().join(format!("sealed-{}", std::process::id()));
        std::fs::write(&file, b"kept").unwrap();
        assert!(matches!(clear(&file), Err(DeviceError::NotABlockDevice)));
        assert_eq!(std::fs::read(&file).unwrap(), b"kept");
        std::fs::remove_file(&file).unwrap();
    }
}
