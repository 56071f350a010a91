//! Which extended attributes of an entry a layer keeps, in either layout.
//!
//! Kept are `user.*` and `security.*` of files and directories, and access control lists, in the one form that every
//! kernel gives back as it was set; so what is measured is what is read. Left out is what unpackers on Linux cannot set
//! or do not: other name spaces, `trusted.*`, `security.selinux` (the policy is the host's), attributes of anything that
//! is neither file nor directory, lists that say no more than the mode.

use crate::erofs::Problem;
use crate::tar::{XattrList, Xattrs};

const CAPABILITY: &[u8] = b"security.capability";
/// SELinux labels belong to the host's policy: neither unpacked nor measured.
pub(crate) const SELINUX: &[u8] = b"security.selinux";
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// What carries attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    File,
    Directory,
    /// Symbolic links, devices, pipes.
    Other,
}

/// The attributes that are kept of those an entry has.
///
/// # Errors
/// [`Problem::Attribute`] for a capability of another revision than 2, which the kernel would rewrite or refuse, and
/// for a list that is malformed or differs from `mode`.
pub(crate) fn kept(carrier: Carrier, mode: u32, given: Xattrs<'_>) -> Result<XattrList, Problem> {
    let mut list = XattrList::new();
    if carrier == Carrier::Other {
        return Ok(list);
    }
    for (name, value) in given.iter() {
        let keep = match name {
            SELINUX => false,
            CAPABILITY if value.len() == 20 && value.get(3) == Some(&2) => true,
            CAPABILITY => return Err(Problem::Attribute),
            ACCESS => {
                let list = AccessList::parse(value).filter(|list| list.fits(mode)).ok_or(Problem::Attribute)?;
                list.extended
            }
            DEFAULT if carrier == Carrier::Directory && AccessList::parse(value).is_some() => true,
            DEFAULT => return Err(Problem::Attribute),
            _ => [&b"user."[..], b"security."]
                .iter()
                .any(|space| name.strip_prefix(*space).is_some_and(|rest| !rest.is_empty())),
        };
        if keep {
            list.set(name, value);
        }
    }
    Ok(list)
}

/// Whether a file's mode may become `mode`: its access control list, where it has one, must say the same.
pub(crate) fn mode_fits<'a>(mode: u32, mut have: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> bool {
    have.find(|(name, _)| *name == ACCESS)
        .is_none_or(|(_, value)| AccessList::parse(value).is_some_and(|list| list.fits(mode)))
}

/// What an access control list says of owner, group or mask, and others.
/// Source: Linux `posix_acl_xattr.h` (version 2), `posix_acl_valid`.
#[derive(Debug, Clone, Copy)]
struct AccessList {
    owner: u32,
    group: u32,
    others: u32,
    /// It says more than a mode can.
    extended: bool,
}

impl AccessList {
    fn parse(value: &[u8]) -> Option<Self> {
        let entries = value.strip_prefix(&2u32.to_le_bytes())?;
        let (entries, []) = entries.as_chunks::<8>() else { return None };
        let mut list = Self { owner: 0, group: 0, others: 0, extended: entries.len() > 3 };
        // Which tags may come next; each kind in its order.
        let mut least = 0x01;
        let (mut named, mut mask) = (false, None);
        for [tag, tag_high, permissions, high, id @ ..] in entries {
            let permissions = u32::from(*permissions);
            let anonymous = u32::from_le_bytes(*id) == u32::MAX;
            if *tag_high != 0 || *high != 0 || permissions > 7 || *tag < least {
                return None;
            }
            match (*tag, anonymous) {
                (0x01, true) if least == 0x01 => (list.owner, least) = (permissions, 0x02),
                (0x02, false) if least == 0x02 => named = true,
                (0x04, true) if least == 0x02 => (list.group, least) = (permissions, 0x08),
                (0x08, false) if least == 0x08 => named = true,
                (0x10, true) if least == 0x08 => (mask, least) = (Some(permissions), 0x20),
                (0x20, true) if matches!(least, 0x08 | 0x20) => (list.others, least) = (permissions, 0x40),
                _ => return None,
            }
        }
        if least != 0x40 || (named && mask.is_none()) {
            return None;
        }
        list.group = mask.unwrap_or(list.group);
        Some(list)
    }

    const fn fits(&self, mode: u32) -> bool {
        mode & 0o777 == self.owner << 6 | self.group << 3 | self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut list = vec![2, 0, 0, 0];
        for (tag, permissions, id) in entries {
            list.extend_from_slice(&tag.to_le_bytes());
            list.extend_from_slice(&permissions.to_le_bytes());
            list.extend_from_slice(&id.to_le_bytes());
        }
        list
    }

    const NOBODY: u32 = u32::MAX;

    fn of(carrier: Carrier, mode: u32, name: &[u8], value: &[u8]) -> Result<usize, Problem> {
        let mut list = XattrList::new();
        list.set(name, value);
        kept(carrier, mode, list.as_xattrs()).map(|list| list.as_xattrs().len())
    }

    #[test]
    fn a_list_that_the_kernel_gives_back_as_it_was_is_kept() {
        let whole = acl(&[
            (1, 6, NOBODY),
            (2, 4, 1000),
            (2, 5, 7),
            (4, 4, NOBODY),
            (8, 1, 9),
            (16, 4, NOBODY),
            (32, 0, NOBODY),
        ]);
        assert_eq!(of(Carrier::File, 0o640, ACCESS, &whole), Ok(1));
        assert_eq!(of(Carrier::Directory, 0o4640, ACCESS, &whole), Ok(1));
        assert_eq!(of(Carrier::Directory, 0, DEFAULT, &whole), Ok(1));
        assert_eq!(of(Carrier::Other, 0, ACCESS, &whole), Ok(0));
        let masked = acl(&[(1, 6, NOBODY), (4, 7, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)]);
        assert_eq!(of(Carrier::File, 0o640, ACCESS, &masked), Ok(1));
    }

    #[test]
    fn a_list_that_says_no_more_than_the_mode_is_left_out() {
        let plain = acl(&[(1, 6, NOBODY), (4, 4, NOBODY), (32, 0, NOBODY)]);
        assert_eq!(of(Carrier::File, 0o640, ACCESS, &plain), Ok(0));
        assert_eq!(of(Carrier::Directory, 0o640, DEFAULT, &plain), Ok(1), "a default list is one all the same");
    }

    #[test]
    fn lists_that_are_malformed_or_belie_the_mode_are_refused() {
        let refused = Err(Problem::Attribute);
        let plain = [(1, 6, NOBODY), (4, 4, NOBODY), (32, 0, NOBODY)];
        assert_eq!(of(Carrier::File, 0o644, ACCESS, &acl(&plain)), refused);
        assert_eq!(of(Carrier::File, 0, DEFAULT, &acl(&plain)), refused, "only directories have one");
        for bad in [
            &[][..],
            &[(1, 6, NOBODY), (4, 4, NOBODY)],
            &[(4, 4, NOBODY), (1, 6, NOBODY), (32, 0, NOBODY)],
            &[(1, 6, NOBODY), (1, 6, NOBODY), (4, 4, NOBODY), (32, 0, NOBODY)],
            &[(1, 6, NOBODY), (2, 4, 5), (4, 4, NOBODY), (32, 0, NOBODY)],
            &[(1, 6, NOBODY), (2, 4, NOBODY), (4, 4, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)],
            &[(1, 6, 0), (4, 4, NOBODY), (32, 0, NOBODY)],
            &[(1, 8, NOBODY), (4, 4, NOBODY), (32, 0, NOBODY)],
            &[(1, 6, NOBODY), (4, 4, NOBODY), (32, 0, NOBODY), (32, 0, NOBODY)],
            &[(1, 6, NOBODY), (3, 4, NOBODY), (4, 4, NOBODY), (32, 0, NOBODY)],
        ] {
            assert_eq!(of(Carrier::Directory, 0o640, DEFAULT, &acl(bad)), refused, "{bad:?}");
        }
        let mut other = acl(&plain);
        other[0] = 1;
        assert_eq!(of(Carrier::Directory, 0o640, DEFAULT, &other), refused);
        other.pop();
        assert_eq!(of(Carrier::Directory, 0o640, DEFAULT, &other), refused);
    }

    #[test]
    fn a_mode_may_not_leave_its_list_behind() {
        let whole = acl(&[(1, 6, NOBODY), (2, 4, 1000), (4, 4, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)]);
        assert!(mode_fits(0o640, [(ACCESS, &whole[..])].into_iter()));
        assert!(!mode_fits(0o644, [(ACCESS, &whole[..])].into_iter()));
        assert!(mode_fits(0o644, [(&b"user.a"[..], &whole[..])].into_iter()));
    }

    #[test]
    fn only_capabilities_that_no_kernel_rewrites_are_kept() {
        let mut value = [0; 24];
        value[3] = 2;
        assert_eq!(of(Carrier::File, 0, CAPABILITY, &value[..20]), Ok(1));
        value[3] = 3;
        for bad in [&value[..], &value[..20], b"", b"\x01\0\0\x02"] {
            assert_eq!(of(Carrier::File, 0, CAPABILITY, bad), Err(Problem::Attribute));
        }
        assert_eq!(of(Carrier::Other, 0, CAPABILITY, &value), Ok(0));
    }

    #[test]
    fn name_spaces_that_linux_lacks_and_selinux_are_left_out() {
        for name in
            ["security.selinux", "com.apple.provenance", "user.", "security.", "system.nfs4_acl", "user", "trusted.a"]
        {
            assert_eq!(of(Carrier::File, 0, name.as_bytes(), b"v"), Ok(0), "{name}");
        }
        for name in ["user.a", "security.ima", "user.."] {
            assert_eq!(of(Carrier::File, 0, name.as_bytes(), b""), Ok(1), "{name}");
        }
    }
}
