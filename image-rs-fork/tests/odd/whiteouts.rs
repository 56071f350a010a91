//! Whiteouts and opaque directories.

use protocols::reason::IMAGE_LAYER_FORMAT;

use crate::case::{Case, refused, stack, tree};
use crate::support::tar::{Item, archive, dir, file, hardlink, item, symlink};

pub(crate) fn cases() -> Vec<Case> {
    let below = || {
        archive([
            dir("d").mode(0o700),
            file("d/old", b"1"),
            dir("d/sub"),
            file("d/sub/deep", b"1"),
            file("f", b"1"),
            symlink("l", "f"),
        ])
    };
    let above = |name, items: Vec<Item>, lines: &[&str]| stack(name, vec![below(), archive(items)], lines);
    let all = ["d0700 0:0 /d", "f0644 0:0 /d/old \"1\"", "d0755 0:0 /d/sub", "f0644 0:0 /d/sub/deep \"1\""];
    let (f, l) = ("f0644 0:0 /f \"1\"", "l 0:0 /l -> f");
    let with = |lines: &[&'static str]| -> Vec<&'static str> { lines.to_vec() };
    let opaque = with(&["d0755 0:0 /d", "f0644 0:0 /d/new \"2\"", f, l]);
    vec![
        above("whiteout-of-a-file", vec![file(".wh.f", b"")], &[&all[..], &[l]].concat()),
        above("whiteout-of-a-directory", vec![file(".wh.d", b"")], &[f, l]),
        above("whiteout-of-a-symbolic-link", vec![file(".wh.l", b"")], &[&all[..], &[f]].concat()),
        above("whiteout-in-a-directory", vec![file("d/.wh.old", b"")], &[all[0], all[2], all[3], f, l]),
        above(
            "whiteout-in-an-implied-directory-keeps-its-mode",
            vec![file("d/sub/.wh.deep", b"")],
            &[all[0], all[1], all[2], f, l],
        ),
        above("whiteout-as-a-hard-link", vec![hardlink(".wh.f", "d/nowhere")], &[&all[..], &[l]].concat()),
        above("whiteout-as-a-directory", vec![dir(".wh.f")], &[&all[..], &[l]].concat()),
        above("whiteout-with-content", vec![file(".wh.f", b"content")], &[&all[..], &[l]].concat()),
        above("whiteout-of-nothing-there", vec![file(".wh.nowhere", b"")], &[&all[..], &[f, l]].concat()),
        above(
            "whiteout-and-again-the-file",
            vec![file(".wh.f", b""), file("f", b"2")],
            &[&all[..], &["f0644 0:0 /f \"2\"", l]].concat(),
        ),
        above(
            "file-and-then-its-whiteout",
            vec![file("f", b"2"), file(".wh.f", b"")],
            &[&all[..], &["f0644 0:0 /f \"2\"", l]].concat(),
        ),
        above("whiteout-and-again-the-directory", vec![file(".wh.d", b""), dir("d"), file("d/new", b"2")], &opaque),
        above("directory-and-then-its-whiteout", vec![dir("d"), file("d/new", b"2"), file(".wh.d", b"")], &opaque),
        above("whiteout-and-again-a-path-below", vec![file(".wh.d", b""), file("d/new", b"2")], &opaque),
        above("opaque-before-files", vec![dir("d"), file("d/.wh..wh..opq", b""), file("d/new", b"2")], &opaque),
        above("opaque-after-files", vec![dir("d"), file("d/new", b"2"), file("d/.wh..wh..opq", b"")], &opaque),
        above(
            "opaque-without-a-parent-entry",
            vec![file("d/.wh..wh..opq", b""), file("d/new", b"2")],
            &[all[0], "f0644 0:0 /d/new \"2\"", f, l],
        ),
        above(
            "opaque-and-a-directory-below-it",
            vec![dir("d"), file("d/.wh..wh..opq", b""), file("d/sub/new", b"2")],
            &["d0755 0:0 /d", "d0755 0:0 /d/sub", "f0644 0:0 /d/sub/new \"2\"", f, l],
        ),
        above("opaque-root", vec![file(".wh..wh..opq", b""), file("new", b"2")], &["f0644 0:0 /new \"2\""]),
        stack(
            "whiteout-and-a-layer-that-fills-again",
            vec![below(), archive([file(".wh.d", b"")]), archive([file("d/new", b"3")])],
            &["d0755 0:0 /d", "f0644 0:0 /d/new \"3\"", f, l],
        ),
        stack(
            "whiteout-device-of-a-nested-overlay",
            vec![below(), archive([item(b'3', "d/old").device(0, 0), item(b'3', "d/other").device(0, 0)])],
            &[all[0], all[2], all[3], f, l],
        ),
        // Overlayfs lists whiteouts in a directory that it does not merge: these hide nothing and are left out.
        tree(
            "whiteout-in-the-lowest-layer",
            [dir("d"), file("d/.wh.x", b""), file("d/f", b"x"), file(".wh.y", b"")],
            &["d0755 0:0 /d", "f0644 0:0 /d/f \"x\""],
        ),
        above(
            "whiteout-in-a-directory-no-layer-below-has",
            vec![dir("n"), file("n/.wh.x", b""), file("n/f", b"2")],
            &[&all[..], &[f, l, "d0755 0:0 /n", "f0644 0:0 /n/f \"2\""]].concat(),
        ),
        above(
            "whiteout-in-a-directory-in-place-of-a-file",
            vec![dir("f"), file("f/.wh.x", b"")],
            &[&all[..], &["d0755 0:0 /f", l]].concat(),
        ),
        above(
            "whiteout-in-an-opaque-directory",
            vec![dir("d"), file("d/.wh..wh..opq", b""), file("d/.wh.old", b""), file("d/new", b"2")],
            &opaque,
        ),
        stack(
            "whiteout-in-a-directory-that-was-hidden-between",
            vec![
                below(),
                archive([file(".wh.d", b"")]),
                archive([dir("d"), file("d/.wh.old", b""), file("d/new", b"2")]),
            ],
            &opaque,
        ),
        tree("whiteout-of-a-whiteouts-name", [file(".wh.x.wh.y", b""), file("f", b"x")], &["f0644 0:0 /f \"x\""]),
        refused("whiteout-bare", [file(".wh.", b"")], IMAGE_LAYER_FORMAT),
        refused("whiteout-of-dot", [file("d/.wh..", b"")], IMAGE_LAYER_FORMAT),
        refused("whiteout-of-dotdot", [file("d/.wh...", b"")], IMAGE_LAYER_FORMAT),
        refused("whiteout-with-an-entry-below", [file("d/.wh.x/f", b"")], IMAGE_LAYER_FORMAT),
        tree(
            "whiteout-files-of-aufs",
            [dir(".wh..wh.plnk"), file(".wh..wh.plnk/1.2", b"x"), file(".wh..wh.aufs", b""), file("f", b"x")],
            &["f0644 0:0 /f \"x\""],
        ),
    ]
}
