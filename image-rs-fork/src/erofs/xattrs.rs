//! Extended attributes behind an inode.

use super::error::ErofsError;
use super::format::{Kind, XATTR_ENTRY, XATTR_HEADER, take};
use crate::tar::XattrList;

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

/// Index and rest of a name; `None` for one that such a file cannot carry on Linux, which unpackers drop too:
/// unknown name spaces, `user.*` on what is neither file nor directory, and lists where they have no meaning.
fn split(kind: Kind, name: &[u8]) -> Option<(u8, &[u8])> {
    let (index, rest) =
        PREFIXES.iter().find_map(|(index, prefix)| name.strip_prefix(*prefix).map(|rest| (*index, rest)))?;
    let carried = match index {
        1 => matches!(kind, Kind::File | Kind::Dir) && !rest.is_empty(),
        2 => kind != Kind::Symlink && rest.is_empty(),
        3 => kind == Kind::Dir && rest.is_empty(),
        _ => !rest.is_empty(),
    };
    carried.then_some((index, rest))
}

/// Puts what an inode of `kind` carries of the attributes, which are sorted by name, into `out`; leaves it empty
/// where that is nothing. At most `limit` bytes.
pub(super) fn encode<'a>(
    out: &mut Vec<u8>,
    kind: Kind,
    attributes: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limit: usize,
) -> Result<(), ErofsError> {
    let limit = limit.min(LARGEST);
    out.clear();
    for (name, value) in attributes {
        let Some((index, rest)) = split(kind, name) else { continue };
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

fn over(limit: usize) -> ErofsError {
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

/// Whether a file of `kind` that has the attributes `encoded` has all of `others` too.
pub(super) fn includes<'a>(encoded: &[u8], kind: Kind, mut others: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
    let Some(have) = decode(encoded) else { return false };
    others.all(|(name, value)| {
        split(kind, name).is_none() || have.as_xattrs().iter().any(|(n, v)| n == name && v == value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_read_as_they_were_written_without_those_nobody_can_carry() {
        let mut list = XattrList::new();
        for (name, value) in [
            (&b"user.a"[..], &b"1"[..]),
            (b"security.capability", b"\x01\0\0\x02"),
            (b"trusted.x", b""),
            (b"system.posix_acl_access", b"\x02\0\0\0"),
        ] {
            list.set(name, value);
        }
        let kept = list.clone();
        list.set(b"system.nfs4_acl", b"1");
        list.set(b"com.apple.provenance", b"1");
        list.set(b"user.", b"no name");
        list.set(b"system.posix_acl_default", b"only directories have it");
        let mut bytes = Vec::new();
        encode(&mut bytes, Kind::File, list.as_xattrs().iter(), LARGEST).unwrap();
        assert_eq!(decode(&bytes).unwrap().as_xattrs(), kept.as_xattrs());
        assert!(includes(&bytes, Kind::File, kept.as_xattrs().iter()));
        list.set(b"user.a", b"2");
        assert!(!includes(&bytes, Kind::File, list.as_xattrs().iter()));
    }

    #[test]
    fn user_attributes_stay_off_what_is_neither_file_nor_directory() {
        let mut bytes = Vec::new();
        let one = || std::iter::once((&b"user.a"[..], &b"1"[..]));
        for kind in [Kind::Symlink, Kind::Char, Kind::Block, Kind::Fifo] {
            encode(&mut bytes, kind, one(), LARGEST).unwrap();
            assert!(bytes.is_empty());
        }
        encode(&mut bytes, Kind::Dir, one(), LARGEST).unwrap();
        assert!(!bytes.is_empty());
    }

    #[test]
    fn attributes_past_the_limit_are_refused() {
        let mut bytes = Vec::new();
        let value = [0; 100];
        let one = || std::iter::once((&b"user.a"[..], &value[..]));
        assert!(encode(&mut bytes, Kind::File, one(), 120).is_ok());
        assert!(matches!(encode(&mut bytes, Kind::File, one(), 119), Err(ErofsError::Limit { .. })));
    }

    #[test]
    fn cut_attributes_are_not_read() {
        let mut bytes = Vec::new();
        encode(&mut bytes, Kind::File, std::iter::once((&b"user.abc"[..], &b"value"[..])), LARGEST).unwrap();
        for length in 1..bytes.len() {
            assert!(length == XATTR_HEADER || decode(&bytes[..length]).is_none(), "{length} bytes");
        }
    }
}
