//! Extended attributes.

use protocols::reason::{IMAGE_LAYER_FORMAT, IMAGE_LIMIT, IMAGE_UNSAFE};

use crate::case::{Case, refused, stack, tree};
use crate::support::tar::{Item, archive, dir, file, pax, symlink};

const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn with(name: &str, value: &[u8], item: Item) -> [Item; 2] {
    [pax(&[(&format!("SCHILY.xattr.{name}"), value)]), item]
}

/// An access control list: owner, the user 1000, group, mask, others.
fn acl(named: u8) -> Vec<u8> {
    let mut list = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1, 6, u32::MAX), (2, named, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend_from_slice(&[tag, 0, permissions, 0]);
        list.extend_from_slice(&id.to_le_bytes());
    }
    list
}

pub(crate) fn cases() -> Vec<Case> {
    let capability = format!("f4755 5:5 /f \"x\" security.capability={}", CAPABILITY.escape_ascii());
    let access = format!("f0640 0:0 /f \"x\" system.posix_acl_access={}", acl(4).escape_ascii());
    let default = format!("d0755 0:0 /d system.posix_acl_default={}", acl(7).escape_ascii());
    let mut third = CAPABILITY.to_vec();
    third[3] = 3;
    third.extend_from_slice(&[0; 4]);
    vec![
        tree("attribute-of-a-user", with("user.a", b"1", file("f", b"x")), &["f0644 0:0 /f \"x\" user.a=1"]),
        tree("attribute-empty", with("user.a", b"", file("f", b"x")), &["f0644 0:0 /f \"x\" user.a="]),
        tree("attribute-trusted", with("trusted.a", b"1", file("f", b"x")), &["f0644 0:0 /f \"x\""]),
        tree(
            "attribute-capability-and-another-owner",
            with("security.capability", CAPABILITY, file("f", b"x").mode(0o4755).owner(5, 5)),
            &[&capability],
        ),
        refused(
            "attribute-capability-of-revision-3",
            with("security.capability", &third, file("f", b"x")),
            IMAGE_LAYER_FORMAT,
        ),
        refused(
            "attribute-capability-cut-short",
            with("security.capability", b"\x01\0\0\x02", file("f", b"x")),
            IMAGE_LAYER_FORMAT,
        ),
        tree(
            "attribute-access-list",
            with("system.posix_acl_access", &acl(4), file("f", b"x").mode(0o640)),
            &[&access],
        ),
        tree("attribute-default-access-list", with("system.posix_acl_default", &acl(7), dir("d")), &[&default]),
        refused(
            "attribute-access-list-that-belies-the-mode",
            with("system.posix_acl_access", &acl(4), file("f", b"x").mode(0o666)),
            IMAGE_LAYER_FORMAT,
        ),
        refused(
            "attribute-access-list-malformed",
            with("system.posix_acl_access", b"x", file("f", b"x")),
            IMAGE_LAYER_FORMAT,
        ),
        refused("attribute-overlay-opaque", with("trusted.overlay.opaque", b"y", dir("d")), IMAGE_UNSAFE),
        refused("attribute-overlay-redirect", with("trusted.overlay.redirect", b"/etc", dir("d")), IMAGE_UNSAFE),
        refused("attribute-overlay-escaped", with("trusted.overlay.overlay.opaque", b"y", dir("d")), IMAGE_UNSAFE),
        tree("attribute-selinux", with("security.selinux", b"a:b:c:d", file("f", b"x")), &["f0644 0:0 /f \"x\""]),
        tree(
            "attribute-of-an-unknown-name-space",
            with("com.example.a", b"1", file("f", b"x")),
            &["f0644 0:0 /f \"x\""],
        ),
        tree("attribute-of-a-user-on-a-symbolic-link", with("user.a", b"1", symlink("l", "t")), &["l 0:0 /l -> t"]),
        tree(
            "attribute-of-a-directory-described-twice",
            [
                pax(&[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.b", b"1")]),
                dir("d"),
                pax(&[("SCHILY.xattr.user.b", b"2")]),
                dir("d").mode(0o700),
            ],
            &["d0700 0:0 /d user.a=1 user.b=2"],
        ),
        tree(
            "attribute-twice",
            [pax(&[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.a", b"2")]), file("f", b"x")],
            &["f0644 0:0 /f \"x\" user.a=2"],
        ),
        stack(
            "attribute-of-an-implied-directory",
            vec![archive(with("user.a", b"1", dir("d").mode(0o700))), archive([file("d/f", b"x")])],
            &["d0700 0:0 /d user.a=1", "f0644 0:0 /d/f \"x\""],
        ),
        stack(
            "attribute-of-a-directory-described-above",
            vec![archive(with("user.a", b"1", dir("d"))), archive([dir("d").mode(0o700)])],
            &["d0700 0:0 /d"],
        ),
        refused("attribute-without-a-name", with("", b"1", file("f", b"x")), IMAGE_LAYER_FORMAT),
        refused(
            "attribute-with-a-name-above-255-bytes",
            with(&format!("user.{}", "n".repeat(251)), b"1", file("f", b"x")),
            IMAGE_LIMIT,
        ),
        refused("attribute-above-64-KiB", with("user.a", &[b'v'; 65_536], file("f", b"x")), IMAGE_LIMIT),
        refused("attribute-of-the-root-above-2880-bytes", with("user.a", &[b'v'; 2880], dir("./")), IMAGE_LIMIT),
    ]
}
