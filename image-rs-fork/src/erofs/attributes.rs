//! What a directory carries that a layer above may inherit.

use protocols::digest::Sha256Digest;

use super::format::Attributes;
use super::tree::DEFAULT;
use crate::tar::XattrList;

/// Owner, permissions, time and extended attributes of a directory.
#[derive(Debug, Clone)]
pub struct DirAttributes {
    /// Permission, set-id and sticky bits: within 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds to add to it.
    pub mtime_nsec: u32,
    /// Extended attributes, none of them overlayfs's own.
    pub xattrs: XattrList,
}

impl Default for DirAttributes {
    /// What a directory has that no layer describes: 0755, root's, 1970.
    fn default() -> Self {
        Self::new(DEFAULT, XattrList::new())
    }
}

impl PartialEq for DirAttributes {
    fn eq(&self, other: &Self) -> bool {
        self.plain() == other.plain() && self.xattrs.as_xattrs() == other.xattrs.as_xattrs()
    }
}

impl Eq for DirAttributes {}

impl DirAttributes {
    pub(super) fn new(attributes: Attributes, xattrs: XattrList) -> Self {
        let Attributes { mode, uid, gid, mtime, nsec } = attributes;
        Self { mode: u32::from(mode), uid, gid, mtime, mtime_nsec: nsec, xattrs }
    }

    pub(super) fn plain(&self) -> Attributes {
        attributes(self.mode, self.uid, self.gid, self.mtime, self.mtime_nsec)
    }
}

/// Attributes as an inode holds them.
pub(super) fn attributes(mode: u32, uid: u32, gid: u32, mtime: i64, nsec: u32) -> Attributes {
    Attributes { mode: u16::try_from(mode & 0o7777).unwrap_or(0), uid, gid, mtime, nsec: nsec.min(999_999_999) }
}

/// Digest of what a layer inherited: with the layout's version and the diffID it names one stored image.
///
/// SHA-256 over, for each implied directory in ascending order of its path's bytes: path, mode, uid, gid, mtime,
/// nanoseconds and number of extended attributes, then name and value of each; byte strings have their length as
/// 4 bytes before them, numbers are little-endian (mode, ids, nanoseconds and counts 4 bytes, mtime 8).
#[must_use]
pub fn inherited_digest<'a>(directories: impl IntoIterator<Item = (&'a [u8], &'a DirAttributes)>) -> Sha256Digest {
    let mut bytes = Vec::new();
    let number = |bytes: &mut Vec<u8>, value: usize| {
        bytes.extend_from_slice(&u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes());
    };
    for (path, attributes) in directories {
        number(&mut bytes, path.len());
        bytes.extend_from_slice(path);
        for value in [attributes.mode, attributes.uid, attributes.gid] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&attributes.mtime.to_le_bytes());
        bytes.extend_from_slice(&attributes.mtime_nsec.to_le_bytes());
        let xattrs = attributes.xattrs.as_xattrs();
        number(&mut bytes, xattrs.len());
        for (name, value) in xattrs.iter() {
            number(&mut bytes, name.len());
            bytes.extend_from_slice(name);
            number(&mut bytes, value.len());
            bytes.extend_from_slice(value);
        }
    }
    Sha256Digest::of(&bytes)
}
