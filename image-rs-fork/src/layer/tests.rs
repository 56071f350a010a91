//! Odd layers: what they become on disk, and that disk, stream and measurement agree. They need root.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use protocols::digest::Sha256Digest;
use protocols::image::Layout;

use super::build::{Item, archive, dir, file, hardlink, item, pax, symlink};
use super::sink::NoSink;
use super::table::Table;
use super::unpack::Unpacker;
use super::*;
use crate::store::rootfs_digest;
use crate::tree::disk::Disk;
use crate::tree::walk::walk;

/// A layer on disk, whose three measurements have been found equal.
struct Layer {
    home: tempfile::TempDir,
    table: Arc<Table>,
}

impl Layer {
    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn stat(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.path(path)).unwrap()
    }

    fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok()
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let stat = self.stat(path);
        stat.file_type().is_char_device() && stat.rdev() == 0
    }

    fn is_opaque(&self, path: &str) -> bool {
        let mut value = [0u8; 8];
        rustix::fs::lgetxattr(self.path(path), "trusted.overlay.opaque", value.as_mut_slice())
            .is_ok_and(|n| value[..n] == *b"y")
    }
}

fn measure(bytes: &[u8], lower: &[Arc<Table>]) -> Result<Table, LayerError> {
    let mut unpacker = Unpacker::new(NoSink, Budget::new(&Limits::default()));
    unpacker.unpack(bytes)?;
    Ok(unpacker.finish(lower)?.0)
}

fn on_disk(home: &Path, bytes: &[u8], lower: &[Arc<Table>]) -> Result<Table, LayerError> {
    let mut unpacker = Unpacker::new(
        Disk::new(home, crate::space::Space::new(home, None, |_| Ok(())).begin())?,
        Budget::new(&Limits::default()),
    );
    unpacker.unpack(bytes)?;
    Ok(unpacker.finish(lower)?.0)
}

#[track_caller]
fn layer_on(lower: &[&Layer], items: impl IntoIterator<Item = Item>) -> Layer {
    let bytes = archive(items);
    let lower: Vec<_> = lower.iter().map(|layer| Arc::clone(&layer.table)).collect();
    let home = tempfile::tempdir().unwrap();
    let table = on_disk(home.path(), &bytes, &lower).unwrap();
    let measured = measure(&bytes, &lower).unwrap();
    assert_eq!(table.digest().unwrap(), measured.digest().unwrap(), "unpacked and measured");
    assert_eq!(
        walk(home.path(), Table::new()).unwrap().digest().unwrap(),
        measured.digest().unwrap(),
        "measured and walked"
    );
    Layer { home, table: Arc::new(table) }
}

#[track_caller]
fn layer(items: impl IntoIterator<Item = Item>) -> Layer {
    layer_on(&[], items)
}

/// Refused when unpacked and when measured, with the same words.
#[track_caller]
fn refused(items: impl IntoIterator<Item = Item>, problem: &str) -> ImageError {
    let bytes = archive(items);
    let outside = tempfile::tempdir().unwrap();
    let home = outside.path().join("layer");
    fs::create_dir(&home).unwrap();
    let unpacked = on_disk(&home, &bytes, &[]).unwrap_err().into_image("layer");
    let measured = measure(&bytes, &[]).unwrap_err().into_image("layer");
    assert_eq!(unpacked.to_string(), measured.to_string());
    assert!(measured.to_string().contains(problem), "{measured}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing outside the layer");
    measured
}

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
fn every_measured_attribute_changes_the_digest() {
    let base = || file("f", b"content").mode(0o644).owner(1, 2).mtime(3);
    let digest = |items: Vec<Item>| measure(&archive(items), &[]).unwrap().digest().unwrap();
    let variants = [
        vec![base()],
        vec![base().mode(0o645)],
        vec![base().owner(2, 2)],
        vec![base().owner(1, 3)],
        vec![base().mtime(4)],
        vec![pax(&[("mtime", b"3.5")]), base()],
        vec![file("f", b"Content").mode(0o644).owner(1, 2).mtime(3)],
        vec![file("g", b"content").mode(0o644).owner(1, 2).mtime(3)],
        vec![pax(&[("SCHILY.xattr.user.a", b"b")]), base()],
        vec![pax(&[("SCHILY.xattr.user.a", b"")]), base()],
        vec![base(), hardlink("h", "f")],
        vec![base(), file("h", b"content").mode(0o644).owner(1, 2).mtime(3)],
        vec![base(), file(".wh.x", b"")],
        vec![base(), file(".wh..wh..opq", b"")],
        vec![base(), dir("./").mode(0o700)],
        vec![base(), dir("x")],
        vec![base(), symlink("x", "f")],
        vec![base(), symlink("x", "g")],
        vec![base(), item(b'6', "x")],
        vec![base(), item(b'3', "x").device(1, 1)],
        vec![base(), item(b'3', "x").device(1, 2)],
        vec![base(), item(b'4', "x").device(1, 2)],
    ];
    let mut digests: Vec<_> = variants.into_iter().map(digest).collect();
    let count = digests.len();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

#[test]
fn the_format_is_pinned() {
    // Computed by another program from docs/measurement.md. A change of these digests is a new layout
    // with a new name, not a change of this test.
    let digest = measure(
        &archive([
            dir("d").mode(0o750).owner(1, 2).mtime(5),
            pax(&[("mtime", b"6.25"), ("SCHILY.xattr.user.k", b"v")]),
            file("d/f", b"content"),
            pax(&[("mtime", b"6.25")]),
            hardlink("d/g", "d/f"),
            symlink("s", "d/f"),
            file("d/.wh.gone", b""),
            item(b'3', "c").device(1, 3),
        ]),
        &[],
    )
    .unwrap()
    .digest()
    .unwrap();
    assert_eq!(digest.to_string(), "sha256:0692013a817b85bf20d9e7ee7241f1a9be2236a914291b2f8ec19bd6a9ec8ead");
    let rootfs = |layout| rootfs_digest(layout, &[digest, Sha256Digest::of(b"")]).to_string();
    let expected = "sha256:425a2a2de216f33e6900eb5f19764a77efa8fb2ed5c4c6855a774afbc3c1ea63";
    assert_eq!(rootfs(Layout::TreeV1), expected);
    let expected = "sha256:5d9fe89cdcfc6e60224cec0af48731ac1a11ab734283975aeb2a916f055a9d7c";
    assert_eq!(rootfs(Layout::ErofsV1), expected);
}

#[test]
fn paths_stay_inside() {
    let inside = layer([file("/absolute", b"1"), file("./here//there/./f", b"2")]);
    assert_eq!((inside.read("absolute"), inside.read("here/there/f")), ("1".to_owned(), "2".to_owned()));
    for path in ["../x", "a/../../x", "/../x"] {
        let layer = layer([file(path, b"x")]);
        assert_eq!(layer.read("x"), "x", "{path}");
        assert_eq!(fs::read_dir(layer.home.path()).unwrap().count(), 1, "{path}");
    }
    for path in ["a/..", ".."] {
        assert!(matches!(refused([file(path, b"x")], "root"), ImageError::Unsafe { .. }), "{path}");
    }
    assert!(matches!(refused([file("f", b""), hardlink("h", "../f")], "above"), ImageError::Unsafe { .. }));
}

#[test]
fn a_symbolic_link_on_the_way_leads_inside() {
    let layer = layer([
        symlink("absolute", "/etc"),
        file("absolute/a", b"1"),
        symlink("up", "../../../var"),
        file("up/b", b"2"),
        dir("real"),
        symlink("chain", "up/../real"),
        file("chain/c", b"3"),
        hardlink("chain/h", "absolute/a"),
    ]);
    assert_eq!(layer.read("etc/a"), "1");
    assert_eq!(layer.read("var/b"), "2");
    assert_eq!(layer.read("real/c"), "3");
    assert_eq!(layer.stat("real/h").ino(), layer.stat("etc/a").ino());
    assert!(layer.stat("absolute").file_type().is_symlink());
}

#[test]
fn symbolic_links_in_a_circle_are_refused() {
    let error = refused([symlink("a", "b"), symlink("b", "a"), file("a/x", b"")], "symbolic links");
    assert!(matches!(error, ImageError::LayerFormat { .. }));
}

#[test]
fn what_is_written_over_a_link_replaces_the_link() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs::write(outside.path(), "untouched").unwrap();
    let layer = layer([symlink("f", outside.path().to_str().unwrap()), file("f", b"new")]);
    assert_eq!(layer.read("f"), "new");
    assert_eq!(fs::read_to_string(outside.path()).unwrap(), "untouched");
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
fn a_file_is_no_directory() {
    refused([file("f", b""), file("f/x", b"")], "no directory");
    refused([file("f", b""), symlink("s", "f"), file("s/x", b"")], "no directory");
    refused([file("f", b""), symlink("s", "f/../d"), file("s/x", b"")], "no directory");
    refused([file(".", b"")], "root");
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
fn whiteouts_and_opaque_marks_are_overlayfs_own() {
    let layer = layer([
        file(".wh.gone", b"content of a whiteout is nothing"),
        hardlink("d/.wh.linked", "nowhere"),
        dir("before"),
        file("before/.wh..wh..opq", b""),
        file("before/f", b"1"),
        dir("after"),
        file("after/f", b"2"),
        file("after/.wh..wh..opq", b""),
        file("implied/.wh..wh..opq", b""),
        item(b'3', "device").device(0, 0),
    ]);
    assert!(layer.is_whiteout("gone") && layer.is_whiteout("d/linked") && layer.is_whiteout("device"));
    assert!(!layer.exists(".wh.gone"));
    for directory in ["before", "after", "implied"] {
        assert!(layer.is_opaque(directory), "{directory}");
        assert!(!layer.exists(&format!("{directory}/.wh..wh..opq")));
    }
    assert_eq!((layer.read("before/f"), layer.read("after/f")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn a_whiteout_and_an_entry_of_one_name_give_the_entry_in_either_order() {
    let one = layer([
        file(".wh.f", b""),
        file("f", b"1"),
        file(".wh.d", b""),
        dir("d"),
        file(".wh.i", b""),
        file("i/x", b""),
    ]);
    let other = layer([
        file("f", b"1"),
        file(".wh.f", b""),
        dir("d"),
        file(".wh.d", b""),
        file("i/x", b""),
        file(".wh.i", b""),
    ]);
    for layer in [&one, &other] {
        assert_eq!(layer.read("f"), "1");
        assert!(layer.is_opaque("d"), "what was hidden must not show through the new directory");
        assert!(layer.is_opaque("i"));
    }
    assert_eq!(one.table.digest().unwrap(), other.table.digest().unwrap());
}

#[test]
fn whiteouts_of_nothing_and_paths_below_them_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh."] {
        refused([file(name, b"")], "whiteout without a name");
    }
    refused([file(".wh.d/f", b"")], "below a whiteout");
}

#[test]
fn the_book_keeping_of_aufs_is_left_out() {
    let layer =
        layer([dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"x"), file("d/.wh..wh.aufs", b""), file("f", b"")]);
    assert_eq!(fs::read_dir(layer.home.path()).unwrap().count(), 1);
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
fn a_directory_that_follows_something_else_does_not_show_lower_content() {
    let layer = layer([
        file("d", b""),
        dir("d"),
        symlink("e", "d"),
        dir("e"),
        file(".wh.g", b""),
        file("g", b""),
        dir("g"),
        dir("h"),
        dir("h"),
    ]);
    assert!(layer.is_opaque("d") && layer.is_opaque("e") && layer.is_opaque("g") && !layer.is_opaque("h"));
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

#[test]
fn an_implied_directory_takes_the_attributes_below_it() {
    let bottom = layer([
        dir("d").mode(0o700).owner(7, 8).mtime(9),
        dir("d/sub").mode(0o711),
        dir("hidden").mode(0o700),
        dir("opaque").mode(0o700),
        dir("opaque/sub").mode(0o700),
        symlink("link", "d"),
        dir("./").mode(0o710),
    ]);
    let middle = layer_on(
        &[&bottom],
        [file(".wh.hidden", b""), dir("opaque").mode(0o750), file("opaque/.wh..wh..opq", b""), file("d/sub/m", b"")],
    );
    assert_eq!(middle.stat("").mode() & 0o7777, 0o710, "the root too");
    let top = layer_on(
        &[&bottom, &middle],
        [
            file("d/sub/f", b""),
            file("hidden/f", b""),
            file("opaque/sub/f", b""),
            file("link/f", b""),
            file("new/f", b""),
        ],
    );
    let directory = top.stat("d");
    assert_eq!((directory.mode() & 0o7777, directory.uid(), directory.gid(), directory.mtime()), (0o700, 7, 8, 9));
    assert_eq!(top.stat("d/sub").mode() & 0o7777, 0o711);
    assert_eq!(top.stat("opaque").mode() & 0o7777, 0o750, "of the topmost layer that has it");
    for fresh in ["hidden", "opaque/sub", "link", "new"] {
        let stat = top.stat(fresh);
        assert_eq!((stat.mode() & 0o7777, stat.uid(), stat.mtime()), (0o755, 0, 0), "{fresh}");
    }
    let alone = layer([file("d/sub/f", b"")]);
    let on_top = layer_on(&[&bottom], [file("d/sub/f", b"")]);
    assert_ne!(alone.table.digest().unwrap(), on_top.table.digest().unwrap(), "the measurement is of what is on disk");
}

#[test]
fn implied_directories_take_extended_attributes_but_no_opaque_mark() {
    let bottom = layer([pax(&[("SCHILY.xattr.user.a", b"b")]), dir("d").mode(0o700), file("d/.wh..wh..opq", b"")]);
    let top = layer_on(&[&bottom], [file("d/f", b"")]);
    let mut value = [0u8; 8];
    let got = rustix::fs::lgetxattr(top.path("d"), "user.a", value.as_mut_slice()).unwrap();
    assert_eq!(&value[..got], b"b");
    assert!(!top.is_opaque("d"));
}

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

#[test]
fn odd_names_and_times_are_kept() {
    let layer = layer([
        pax(&[("path", b"\xff\xfe name\n"), ("mtime", b"1.123456789"), ("uid", b"3000000")]),
        file("x", b"odd"),
        pax(&[("mtime", b"-5.5")]),
        file("before-1970", b""),
    ]);
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff\xfe name\n");
    let stat = fs::symlink_metadata(layer.home.path().join(name)).unwrap();
    assert_eq!((stat.mtime(), stat.mtime_nsec(), stat.uid()), (1, 123_456_789, 3_000_000));
    assert_eq!(layer.stat("before-1970").mtime(), 0);
}

#[test]
fn too_deep_and_too_long_are_refused() {
    let deep = "d/".repeat(257) + "f";
    refused([pax(&[("path", deep.as_bytes())]), file("x", b"")], "names in a path");
    let long = "n".repeat(256);
    refused([pax(&[("path", long.as_bytes())]), file("x", b"")], "255");
    let deepest = "d/".repeat(255) + "f";
    layer([pax(&[("path", deepest.as_bytes())]), file("x", b""), file("d", b"all of it gone")]);
}

#[test]
fn entries_are_counted_with_the_directories_they_imply() {
    let limits = Limits { entries: 3, ..Limits::default() };
    let run = |items: Vec<Item>| {
        let mut unpacker = Unpacker::new(NoSink, Budget::new(&limits));
        unpacker.unpack(archive(items).as_slice())
    };
    assert!(run(vec![file("a/b/c", b"")]).is_ok());
    assert!(matches!(run(vec![file("a/b/c/d", b"")]), Err(LayerError::Limit { what: "entries", limit: 3 })));
}

#[test]
fn a_sparse_file_is_its_content_and_its_holes_count_as_unpacked_bytes() {
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", b"5000"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"4096,4")];
    let sparse = || [pax(&records), file("f", b"tail")];
    let mut content = vec![0; 5000];
    content[4096..4100].copy_from_slice(b"tail");
    let unpacked = layer(sparse());
    assert!(fs::read(unpacked.path("f")).unwrap() == content);
    assert_eq!(unpacked.table.digest().unwrap(), layer([file("f", &content)]).table.digest().unwrap());
    let run = |image_bytes| {
        let limits = Limits { image_bytes, ..Limits::default() };
        Unpacker::new(NoSink, Budget::new(&limits)).unpack(archive(sparse()).as_slice())
    };
    assert!(run(4996).is_ok());
    assert!(matches!(run(4995), Err(LayerError::Limit { what: "unpacked bytes in the image", limit: 4995 })));
}

#[test]
fn what_is_altered_on_disk_is_seen() {
    let layer = layer([
        dir("d").mode(0o755),
        file("d/f", b"content").mtime(5),
        hardlink("d/g", "d/f"),
        symlink("s", "t"),
        file(".wh.w", b""),
    ]);
    let honest = layer.table.digest().unwrap();
    let altered = |change: &dyn Fn(), undo: &dyn Fn()| {
        change();
        let seen = walk(layer.home.path(), Table::new()).map_or(true, |table| table.digest().unwrap() != honest);
        undo();
        // Directory times change with what is made and removed in them.
        for path in ["", "d"] {
            let zero = rustix::fs::Timespec { tv_sec: 0, tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: zero, last_modification: zero };
            rustix::fs::utimensat(rustix::fs::CWD, layer.path(path), &times, rustix::fs::AtFlags::empty()).unwrap();
        }
        seen
    };
    assert!(!altered(&|| (), &|| ()));
    let mode = |path: &str, mode: u32| {
        rustix::fs::chmod(layer.path(path), rustix::fs::Mode::from_raw_mode(mode)).unwrap();
    };
    assert!(altered(&|| mode("d", 0o777), &|| mode("d", 0o755)));
    assert!(altered(&|| mode("d/f", 0o4644), &|| mode("d/f", 0o644)));
    assert!(altered(&|| fs::write(layer.path("new"), "").unwrap(), &|| fs::remove_file(layer.path("new")).unwrap()));
    let set = |path: &str, name: &str| {
        rustix::fs::lsetxattr(layer.path(path), name, b"y", rustix::fs::XattrFlags::empty()).unwrap();
    };
    let unset = |path: &str, name: &str| rustix::fs::lremovexattr(layer.path(path), name).unwrap();
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.x"] {
        assert!(altered(&|| set("d", name), &|| unset("d", name)), "{name}");
    }
    assert!(altered(&|| set("d/f", "trusted.overlay.metacopy"), &|| unset("d/f", "trusted.overlay.metacopy")));
    let socket = layer.path("socket");
    assert!(altered(&|| drop(std::os::unix::net::UnixListener::bind(&socket).unwrap()), &|| fs::remove_file(&socket)
        .unwrap()));
    assert!(altered(&|| fs::remove_file(layer.path("w")).unwrap(), &|| ()));
}

/// Names that meet each other, marks included.
fn any_item() -> impl Strategy<Value = Item> {
    let name = proptest::sample::select(vec!["a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq", "a.", "."]);
    let path = proptest::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let target = proptest::sample::select(vec!["a", "/b", "a/b", "../c", "a/../..", "b/c"]);
    (0u8..7, path, target, 0u32..4).prop_map(|(kind, path, target, number)| match kind {
        0 | 1 => file(&path, format!("{number}").as_bytes()).mode(0o640 + number),
        2 => dir(&path).mode(0o700 + number).mtime(number.into()),
        3 => symlink(&path, target),
        4 => hardlink(&path, target),
        5 => item(b'3', &path).device(number, 0),
        _ => item(b'6', &path),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn disk_stream_and_walk_agree_on_any_layer(
        bottom in proptest::collection::vec(any_item(), 0..12),
        top in proptest::collection::vec(any_item(), 0..12),
    ) {
        let mut lower: Vec<Arc<Table>> = Vec::new();
        for items in [bottom, top] {
            let bytes = archive(items);
            let home = tempfile::tempdir().unwrap();
            let unpacked = on_disk(home.path(), &bytes, &lower);
            match measure(&bytes, &lower) {
                Ok(measured) => {
                    prop_assert_eq!(unpacked.unwrap().digest().unwrap(), measured.digest().unwrap());
                    prop_assert_eq!(walk(home.path(), Table::new()).unwrap().digest().unwrap(), measured.digest().unwrap());
                    lower.push(Arc::new(measured));
                }
                Err(error) => {
                    let error = error.into_image("layer").to_string();
                    prop_assert_eq!(unpacked.unwrap_err().into_image("layer").to_string(), error);
                }
            }
        }
    }
}
