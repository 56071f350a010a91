//! Extended attributes behind an inode.

use super::error::ErofsError;
use super::finish::ROOT_ROOM;
use super::format::{XATTR_ENTRY, XATTR_HEADER, take};
use crate::tar::{XattrList, Xattrs};

/// The attribute that hides what lower layers have in a directory.
pub(super) const OPAQUE: (&[u8], &[u8]) = (b"trusted.overlay.opaque", b"y");

/// The names that steer overlayfs, which no layer may set.
pub(super) const RESERVED: &[u8] = b"trusted.overlay.";

/// Prefixes by their index on disk. The two access control lists are whole names.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// Index and rest of a name; `None` for a name space that `layer::xattrs` leaves out.
fn split(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(index, prefix)| name.strip_prefix(*prefix).map(|rest| (*index, rest)))
}

/// Puts attributes, which are sorted by name, into `out`; leaves it empty where there are none. At most `limit` bytes.
pub(super) fn encode<'a>(
    out: &mut Vec<u8>,
    attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limit: usize,
) -> Result<(), ErofsError> {
    let limit = limit.min(LARGEST);
    out.clear();
    for (name, value) in attributes {
        let Some((index, rest)) = split(name) else { continue };
        if out.is_empty() {
            out.resize(XATTR_HEADER, 0);
        }
        let (Ok(name_len), Ok(value_len)) = (u8::try_from(rest.len()), u16::try_from(value.len())) else {
            return Err(over(limit));
        };
        let [low, high] = value_len.to_le_bytes();
        out.extend_from_slice(&[name_len, index, low, high]);
        out.extend_from_slice(rest);
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
        if out.len() > limit {
            return Err(over(limit));
        }
    }
    Ok(())
}

pub(super) fn over(limit: usize) -> ErofsError {
    ErofsError::Limit { what: "bytes of extended attributes on one file", limit: limit as u64 }
}

/// The attributes of what [`encode`] made; `None` for anything else.
pub(super) fn decode(bytes: &[u8]) -> Option<XattrList> {
    let mut list = XattrList::new();
    if bytes.is_empty() {
        return Some(list);
    }
    let mut rest = bytes.get(XATTR_HEADER..)?;
    while !rest.is_empty() {
        let [name_len, index, low, high] = take(rest, 0)?;
        let value_at = XATTR_ENTRY + usize::from(name_len);
        let end = value_at + usize::from(u16::from_le_bytes([low, high]));
        let (_, prefix) = PREFIXES.iter().find(|(known, _)| *known == index)?;
        let name = [prefix, rest.get(XATTR_ENTRY..value_at)?].concat();
        list.set(&name, rest.get(value_at..end)?);
        rest = rest.get(end.next_multiple_of(4)..)?;
    }
    Some(list)
}

/// Bytes of attributes an inode can have at most: what its count can express.
const LARGEST: usize = XATTR_HEADER + (u16::MAX as usize - 1) * 4;

/// Checks that the attributes of one file, or of a layer's root, fit where this layout keeps them.
///
/// # Errors
/// The bytes that there may be.
pub(crate) fn check(attributes: Xattrs<'_>, root: bool, limit: usize) -> Result<(), usize> {
    let limit = limit.min(if root { ROOT_ROOM } else { LARGEST });
    let sizes = attributes.iter().filter_map(|(name, value)| {
        let (_, rest) = split(name)?;
        Some((XATTR_ENTRY + rest.len() + value.len()).next_multiple_of(4))
    });
    if attributes.is_empty() || XATTR_HEADER + sizes.sum::<usize>() <= limit { Ok(()) } else { Err(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_as_they_were_written() {
        let mut list = XattrList::new();
        for (name, value) in [
            (&b"user.a"[..], &b"1"[..]),
            (b"security.capability", b"\x01\0\0\x02"),
            (b"trusted.x", b""),
            (b"system.posix_acl_access", b"\x02\0\0\0"),
        ] {
            list.set(name, value);
        }
        let mut bytes = Vec::new();
        encode(&mut bytes, list.as_xattrs().iter(), LARGEST).unwrap();
        assert_eq!(decode(&bytes).unwrap().as_xattrs(), list.as_xattrs());
        assert_eq!(check(list.as_xattrs(), false, bytes.len()), Ok(()));
        assert_eq!(check(list.as_xattrs(), false, bytes.len() - 1), Err(bytes.len() - 1));
    }

    #[test]
    fn attributes_past_the_limit_are_refused() {
        let mut bytes = Vec::new();
        let value = [0; 100];
        let one = || std::iter::once((&b"user.a"[..], &value[..]));
        assert!(encode(&mut bytes, one(), 120).is_ok());
        assert!(matches!(encode(&mut bytes, one(), 119), Err(ErofsError::Limit { .. })));
    }

    #[test]
    fn cut_attributes_are_not_read() {
        let mut bytes = Vec::new();
        encode(&mut bytes, std::iter::once((&b"user.abc"[..], &b"value"[..])), LARGEST).unwrap();
        for length in 1..bytes.len() {
            assert!(length == XATTR_HEADER || decode(&bytes[..length]).is_none(), "{length} bytes");
        }
    }
}
