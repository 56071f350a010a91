//! Extended headers: PAX, GNU's long names, sparse maps.

use protocols::reason::IMAGE_LAYER_FORMAT;

use crate::case::{Case, refused, tree};
use crate::support::tar::{Item, file, item, pax, pax_typed, symlink};

fn gnu(item: Item) -> Item {
    item.with(257, b"ustar  \0")
}

/// A file of GNU's old sparse type: pieces at 0 and 1000 of 3 bytes each.
fn old_sparse() -> Item {
    gnu(item(b'S', "s"))
        .content(b"abcdef")
        .with(386, b"00000000000\x0000000000003\0")
        .with(410, b"00000001750\x0000000000003\0")
        .with(483, b"00000002000\0")
}

pub(crate) fn cases() -> Vec<Case> {
    let sparse = |extra: &[(&str, &[u8])], data: &[u8]| {
        let mut records: Vec<(&str, &[u8])> = vec![("GNU.sparse.name", b"s")];
        records.extend_from_slice(extra);
        [pax(&records), file("GNUSparseFile.1/s", data)]
    };
    let mut mapped = b"2\n0\n3\n1000\n3\n".to_vec();
    mapped.resize(512, 0);
    mapped.extend_from_slice(b"abcdef");
    let whole = {
        let mut content = vec![0; 1024];
        content[..3].copy_from_slice(b"abc");
        content[1000..1003].copy_from_slice(b"def");
        format!("f0644 0:0 /s 1024 {}", &protocols::digest::Sha256Digest::of(&content).hex()[..8])
    };
    let long = "n".repeat(150);
    let long_line = "f0644 0:0 /n*150 \"x\"".to_owned();
    let hidden = [file("inner", b"").bytes(), vec![0; 512]].concat();
    vec![
        tree(
            "sparse-1.0",
            sparse(
                &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1024")],
                &mapped,
            ),
            &[&whole],
        ),
        tree(
            "sparse-0.1",
            sparse(
                &[("GNU.sparse.size", b"1024"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", b"0,3,1000,3")],
                b"abcdef",
            ),
            &[&whole],
        ),
        tree(
            "sparse-0.0",
            sparse(
                &[
                    ("GNU.sparse.size", b"1024"),
                    ("GNU.sparse.numblocks", b"2"),
                    ("GNU.sparse.offset", b"0"),
                    ("GNU.sparse.numbytes", b"3"),
                    ("GNU.sparse.offset", b"1000"),
                    ("GNU.sparse.numbytes", b"3"),
                ],
                b"abcdef",
            ),
            &[&whole],
        ),
        tree("sparse-gnu", [old_sparse()], &[&whole]),
        refused(
            "sparse-with-a-piece-beyond-the-end",
            sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"8,3")], b"abc"),
            IMAGE_LAYER_FORMAT,
        ),
        refused(
            "sparse-with-more-data-than-pieces",
            sparse(&[("GNU.sparse.size", b"10"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"0,3")], b"abcd"),
            IMAGE_LAYER_FORMAT,
        ),
        tree("pax-empty-value", [pax(&[("path", b"g"), ("path", b"")]), file("f", b"x")], &["f0644 0:0 /f \"x\""]),
        tree(
            "pax-global-header-of-a-comment",
            [pax_typed(b'g', &[("comment", b"made by git")]), file("f", b"x")],
            &["f0644 0:0 /f \"x\""],
        ),
        tree(
            "pax-global-header-of-an-owner",
            [pax_typed(b'g', &[("uid", b"7"), ("mtime", b"8")]), file("f", b"x")],
            &["f0644 0:0 /f \"x\""],
        ),
        refused(
            "pax-global-header-of-a-path",
            [pax_typed(b'g', &[("path", b"g")]), file("f", b"x")],
            IMAGE_LAYER_FORMAT,
        ),
        refused(
            "pax-global-header-of-a-size",
            [pax_typed(b'g', &[("size", b"0")]), file("f", b"x")],
            IMAGE_LAYER_FORMAT,
        ),
        tree("pax-long-name", [pax(&[("path", long.as_bytes())]), file("x", b"x")], &[&long_line]),
        tree("pax-long-link", [pax(&[("linkpath", long.as_bytes())]), symlink("l", "x")], &["l 0:0 /l -> n*150"]),
        tree(
            "gnu-long-name",
            [gnu(item(b'L', "././@LongLink")).content(format!("{long}\0").as_bytes()), gnu(file("x", b"x"))],
            &[&long_line],
        ),
        tree(
            "gnu-long-link",
            [gnu(item(b'K', "././@LongLink")).content(format!("{long}\0").as_bytes()), gnu(symlink("l", "x"))],
            &["l 0:0 /l -> n*150"],
        ),
        tree(
            "ustar-prefix",
            [file("f", b"x").with(345, b"a/b")],
            &["d0755 0:0 /a", "d0755 0:0 /a/b", "f0644 0:0 /a/b/f \"x\""],
        ),
        tree(
            "gnu-header-with-a-ustar-prefix",
            [gnu(file("f", b"x")).with(345, b"a-very-long-prefix/of-an-old-writer")],
            &[
                "d0755 0:0 /a-very-long-prefix",
                "d0755 0:0 /a-very-long-prefix/of-an-old-writer",
                "f0644 0:0 /a-very-long-prefix/of-an-old-writer/f \"x\"",
            ],
        ),
        // CVE-2025-62518: a reader that takes the header's size of 0 finds a header in the file's data.
        tree(
            "pax-size-over-a-header-of-size-zero",
            [pax(&[("size", hidden.len().to_string().as_bytes())]), file("f", &hidden).with(124, b"00000000000\0")],
            &[&format!("f0644 0:0 /f {} {}", hidden.len(), &protocols::digest::Sha256Digest::of(&hidden).hex()[..8])],
        ),
        // CVE-2026-33055, CVE-2026-53655: the size is the file's, not that of the long name between.
        tree(
            "pax-size-before-another-extended-header",
            [
                pax(&[("size", b"3")]),
                gnu(item(b'L', "././@LongLink")).content(format!("{long}\0").as_bytes()),
                gnu(file("x", b"abc")),
            ],
            &["f0644 0:0 /n*150 \"abc\""],
        ),
        refused("pax-negative-size", [pax(&[("size", b"-1")]), file("f", b"")], IMAGE_LAYER_FORMAT),
        refused("pax-twice", [pax(&[("uid", b"1")]), pax(&[("uid", b"2")]), file("f", b"")], IMAGE_LAYER_FORMAT),
        refused(
            "pax-and-gnu-names-that-differ",
            [pax(&[("path", b"one")]), gnu(item(b'L', "././@LongLink")).content(b"two\0"), file("f", b"")],
            IMAGE_LAYER_FORMAT,
        ),
        refused("pax-without-an-entry", [file("f", b""), pax(&[("uid", b"1")])], IMAGE_LAYER_FORMAT),
        refused(
            "pax-record-with-a-wrong-length",
            [item(b'x', "pax").content(b"99 uid=1\n"), file("f", b"")],
            IMAGE_LAYER_FORMAT,
        ),
        refused(
            "pax-record-without-a-newline",
            [item(b'x', "pax").content(b"8 uid=1x"), file("f", b"")],
            IMAGE_LAYER_FORMAT,
        ),
        tree("pax-unknown-record", [pax(&[("VENDOR.thing", b"1")]), file("f", b"x")], &["f0644 0:0 /f \"x\""]),
    ]
}
