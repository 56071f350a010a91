//! What takes the place of what, within a layer and above another.

use crate::case::{Case, stack, tree};
use crate::support::tar::{archive, dir, file, symlink};

pub(crate) fn cases() -> Vec<Case> {
    let below = || archive([dir("d").mode(0o700).owner(1, 2).mtime(3), file("d/old", b"1")]);
    let file_below = || archive([file("f", b"1")]);
    let a = || archive([file("f", b"a"), file("only-a", b"a")]);
    let many: Vec<_> =
        (0..128).map(|n| archive([file("all", n.to_string().as_bytes()), file(&format!("{n:03}"), b"")])).collect();
    let many_lines: Vec<_> =
        (0..128).map(|n| format!("f0644 0:0 /{n:03} \"\"")).chain(["f0644 0:0 /all \"127\"".to_owned()]).collect();
    let many_lines: Vec<&str> = many_lines.iter().map(String::as_str).collect();
    vec![
        tree("file-twice", [file("f", b"first").mode(0o777), file("f", b"second")], &["f0644 0:0 /f \"second\""]),
        tree(
            "file-then-directory",
            [file("d", b"x"), dir("d"), file("d/f", b"y")],
            &["d0755 0:0 /d", "f0644 0:0 /d/f \"y\""],
        ),
        tree("directory-then-file", [dir("d"), file("d/gone", b"x"), file("d", b"y")], &["f0644 0:0 /d \"y\""]),
        tree(
            "directory-then-file-then-directory",
            [dir("d"), file("d/gone", b"x"), file("d", b""), dir("d")],
            &["d0755 0:0 /d"],
        ),
        tree(
            "symbolic-link-then-directory",
            [dir("real"), symlink("d", "real"), dir("d"), file("d/f", b"x")],
            &["d0755 0:0 /d", "f0644 0:0 /d/f \"x\"", "d0755 0:0 /real"],
        ),
        tree("symbolic-link-then-another", [symlink("l", "a"), symlink("l", "b")], &["l 0:0 /l -> b"]),
        tree(
            "directory-twice",
            [dir("d").mode(0o700), file("d/f", b"x"), dir("d").mode(0o711).owner(1, 2)],
            &["d0711 1:2 /d", "f0644 0:0 /d/f \"x\""],
        ),
        stack("above-a-file-its-replacement", vec![file_below(), archive([file("f", b"2")])], &["f0644 0:0 /f \"2\""]),
        stack(
            "above-a-file-a-directory",
            vec![file_below(), archive([dir("f"), file("f/g", b"2")])],
            &["d0755 0:0 /f", "f0644 0:0 /f/g \"2\""],
        ),
        stack("above-a-directory-a-file", vec![below(), archive([file("d", b"2")])], &["f0644 0:0 /d \"2\""]),
        stack("above-a-directory-a-symbolic-link", vec![below(), archive([symlink("d", "e")])], &["l 0:0 /d -> e"]),
        stack(
            "above-a-directory-a-file-then-a-directory",
            vec![below(), archive([file("d", b""), dir("d"), file("d/new", b"2")])],
            &["d0755 0:0 /d", "f0644 0:0 /d/new \"2\""],
        ),
        stack(
            "above-a-symbolic-link-a-directory",
            vec![archive([dir("e"), symlink("d", "e")]), archive([dir("d"), file("d/f", b"2")])],
            &["d0755 0:0 /d", "f0644 0:0 /d/f \"2\"", "d0755 0:0 /e"],
        ),
        stack(
            "above-a-symbolic-link-a-path-through-it",
            vec![archive([dir("e"), symlink("d", "e")]), archive([file("d/f", b"2")])],
            &["d0755 0:0 /d", "f0644 0:0 /d/f \"2\"", "d0755 0:0 /e"],
        ),
        stack(
            "above-a-directory-that-is-implied",
            vec![below(), archive([file("d/new", b"2")])],
            &["d0700 1:2 /d @3", "f0644 0:0 /d/new \"2\"", "f0644 0:0 /d/old \"1\""],
        ),
        stack(
            "above-a-directory-that-is-implied-twice",
            vec![below(), archive([file("d/new", b"2")]), archive([file("d/newer", b"3")])],
            &["d0700 1:2 /d @3", "f0644 0:0 /d/new \"2\"", "f0644 0:0 /d/newer \"3\"", "f0644 0:0 /d/old \"1\""],
        ),
        stack(
            "above-a-directory-described-again",
            vec![below(), archive([dir("d").mode(0o711)])],
            &["d0711 0:0 /d", "f0644 0:0 /d/old \"1\""],
        ),
        stack(
            "layer-a-b-a",
            vec![a(), archive([file("f", b"b")]), a()],
            &["f0644 0:0 /f \"a\"", "f0644 0:0 /only-a \"a\""],
        ),
        stack("layers-128", many, &many_lines),
        stack(
            "layer-that-is-empty-between-others",
            vec![file_below(), archive([]), archive([file("g", b"2")])],
            &["f0644 0:0 /f \"1\"", "f0644 0:0 /g \"2\""],
        ),
    ]
}
