//! Limits: at the bound, and one beyond.

use image_rs_fork::Limits;
use protocols::reason::IMAGE_LIMIT;

use crate::case::{Case, blobs, blobs_refused, refused, tree};
use crate::support::image::{gzip, plain};
use crate::support::tar::{Item, archive, file, item, pax};

/// An archive of one file of zeros, so many bytes long altogether.
fn zeros(bytes: usize) -> Vec<u8> {
    archive([file("f", &vec![0; bytes - 1536])])
}

/// A PAX header of so many bytes, with one record that means nothing.
fn header_of(bytes: usize) -> [Item; 2] {
    let digits = bytes.to_string().len();
    let value = vec![b'v'; bytes - digits - " k=\n".len()];
    let items = [pax(&[("k", &value)]), file("f", b"x")];
    assert_eq!(items[0].clone().bytes().len(), 512 + bytes.next_multiple_of(512));
    items
}

pub(crate) fn cases() -> Vec<Case> {
    let default = Limits::default;
    let three = || archive([file("a", b""), file("b", b""), file("c", b"")]);
    let three_lines = ["f0644 0:0 /a \"\"", "f0644 0:0 /b \"\"", "f0644 0:0 /c \"\""];
    let line = |size: usize| {
        let digest = protocols::digest::Sha256Digest::of(&vec![0; size]);
        format!("f0644 0:0 /f {size} {}", &digest.hex()[..8])
    };
    let small = line(10_000 - 1536);
    // 64 MiB are free of the ratio; zeros compress by some hundreds.
    let free = zeros(64 << 20);
    let free_line = line((64 << 20) - 1536);
    let sparse = |size: &str| {
        let map = format!("{size},0");
        let records = [("name", "f"), ("size", size), ("numblocks", "1"), ("map", &map)];
        let records = records.map(|(key, value)| (format!("GNU.sparse.{key}"), value.as_bytes()));
        let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        vec![plain(&archive([pax(&records), item(b'0', "x")]))]
    };
    vec![
        blobs("limit-of-entries", vec![plain(&three())], &three_lines).within(Limits { entries: 3, ..default() }),
        blobs_refused("limit-of-entries-exceeded", vec![plain(&three())], IMAGE_LIMIT)
            .within(Limits { entries: 2, ..default() }),
        blobs("limit-of-layer-bytes", vec![gzip(&zeros(10_240))], &[&line(10_240 - 1536)])
            .within(Limits { layer_bytes: 10_240, ..default() }),
        blobs_refused("limit-of-layer-bytes-exceeded", vec![gzip(&zeros(10_240))], IMAGE_LIMIT)
            .within(Limits { layer_bytes: 10_239, ..default() }),
        blobs_refused("limit-of-bytes-by-holes-exceeded", sparse("100001"), IMAGE_LIMIT).within(Limits {
            layer_bytes: 100_000,
            image_bytes: 100_000,
            ..default()
        }),
        blobs("limit-of-the-ratio", vec![gzip(&free)], &[&free_line]).within(Limits { ratio: 100, ..default() }),
        blobs_refused("limit-of-the-ratio-exceeded", vec![gzip(&zeros(66 << 20))], IMAGE_LIMIT)
            .within(Limits { ratio: 100, ..default() }),
        tree("limit-of-a-pax-header", header_of(1 << 20), &["f0644 0:0 /f \"x\""]),
        refused("limit-of-a-pax-header-exceeded", header_of((1 << 20) + 1), IMAGE_LIMIT),
        refused("limit-of-a-long-name-exceeded", [item(b'L', "x").content(&[b'n'; 5000]), file("f", b"")], IMAGE_LIMIT),
        blobs("limit-of-bytes-by-holes", sparse("100000"), &[&line(100_000)]).within(Limits {
            layer_bytes: 100_000,
            image_bytes: 200_000,
            ..default()
        }),
        blobs("limit-not-reached", vec![plain(&zeros(10_000))], &[&small]),
    ]
}
