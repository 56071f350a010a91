//! What a directory carries that a layer above may inherit.

use protocols::digest::Sha256Digest;
use sha2::{Digest as _, Sha256};

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

/// The digest of what the layers below have decided of a layer: with the layout's version and the diffID it names one
/// stored image.
///
/// SHA-256 over, for each implied directory in ascending order of its path's bytes: path, mode, uid, gid, mtime,
/// nanoseconds and number of extended attributes, then name and value of each; byte strings have their length as
/// 4 bytes before them, numbers are little-endian (mode, ids, nanoseconds and counts 4 bytes, mtime 8). Where whiteouts
/// were left out because no layer below has their directory: SHA-256 over that digest, and SHA-256 over the paths of
/// those directories in the archive's order.
#[derive(Debug, Clone, Default)]
pub struct Inheritance {
    directories: Sha256,
    unmatched: Option<Sha256>,
}

impl Inheritance {
    /// Of a layer without directories to ask about.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An implied directory and what it has.
    pub fn directory(&mut self, path: &[u8], attributes: &DirAttributes) {
        let hasher = &mut self.directories;
        string(hasher, path);
        for value in [attributes.mode, attributes.uid, attributes.gid] {
            hasher.update(value.to_le_bytes());
        }
        hasher.update(attributes.mtime.to_le_bytes());
        hasher.update(attributes.mtime_nsec.to_le_bytes());
        let xattrs = attributes.xattrs.as_xattrs();
        hasher.update(length(xattrs.len()));
        for (name, value) in xattrs.iter() {
            string(hasher, name);
            string(hasher, value);
        }
    }

    /// A directory with whiteouts that no layer below has.
    pub fn unmatched(&mut self, path: &[u8]) {
        string(self.unmatched.get_or_insert_default(), path);
    }

    /// The digest.
    #[must_use]
    pub fn digest(self) -> Sha256Digest {
        let directories = Sha256Digest::new(self.directories.finalize().into());
        match self.unmatched {
            None => directories,
            Some(unmatched) => Sha256Digest::of_parts(&[directories.as_bytes(), &unmatched.finalize()]),
        }
    }
}

fn length(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

fn string(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update(length(bytes.len()));
    hasher.update(bytes);
}
