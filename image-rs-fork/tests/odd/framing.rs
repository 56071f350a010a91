//! How layers are compressed.

use protocols::digest::Sha256Digest;
use protocols::reason::IMAGE_LAYER_FORMAT;

use crate::case::{Case, blobs, blobs_refused};
use crate::support::image::{GZIP, LayerBlob, TAR, ZSTD, gzip, gzip_member, plain, zstd};
use crate::support::tar::{archive, file};

/// A zstd frame that decoders skip.
fn skippable(content: &[u8]) -> Vec<u8> {
    [&b"\x5e\x2a\x4d\x18"[..], &u32::try_from(content.len()).unwrap().to_le_bytes(), content].concat()
}

pub(crate) fn cases() -> Vec<Case> {
    let tar = archive([file("f", &b"x".repeat(60)), file("g", b"y")]);
    let (one, two) = tar.split_at(700);
    let lines = [format!("f0644 0:0 /f \"{}\"", "x".repeat(60)), "f0644 0:0 /g \"y\"".to_owned()];
    let lines = lines.each_ref().map(String::as_str);
    let diff_id = Sha256Digest::of(&tar);
    let blob = |media_type, blob: Vec<u8>| vec![LayerBlob { media_type, blob, diff_id }];
    let frame = |bytes: &[u8]| ::zstd::encode_all(bytes, 3).unwrap();
    // eStargz ends with an empty member whose extra field says where the table of contents is.
    let mut footer = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\x000000000000000000STARGZ".to_vec();
    footer.extend_from_slice(b"\x03\0\0\0\0\0\0\0\0\0");
    let mut named = b"\x1f\x8b\x08\x08\0\0\0\0\0\xfflayer.tar\0".to_vec();
    named.extend_from_slice(&gzip_member(&tar)[10..]);
    vec![
        blobs("plain", vec![plain(&tar)], &lines),
        blobs("gzip", vec![gzip(&tar)], &lines),
        blobs("gzip-of-two-members", blob(GZIP, [gzip_member(one), gzip_member(two)].concat()), &lines),
        blobs("gzip-with-a-name", blob(GZIP, named), &lines),
        blobs("gzip-of-no-bytes-before", blob(GZIP, [gzip_member(b""), gzip_member(&tar)].concat()), &lines),
        blobs("gzip-and-zeros", blob(GZIP, [gzip_member(&tar), vec![0; 512]].concat()), &lines),
        blobs("gzip-with-the-footer-of-estargz", blob(GZIP, [gzip_member(&tar), footer].concat()), &lines),
        blobs_refused(
            "gzip-and-garbage",
            blob(GZIP, [gzip_member(&tar), b"garbage".to_vec()].concat()),
            IMAGE_LAYER_FORMAT,
        ),
        blobs_refused("gzip-cut-short", blob(GZIP, gzip_member(&tar)[..60].to_vec()), IMAGE_LAYER_FORMAT),
        blobs_refused(
            "gzip-with-a-wrong-checksum",
            blob(GZIP, {
                let mut member = gzip_member(&tar);
                let end = member.len();
                member[end - 8] ^= 1;
                member
            }),
            IMAGE_LAYER_FORMAT,
        ),
        blobs("zstd", vec![zstd(&tar)], &lines),
        blobs("zstd-of-two-frames", blob(ZSTD, [frame(one), frame(two)].concat()), &lines),
        blobs("zstd-with-a-skippable-frame-first", blob(ZSTD, [skippable(b"abc"), frame(&tar)].concat()), &lines),
        blobs("zstd-with-a-skippable-frame-last", blob(ZSTD, [frame(&tar), skippable(b"")].concat()), &lines),
        blobs(
            "zstd-with-the-footer-of-zstd-chunked",
            blob(ZSTD, [frame(one), skippable(&[7; 300]), frame(two), skippable(&[0; 64])].concat()),
            &lines,
        ),
        blobs_refused("zstd-and-garbage", blob(ZSTD, [frame(&tar), b"garbage".to_vec()].concat()), IMAGE_LAYER_FORMAT),
        blobs_refused("zstd-cut-short", blob(ZSTD, frame(&tar)[..60].to_vec()), IMAGE_LAYER_FORMAT),
        blobs_refused("zstd-that-is-called-gzip", blob(GZIP, frame(&tar)), IMAGE_LAYER_FORMAT),
        blobs_refused("gzip-that-is-called-zstd", blob(ZSTD, gzip_member(&tar)), IMAGE_LAYER_FORMAT),
        blobs_refused("plain-that-is-called-gzip", blob(GZIP, tar.clone()), IMAGE_LAYER_FORMAT),
        blobs_refused("gzip-that-is-called-plain", blob(TAR, gzip_member(&tar)), IMAGE_LAYER_FORMAT),
    ]
}
