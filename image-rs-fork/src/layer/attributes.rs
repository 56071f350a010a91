//! What an inode has beside its content, and its record.

use protocols::digest::Sha256Digest;

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

/// An inode's attributes without its extended ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Mtime,
}

/// An inode's attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) plain: Plain,
    /// Sorted by name.
    pub(crate) xattrs: Vec<Xattr>,
}

impl Attributes {
    /// Of a directory that no layer describes.
    pub(crate) const fn undescribed() -> Self {
        let mtime = Mtime { seconds: 0, nanoseconds: 0 };
        Self { plain: Plain { mode: 0o755, uid: 0, gid: 0, mtime }, xattrs: Vec::new() }
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
pub(crate) fn record(attributes: &Plain, xattrs: &[Xattr], content: &Content<'_>) -> Sha256Digest {
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
    out.extend_from_slice(&(xattrs.len() as u64).to_be_bytes());
    for (name, value) in xattrs {
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
