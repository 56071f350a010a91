//! The layout itself: the same bytes on any machine and from any pieces.

use image_rs_fork::erofs::{ErofsError, ErofsLimits, LAYOUT, LayerWriter, SALT};
use image_rs_fork::tar::{Parser, TarLimits};
use image_rs_fork::verity::{BLOCK, Blocks, root_hash};
use proptest::prelude::*;
use protocols::reason;

use crate::archive::{Archive, Entry, entry};
use crate::layer::{in_memory, stream};

/// A bit of everything, with enough small files to open and close bins.
fn everything() -> Vec<u8> {
    let mut archive = Archive::new().dir("etc").dir("usr").dir("usr/bin").symlink("bin", "usr/bin");
    for n in 0..300usize {
        archive = archive.file(&format!("etc/{n}"), vec![b'a'; n * 37 % 5000]);
    }
    archive
        .file("usr/bin/sh", vec![0x7f; 100_000])
        .hardlink("usr/bin/bash", "usr/bin/sh")
        .file("bin/through", "link")
        .add(Entry { mode: 0o4755, pax: vec![("SCHILY.xattr.user.a", b"1")], ..entry("usr/bin/su", b'0') })
        .device("dev/null", b'3', (1, 3))
        .file("var/.wh.cache", "")
        .file("opt/.wh..wh..opq", "")
        .file("etc/7", "again")
        .end()
}

/// The root hash of [`everything`] in this layout. A change of it is a change of the layout, which needs a new
/// name: golden values hold root hashes.
#[test]
fn the_root_hash_of_one_layer_is_pinned() {
    let (finished, _) = in_memory(&everything(), 4096).unwrap();
    assert_eq!(LAYOUT, "erofs-v1");
    assert_eq!(
        (finished.tree.root_hash.hex().as_str(), finished.tree.data_blocks, finished.inodes),
        ("8752b098ab667e668a2d5bea63ca3798f06e342b14b060ebecb4928f11e1080b", 217, 313)
    );
    assert_eq!(finished.inherited.hex(), "322248126b699b1611e59ce10bf9596eb69bbc98c691eb8e7be5b67b61b83cd4");
}

#[test]
fn pieces_of_any_size_give_the_same_bytes() {
    let archive = everything();
    let whole = in_memory(&archive, archive.len()).unwrap();
    for piece in [1, 7, 512, 4096, 4097, 65_536] {
        assert!(in_memory(&archive, piece).unwrap() == whole, "pieces of {piece} bytes");
    }
}

#[test]
fn the_root_hash_is_that_of_the_image() {
    let (finished, bytes) = in_memory(&everything(), 4096).unwrap();
    let blocks = Blocks::from(bytes.as_chunks::<BLOCK>().0.to_vec());
    assert_eq!(root_hash(&blocks, finished.tree.data_blocks, &SALT).unwrap(), Some(finished.tree.root_hash));
    assert_eq!(bytes.len() as u64, finished.file_bytes());
}

#[test]
fn another_diff_id_is_another_image() {
    let write = |id: &[u8]| {
        let mut writer = LayerWriter::new(Blocks::new(), ErofsLimits::default());
        stream(&mut writer, &everything(), 4096).unwrap();
        let id = protocols::digest::Sha256Digest::of(id);
        writer.into_streamed().unwrap().finish(&id).unwrap().0.tree.root_hash
    };
    assert_ne!(write(b"one"), write(b"other"));
}

fn limited(limits: ErofsLimits, archive: &[u8]) -> Result<(), ErofsError> {
    let mut writer = LayerWriter::new(Blocks::new(), limits);
    stream(&mut writer, archive, 4096)?;
    writer.into_streamed()?.finish(&protocols::digest::Sha256Digest::of(b"")).map(|_| ())
}

#[test]
fn more_entries_or_blocks_than_allowed_are_refused() {
    let archive = Archive::new().file("a/b/c", vec![1; 10_000]).end();
    let limits = ErofsLimits { entries: 3, blocks: 4, ..ErofsLimits::default() };
    limited(limits, &archive).unwrap();
    for limits in [ErofsLimits { entries: 2, ..limits }, ErofsLimits { blocks: 3, ..limits }] {
        assert_eq!(limited(limits, &archive).unwrap_err().code(), reason::IMAGE_LIMIT);
    }
}

#[test]
fn attributes_and_paths_that_fill_the_memory_are_refused() {
    let value = vec![1; 50_000];
    let pax = || vec![("SCHILY.xattr.user.a", &value[..])];
    let mut attributes = Archive::new();
    for _ in 0..200 {
        attributes = attributes.add(Entry { pax: pax(), ..entry("d", b'5') });
    }
    let mut paths = Archive::new();
    for n in 0..40 {
        let deep = format!("{n}{}", "/fifteen-letters".repeat(250));
        paths = paths.add(Entry { pax: vec![("path", deep.as_bytes())], ..entry("deep", b'0') });
    }
    for archive in [attributes.end(), paths.end()] {
        let code = limited(ErofsLimits::default(), &archive).unwrap_err().code();
        assert_eq!(code, reason::IMAGE_LIMIT);
        limited(ErofsLimits { held_bytes: 64 << 20, ..ErofsLimits::default() }, &archive).unwrap();
    }
}

#[test]
fn an_archive_that_ends_within_a_file_gives_no_image() {
    let mut writer = LayerWriter::new(Blocks::new(), ErofsLimits::default());
    let mut parser = Parser::new(TarLimits::default());
    let archive = Archive::new().file("a", vec![1; 10_000]).end();
    parser.push(&archive[..5000], &mut writer).unwrap();
    assert_eq!(writer.into_streamed().unwrap_err().code(), reason::IMAGE_LAYER_FORMAT);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Hostile names and orders end in an image or a refusal.
    #[test]
    fn any_entries_give_an_image_or_a_refusal(
        entries in proptest::collection::vec((
            prop_oneof!["[ab](/[ab.]{1,2}){0,3}", "([ab]/)?\\.wh\\.[ab]?", "([ab]/)?\\.wh\\.\\.wh\\.\\.opq"],
            prop_oneof!["[ab](/[ab.]{1,2}){0,2}", "/[ab]", "\\.\\./[ab]"],
            proptest::sample::select(b"0012356".to_vec()),
            0usize..9000,
        ), 0..30),
    ) {
        let mut archive = Archive::new();
        for (name, link, typeflag, size) in &entries {
            let data = vec![7; if *typeflag == b'0' { *size } else { 0 }];
            archive = archive.add(Entry { link, data: &data, device: (1, 1), ..entry(name, *typeflag) });
        }
        let archive = archive.end();
        match (in_memory(&archive, 1000), in_memory(&archive, 37)) {
            (Ok((finished, bytes)), Ok(other)) => {
                let blocks = Blocks::from(bytes.as_chunks::<BLOCK>().0.to_vec());
                prop_assert_eq!(
                    root_hash(&blocks, finished.tree.data_blocks, &SALT).unwrap(), Some(finished.tree.root_hash)
                );
                prop_assert!(other == (finished, bytes));
            }
            (Err(one), Err(other)) => prop_assert_eq!(one.to_string(), other.to_string()),
            (one, other) => prop_assert!(false, "{:?} and {:?}", one.map(|_| ()), other.map(|_| ())),
        }
    }
}
