//! Deletions, and what directories take from the layers below.

use super::*;

#[test]
fn whiteouts_and_opaque_marks_are_overlayfs_own() {
    let below = layer([dir("d")]);
    let layer = layer_on(
        &[&below],
        [
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
        ],
    );
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
fn a_whiteout_stays_only_where_a_layer_below_has_its_directory() {
    let marked = |directory: &str| file(&format!("{directory}/.wh.x"), b"");
    let bottom = layer([dir("kept"), dir("kept/deep"), dir("hidden"), dir("opaque"), file("file", b"")]);
    let middle = layer_on(&[&bottom], [file(".wh.hidden", b"")]);
    let items = || {
        let names = ["kept", "kept/deep", "kept/new", "hidden", "opaque", "opaque/deep", "file", "missing"];
        let marks = names.into_iter().map(marked);
        marks.chain([file(".wh.x", b""), file("opaque/.wh..wh..opq", b""), item(b'3', "missing/y").device(0, 0)])
    };
    let top = layer_on(&[&bottom, &middle], items());
    for kept in ["x", "kept/x", "kept/deep/x"] {
        assert!(top.is_whiteout(kept), "{kept}");
    }
    for left_out in ["kept/new/x", "hidden/x", "opaque/x", "opaque/deep/x", "file/x", "missing/x", "missing/y"] {
        assert!(!top.exists(left_out), "{left_out}");
    }
    let alone = layer(items());
    assert!(alone.is_whiteout("x") && !alone.exists("kept/x"), "the lowest layer hides nothing");
    assert_ne!(alone.table.digest().unwrap(), top.table.digest().unwrap(), "the measurement is of what is on disk");
}
