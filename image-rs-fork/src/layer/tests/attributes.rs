//! Extended attributes.

use super::*;

#[test]
fn capabilities_outlive_the_change_of_owner() {
    let value = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = layer([
        pax(&[
            ("SCHILY.xattr.security.capability", &value),
            ("SCHILY.xattr.user.x", b""),
            ("SCHILY.xattr.security.selinux", b"label"),
        ]),
        file("f", b"x").owner(1000, 1000).mode(0o4755),
    ]);
    let mut found = [0u8; 64];
    let got = rustix::fs::lgetxattr(layer.path("f"), "security.capability", found.as_mut_slice()).unwrap();
    assert_eq!(found[..got], value);
    assert_eq!(layer.stat("f").mode() & 0o7777, 0o4755);
    let got = rustix::fs::lgetxattr(layer.path("f"), "user.x", found.as_mut_slice()).unwrap();
    assert_eq!(got, 0, "an empty value is a value");
}

#[test]
fn reserved_and_malformed_attributes_are_refused_and_unknown_ones_left_out() {
    let with = |name: &str, value: &[u8], item: Item| [pax(&[(&format!("SCHILY.xattr.{name}"), value)]), item];
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect"] {
        let error = refused(with(name, b"y", dir("d")), "reserved attribute");
        assert!(matches!(error, ImageError::Unsafe { .. }));
    }
    refused(with("system.posix_acl_access", b"x", file("f", b"")), "access control list");
    refused(with("security.capability", b"short", file("f", b"")), "capability");
    refused(with("user.a", &[0; 65537], file("f", b"")), "an attribute's value");
    refused(with("user.a", &[0; 65535], file("f", b"")), "extended attributes on one file");
    refused(with("user.a", &[0; 2880], dir("./")), "extended attributes on one file");
    let bare = measure(&archive([symlink("s", "t"), file("f", b"")]), &[]).unwrap().digest().unwrap();
    let [user, link] = with("user.a", b"x", symlink("s", "t"));
    let [unknown, plain] = with("com.example.a", b"x", file("f", b""));
    assert_eq!(measure(&archive([user, link, unknown, plain]), &[]).unwrap().digest().unwrap(), bare);
}
