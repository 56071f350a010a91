//! EROFS on disk: what is encoded and decoded. All numbers are little-endian.
//! Source: Linux `fs/erofs/erofs_fs.h`.

use crate::verity::{BLOCK, Block};

/// Where the superblock starts in block 0.
pub(super) const SUPERBLOCK: usize = 1024;
/// Where the root's inode stands: directly after the superblock.
pub(super) const ROOT: usize = 1152;
/// The root's inode by number.
pub(super) const ROOT_NID: u32 = 36;
/// Inodes start at multiples of this; a nid counts them from the image's start.
pub(super) const SLOT: usize = 32;
/// Slots in a block.
pub(super) const SLOTS_PER_BLOCK: u32 = 128;
/// Bytes of an extended inode.
pub(super) const INODE: usize = 64;
/// Bytes of a directory entry without its name.
pub(super) const DIRENT: usize = 12;
/// Bytes before the first extended attribute of an inode.
pub(super) const XATTR_HEADER: usize = 12;
/// Bytes of an extended attribute without name and value.
pub(super) const XATTR_ENTRY: usize = 4;
/// What stands for "no block".
pub(super) const NO_BLOCK: u32 = u32::MAX;

const MAGIC: u32 = 0xe0f5_e1e2;
/// The superblock has a checksum; inodes have modification times.
const FEATURES: u32 = 3;

/// Writes `bytes` at offset `at`. Every caller's offsets lie within its buffer.
pub(super) fn put(buffer: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = buffer.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

/// The `N` bytes at offset `at`.
pub(super) fn take<const N: usize>(buffer: &[u8], at: usize) -> Option<[u8; N]> {
    buffer.get(at..)?.first_chunk().copied()
}

/// What the superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) inodes: u64,
    pub(super) blocks: u32,
    pub(super) uuid: [u8; 16],
}

impl Superblock {
    /// Writes it, with its checksum, into block 0, whose root inode is in place already.
    pub(super) fn write(&self, block: &mut Block, label: &[u8; 16]) {
        put(block, SUPERBLOCK, &MAGIC.to_le_bytes());
        put(block, SUPERBLOCK + 8, &FEATURES.to_le_bytes());
        put(block, SUPERBLOCK + 12, &[12]);
        put(block, SUPERBLOCK + 14, &ROOT_NID.to_le_bytes()[..2]);
        put(block, SUPERBLOCK + 16, &self.inodes.to_le_bytes());
        put(block, SUPERBLOCK + 36, &self.blocks.to_le_bytes());
        put(block, SUPERBLOCK + 48, &self.uuid);
        put(block, SUPERBLOCK + 64, label);
        let checksum = crc32c(block.get(SUPERBLOCK..).unwrap_or_default());
        put(block, SUPERBLOCK + 4, &checksum.to_le_bytes());
    }

    /// Reads one that [`Self::write`] could have made; `None` for any other.
    pub(super) fn read(block: &Block) -> Option<Self> {
        let mut unsigned = *block;
        put(&mut unsigned, SUPERBLOCK + 4, &[0; 4]);
        let field = |at| take(block, SUPERBLOCK + at).map(u32::from_le_bytes);
        let valid = field(0)? == MAGIC
            && field(4)? == crc32c(unsigned.get(SUPERBLOCK..)?)
            && field(8)? == FEATURES
            && take(block, SUPERBLOCK + 12)? == [12, 0, 36, 0]
            && field(40)? == 0
            && field(80)? == 0;
        valid.then_some(Self {
            inodes: u64::from_le_bytes(take(block, SUPERBLOCK + 16)?),
            blocks: field(36)?,
            uuid: take(block, SUPERBLOCK + 48)?,
        })
    }
}

/// CRC-32C as EROFS uses it: from all ones, without the final inversion.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Dir,
    Symlink,
    Char,
    Block,
    Fifo,
    /// A character device 0:0, all of one layer sharing one inode.
    Whiteout,
}

impl Kind {
    /// The file type in `st_mode`.
    pub(super) const fn mode(self) -> u16 {
        match self {
            Self::File => 0o100_000,
            Self::Dir => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Char | Self::Whiteout => 0o020_000,
            Self::Block => 0o060_000,
            Self::Fifo => 0o010_000,
        }
    }

    /// The file type in a directory entry.
    pub(super) const fn file_type(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Dir => 2,
            Self::Char | Self::Whiteout => 3,
            Self::Block => 4,
            Self::Fifo => 5,
            Self::Symlink => 7,
        }
    }
}

/// Owner, permissions and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    /// Within 0o7777.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: i64,
    pub(super) nsec: u32,
}

/// An extended inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    /// The data's end stands behind the inode and its extended attributes.
    pub(super) inline: bool,
    /// File type and permissions.
    pub(super) mode: u16,
    /// Bytes of the extended attributes, header included; 0 without any.
    pub(super) xattr_bytes: usize,
    pub(super) size: u64,
    /// First block, device number, or [`NO_BLOCK`].
    pub(super) start: u32,
    pub(super) number: u32,
    pub(super) attributes: Attributes,
    pub(super) links: u32,
}

impl Inode {
    pub(super) fn encode(&self) -> [u8; INODE] {
        let mut bytes = [0; INODE];
        let count = self.xattr_bytes.checked_sub(XATTR_HEADER).map_or(0, |rest| rest / 4 + 1);
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        put(&mut bytes, 0, &[if self.inline { 5 } else { 1 }]);
        put(&mut bytes, 2, &count.to_le_bytes());
        put(&mut bytes, 4, &self.mode.to_le_bytes());
        put(&mut bytes, 8, &self.size.to_le_bytes());
        put(&mut bytes, 16, &self.start.to_le_bytes());
        put(&mut bytes, 20, &self.number.to_le_bytes());
        put(&mut bytes, 24, &self.attributes.uid.to_le_bytes());
        put(&mut bytes, 28, &self.attributes.gid.to_le_bytes());
        put(&mut bytes, 32, &self.attributes.mtime.to_le_bytes());
        put(&mut bytes, 40, &self.attributes.nsec.to_le_bytes());
        put(&mut bytes, 44, &self.links.to_le_bytes());
        bytes
    }

    /// `None` for an inode that [`Self::encode`] cannot have made.
    pub(super) fn decode(bytes: &[u8; INODE]) -> Option<Self> {
        let field = |at| take(bytes, at).map(u32::from_le_bytes);
        let count = usize::from(u16::from_le_bytes(take(bytes, 2)?));
        let mode = u16::from_le_bytes(take(bytes, 4)?);
        Some(Self {
            inline: match take(bytes, 0)? {
                [1, 0] => false,
                [5, 0] => true,
                _ => return None,
            },
            mode,
            xattr_bytes: count.checked_sub(1).map_or(0, |entries| XATTR_HEADER + entries * 4),
            size: u64::from_le_bytes(take(bytes, 8)?),
            start: field(16)?,
            number: field(20)?,
            attributes: Attributes {
                mode: mode & 0o7777,
                uid: field(24)?,
                gid: field(28)?,
                mtime: i64::from_le_bytes(take(bytes, 32)?),
                nsec: field(40)?,
            },
            links: field(44)?,
        })
    }
}

/// A device's number as an inode holds it.
pub(super) const fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// One entry of a directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dirent<'a> {
    pub(super) nid: u32,
    pub(super) file_type: u8,
    pub(super) name: &'a [u8],
}

/// Fills a directory block with entries that are known to fit; gives the bytes used.
pub(super) fn write_dirents<'a>(block: &mut Block, entries: impl ExactSizeIterator<Item = Dirent<'a>>) -> usize {
    block.fill(0);
    let mut name_at = entries.len() * DIRENT;
    for (index, entry) in entries.enumerate() {
        let at = index * DIRENT;
        put(block, at, &u64::from(entry.nid).to_le_bytes());
        put(block, at + 8, &u16::try_from(name_at).unwrap_or(u16::MAX).to_le_bytes());
        put(block, at + 10, &[entry.file_type]);
        put(block, name_at, entry.name);
        name_at += entry.name.len();
    }
    name_at
}

/// The number of entries in a directory block of `used` bytes, if its first entry is sound.
pub(super) fn dirent_count(block: &Block, used: usize) -> Option<usize> {
    let first = usize::from(u16::from_le_bytes(take(block, 8)?));
    (first >= DIRENT && first % DIRENT == 0 && first <= used).then_some(first / DIRENT)
}

/// Entry `index` of the `count` in a directory block of `used` bytes.
pub(super) fn read_dirent(block: &Block, used: usize, count: usize, index: usize) -> Option<Dirent<'_>> {
    let offset = |index: usize| take(block, index * DIRENT + 8).map(|at| usize::from(u16::from_le_bytes(at)));
    let end = if index + 1 < count { offset(index + 1)? } else { used };
    let mut name = block.get(..used)?.get(offset(index)?..end)?;
    if index + 1 == count {
        name = name.split(|byte| *byte == 0).next()?;
    }
    let nid = u64::from_le_bytes(take(block, index * DIRENT)?);
    let [file_type] = take(block, index * DIRENT + 10)?;
    Some(Dirent { nid: u32::try_from(nid).ok()?, file_type, name })
}

/// Splits `bytes` into whole blocks and the rest.
pub(super) const fn blocks_and_tail(bytes: u64) -> (u64, usize) {
    #[allow(clippy::cast_possible_truncation, reason = "less than a block")]
    let tail = (bytes % BLOCK as u64) as usize;
    (bytes / BLOCK as u64, tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_is_the_standard_one_but_for_its_final_inversion() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(!crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn an_inode_reads_as_it_was_written() {
        let inode = Inode {
            inline: true,
            mode: 0o104_755,
            xattr_bytes: 12 + 8,
            size: 1 << 33,
            start: 77,
            number: 5,
            attributes: Attributes { mode: 0o4755, uid: 3_000_000, gid: 1, mtime: -5, nsec: 999_999_999 },
            links: 3,
        };
        assert_eq!(Inode::decode(&inode.encode()), Some(inode));
        let plain = Inode { inline: false, xattr_bytes: 0, ..inode };
        assert_eq!(Inode::decode(&plain.encode()), Some(plain));
    }

    #[test]
    fn a_superblock_with_any_flipped_bit_is_not_read() {
        let mut block = [0; BLOCK];
        block[ROOT] = 9;
        let written = Superblock { inodes: 5, blocks: 7, uuid: [3; 16] };
        written.write(&mut block, b"erofs-v1\0\0\0\0\0\0\0\0");
        assert_eq!(Superblock::read(&block), Some(written));
        for bit in SUPERBLOCK * 8..BLOCK * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Superblock::read(&block), None, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
