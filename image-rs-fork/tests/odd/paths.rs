//! Names of entries: what stays inside, what is refused.

use protocols::reason::{IMAGE_LAYER_FORMAT, IMAGE_LIMIT, IMAGE_UNSAFE};

use crate::case::{Case, refused, tree};
use crate::support::tar::{Item, dir, file, hardlink, item, pax, symlink};

/// A file whose path is too long for a header.
fn at(path: &[u8]) -> [Item; 2] {
    [pax(&[("path", path)]), file("x", b"x")]
}

/// Every directory on the way to a file of `depth` names of one byte.
fn deep(depth: usize) -> Vec<String> {
    let name = |n: usize| "/d".repeat(n);
    let mut lines: Vec<_> = (1..depth).map(|n| format!("d0755 0:0 {}", name(n))).collect();
    lines.push(format!("f0644 0:0 {}/f \"x\"", name(depth - 1)));
    lines
}

pub(crate) fn cases() -> Vec<Case> {
    let mut circle: Vec<_> = (0..41).map(|n| symlink(&format!("l{n:02}"), &format!("l{:02}", n + 1))).collect();
    circle.push(dir("l41"));
    let mut forty = circle[1..].to_vec();
    forty.push(file("l01/f", b"x"));
    circle.push(file("l00/f", b"x"));
    let forty_lines: Vec<_> = (1..41).map(|n| format!("l 0:0 /l{n:02} -> l{:02}", n + 1)).collect();
    let mut forty_lines: Vec<&str> = forty_lines.iter().map(String::as_str).collect();
    forty_lines.extend(["d0755 0:0 /l41", "f0644 0:0 /l41/f \"x\""]);
    let deepest = deep(256);
    let deepest: Vec<&str> = deepest.iter().map(String::as_str).collect();
    let deepest_path = [b"d/".repeat(255), b"f".to_vec()].concat();
    let too_deep = [b"d/".repeat(256), b"f".to_vec()].concat();
    let (target, below) = ("d/".repeat(200), format!("a/{}f", "e/".repeat(100)));

    vec![
        tree("path-absolute", [file("/etc/f", b"x")], &["d0755 0:0 /etc", "f0644 0:0 /etc/f \"x\""]),
        tree("path-of-dots-and-slashes", [file(".//a/./f", b"x")], &["d0755 0:0 /a", "f0644 0:0 /a/f \"x\""]),
        tree("path-dotdot-inside", [dir("a"), file("a/../f", b"x")], &["d0755 0:0 /a", "f0644 0:0 /f \"x\""]),
        tree("path-dotdot-above-the-root", [file("../../f", b"x")], &["f0644 0:0 /f \"x\""]),
        tree("path-dotdot-absolute", [file("/../a/../../f", b"x")], &["f0644 0:0 /f \"x\""]),
        tree(
            "path-missing-parents",
            [file("a/b/f", b"x")],
            &["d0755 0:0 /a", "d0755 0:0 /a/b", "f0644 0:0 /a/b/f \"x\""],
        ),
        tree("path-not-utf8", at(b"\xff\xfe\n"), &["f0644 0:0 /\\xff\\xfe\\n \"x\""]),
        tree("path-of-255-bytes-in-a-name", at(&[b'n'; 255]), &["f0644 0:0 /n*255 \"x\""]),
        refused("path-of-256-bytes-in-a-name", at(&[b'n'; 256]), IMAGE_LIMIT),
        tree("path-of-256-names", at(&deepest_path), &deepest),
        refused("path-of-257-names", at(&too_deep), IMAGE_LIMIT),
        refused("path-of-4096-bytes", at(&[&[b'n'; 255][..], b"/"].concat().repeat(16)), IMAGE_LIMIT),
        refused("path-with-nul", at(b"a\0b"), IMAGE_LAYER_FORMAT),
        refused("path-of-a-file-with-a-trailing-slash", [file("f/", b"")], IMAGE_LAYER_FORMAT),
        tree("path-of-an-old-directory-with-a-trailing-slash", [item(0, "d/").mode(0o755)], &["d0755 0:0 /d"]),
        tree("path-of-the-root", [dir("./").mode(0o700).owner(1, 2).mtime(3)], &["d0700 1:2 / @3"]),
        refused("path-of-a-file-in-place-of-the-root", [file("./", b"")], IMAGE_LAYER_FORMAT),
        refused("path-of-a-link-in-place-of-the-root", [symlink("a/..", "/etc")], IMAGE_UNSAFE),
        refused("path-through-a-file", [file("f", b""), file("f/g", b"")], IMAGE_LAYER_FORMAT),
        refused("path-through-a-device", [item(b'3', "c").device(1, 3), file("c/g", b"")], IMAGE_LAYER_FORMAT),
        refused(
            "path-through-a-link-through-a-file",
            [file("f", b""), symlink("l", "f/../d"), file("l/g", b"")],
            IMAGE_LAYER_FORMAT,
        ),
        tree(
            "breakout-through-a-link-to-an-absolute-directory",
            [symlink("l", "/etc"), file("l/passwd", b"x")],
            &["d0755 0:0 /etc", "f0644 0:0 /etc/passwd \"x\"", "l 0:0 /l -> /etc"],
        ),
        tree(
            "breakout-through-a-link-above-the-root",
            [dir("d"), symlink("d/l", "../../../../tmp"), file("d/l/f", b"x")],
            &["d0755 0:0 /d", "l 0:0 /d/l -> ../../../../tmp", "d0755 0:0 /tmp", "f0644 0:0 /tmp/f \"x\""],
        ),
        tree(
            "breakout-through-a-chain-of-links",
            [symlink("a", "b/.."), symlink("b", "/c"), symlink("l", "a/../.."), file("l/f", b"x")],
            &["l 0:0 /a -> b/..", "l 0:0 /b -> /c", "f0644 0:0 /f \"x\"", "l 0:0 /l -> a/../.."],
        ),
        tree("breakout-over-a-link", [symlink("f", "/etc/passwd"), file("f", b"x")], &["f0644 0:0 /f \"x\""]),
        tree(
            "breakout-by-a-directory-over-a-link",
            [symlink("d", "/etc"), dir("d"), file("d/f", b"x")],
            &["d0755 0:0 /d", "f0644 0:0 /d/f \"x\""],
        ),
        tree(
            "breakout-by-a-whiteout-through-a-link",
            [dir("etc"), file("etc/kept", b"x"), symlink("l", "/etc"), file("l/.wh.gone", b"")],
            &["d0755 0:0 /etc", "f0644 0:0 /etc/kept \"x\"", "l 0:0 /l -> /etc"],
        ),
        refused("breakout-by-a-hard-link-above-the-root", [hardlink("h", "../etc/passwd")], IMAGE_UNSAFE),
        refused(
            "breakout-by-a-hard-link-through-a-link",
            [symlink("l", "/"), hardlink("h", "l/etc/passwd")],
            IMAGE_LAYER_FORMAT,
        ),
        refused("links-in-a-circle", [symlink("a", "b"), symlink("b", "a"), file("a/f", b"")], IMAGE_LAYER_FORMAT),
        tree("links-forty-in-a-row", forty, &forty_lines),
        refused("links-forty-one-in-a-row", circle, IMAGE_LAYER_FORMAT),
        refused(
            "links-that-make-a-path-too-deep",
            [
                pax(&[("linkpath", target.as_bytes())]),
                symlink("a", "x"),
                pax(&[("path", below.as_bytes())]),
                file("x", b""),
            ],
            IMAGE_LIMIT,
        ),
    ]
}
