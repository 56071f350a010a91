use super::build::{archive, dir, file, hardlink, item, open_archive, pax, pax_typed, symlink};
use super::*;

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        let mut buffer = [0u8; 7];
        loop {
            match reader.read_content(&mut buffer)? {
                0 => break,
                got => content.extend_from_slice(&buffer[..got]),
            }
        }
        entries.push((entry, content));
    }
    Ok(entries)
}

#[track_caller]
fn one(items: impl IntoIterator<Item = build::Item>) -> (Entry, Vec<u8>) {
    let mut entries = read(&archive(items)).unwrap();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

#[track_caller]
fn refused(bytes: &[u8], problem: &str) {
    match read(bytes) {
        Err(TarError::Format(found)) => assert!(found.contains(problem), "{found}"),
        other => panic!("{problem}: {other:?}"),
    }
}

#[test]
fn reads_every_kind_of_entry() {
    let bytes = archive([
        dir("d/").owner(1, 2).mtime(7),
        file("d/f", b"content").mode(0o4755),
        symlink("d/s", "/etc"),
        hardlink("d/h", "d/f"),
        item(b'3', "d/c").device(1, 3),
        item(b'4', "d/b").device(8, 0),
        item(b'6', "d/p"),
        item(0, "legacy/"),
        item(0, "old"),
    ]);
    let entries = read(&bytes).unwrap();
    let kinds: Vec<_> = entries.iter().map(|(entry, _)| entry.kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            Kind::Directory,
            Kind::File(7),
            Kind::Symlink(b"/etc".to_vec()),
            Kind::Hardlink(b"d/f".to_vec()),
            Kind::Character(1, 3),
            Kind::Block(8, 0),
            Kind::Fifo,
            Kind::Directory,
            Kind::File(0),
        ]
    );
    assert_eq!((entries[0].0.uid, entries[0].0.gid, entries[0].0.mtime.seconds), (1, 2, 7));
    assert_eq!((entries[1].0.mode, entries[1].1.as_slice()), (0o4755, &b"content"[..]));
}

#[test]
fn content_that_is_not_read_is_passed_over() {
    let bytes = archive([file("a", &[1; 1000]), file("b", b"x")]);
    let mut reader = Reader::new(bytes.as_slice());
    reader.next_entry().unwrap();
    assert_eq!(reader.next_entry().unwrap().unwrap().path, b"b");
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn long_names_come_from_pax_gnu_or_the_prefix() {
    let long = "n/".repeat(150) + "f";
    let gnu = item(b'L', "././@LongLink").content(format!("{long}\0").as_bytes());
    assert_eq!(one([gnu.clone(), file("short", b"")]).0.path, long.as_bytes());
    assert_eq!(one([pax(&[("path", long.as_bytes())]), file("short", b"")]).0.path, long.as_bytes());
    assert_eq!(one([file("f", b"").with(345, b"some/prefix")]).0.path, b"some/prefix/f");
    let gnu_magic = file("f", b"").with(257, b"ustar  \0").with(345, b"00000000000\0");
    assert_eq!(one([gnu_magic]).0.path, b"f", "GNU has no prefix");
    let link = item(b'K', "x").content(b"long/target\0");
    assert_eq!(one([link, symlink("s", "short")]).0.kind, Kind::Symlink(b"long/target".to_vec()));
    refused(&archive([gnu, pax(&[("path", b"other")]), file("f", b"")]), "PAX and a GNU path");
}

#[test]
fn an_archive_may_lack_its_end_blocks_and_be_padded() {
    assert_eq!(read(&[]).unwrap().len(), 0);
    assert_eq!(read(&open_archive([file("a", b"1")])).unwrap().len(), 1);
    let mut padded = archive([file("a", b"1")]);
    padded.resize(20 * BLOCK + 7, 0);
    assert_eq!(read(&padded).unwrap().len(), 1);
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut hidden = archive([file("a", b"1")]);
    hidden.extend(archive([file("hidden", b"2")]));
    refused(&hidden, "after the archive's end");
    let mut one_block = open_archive([file("a", b"1")]);
    one_block.resize(one_block.len() + BLOCK, 0);
    one_block.extend(archive([file("hidden", b"2")]));
    refused(&one_block, "after the archive's end");
    let mut short = archive([file("a", b"1")]);
    short.push(1);
    refused(&short, "after the archive's end");
}

#[test]
fn cut_archives_are_refused() {
    let whole = open_archive([file("a", &[7; 600])]);
    refused(&whole[..100], "within a header");
    refused(&whole[..BLOCK + 10], "within a file");
    refused(&whole[..BLOCK + 600], "within a file");
    refused(&open_archive([pax(&[("path", b"a")])]), "ends after a header");
}

#[test]
fn a_pax_size_that_disagrees_with_the_header_is_refused() {
    // One reader would take the nested archive for content, another for entries.
    let nested = archive([file("nested", b"x")]);
    let mut outer = file("outer", b"");
    let size = nested.len().to_string();
    let mut bytes = open_archive([pax(&[("size", size.as_bytes())]), outer.clone()]);
    bytes.extend(&nested);
    refused(&bytes, "by PAX");
    outer = file("outer", &nested);
    refused(&archive([pax(&[("size", b"0")]), outer.clone()]), "by PAX");
    assert_eq!(one([pax(&[("size", size.as_bytes())]), outer]).1, nested);
}

#[test]
fn a_pax_size_never_applies_to_a_header_in_between() {
    let long = item(b'L', "x").content(b"name\0");
    let (entry, content) = one([pax(&[("size", b"3")]), long, file("short", b"abc")]);
    assert_eq!((entry.path.as_slice(), content.as_slice()), (&b"name"[..], &b"abc"[..]));
}

#[test]
fn what_describes_entries_twice_or_globally_is_refused() {
    let first = || pax(&[("mtime", b"1")]);
    refused(&archive([first(), first(), file("a", b"")]), "two PAX headers");
    let name = || item(b'L', "x").content(b"n\0");
    refused(&archive([name(), name(), file("a", b"")]), "two GNU long names");
    refused(&archive([pax_typed(b'g', &[("path", b"p")]), file("a", b"")]), "global PAX");
    refused(&archive([pax_typed(b'g', &[("SCHILY.xattr.user.a", b"p")]), file("a", b"")]), "global PAX");
    let commit = pax_typed(b'g', &[("comment", b"52 hex")]);
    assert_eq!(one([commit, file("a", b"")]).0.path, b"a");
}

#[test]
fn owners_above_32_bits_and_negative_numbers_are_refused() {
    let uid = |value: &'static [u8]| archive([pax(&[("uid", value)]), file("a", b"")]);
    assert_eq!(read(&uid(b"3000000")).unwrap()[0].0.uid, 3_000_000);
    refused(&uid(b"4294967295"), "owner");
    refused(&uid(b"4294967296"), "owner");
    let base256 = file("a", b"").with(108, &[0x80, 0, 0, 0, 0, 0x2d, 0xc6, 0xc0]);
    assert_eq!(one([base256]).0.uid, 3_000_000);
    refused(&archive([file("a", b"").with(108, &[0xff; 8])]), "owner");
    refused(&archive([file("a", b"").with(124, &[0xff; 12])]), "size is negative");
    assert_eq!(one([file("a", b"").with(136, &[0xff; 12])]).0.mtime, Mtime::default());
}

#[test]
fn unknown_types_sparse_files_and_hidden_content_are_refused() {
    refused(&archive([item(b'7', "a")]), "not known");
    refused(&archive([item(b'V', "a")]), "not known");
    refused(&archive([item(b'S', "a")]), "sparse");
    refused(&archive([pax(&[("GNU.sparse.major", b"1")]), file("a", b"")]), "sparse");
    refused(&archive([dir("d").content(b"x")]), "content where");
    refused(&archive([hardlink("h", "t").content(b"x")]), "content where");
    refused(&archive([file("a/", b"")]), "slash");
    refused(&archive([symlink("a", "")]), "to nothing");
    refused(&archive([file("", b"")]), "empty path");
    refused(&archive([item(b'L', "x").content(b"a\0b\0"), file("a", b"")]), "NUL within");
    refused(&archive([pax(&[("path", &[b'a'; 4096])]), file("a", b"")]), "4095");
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut bytes = archive([file("a", b"1")]);
    bytes[0] = b'b';
    refused(&bytes, "checksum");
    refused(&[1; BLOCK], "checksum");
}

#[test]
fn a_header_of_headers_is_bounded() {
    let huge = item(b'x', "pax").with(124, b"00004000001\0");
    refused(&open_archive([huge]), "at most 1048576");
}

proptest::proptest! {
    #[test]
    fn any_bytes_end_in_entries_or_an_error(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2048)) {
        let _ = read(&bytes);
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0usize..3072, value in proptest::prelude::any::<u8>()) {
        let mut bytes = archive([pax(&[("path", b"long/name"), ("mtime", b"1.5")]), file("a", &[5; 600])]);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        let _ = read(&bytes);
    }
}
