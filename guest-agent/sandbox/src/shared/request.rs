//! One CopyFile request, and what can be said about it before anything is looked at.

use protocols::digest::Sha256Digest;

use crate::beneath::Relative;
use crate::error::{SandboxError, cut};

/// The mask of a mode's file type.
const FORMAT: u32 = 0o170_000;
/// setuid, setgid, sticky.
const SPECIAL: u32 = 0o7000;
/// The longest target a symbolic link can have.
const MAX_TARGET: usize = 4095;

/// A CopyFile request with the numbers as they came.
#[derive(Debug, Clone, Copy)]
pub struct CopyRequest<'a> {
    /// Absolute path in the guest.
    pub path: &'a str,
    /// Bytes of the whole file; of a regular file alone it means something.
    pub file_size: i64,
    /// File type and permission bits, as stat has them.
    pub file_mode: u32,
    /// Permission bits of directories that are made on the way.
    pub dir_mode: u32,
    /// Owner.
    pub uid: i32,
    /// Group.
    pub gid: i32,
    /// Where `data` belongs in a regular file.
    pub offset: i64,
    /// A piece of a regular file, or a symbolic link's target.
    pub data: &'a [u8],
}

/// What a copied file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A file with content.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

impl FileKind {
    /// By the type bits of a mode; without any it is a regular file, as older clients mean it.
    #[must_use]
    pub const fn of(file_mode: u32) -> Option<Self> {
        match file_mode & FORMAT {
            0 | 0o100_000 => Some(Self::Regular),
            0o040_000 => Some(Self::Directory),
            0o120_000 => Some(Self::Symlink),
            _ => None,
        }
    }
}

/// One file, whole and about to be seen: what a log says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Absolute path in the guest.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits as they will be set; a directory's special bits are left out.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of content, or of the link's target.
    pub size: u64,
    /// SHA-256 of the content, of the link's target, or of nothing for a directory.
    pub sha256: Sha256Digest,
}

/// A request whose values can be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checked<'a> {
    pub(super) relative: Relative<'a>,
    pub(super) kind: FileKind,
    pub(super) attributes: Attributes,
    pub(super) size: u64,
    pub(super) offset: u64,
    pub(super) data: &'a [u8],
}

/// Mode and owner; one file has one set of them in all its pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) dir_mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl<'a> Checked<'a> {
    pub(super) fn of(request: &CopyRequest<'a>, root: &std::path::Path) -> Result<Self, SandboxError> {
        let relative = Relative::of(root, request.path).map_err(|why| copy_path(request.path, why))?;
        let refused = |why: &str| copy_file(request.path, why);
        let kind = FileKind::of(request.file_mode).ok_or_else(|| refused("neither file, directory nor link"))?;
        let special = request.file_mode & SPECIAL != 0;
        if special && kind == FileKind::Regular {
            return Err(refused("setuid, setgid and sticky bits may not be given"));
        }
        let uid = u32::try_from(request.uid).map_err(|_| refused("the owner is negative"))?;
        let gid = u32::try_from(request.gid).map_err(|_| refused("the group is negative"))?;
        let size = u64::try_from(request.file_size).map_err(|_| refused("the size is negative"))?;
        let offset = u64::try_from(request.offset).map_err(|_| refused("the offset is negative"))?;
        match kind {
            FileKind::Regular => {}
            FileKind::Directory if offset != 0 || !request.data.is_empty() => {
                return Err(refused("a directory has no content"));
            }
            FileKind::Directory => {}
            FileKind::Symlink => check_target(request.data, offset).map_err(refused)?,
        }
        let attributes = Attributes { mode: request.file_mode & 0o777, dir_mode: request.dir_mode & 0o777, uid, gid };
        Ok(Self { relative, kind, attributes, size, offset, data: request.data })
    }
}

/// A target is data, read inside the container; it only has to be one that can be logged and made.
fn check_target(target: &[u8], offset: u64) -> Result<(), &'static str> {
    if offset != 0 {
        return Err("a link comes in one piece");
    }
    if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
        return Err("a link's target has 1 to 4095 bytes and no zero byte");
    }
    // A policy sees the target as text; what it saw is what is made.
    std::str::from_utf8(target).map(|_| ()).map_err(|_| "a link's target is UTF-8")
}

pub(super) fn copy_path(path: &str, why: impl Into<String>) -> SandboxError {
    SandboxError::CopyPath { path: cut(path), why: why.into() }
}

pub(super) fn copy_file(path: &str, why: impl Into<String>) -> SandboxError {
    SandboxError::CopyFile { path: cut(path), why: why.into() }
}
