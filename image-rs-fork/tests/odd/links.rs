//! Hard links.

use protocols::reason::{IMAGE_LAYER_FORMAT, IMAGE_UNSAFE};

use crate::case::{Case, blobs_refused, refused, stack, tree};
use crate::support::image::plain;
use crate::support::tar::{archive, dir, file, hardlink, item, pax, symlink};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        tree("hardlink", [file("f", b"x"), hardlink("h", "f")], &["f0644 0:0 /f \"x\"", "f0644 0:0 /h = /f"]),
        tree("hardlink-absolute", [file("f", b"x"), hardlink("h", "/f")], &["f0644 0:0 /f \"x\"", "f0644 0:0 /h = /f"]),
        tree(
            "hardlink-of-a-hardlink",
            [file("d/f", b"x"), hardlink("e", "./d/f"), hardlink("g", "e")],
            &["d0755 0:0 /d", "f0644 0:0 /d/f \"x\"", "f0644 0:0 /e = /d/f", "f0644 0:0 /g = /d/f"],
        ),
        tree(
            "hardlink-to-a-symbolic-link",
            [symlink("l", "nowhere"), hardlink("m", "l")],
            &["l 0:0 /l -> nowhere", "l 0:0 /m = /l"],
        ),
        tree(
            "hardlink-through-a-symbolic-link",
            [dir("d"), file("d/f", b"x"), symlink("l", "/d"), hardlink("h", "l/f")],
            &["d0755 0:0 /d", "f0644 0:0 /d/f \"x\"", "f0644 0:0 /h = /d/f", "l 0:0 /l -> /d"],
        ),
        tree(
            "hardlink-to-a-device",
            [item(b'3', "c").device(1, 3), hardlink("d", "c")],
            &["c0644 0:0 /c 1:3", "c0644 0:0 /d = /c"],
        ),
        tree(
            "hardlink-outlives-its-target",
            [file("f", b"old"), hardlink("h", "f"), file("f", b"new")],
            &["f0644 0:0 /f \"new\"", "f0644 0:0 /h \"old\""],
        ),
        tree(
            "hardlink-replaces-a-file",
            [file("f", b"x"), file("h", b"gone"), hardlink("h", "f")],
            &["f0644 0:0 /f \"x\"", "f0644 0:0 /h = /f"],
        ),
        tree(
            "hardlink-header-describes-the-inode",
            [file("f", b"x").mode(0o4755), hardlink("h", "f").mode(0o600).owner(8, 9).mtime(7)],
            &["f0600 8:9 /f \"x\" @7", "f0600 8:9 /h = /f"],
        ),
        tree(
            "hardlink-header-with-set-id-bits",
            [file("f", b"x").mode(0o4755).owner(5, 5), hardlink("h", "f").mode(0o4755).owner(5, 5)],
            &["f4755 5:5 /f \"x\"", "f4755 5:5 /h = /f"],
        ),
        tree(
            "hardlink-header-of-a-symbolic-link",
            [symlink("l", "t"), hardlink("m", "l").mode(0o600).owner(8, 9).mtime(7)],
            &["l 8:9 /l -> t @7", "l 8:9 /m = /l"],
        ),
        tree(
            "hardlink-repeats-attributes",
            [
                pax(&[("SCHILY.xattr.user.a", b"1")]),
                file("f", b"x"),
                pax(&[("SCHILY.xattr.user.a", b"1")]),
                hardlink("h", "f"),
            ],
            &["f0644 0:0 /f \"x\" user.a=1", "f0644 0:0 /h = /f"],
        ),
        refused(
            "hardlink-adds-attributes",
            [file("f", b"x"), pax(&[("SCHILY.xattr.user.a", b"1")]), hardlink("h", "f")],
            IMAGE_LAYER_FORMAT,
        ),
        refused("hardlink-to-nothing", [hardlink("h", "f")], IMAGE_LAYER_FORMAT),
        refused("hardlink-before-its-target", [hardlink("h", "f"), file("f", b"x")], IMAGE_LAYER_FORMAT),
        refused("hardlink-to-a-directory", [dir("d"), hardlink("h", "d")], IMAGE_LAYER_FORMAT),
        refused("hardlink-to-itself", [file("f", b"x"), hardlink("f", "f")], IMAGE_LAYER_FORMAT),
        refused(
            "hardlink-in-place-of-its-targets-directory",
            [dir("d"), file("d/f", b"x"), hardlink("d", "d/f")],
            IMAGE_LAYER_FORMAT,
        ),
        refused("hardlink-to-the-root", [hardlink("h", ".")], IMAGE_UNSAFE),
        refused("hardlink-to-a-whiteout", [file(".wh.f", b""), hardlink("h", "f")], IMAGE_LAYER_FORMAT),
        blobs_refused(
            "hardlink-across-layers",
            vec![plain(&archive([file("f", b"x")])), plain(&archive([hardlink("h", "f")]))],
            IMAGE_LAYER_FORMAT,
        ),
        stack(
            "hardlink-of-which-one-name-is-replaced-above",
            vec![archive([file("f", b"x"), hardlink("h", "f")]), archive([file("h", b"y")])],
            &["f0644 0:0 /f \"x\"", "f0644 0:0 /h \"y\""],
        ),
    ]
}
