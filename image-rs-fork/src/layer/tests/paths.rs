//! Paths and the links on them.

use super::*;

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
fn a_file_is_no_directory() {
    refused([file("f", b""), file("f/x", b"")], "no directory");
    refused([file("f", b""), symlink("s", "f"), file("s/x", b"")], "no directory");
    refused([file("f", b""), symlink("s", "f/../d"), file("s/x", b"")], "no directory");
    refused([file(".", b"")], "root");
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
