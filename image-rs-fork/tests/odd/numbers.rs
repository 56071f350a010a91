//! Numbers in headers: owners, sizes, modes.

use protocols::reason::IMAGE_LAYER_FORMAT;

use crate::case::{Case, refused, tree};
use crate::support::tar::{dir, file, pax};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        tree(
            "owner-3000000-by-pax",
            [pax(&[("uid", b"3000000"), ("gid", b"3000001")]), file("f", b"x")],
            &["f0644 3000000:3000001 /f \"x\""],
        ),
        tree(
            "owner-3000000-by-base-256",
            [file("f", b"x").with(108, b"\x80\0\0\0\0\x2d\xc6\xc0")],
            &["f0644 3000000:0 /f \"x\""],
        ),
        tree(
            "owner-just-below-2-to-the-32",
            [pax(&[("uid", b"4294967294")]), file("f", b"x")],
            &["f0644 4294967294:0 /f \"x\""],
        ),
        refused("owner-that-chown-ignores", [pax(&[("uid", b"4294967295")]), file("f", b"x")], IMAGE_LAYER_FORMAT),
        refused("owner-above-2-to-the-32", [pax(&[("gid", b"4294967296")]), file("f", b"x")], IMAGE_LAYER_FORMAT),
        refused("owner-negative", [file("f", b"x").with(108, &[0xff; 8])], IMAGE_LAYER_FORMAT),
        refused("owner-that-is-no-number", [file("f", b"x").with(108, b"00000x0\0")], IMAGE_LAYER_FORMAT),
        refused("size-negative", [file("f", b"").with(124, &[0xff; 12])], IMAGE_LAYER_FORMAT),
        refused("size-beyond-63-bits", [file("f", b"").with(124, b"\x80\0\0\0\x80\0\0\0\0\0\0\0")], IMAGE_LAYER_FORMAT),
        refused(
            "number-by-pax-that-overflows",
            [pax(&[("size", b"9223372036854775808")]), file("f", b"")],
            IMAGE_LAYER_FORMAT,
        ),
        tree("number-of-spaces", [file("f", b"x").with(108, b"     5 \0")], &["f0644 5:0 /f \"x\""]),
        tree(
            "mode-set-id-of-another-owner",
            [file("f", b"x").mode(0o6755).owner(1000, 1001)],
            &["f6755 1000:1001 /f \"x\""],
        ),
        tree("mode-sticky-directory", [dir("d").mode(0o1777)], &["d1777 0:0 /d"]),
        tree("mode-of-nothing", [file("f", b"x").mode(0)], &["f0000 0:0 /f \"x\""]),
        tree("mode-with-the-files-type-in-it", [file("f", b"x").mode(0o100_600)], &["f0600 0:0 /f \"x\""]),
    ]
}
