//! Limits.

use super::*;

#[test]
fn too_deep_and_too_long_are_refused() {
    let deep = "d/".repeat(257) + "f";
    refused([pax(&[("path", deep.as_bytes())]), file("x", b"")], "names in a path");
    let long = "n".repeat(256);
    refused([pax(&[("path", long.as_bytes())]), file("x", b"")], "255");
    let deepest = "d/".repeat(255) + "f";
    layer([pax(&[("path", deepest.as_bytes())]), file("x", b""), file("d", b"all of it gone")]);
}

#[test]
fn entries_are_counted_with_the_directories_they_imply() {
    let limits = Limits { entries: 3, ..Limits::default() };
    let run = |items: Vec<Item>| {
        let mut unpacker = Unpacker::new(NoSink, Budget::new(&limits));
        unpacker.unpack(archive(items).as_slice())
    };
    assert!(run(vec![file("a/b/c", b"")]).is_ok());
    assert!(matches!(run(vec![file("a/b/c/d", b"")]), Err(LayerError::Limit { what: "entries", limit: 3 })));
}

#[test]
fn a_sparse_file_is_its_content_and_its_holes_count_as_unpacked_bytes() {
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", b"5000"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"4096,4")];
    let sparse = || [pax(&records), file("f", b"tail")];
    let mut content = vec![0; 5000];
    content[4096..4100].copy_from_slice(b"tail");
    let unpacked = layer(sparse());
    assert!(fs::read(unpacked.path("f")).unwrap() == content);
    assert_eq!(unpacked.table.digest().unwrap(), layer([file("f", &content)]).table.digest().unwrap());
    let run = |image_bytes| {
        let limits = Limits { image_bytes, ..Limits::default() };
        Unpacker::new(NoSink, Budget::new(&limits)).unpack(archive(sparse()).as_slice())
    };
    assert!(run(4996).is_ok());
    assert!(matches!(run(4995), Err(LayerError::Limit { what: "unpacked bytes in the image", limit: 4995 })));
}
