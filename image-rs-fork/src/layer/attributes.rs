//! What an inode has beside its content, and which extended attributes a layer may set.

use protocols::digest::Sha256Digest;

use super::LayerError;
use super::path::show;
use crate::tar::{EntryKind, EntryMeta};

/// SELinux labels belong to the host's policy: neither unpacked nor measured.
pub(crate) const SELINUX: &[u8] = b"security.selinux";
/// The mark of an opaque directory, on disk and to overlayfs, with the value `y`.
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// Name and value of an extended attribute.
pub(crate) type Xattr = (Box<[u8]>, Box<[u8]>);

/// Seconds since 1970 and nanoseconds, within 1970 to 2262; times outside count as 1970, as the common
/// unpackers take them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mtime {
    pub(crate) seconds: i64,
    /// 0 to 999,999,999.
    pub(crate) nanoseconds: u32,
}

impl Mtime {
    /// The last second whose nanoseconds fit 63 bits.
    const LAST: i64 = 9_223_372_035;

    pub(crate) const fn bounded(seconds: i64, nanoseconds: u32) -> Self {
        if seconds < 0 || seconds > Self::LAST {
            Self { seconds: 0, nanoseconds: 0 }
        } else {
            Self { seconds, nanoseconds }
        }
    }
}

/// An inode's attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Mtime,
    /// Sorted by name.
    pub(crate) xattrs: Vec<Xattr>,
}

impl Attributes {
    /// Of a directory that no layer describes.
    pub(crate) const fn undescribed() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Mtime { seconds: 0, nanoseconds: 0 }, xattrs: Vec::new() }
    }
}

/// What an inode is, as it is measured.
#[derive(Debug)]
pub(crate) enum Content<'a> {
    File { size: u64, sha256: &'a Sha256Digest },
    Directory { opaque: bool },
    Symlink(&'a [u8]),
    Character(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// SHA-256 over an inode's canonical record (`docs/measurement.md`).
pub(crate) fn record(attributes: &Attributes, content: &Content<'_>) -> Sha256Digest {
    let mut out = Vec::with_capacity(128);
    out.push(match content {
        Content::File { .. } => b'f',
        Content::Directory { .. } => b'd',
        Content::Symlink(_) => b'l',
        Content::Character(..) => b'c',
        Content::Block(..) => b'b',
        Content::Fifo => b'p',
    });
    out.extend_from_slice(&attributes.mode.to_be_bytes());
    out.extend_from_slice(&attributes.uid.to_be_bytes());
    out.extend_from_slice(&attributes.gid.to_be_bytes());
    out.extend_from_slice(&attributes.mtime.seconds.to_be_bytes());
    out.extend_from_slice(&attributes.mtime.nanoseconds.to_be_bytes());
    match content {
        Content::File { size, sha256 } => {
            out.extend_from_slice(&size.to_be_bytes());
            out.extend_from_slice(sha256.as_bytes());
        }
        Content::Directory { opaque } => out.push(u8::from(*opaque)),
        Content::Symlink(target) => put(&mut out, target),
        Content::Character(major, minor) | Content::Block(major, minor) => {
            out.extend_from_slice(&major.to_be_bytes());
            out.extend_from_slice(&minor.to_be_bytes());
        }
        Content::Fifo => {}
    }
    out.extend_from_slice(&(attributes.xattrs.len() as u64).to_be_bytes());
    for (name, value) in &attributes.xattrs {
        put(&mut out, name);
        put(&mut out, value);
    }
    Sha256Digest::of(&out)
}

/// Bytes after their length.
pub(crate) fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The extended attributes of an entry that are kept; sorted and of sizes the kernel keeps, as the parser gives them.
pub(crate) fn checked_xattrs(meta: &EntryMeta<'_>) -> Result<Vec<Xattr>, LayerError> {
    let path = meta.path.as_bytes();
    let mut kept: Vec<Xattr> = Vec::with_capacity(meta.xattrs.len());
    for (name, value) in meta.xattrs.iter() {
        let refused = |problem: &str| Err(LayerError::Format(format!("{}: {}: {problem}", show(path), show(name))));
        if name.starts_with(b"trusted.") {
            return Err(LayerError::Unsafe(format!("{}: reserved attribute {}", show(path), show(name))));
        }
        if name == SELINUX {
            continue;
        }
        let rest = name.strip_prefix(b"user.").or_else(|| name.strip_prefix(b"security."));
        if rest.is_none_or(<[u8]>::is_empty) {
            return refused("an extended attribute outside user. and security.");
        }
        if !matches!(meta.kind, EntryKind::File { .. } | EntryKind::Dir) {
            return refused("an extended attribute of something that is neither file nor directory");
        }
        // Other revisions are rewritten by the kernel or belong to a user namespace.
        if name == b"security.capability" && !(value.len() == 20 && value.get(3) == Some(&2)) {
            return refused("file capabilities that are not of revision 2");
        }
        kept.push((name.into(), value.into()));
    }
    Ok(kept)
}
