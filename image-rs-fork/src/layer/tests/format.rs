//! What is measured: each attribute, in a pinned form, as it lies on disk.

use proptest::prelude::*;
use protocols::digest::Sha256Digest;
use protocols::image::Layout;

use super::*;
use crate::store::rootfs_digest;

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
    let below = layer([dir("d")]);
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
        &[below.table],
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
