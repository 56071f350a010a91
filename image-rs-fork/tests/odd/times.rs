//! Modification times.

use protocols::reason::IMAGE_LAYER_FORMAT;

use crate::case::{Case, refused, tree};
use crate::support::tar::{dir, file, pax, symlink};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        tree("time", [file("f", b"x").mtime(1_700_000_000)], &["f0644 0:0 /f \"x\" @1700000000"]),
        tree("time-with-a-fraction", [pax(&[("mtime", b"5.25")]), file("f", b"x")], &["f0644 0:0 /f \"x\" @5.25"]),
        tree(
            "time-to-the-nanosecond",
            [pax(&[("mtime", b"5.1234567891")]), file("f", b"x")],
            &["f0644 0:0 /f \"x\" @5.123456789"],
        ),
        tree("time-before-1970", [pax(&[("mtime", b"-1.5")]), file("f", b"x")], &["f0644 0:0 /f \"x\""]),
        tree("time-before-1970-by-base-256", [file("f", b"x").with(136, &[0xff; 12])], &["f0644 0:0 /f \"x\""]),
        tree("time-after-2262", [pax(&[("mtime", b"99999999999")]), file("f", b"x")], &["f0644 0:0 /f \"x\""]),
        tree("time-of-a-symbolic-link", [symlink("l", "t").mtime(7)], &["l 0:0 /l -> t @7"]),
        tree(
            "time-of-a-directory-that-is-filled-later",
            [dir("d").mtime(7), file("d/f", b"x")],
            &["d0755 0:0 /d @7", "f0644 0:0 /d/f \"x\""],
        ),
        refused("time-that-is-no-number", [pax(&[("mtime", b"now")]), file("f", b"x")], IMAGE_LAYER_FORMAT),
    ]
}
