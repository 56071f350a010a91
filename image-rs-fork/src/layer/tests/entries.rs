//! Kinds of entries, and what replaces what.

use super::*;

#[test]
fn every_kind_of_entry_arrives_with_its_attributes() {
    let layer = layer([
        dir("d").mode(0o1777).owner(3, 4).mtime(9),
        file("d/f", b"content").mode(0o6755).owner(1000, 1001).mtime(7),
        symlink("d/s", "/somewhere").owner(5, 6).mtime(8),
        hardlink("d/h", "d/f").mode(0o6755).owner(1000, 1001).mtime(7),
        hardlink("d/hs", "d/s").owner(5, 6).mtime(8),
        item(b'3', "d/c").device(1, 3).mode(0o600),
        item(b'4', "d/b").device(259, 65_536 + 7),
        item(b'6', "d/p").mode(0o644),
        file("empty", b""),
    ]);
    let directory = layer.stat("d");
    assert_eq!((directory.mode() & 0o7777, directory.uid(), directory.gid(), directory.mtime()), (0o1777, 3, 4, 9));
    let found = layer.stat("d/f");
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid(), found.mtime()), (0o6755, 1000, 1001, 7));
    assert_eq!(found.ino(), layer.stat("d/h").ino());
    assert_eq!((layer.stat("d/s").uid(), layer.stat("d/s").mtime()), (5, 8));
    assert_eq!(layer.stat("d/hs").ino(), layer.stat("d/s").ino(), "a link to a symbolic link is one to the link");
    assert_eq!(layer.stat("d/c").rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(layer.stat("d/b").rdev(), rustix::fs::makedev(259, 65_536 + 7));
    assert!(layer.stat("d/p").file_type().is_fifo());
}

#[test]
fn later_entries_replace_earlier_ones() {
    let layer = layer([
        file("twice", b"first").mode(0o777),
        file("twice", b"second"),
        file("file-dir", b"x"),
        dir("file-dir"),
        file("file-dir/inside", b"1"),
        dir("dir-file"),
        file("dir-file/gone", b"x"),
        file("dir-file.sibling", b"stays"),
        file("dir-file0", b"stays"),
        file("dir-file", b"2"),
        symlink("link-dir", "/etc"),
        dir("link-dir"),
        file("link-dir/inside", b"3"),
        dir("dir-again").mode(0o700),
        file("dir-again/kept", b"4"),
        dir("dir-again").mode(0o711),
        file("original", b"5"),
        hardlink("other", "original"),
        file("original", b"6"),
    ]);
    assert_eq!((layer.read("twice"), layer.stat("twice").mode() & 0o7777), ("second".to_owned(), 0o644));
    assert_eq!(layer.read("file-dir/inside"), "1");
    assert_eq!(layer.read("dir-file"), "2");
    assert!(layer.exists("dir-file.sibling") && layer.exists("dir-file0"));
    assert_eq!(layer.read("link-dir/inside"), "3");
    assert!(!layer.exists("etc"));
    assert_eq!((layer.read("dir-again/kept"), layer.stat("dir-again").mode() & 0o7777), ("4".to_owned(), 0o711));
    assert_eq!((layer.read("other"), layer.read("original")), ("5".to_owned(), "6".to_owned()));
}

#[test]
fn hard_links_to_what_is_not_a_file_of_the_layer_are_refused() {
    refused([hardlink("h", "elsewhere")], "does not have");
    refused([dir("d"), hardlink("h", "d")], "to a directory");
    refused([hardlink("h", "/")], "root");
    refused([file("f", b""), hardlink("f", "f")], "its own target");
    refused([file("d/f", b""), hardlink("d", "d/f")], "its own target");
    refused([file(".wh.f", b""), hardlink("h", "f")], "does not have");
}

#[test]
fn the_header_of_a_hard_link_describes_the_shared_inode() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: [(&str, &[u8]); 1] = [("SCHILY.xattr.security.capability", &capability)];
    let layer = layer([
        pax(&records),
        file("f", b"x").owner(1, 1),
        hardlink("h", "f").owner(9, 9).mode(0o4700).mtime(5),
        symlink("s", "f"),
        hardlink("t", "s").owner(7, 7).mtime(6),
        item(b'6', "p"),
        hardlink("q", "p").mode(0o600),
    ]);
    let stat = layer.stat("f");
    assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.mtime(), stat.nlink()), (0o4700, 9, 5, 2));
    let mut found = [0u8; 64];
    let got = rustix::fs::lgetxattr(layer.path("f"), "security.capability", found.as_mut_slice()).unwrap();
    assert_eq!(found[..got], capability, "a change of owner takes capabilities away");
    assert_eq!((layer.stat("s").uid(), layer.stat("s").mtime()), (7, 6));
    assert_eq!(layer.stat("p").mode() & 0o7777, 0o600);
    refused([file("f", b""), pax(&[("SCHILY.xattr.user.a", b"1")]), hardlink("h", "f")], "extended attributes differ");
}

#[test]
fn a_directory_described_again_keeps_its_extended_attributes() {
    let layer = layer([
        pax(&[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.b", b"1")]),
        dir("d"),
        pax(&[("SCHILY.xattr.user.b", b"2")]),
        dir("d"),
    ]);
    for (name, value) in [("user.a", b"1"), ("user.b", b"2")] {
        let mut found = [0u8; 8];
        let got = rustix::fs::lgetxattr(layer.path("d"), name, found.as_mut_slice()).unwrap();
        assert_eq!(&found[..got], value);
    }
}
