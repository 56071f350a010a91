//! Odd layers, each with what must come of it as the kernel shows it.

use std::os::unix::fs::{FileExt, MetadataExt};

use protocols::reason::{self, Code};

use crate::archive::{Archive, Entry, entry};
use crate::layer::{Layer, in_memory};
use crate::listing;

/// Writes, checks and mounts the layer; compares everything in it but the root.
fn gives(archive: Archive, expected: &[&str]) {
    let layer = Layer::new(&archive.end()).unwrap();
    layer.check();
    let mut lines = listing::brief(layer.mount().path());
    lines.remove(0);
    assert_eq!(lines, expected);
}

fn refused(archive: Archive, code: Code) {
    let error = in_memory(&archive.end(), 4096).unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert!(error.refusal("layer").to_string().starts_with("NOT verified"), "{error}");
}

fn new() -> Archive {
    Archive::new()
}

#[test]
fn an_empty_archive_is_an_empty_root() {
    let layer = Layer::new(&new().end()).unwrap();
    layer.check();
    assert_eq!(listing::brief(layer.mount().path()), ["d0755 0:0 /"]);
    assert_eq!((layer.finished.tree.data_blocks, layer.finished.inodes, layer.finished.entries), (1, 1, 0));
    assert_eq!(layer.finished.implied, [b""]);
}

#[test]
fn an_entry_for_the_root_describes_it() {
    let root = Entry { mode: 0o1711, owner: (7, 8), ..entry("./", b'5') };
    let layer = Layer::new(&new().add(root).end()).unwrap();
    assert_eq!(listing::brief(layer.mount().path()), ["d1711 7:8 /"]);
    assert!(layer.finished.implied.is_empty());
}

#[test]
fn of_two_files_of_one_name_the_last_counts() {
    gives(new().file("a", "one").file("a", "second"), &["f0644 1:2 /a second"]);
}

#[test]
fn a_file_over_a_directory_removes_what_is_in_it() {
    gives(new().dir("d").file("d/a", "1").dir("d/e").file("d/e/b", "2").file("d", "file"), &["f0644 1:2 /d file"]);
}

#[test]
fn a_directory_over_a_file_replaces_it() {
    gives(new().file("d", "file").dir("d").file("d/a", "1"), &["d0755 1:2 /d opaque", "f0644 1:2 /d/a 1"]);
}

#[test]
fn a_directory_again_after_a_file_is_empty() {
    let archive = new().dir("d").file("d/old/a", "1").file("d", "file").dir("d").file("d/new", "2").end();
    let layer = Layer::new(&archive).unwrap();
    layer.check();
    assert_eq!(listing::brief(layer.mount().path())[1..], ["d0755 1:2 /d opaque", "f0644 1:2 /d/new 2"]);
    // What was in the first one is neither counted nor inherited.
    assert_eq!((layer.finished.inodes, layer.finished.entries), (3, 2));
    assert_eq!(layer.finished.implied, [&b""[..]]);
}

#[test]
fn a_directory_over_a_directory_updates_its_attributes() {
    let again = Entry { mode: 0o700, owner: (3, 4), pax: vec![("SCHILY.xattr.user.b", b"2")], ..entry("d", b'5') };
    let first = Entry { pax: vec![("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.b", b"1")], ..entry("d", b'5') };
    gives(new().add(first).file("d/a", "1").add(again), &["d0700 3:4 /d user.a=1 user.b=2", "f0644 1:2 /d/a 1"]);
}

#[test]
fn a_directory_over_a_symbolic_link_replaces_the_link() {
    gives(
        new().dir("real").symlink("l", "real").dir("l").file("l/a", "1"),
        &["d0755 1:2 /l opaque", "f0644 1:2 /l/a 1", "d0755 1:2 /real"],
    );
}

#[test]
fn a_file_over_a_symbolic_link_replaces_the_link() {
    gives(new().file("real", "r").symlink("l", "real").file("l", "own"), &["f0644 1:2 /l own", "f0644 1:2 /real r"]);
}

#[test]
fn what_is_written_through_a_symbolic_link_stays_inside() {
    let expected = ["d0755 1:2 /etc", "f0644 1:2 /etc/passwd x", "l 1:2 /l -> /etc"];
    gives(new().dir("etc").symlink("l", "/etc").file("l/passwd", "x"), &expected);
    gives(
        new().dir("a").dir("etc").symlink("a/l", "/etc").file("a/l/passwd", "x"),
        &["d0755 1:2 /a", "l 1:2 /a/l -> /etc", "d0755 1:2 /etc", "f0644 1:2 /etc/passwd x"],
    );
    gives(
        new().dir("etc").symlink("l", "../../../../etc").file("l/passwd", "x"),
        &["d0755 1:2 /etc", "f0644 1:2 /etc/passwd x", "l 1:2 /l -> ../../../../etc"],
    );
}

#[test]
fn a_link_that_leads_nowhere_yet_makes_its_target() {
    gives(
        new().symlink("l", "a/../b/c").file("l/f", "1"),
        &["d0755 0:0 /b", "d0755 0:0 /b/c", "f0644 1:2 /b/c/f 1", "l 1:2 /l -> a/../b/c"],
    );
}

#[test]
fn a_link_replaced_later_is_not_followed_from_memory() {
    gives(
        new().dir("a").dir("b").symlink("l", "a").file("l/1", "").symlink("l", "b").file("l/2", ""),
        &["d0755 1:2 /a", "f0644 1:2 /a/1 ", "d0755 1:2 /b", "f0644 1:2 /b/2 ", "l 1:2 /l -> b"],
    );
}

#[test]
fn a_path_that_replaces_what_it_leads_through_is_not_followed_again() {
    for archive in [
        new().dir("a").symlink("a/l", "/a").file("a/l/l", "in place of the link").file("a/l/f", ""),
        new().dir("a").symlink("a/l", "/").file("a/l/a", "in place of the directory").file("a/l/f", ""),
    ] {
        refused(archive, reason::IMAGE_LAYER_FORMAT);
    }
    // The link becomes a directory, which is another one than the link led to.
    gives(
        new().dir("a").symlink("a/l", "/a").dir("a/l/l").file("a/l/f", ""),
        &["d0755 1:2 /a", "d0755 1:2 /a/l opaque", "f0644 1:2 /a/l/f "],
    );
}

#[test]
fn links_in_a_circle_are_refused() {
    refused(new().symlink("a", "b").symlink("b", "a").file("a/f", ""), reason::IMAGE_LAYER_FORMAT);
}

#[test]
fn a_parent_that_is_a_file_is_refused() {
    refused(new().file("a", "").file("a/b", ""), reason::IMAGE_LAYER_FORMAT);
}

#[test]
fn missing_parents_are_implied() {
    let layer = Layer::new(&new().file("a/b/c", "1").end()).unwrap();
    layer.check();
    assert_eq!(layer.finished.implied, [&b""[..], b"a", b"a/b"]);
    assert_eq!(
        listing::full(layer.mount().path())[1..3],
        ["d0755 0:0 /a 0.000000000 links 3", "d0755 0:0 /a/b 0.000000000 links 2"]
    );
}

#[test]
fn a_directory_described_after_it_was_implied_is_as_described() {
    let layer = Layer::new(&new().file("a/b", "1").add(Entry { mode: 0o700, ..entry("a", b'5') }).end()).unwrap();
    assert_eq!(listing::brief(layer.mount().path())[1], "d0700 1:2 /a");
    assert_eq!(layer.finished.implied, [&b""[..]]);
}

#[test]
fn names_sort_by_their_bytes_with_dots_among_them() {
    gives(
        new().file("!", "").file("+a", "").file("-a", "").file("..a", "").file(".a", "").file("0", "").file("..!", ""),
        &[
            "f0644 1:2 /! ",
            "f0644 1:2 /+a ",
            "f0644 1:2 /-a ",
            "f0644 1:2 /..! ",
            "f0644 1:2 /..a ",
            "f0644 1:2 /.a ",
            "f0644 1:2 /0 ",
        ],
    );
}

#[test]
fn devices_and_pipes_stay_what_they_are() {
    gives(
        new().device("c", b'3', (1, 3)).device("b", b'4', (259, 0xfffff)).device("p", b'6', (0, 0)),
        &["b0644 1:2 /b 259:1048575", "c0644 1:2 /c 1:3", "p0644 1:2 /p"],
    );
}

#[test]
fn a_device_that_overlayfs_takes_for_a_whiteout_is_one() {
    gives(new().file("c", "x").device("c", b'3', (0, 0)), &["w /c"]);
    gives(new().device("c", b'3', (0, 0)).dir("c"), &["d0755 1:2 /c opaque"]);
}

#[test]
fn modes_with_set_id_and_sticky_bits_stay() {
    gives(
        new()
            .add(Entry { mode: 0o6755, ..entry("s", b'0') })
            .add(Entry { mode: 0o1777, ..entry("t", b'5') })
            .add(Entry { mode: 0, ..entry("z", b'0') }),
        &["f6755 1:2 /s ", "d1777 1:2 /t", "f0000 1:2 /z "],
    );
}

#[test]
fn capabilities_and_user_attributes_stay() {
    let capability = &b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..];
    let pax = vec![("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.x", b"y")];
    let shown = format!("f0755 1:2 /ping  security.capability={} user.x=y", capability.escape_ascii());
    gives(new().add(Entry { mode: 0o755, pax, ..entry("ping", b'0') }), &[&shown]);
}

#[test]
fn access_control_lists_are_enforced_ones() {
    // linux/posix_acl_xattr.h: version 2, then tag, permissions and id of owner, user 1000, group, mask, others.
    let mut list = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
    {
        list.extend_from_slice(&tag.to_le_bytes());
        list.extend_from_slice(&permissions.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    let pax = |name| vec![(name, &list[..])];
    let file = Entry { mode: 0o640, pax: pax("SCHILY.xattr.system.posix_acl_access"), ..entry("f", b'0') };
    let dir = Entry { pax: pax("SCHILY.xattr.system.posix_acl_default"), ..entry("d", b'5') };
    let shown = list.escape_ascii();
    let (access, default) = (
        format!("f0640 1:2 /f  system.posix_acl_access={shown}"),
        format!("d0755 1:2 /d system.posix_acl_default={shown}"),
    );
    gives(new().add(file).add(dir), &[&default, &access]);
}

#[test]
fn attributes_for_overlayfs_are_refused() {
    for name in ["SCHILY.xattr.trusted.overlay.opaque", "SCHILY.xattr.trusted.overlay.redirect"] {
        refused(new().add(Entry { pax: vec![(name, b"y")], ..entry("d", b'5') }), reason::IMAGE_UNSAFE);
    }
}

#[test]
fn attributes_beyond_the_limit_are_refused() {
    let value = vec![b'v'; 60_000];
    let two = vec![("SCHILY.xattr.user.a", &value[..]), ("SCHILY.xattr.user.b", &value[..])];
    refused(new().add(Entry { pax: two, ..entry("f", b'0') }), reason::IMAGE_LIMIT);
    let root = vec![("SCHILY.xattr.user.a", &value[..3000])];
    refused(new().add(Entry { pax: root, ..entry("./", b'5') }), reason::IMAGE_LIMIT);
}

// Hard links.

#[test]
fn hard_links_share_an_inode_and_its_count() {
    let archive = new().file("a", "x").dir("d").hardlink("d/b", "a").hardlink("c", "./d/b");
    let layer = Layer::new(&archive.end()).unwrap();
    layer.check();
    let lines = listing::full(layer.mount().path());
    assert_eq!(lines.iter().filter(|line| line.contains("links /a of 3 3")).count(), 3, "{lines:?}");
    assert_eq!((layer.finished.inodes, layer.finished.entries), (3, 4));
}

#[test]
fn a_hard_link_outlives_the_name_it_was_made_from() {
    let layer = Layer::new(&new().file("a", "x").hardlink("b", "a").file("a", "new").end()).unwrap();
    let lines = listing::full(layer.mount().path());
    assert!(lines[1].contains("links /a of 1 1"), "{lines:?}");
    assert!(lines[2].contains("links /b of 1 1"), "{lines:?}");
    assert_eq!(layer.finished.inodes, 3);
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_the_link_again() {
    gives(new().symlink("l", "nowhere").hardlink("m", "l"), &["l 1:2 /l -> nowhere", "l 1:2 /m -> nowhere"]);
}

#[test]
fn a_hard_link_to_a_device_is_the_device_again() {
    gives(new().device("c", b'3', (5, 1)).hardlink("d", "c"), &["c0644 1:2 /c 5:1", "c0644 1:2 /d 5:1"]);
}

#[test]
fn an_absolute_hard_link_stays_inside() {
    gives(new().file("a", "x").hardlink("b", "/a"), &["f0644 1:2 /a x", "f0644 1:2 /b x"]);
}

#[test]
fn a_hard_link_through_a_symbolic_link_of_the_layer_finds_its_target() {
    gives(
        new().dir("d").file("d/a", "x").symlink("l", "/d").hardlink("b", "l/a"),
        &["f0644 1:2 /b x", "d0755 1:2 /d", "f0644 1:2 /d/a x", "l 1:2 /l -> /d"],
    );
}

#[test]
fn the_header_of_a_hard_link_describes_the_shared_inode() {
    let link = Entry { mode: 0o600, owner: (9, 9), link: "a", ..entry("b", b'1') };
    gives(new().file("a", "x").add(link), &["f0600 9:9 /a x", "f0600 9:9 /b x"]);
}

#[test]
fn a_hard_link_may_repeat_its_targets_attributes_but_not_add_others() {
    let pax = |value: &'static [u8]| vec![("SCHILY.xattr.user.a", value)];
    let file = || Entry { pax: pax(b"1"), ..entry("a", b'0') };
    gives(
        new().add(file()).add(Entry { link: "a", pax: pax(b"1"), ..entry("b", b'1') }),
        &["f0644 1:2 /a  user.a=1", "f0644 1:2 /b  user.a=1"],
    );
    let other = Entry { link: "a", pax: pax(b"2"), ..entry("b", b'1') };
    refused(new().add(file()).add(other), reason::IMAGE_LAYER_FORMAT);
}

#[test]
fn hard_links_that_lead_nowhere_are_refused() {
    for archive in [
        new().hardlink("b", "a"),                             // never there, or in a lower layer
        new().hardlink("a", "a"),                             // itself
        new().file("a", "x").hardlink("a", "a"),              // in place of its target
        new().dir("d").file("d/a", "x").hardlink("d", "d/a"), // in place of the directory that holds it
        new().dir("d").hardlink("b", "d"),                    // a directory
        new().hardlink("b", "."),                             // the root
        new().file(".wh.a", "").hardlink("b", "a"),           // a whiteout
        new().file("f", "").hardlink("b", "f/a"),             // below a file
    ] {
        let error = in_memory(&archive.end(), 4096).unwrap_err();
        assert!([reason::IMAGE_LAYER_FORMAT, reason::IMAGE_UNSAFE].contains(&error.code()), "{error}");
    }
    refused(new().file("a", "x").hardlink("b", "../../../a"), reason::IMAGE_UNSAFE);
}

// Whiteouts.

#[test]
fn a_whiteout_is_a_device_for_overlayfs() {
    let archive = new().file(".wh.a", "").dir("d").file("d/.wh.b", "").file("d/.wh.c", "").end();
    let below = Layer::new(&new().dir("d").end()).unwrap();
    let layer = Layer::above(&archive, &[&below]).unwrap();
    layer.check();
    let lines = listing::brief(layer.mount().path());
    assert_eq!(lines[1..], ["w /a", "d0755 1:2 /d", "w /d/b", "w /d/c"]);
    // All share one inode.
    assert_eq!((layer.finished.inodes, layer.finished.entries), (3, 4));

    // Nothing below has the directory, and overlayfs would list what there is not.
    let alone = Layer::new(&archive).unwrap();
    alone.check();
    assert_eq!(listing::brief(alone.mount().path())[1..], ["w /a", "d0755 1:2 /d"]);
    assert_ne!(alone.finished.inherited, layer.finished.inherited, "other bytes have another name");
}

#[test]
fn a_whiteout_of_any_type_and_with_data_is_a_whiteout() {
    gives(
        new().file("t", "").hardlink(".wh.a", "t").dir(".wh.b").symlink(".wh.c", "x").file(".wh.d", "data"),
        &["w /a", "w /b", "w /c", "w /d", "f0644 1:2 /t "],
    );
}

#[test]
fn an_entry_wins_over_a_whiteout_of_its_name_in_either_order() {
    gives(new().file(".wh.a", "").file("a", "x"), &["f0644 1:2 /a x"]);
    gives(new().file("a", "x").file(".wh.a", ""), &["f0644 1:2 /a x"]);
}

#[test]
fn a_directory_beside_a_whiteout_of_its_name_hides_the_lower_one_in_either_order() {
    let expected = ["d0755 1:2 /d opaque", "f0644 1:2 /d/a x"];
    gives(new().file(".wh.d", "").dir("d").file("d/a", "x"), &expected);
    gives(new().dir("d").file("d/a", "x").file(".wh.d", ""), &expected);
}

#[test]
fn a_directory_implied_beside_a_whiteout_of_its_name_hides_the_lower_one() {
    for archive in [new().file(".wh.d", "").file("d/a", "x"), new().file("d/a", "x").file(".wh.d", "")] {
        let layer = Layer::new(&archive.end()).unwrap();
        let lines = listing::brief(layer.mount().path());
        assert_eq!(lines[1..], ["d0755 0:0 /d opaque", "f0644 1:2 /d/a x"]);
        // Nothing shows from below, so nothing is inherited.
        assert_eq!(layer.finished.implied, [&b""[..]]);
    }
}

#[test]
fn an_opaque_marker_hides_lower_layers_only_before_and_after_entries() {
    let expected = ["d0755 1:2 /d opaque", "f0644 1:2 /d/a x"];
    gives(new().dir("d").file("d/.wh..wh..opq", "").file("d/a", "x"), &expected);
    gives(new().dir("d").file("d/a", "x").file("d/.wh..wh..opq", ""), &expected);
}

#[test]
fn an_opaque_marker_without_a_parent_entry_implies_it() {
    let layer = Layer::new(&new().file("d/.wh..wh..opq", "").file("d/e/f", "x").end()).unwrap();
    let lines = listing::brief(layer.mount().path());
    assert_eq!(lines[1..], ["d0755 0:0 /d opaque", "d0755 0:0 /d/e", "f0644 1:2 /d/e/f x"]);
    assert_eq!(layer.finished.implied, [&b""[..], b"d"]);
}

#[test]
fn an_opaque_root_is_said_to_whoever_mounts() {
    let layer = Layer::new(&new().file(".wh..wh..opq", "").file("a", "x").end()).unwrap();
    layer.check();
    assert!(layer.finished.opaque);
    assert!(!Layer::new(&new().file("a", "x").end()).unwrap().finished.opaque);
}

#[test]
fn a_whiteout_outlasts_changes_of_type() {
    gives(new().file(".wh.d", "").file("d", "file").dir("d"), &["d0755 1:2 /d opaque"]);
    gives(new().dir("d").file("d/.wh..wh..opq", "").file("d", "x").dir("d"), &["d0755 1:2 /d opaque"]);
}

#[test]
fn whiteouts_without_a_name_or_with_content_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", ".wh.d/f"] {
        refused(new().file(name, ""), reason::IMAGE_LAYER_FORMAT);
    }
}

#[test]
fn the_book_keeping_of_aufs_is_left_out() {
    gives(
        new().dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file(".wh..wh.aufs", "").file("a", ""),
        &["f0644 1:2 /a "],
    );
}

// Contents.

#[test]
fn holes_read_as_zeros() {
    // GNU sparse 1.0: a map of two pieces, then their data.
    let map = format!("2\n5000\n3\n{}\n0\n", 5003 + 20_000);
    let mut data = map.into_bytes();
    data.resize(512, 0);
    data.extend_from_slice(b"abc");
    let pax: Vec<(&str, &[u8])> = vec![
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"25003"),
    ];
    let archive = new().add(Entry { data: &data, pax, ..entry("GNUSparseFile.0/s", b'0') }).end();
    let layer = Layer::new(&archive).unwrap();
    layer.check();
    let mounted = layer.mount();
    let mut expected = vec![0; 25_003];
    expected[5000..5003].copy_from_slice(b"abc");
    assert!(std::fs::read(mounted.path().join("s")).unwrap() == expected);
}

#[test]
fn a_file_above_four_gigabytes_reads_at_its_end() {
    const SIZE: u64 = 5 << 30;
    let size = SIZE.to_string();
    let mut data = format!("1\n{}\n3\n", SIZE - 3).into_bytes();
    data.resize(512, 0);
    data.extend_from_slice(b"end");
    let pax: Vec<(&str, &[u8])> = vec![
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", size.as_bytes()),
    ];
    let layer = Layer::new(&new().add(Entry { data: &data, pax, ..entry("x", b'0') }).end()).unwrap();
    let mounted = layer.mount();
    let file = std::fs::File::open(mounted.path().join("s")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), SIZE);
    let mut end = [7; 6];
    file.read_exact_at(&mut end, SIZE - 6).unwrap();
    assert_eq!(&end, b"\0\0\0end");
    // Holes are not written.
    assert!(std::fs::metadata(layer.path()).unwrap().blocks() * 512 < 100 << 20);
}

#[test]
fn symbolic_links_of_every_length_read_back() {
    let targets: Vec<String> = [1, 59, 60, 99].iter().map(|n| "t".repeat(*n)).collect();
    let mut archive = new();
    for (n, target) in targets.iter().enumerate() {
        archive = archive.symlink(&format!("l{n}"), target);
    }
    let long = "u".repeat(4095);
    archive = archive.add(Entry { pax: vec![("linkpath", long.as_bytes())], ..entry("long", b'2') });
    let layer = Layer::new(&archive.end()).unwrap();
    layer.check();
    let mounted = layer.mount();
    for (n, target) in targets.iter().enumerate() {
        assert_eq!(std::fs::read_link(mounted.path().join(format!("l{n}"))).unwrap().to_str(), Some(target.as_str()));
    }
    assert_eq!(std::fs::read_link(mounted.path().join("long")).unwrap().to_str(), Some(long.as_str()));
}
