//! Any archive, well-formed or not, means the same in both layouts.

use image_rs_fork::erofs::{ErofsError, ErofsLimits, LayerWriter};
use image_rs_fork::tar::{Parser, TarLimits};
use image_rs_fork::verity::Blocks;
use image_rs_fork::{Limits, measure_archive};
use proptest::prelude::*;
use protocols::digest::Sha256Digest;

use crate::case::all;
use crate::erofs_image;
use crate::support::image::TAR;
use crate::support::tar::{Item, archive, item, pax};

fn image(archive: &[u8]) -> Result<Vec<u8>, ErofsError> {
    let mut writer = LayerWriter::new(Blocks::new(), ErofsLimits::default());
    let mut parser = Parser::new(TarLimits::default());
    parser.push(archive, &mut writer)?;
    parser.finish()?;
    let mut streamed = writer.into_streamed()?;
    streamed.settle_whiteouts(|_| Ok(false)).unwrap();
    let (_, out) = streamed.finish(&Sha256Digest::of(archive))?;
    Ok(out.as_bytes().to_vec())
}

/// The image says in the terms of `tree-v1` what the archive itself says there.
fn agree(archive: &[u8]) {
    match (image(archive), measure_archive(archive, &Limits::default())) {
        (Ok(image), Ok(digest)) => {
            let listing = erofs_image::read(&image);
            assert_eq!(erofs_image::tree_digest(&listing), digest, "{listing:#?}");
        }
        (Err(one), Err(other)) => assert_eq!(one.code(), other.code(), "{one} / {other}"),
        (one, other) => panic!("erofs: {:?}, tree: {other:?}", one.map(|image| image.len())),
    }
}

/// Few names, so that entries meet; some that are odd.
fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        6 => "[abc]",
        1 => Just(".".to_owned()),
        1 => Just("..".to_owned()),
        1 => Just(".wh..wh.x".to_owned()),
        1 => Just(".wh.".to_owned()),
        1 => Just("n".repeat(255)),
    ];
    let last = prop_oneof![
        8 => "[abc]",
        3 => "\\.wh\\.[abc]",
        1 => Just(".wh..wh..opq".to_owned()),
        1 => Just("..".to_owned()),
        1 => Just(String::new()),
    ];
    (proptest::collection::vec(name, 0..4), last).prop_map(|(mut names, last)| {
        names.push(last);
        names.join("/")
    })
}

/// An entry with its extended header, if it needs one.
fn entry() -> impl Strategy<Value = Vec<Item>> {
    let kind = prop_oneof![4 => Just(b'0'), 4 => Just(b'5'), 3 => Just(b'2'), 3 => Just(b'1'), 1 => Just(b'3'),
        1 => Just(b'4'), 1 => Just(b'6'), 1 => Just(0)];
    let number = prop_oneof![3 => Just(0u32), 1 => 0u32..4];
    let attribute = prop_oneof![
        Just(("user.a", b"1".to_vec())),
        Just(("user.b", b"2".to_vec())),
        Just(("user.a", b"3".to_vec())),
        Just(("trusted.a", b"1".to_vec())),
        Just(("security.selinux", b"l".to_vec())),
        Just(("security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec())),
        Just(("security.capability", b"bad".to_vec())),
        Just(("system.posix_acl_access", b"bad".to_vec())),
        Just(("com.example", b"1".to_vec())),
        Just(("user.large", vec![b'v'; 3000])),
    ];
    let times =
        prop_oneof![4 => Just(None), 1 => Just(Some("-1.5")), 1 => Just(Some("5.25")), 1 => Just(Some("99999999999"))];
    (
        (path(), path(), kind, 0usize..3, number.clone(), number),
        (0u32..0o10000, 0u32..3, prop_oneof![4 => Just(None), 1 => attribute.prop_map(Some)], times),
    )
        .prop_map(|((path, target, kind, size, major, minor), (mode, owner, attribute, time))| {
            let mut records: Vec<(String, Vec<u8>)> = vec![("path".to_owned(), path.into_bytes())];
            if matches!(kind, b'1' | b'2') {
                records.push(("linkpath".to_owned(), target.into_bytes()));
            }
            if let Some((name, value)) = attribute {
                records.push((format!("SCHILY.xattr.{name}"), value));
            }
            if let Some(time) = time {
                records.push(("mtime".to_owned(), time.as_bytes().to_vec()));
            }
            let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (key.as_str(), &value[..])).collect();
            let mut entry = item(kind, "x").mode(mode).owner(owner, owner).link("y");
            if matches!(kind, b'3' | b'4') {
                entry = entry.device(major, minor);
            }
            if matches!(kind, 0 | b'0') {
                entry = entry.content(&vec![b'x'; [0, 7, 5000][size]]);
            }
            vec![pax(&records), entry]
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, max_shrink_iters: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn any_archive_means_the_same_in_both_layouts(entries in proptest::collection::vec(entry(), 0..9)) {
        agree(&archive(entries.into_iter().flatten()));
    }
}

#[test]
fn every_plain_layer_of_a_case_means_the_same_in_both_layouts() {
    let cases = all().into_iter().filter(|case| !case.name.starts_with("limit"));
    for layer in cases.flat_map(|case| case.layers).filter(|layer| layer.media_type == TAR) {
        agree(&layer.blob);
    }
}
