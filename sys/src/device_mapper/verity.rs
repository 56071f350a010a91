//! Devices with one `verity` target: `Documentation/admin-guide/device-mapper/verity.rst`.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;

use rustix::fd::{AsFd as _, BorrowedFd};
use rustix::io::Errno;

use super::mapped::Mapped;
use super::request::READ_ONLY;
use super::{DeviceMapper, PREFIX};
use crate::error::DeviceError;
use crate::node::{BlockDevice, Node};

/// Sectors of 512 bytes in a block of 4096.
const SECTORS: u64 = 8;
/// Bytes of the longest salt that veritysetup and we take.
const SALT_MAX: usize = 256;
/// How many names are tried; two of 64 random bits do not meet by chance.
const ATTEMPTS: u32 = 4;

/// What a device is to be held to: version 1, SHA-256, data and hash blocks of 4096 bytes. A block that does
/// not match is a read error, whoever reads it.
#[derive(Debug, Clone, Copy)]
pub struct VerityTable<'t> {
    /// Where the data are, from block 0.
    pub data: BlockDevice,
    /// Where the hash tree is; may be the same device.
    pub hash: BlockDevice,
    /// Blocks of data: the size of the new device.
    pub data_blocks: u64,
    /// The block of `hash` the tree begins at.
    pub hash_start: u64,
    /// The root hash.
    pub root: [u8; 32],
    /// What is hashed before each block; may be empty.
    pub salt: &'t [u8],
}

impl VerityTable<'_> {
    /// The table's one line, without start, length and the target's name.
    fn parameters(&self) -> Result<String, DeviceError> {
        if self.data_blocks == 0 {
            return Err(DeviceError::Table("no data"));
        }
        if self.salt.len() > SALT_MAX {
            return Err(DeviceError::Table("the salt is longer than 256 bytes"));
        }
        let Self { data, hash, data_blocks, hash_start, .. } = self;
        let root = hex(&self.root);
        // An empty salt is written as a dash.
        let salt = if self.salt.is_empty() { "-".to_owned() } else { hex(self.salt) };
        Ok(format!("1 {data} {hash} 4096 4096 {data_blocks} {hash_start} sha256 {root} {salt}"))
    }

    fn sectors(&self) -> Result<u64, DeviceError> {
        self.data_blocks.checked_mul(SECTORS).ok_or(DeviceError::Table("more data than a device can hold"))
    }
}

/// A device that gives verified blocks or read errors. When this value is dropped, the kernel removes the device
/// as soon as nobody has it open or mounted.
#[derive(Debug)]
pub struct VerityDevice {
    // Dropped before the removal, which our own descriptor would put off.
    node: Node,
    mapped: Mapped,
}

/// What a verity device has seen so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerityStatus {
    /// Every block that was read matched.
    Intact,
    /// A block was read that did not match.
    Corrupted,
}

impl DeviceMapper {
    /// Makes and starts a read-only device held to `table`, under a name nobody else has.
    ///
    /// # Errors
    /// [`DeviceError::Table`] for a value no table can hold, otherwise what the kernel said; a table it does not
    /// like (a device that is too small, say) is `DM_TABLE_LOAD: Invalid argument`. Nothing is left behind.
    pub fn verity(&self, table: &VerityTable<'_>) -> Result<VerityDevice, DeviceError> {
        let parameters = table.parameters()?;
        let sectors = table.sectors()?;
        let mapped = self.create(&table.root)?;
        mapped.start(sectors, "verity", &parameters, READ_ONLY)?;
        let device = mapped.device();
        let node = Node::block(Path::new(&format!("/dev/dm-{}", device.minor)), device)?;
        Ok(VerityDevice { node, mapped })
    }

    /// Makes a device without a table.
    fn create(&self, root: &[u8; 32]) -> Result<Mapped, DeviceError> {
        for _ in 0..ATTEMPTS {
            // The standard library seeds each of these from the kernel's random numbers.
            let name = format!("{PREFIX}{:016x}", RandomState::new().build_hasher().finish());
            // People see in the id what a device is held to.
            let uuid = format!("TCL-VERITY-{}-{name}", hex(root));
            match Mapped::create(&self.control, &name, &uuid, READ_ONLY) {
                Err(DeviceError::Request { errno: Errno::BUSY, .. }) => {}
                made => return made,
            }
        }
        Err(DeviceError::Contended { driver: "device-mapper name", attempts: ATTEMPTS })
    }
}

impl VerityDevice {
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

    /// The device's name in device-mapper.
    #[must_use]
    pub fn name(&self) -> &str {
        self.mapped.name()
    }

    /// The device's numbers.
    #[must_use]
    pub const fn device(&self) -> BlockDevice {
        self.mapped.device()
    }

    /// Whether a block was read that did not match.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn status(&self) -> Result<VerityStatus, DeviceError> {
        match self.mapped.status()?.split(' ').next() {
            Some("V") => Ok(VerityStatus::Intact),
            Some("C") => Ok(VerityStatus::Corrupted),
            _ => Err(DeviceError::Answer("DM_TABLE_STATUS")),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: VerityTable<'static> = VerityTable {
        data: BlockDevice { major: 7, minor: 1 },
        hash: BlockDevice { major: 7, minor: 2 },
        data_blocks: 300,
        hash_start: 5,
        root: [0xab; 32],
        salt: &[1, 2],
    };

    #[test]
    fn a_table_reads_as_the_kernel_documents_it() {
        let root = "ab".repeat(32);
        assert_eq!(TABLE.parameters().unwrap(), format!("1 7:1 7:2 4096 4096 300 5 sha256 {root} 0102"));
        let unsalted = VerityTable { salt: &[], ..TABLE };
        assert!(unsalted.parameters().unwrap().ends_with(&format!("{root} -")));
        assert_eq!(TABLE.sectors().unwrap(), 2400);
    }

    #[test]
    fn impossible_tables_are_refused() {
        assert!(VerityTable { data_blocks: 0, ..TABLE }.parameters().is_err());
        assert!(VerityTable { salt: &[0; 257], ..TABLE }.parameters().is_err());
        assert!(VerityTable { data_blocks: u64::MAX / 4, ..TABLE }.sectors().is_err());
    }
}
