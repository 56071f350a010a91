//! Every limit: what fits passes, one more is refused.

use super::build::{Archive, dir, file, head};
use super::list::parse;
use crate::tar::{TarError, TarLimits};

fn limit_of(archive: &[u8], limits: TarLimits) -> Option<(&'static str, u64)> {
    let whole = parse(archive, limits, &[usize::MAX]);
    assert_eq!(whole.1, parse(archive, limits, &[700]).1);
    match whole.1 {
        Ok(()) => None,
        Err(TarError::Limit { what, limit, .. }) => Some((what, limit)),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn entries_are_counted() {
    let archive = Archive::new().entry(dir("a"), "").entry(file("a/b"), "x").entry(file("a/c"), "").end();
    assert_eq!(limit_of(&archive, TarLimits { entries: 3, ..TarLimits::default() }), None);
    assert_eq!(limit_of(&archive, TarLimits { entries: 2, ..TarLimits::default() }), Some(("entries", 2)));
}

#[test]
fn bytes_of_the_archive_are_counted_behind_its_end_too() {
    let mut archive = Archive::new().entry(file("a"), "x").end();
    archive.resize(10_000, 1);
    let limits = |archive_bytes| TarLimits { archive_bytes, ..TarLimits::default() };
    let what = "bytes of a layer's archive";
    assert!(parse(&archive, limits(10_000), &[usize::MAX]).1.is_ok());
    for pieces in [&[usize::MAX][..], &[3]] {
        let refused = parse(&archive, limits(9_999), pieces).1.unwrap_err();
        assert!(matches!(refused, TarError::Limit { what: w, limit: 9_999, .. } if w == what));
    }
}

#[test]
fn bytes_of_files_are_counted_with_their_holes() {
    let sparse = [("GNU.sparse.size", &b"999"[..]), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"0,1")];
    let archive = Archive::new().entry(file("a"), "x").pax(&sparse).entry(file("s"), "y").end();
    assert_eq!(limit_of(&archive, TarLimits { file_bytes: 1000, ..TarLimits::default() }), None);
    let refused = Some(("bytes of a layer's files", 999));
    assert_eq!(limit_of(&archive, TarLimits { file_bytes: 999, ..TarLimits::default() }), refused);
}

#[test]
fn extended_headers_are_bounded_before_they_are_kept() {
    let limits = TarLimits { record_bytes: 600, ..TarLimits::default() };
    let archive = |size| Archive::new().entry(head(b'x', "x"), vec![b' '; size]).0;
    assert_eq!(limit_of(&archive(601), limits), Some(("bytes of an extended header", 600)));
    assert!(matches!(parse(&archive(600), limits, &[9]).1, Err(TarError::Record { .. })), "only its content is wrong");
}

#[test]
fn maps_of_sparse_files_are_bounded() {
    let list = (0..10).map(|i| format!("{},1", 2 * i)).collect::<Vec<_>>().join(",");
    let records =
        [("GNU.sparse.size", &b"99"[..]), ("GNU.sparse.numblocks", b"10"), ("GNU.sparse.map", list.as_bytes())];
    let archive = Archive::new().pax(&records).entry(file("s"), "abcdefghij").end();
    assert_eq!(limit_of(&archive, TarLimits { sparse_pieces: 10, ..TarLimits::default() }), None);
    let refused = Some(("pieces of a sparse file", 9));
    assert_eq!(limit_of(&archive, TarLimits { sparse_pieces: 9, ..TarLimits::default() }), refused);
}

#[test]
fn a_map_in_front_of_the_data_is_bounded_too() {
    let records = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")];
    let mut map = ("99\n".to_owned() + &"0\n0\n".repeat(99)).into_bytes();
    map.resize(512, 0);
    let archive = Archive::new().pax(&records).entry(file("s"), &map).end();
    let limits = |record_bytes| TarLimits { record_bytes, ..TarLimits::default() };
    assert_eq!(limit_of(&archive, limits(512)), None);
    assert_eq!(limit_of(&archive, limits(300)), Some(("bytes of a sparse map", 300)));
}
