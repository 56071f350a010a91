//! The decompressor's tests.

use std::io::Write;

use flate2::{Compress, Crc, FlushCompress};
use proptest::prelude::*;

use super::{Buffer, Compression, Decompressor, FramingError, FramingLimits, FramingTotals};

/// Text that compresses, with some that does not.
fn sample(size: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut text = Vec::with_capacity(size + 40);
    while text.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 30 == 0 {
            text.extend_from_slice(&state.to_le_bytes());
        } else {
            text.extend_from_slice(format!("entry {:03} of many; ", state >> 24).as_bytes());
        }
    }
    text.truncate(size);
    text
}

/// One gzip member; `flags` and what they stand for come between the fixed part and the data.
fn member(content: &[u8], flags: u8, optional: &[u8]) -> Vec<u8> {
    let mut member = vec![0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255];
    member.extend_from_slice(optional);
    let mut deflate = Compress::new(flate2::Compression::new(6), false);
    let mut data = Vec::with_capacity(content.len() + 1000);
    deflate.compress_vec(content, &mut data, FlushCompress::Finish).unwrap();
    member.extend_from_slice(&data);
    let mut crc = Crc::new();
    crc.update(content);
    member.extend_from_slice(&crc.sum().to_le_bytes());
    member.extend_from_slice(&crc.amount().to_le_bytes());
    member
}

fn crc16(header: &[u8]) -> [u8; 2] {
    let mut crc = Crc::new();
    crc.update(header);
    [crc.sum().to_le_bytes()[0], crc.sum().to_le_bytes()[1]]
}

/// One zstd frame with a checksum, level 3.
fn frame(content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn skippable(content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap();
    [&[0x5e, 0x2a, 0x4d, 0x18], &size.to_le_bytes()[..], content].concat()
}

/// Uncompresses in pieces of the given lengths, taken in turn, into buffers of `room`.
fn run(
    blob: &[u8],
    declared: Compression,
    limits: FramingLimits,
    pieces: &[usize],
    room: usize,
) -> Result<(Vec<u8>, FramingTotals), FramingError> {
    let mut output = Vec::new();
    let mut full = |buffer: Buffer| {
        assert!(!buffer.filled().is_empty() && buffer.filled().len() <= room);
        output.extend_from_slice(buffer.filled());
        Ok::<_, FramingError>(buffer)
    };
    let mut decompressor = Decompressor::new(declared, limits, Buffer::new(room));
    let mut rest = blob;
    for length in pieces.iter().cycle() {
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        if let Err(error) = decompressor.push(piece, &mut full) {
            assert_eq!(decompressor.push(b"x", &mut full), Err(FramingError::Refused));
            return Err(error);
        }
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    let totals = decompressor.finish(&mut full)?;
    assert_eq!(totals.input_bytes, blob.len() as u64);
    assert_eq!(totals.output_bytes, output.len() as u64);
    Ok((output, totals))
}

/// The result, the same for several ways to cut blob and result.
fn result(blob: &[u8]) -> Result<Vec<u8>, FramingError> {
    let whole = run(blob, Compression::Gzip, FramingLimits::default(), &[usize::MAX], 1 << 20);
    for (pieces, room) in [(&[1][..], 1 << 16), (&[7, 1000], 1000), (&[4096], 1)] {
        let other = run(blob, Compression::Gzip, FramingLimits::default(), pieces, room);
        match (&whole, &other) {
            (Ok(whole), Ok(other)) => assert_eq!(whole, other),
            (Err(whole), Err(other)) => {
                assert_eq!(std::mem::discriminant(whole), std::mem::discriminant(other), "{whole}; {other}");
            }
            _ => panic!("{whole:?} as a whole, {other:?} in pieces"),
        }
    }
    whole.map(|(output, _)| output)
}

#[test]
fn gzip_members_follow_one_another() {
    let text = sample(300_000);
    assert_eq!(result(&member(&text, 0, &[])).unwrap(), text);
    let blob = [member(&text[..1000], 0, &[]), member(b"", 0, &[]), member(&text[1000..], 0, &[])].concat();
    assert_eq!(result(&blob).unwrap(), text);
}

#[test]
fn gzip_headers_may_hold_everything_the_format_knows() {
    let extra = [&[26, 0][..], b"SG\x16\0", &[b'0'; 16], b"STARGZ"].concat();
    let optional = [&extra[..], b"name\0comment\0"].concat();
    let header = [&[0x1f, 0x8b, 8, 0x1f, 0, 0, 0, 0, 0, 255][..], &optional].concat();
    let blob = member(b"content", 0x1f, &[&optional[..], &crc16(&header)].concat());
    assert_eq!(result(&blob).unwrap(), b"content");
    for (flags, optional) in [(1, &b""[..]), (4, &extra), (4, b"\0\0"), (8, b"name\0"), (16, b"\0")] {
        assert_eq!(result(&member(b"content", flags, optional)).unwrap(), b"content", "flags {flags}");
    }
}

#[test]
fn gzip_header_with_another_checksum_is_refused() {
    assert!(matches!(result(&member(b"content", 2, b"\x12\x34")), Err(FramingError::GzipHeader { .. })));
}

#[test]
fn gzip_header_with_reserved_flags_is_refused() {
    for flags in [0x20, 0x40, 0x80] {
        assert!(matches!(result(&member(b"content", flags, &[])), Err(FramingError::GzipHeader { .. })));
    }
}

#[test]
fn gzip_header_without_end_is_refused() {
    let endless = member(b"", 8, &vec![b'n'; 200_000]);
    let refused = result(&endless).unwrap_err();
    assert!(matches!(refused, FramingError::GzipHeader { problem: "longer than 128 KiB", .. }), "{refused}");
}

#[test]
fn gzip_with_another_crc_or_length_is_refused() {
    let blob = member(b"content", 0, &[]);
    let flip = |at: usize| {
        let mut blob = blob.clone();
        blob[at] ^= 1;
        result(&blob).unwrap_err()
    };
    assert!(matches!(flip(blob.len() - 8), FramingError::GzipCrc { .. }));
    assert!(matches!(flip(blob.len() - 4), FramingError::GzipSize { expected: 6, actual: 7, .. }));
}

#[test]
fn gzip_with_damaged_data_is_refused() {
    let mut blob = member(b"content", 0, &[]);
    blob[10] = 0b110; // a block of type 3
    assert!(matches!(result(&blob), Err(FramingError::GzipData { .. })));
}

#[test]
fn gzip_cut_short_anywhere_is_refused() {
    let blob = [member(&sample(500), 8, b"name\0"), member(b"more", 0, &[])].concat();
    let first = blob.len() - member(b"more", 0, &[]).len();
    for length in 3..blob.len() {
        if length == first {
            continue;
        }
        assert!(matches!(result(&blob[..length]), Err(FramingError::Truncated { .. })), "{length} bytes");
    }
    assert!(result(&blob[..first]).is_ok(), "a member less is a shorter blob, which its digest shows");
}

#[test]
fn zeros_behind_gzip_are_taken_and_nothing_else() {
    let blob = member(b"content", 0, &[]);
    assert_eq!(result(&[&blob[..], &[0; 5000]].concat()).unwrap(), b"content");
    for garbage in [&b"x"[..], b"\x1f\x8c", b"\x1f\x8b\x07\0\0\0\0\0\0\0", b"\0\0\0x", b"usr/bin"] {
        let refused = result(&[&blob, garbage].concat()).unwrap_err();
        assert!(matches!(refused, FramingError::GzipTrailing { .. }), "{refused}");
    }
    let member_after_zeros = [&blob[..], &[0; 3], &blob[..]].concat();
    assert!(matches!(result(&member_after_zeros), Err(FramingError::GzipTrailing { .. })));
}

#[test]
fn estargz_footer_adds_nothing() {
    let footer = member(b"", 4, &[&[26, 0][..], b"SG\x16\0", &[b'0'; 16], b"STARGZ"].concat());
    assert_eq!(result(&[member(b"content", 0, &[]), footer].concat()).unwrap(), b"content");
}

#[test]
fn zstd_frames_follow_one_another_with_skippable_ones_anywhere() {
    let text = sample(300_000);
    assert_eq!(result(&frame(&text)).unwrap(), text);
    let skip = skippable(b"table of contents");
    let parts =
        [skip.clone(), frame(&text[..5000]), skippable(b""), frame(b""), skip.clone(), frame(&text[5000..]), skip];
    assert_eq!(result(&parts.concat()).unwrap(), text);
    assert_eq!(result(&skippable(b"nothing else")).unwrap(), b"");
}

#[test]
fn zstd_sizes_in_the_header_are_read_in_every_form() {
    for size in [0, 1, 200, 255, 256, 257, 65_791, 65_792, 70_000, 300_000] {
        let text = sample(size);
        let bulk = zstd::bulk::compress(&text, 1).unwrap();
        assert_eq!(result(&bulk).unwrap(), text, "{size} bytes");
    }
}

#[test]
fn zstd_with_another_checksum_is_refused() {
    let mut blob = frame(&sample(1000));
    *blob.last_mut().unwrap() ^= 1;
    assert!(matches!(result(&blob), Err(FramingError::ZstdData { .. })));
}

#[test]
fn zstd_cut_short_anywhere_is_refused() {
    let blob = [skippable(b"abc"), frame(&sample(500)), skippable(b"abc")].concat();
    let ends = [skippable(b"abc").len(), blob.len() - skippable(b"abc").len()];
    for length in (4..blob.len()).filter(|length| !ends.contains(length)) {
        assert!(matches!(result(&blob[..length]), Err(FramingError::Truncated { .. })), "{length} bytes");
    }
}

#[test]
fn zstd_with_anything_behind_it_is_refused() {
    for garbage in [&b"usr/"[..], &[0; 4], b"\x1f\x8b\x08\0", b"\x27\xb5\x2f\xfd"] {
        let refused = result(&[&frame(b"content"), garbage].concat()).unwrap_err();
        assert_eq!(refused, FramingError::ZstdTrailing { offset: frame(b"content").len() as u64 });
    }
}

#[test]
fn zstd_frame_that_needs_a_dictionary_is_refused() {
    let mut blob = frame(b"content");
    assert_eq!(blob[4] & 3, 0);
    blob[4] |= 1;
    blob.insert(6, 77);
    assert_eq!(result(&blob), Err(FramingError::ZstdDictionary { offset: 0, dictionary: 77 }));
}

#[test]
fn zstd_frame_with_a_reserved_flag_is_refused() {
    let mut blob = frame(b"content");
    blob[4] |= 8;
    assert!(matches!(result(&blob), Err(FramingError::ZstdHeader { .. })));
}

/// A frame whose header asks for a window of 2 to the `log`.
fn windowed(log: u32, content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(log).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn zstd_window_is_bounded_before_memory_is_taken() {
    let text = sample(10_000);
    assert_eq!(result(&windowed(23, &text)).unwrap(), text);
    let blob = [skippable(b"x"), windowed(24, &text)].concat();
    let refused = result(&blob).unwrap_err();
    assert_eq!(refused, FramingError::ZstdWindow { offset: 9, window: 16 << 20, limit: 8 << 20 });
    assert_eq!(refused.code(), protocols::reason::IMAGE_ZSTD_WINDOW);
    let raised = FramingLimits { zstd_window: 16 << 20, ..FramingLimits::default() };
    assert_eq!(run(&blob, Compression::Zstd, raised, &[9999], 9999).unwrap().0, text);
}

#[test]
fn zstd_content_size_is_a_window_too() {
    // One segment of 9 MiB, all of one byte: block of type RLE cannot be so long, but the header is read first.
    let blob = [&[0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000][..], &(9u32 << 20).to_le_bytes(), &[0; 20]].concat();
    let refused = result(&blob).unwrap_err();
    assert_eq!(refused, FramingError::ZstdWindow { offset: 0, window: 9 << 20, limit: 8 << 20 });

    let text = sample(65_600); // a size of two bytes, which starts at 256
    let blob = zstd::bulk::compress(&text, 1).unwrap();
    let limits = |zstd_window| FramingLimits { zstd_window, ..FramingLimits::default() };
    assert_eq!(run(&blob, Compression::Zstd, limits(65_600), &[99], 999).unwrap().0, text);
    let refused = run(&blob, Compression::Zstd, limits(65_599), &[99], 999).unwrap_err();
    assert_eq!(refused, FramingError::ZstdWindow { offset: 0, window: 65_600, limit: 65_599 });
}

#[test]
fn the_first_bytes_decide_unless_the_media_type_says_plain() {
    let text = sample(3000);
    let limits = FramingLimits::default();
    for (blob, found) in [
        (text.clone(), Compression::None),
        (member(&text, 0, &[]), Compression::Gzip),
        (frame(&text), Compression::Zstd),
    ] {
        for declared in [Compression::Gzip, Compression::Zstd] {
            let (output, totals) = run(&blob, declared, limits, &[2], 100).unwrap();
            assert_eq!((output, totals.compression), (text.clone(), found));
        }
        let (output, totals) = run(&blob, Compression::None, limits, &[2], 100).unwrap();
        assert_eq!((output, totals.compression), (blob, Compression::None));
    }
}

#[test]
fn tiny_blobs_are_plain() {
    for blob in [&b""[..], b"\x1f", b"\x1f\x8b", b"\x28\xb5\x2f"] {
        assert_eq!(result(blob).unwrap(), blob);
    }
}

#[test]
fn output_is_bounded_whatever_the_compression() {
    let text = sample(100_000);
    for blob in [text.clone(), member(&text, 0, &[]), frame(&text)] {
        let limits = |output_bytes| FramingLimits { output_bytes, ..FramingLimits::default() };
        assert!(run(&blob, Compression::Gzip, limits(100_000), &[999], 5000).is_ok());
        let refused = run(&blob, Compression::Gzip, limits(99_999), &[999], 5000).unwrap_err();
        assert_eq!(refused, FramingError::Limit { limit: 99_999 });
        assert_eq!(refused.code(), protocols::reason::IMAGE_LIMIT);
    }
}

#[test]
fn bombs_are_stopped_by_their_ratio_long_before_their_end() {
    let zeros = vec![0; 96 << 20];
    for blob in [member(&zeros, 0, &[]), frame(&zeros)] {
        let limits = FramingLimits { ratio: 200, ..FramingLimits::default() };
        let mut handed = 0;
        let mut full = |buffer: Buffer| {
            handed += buffer.filled().len();
            Ok::<_, FramingError>(buffer)
        };
        let mut decompressor = Decompressor::new(Compression::Gzip, limits, Buffer::new(1 << 20));
        let refused = blob.chunks(4096).try_for_each(|piece| decompressor.push(piece, &mut full)).unwrap_err();
        assert!(matches!(refused, FramingError::Ratio { limit: 200, .. }), "{refused}");
        assert!(handed <= 65 << 20, "{handed} bytes were handed out");
        let honest = FramingLimits { ratio: 200_000, ..FramingLimits::default() };
        assert!(run(&blob, Compression::Gzip, honest, &[1 << 20], 1 << 20).is_ok());
    }
}

#[test]
fn an_error_of_the_receiver_ends_it() {
    let blob = member(&sample(10_000), 0, &[]);
    let mut decompressor = Decompressor::new(Compression::Gzip, FramingLimits::default(), Buffer::new(100));
    let mut full = |_| Err::<Buffer, _>(FramingError::Memory);
    assert_eq!(decompressor.push(&blob, &mut full), Err(FramingError::Memory));
    assert_eq!(decompressor.push(&blob, &mut full), Err(FramingError::Refused));
    assert_eq!(decompressor.finish(&mut full), Err(FramingError::Refused));
}

#[test]
fn blobs_of_the_common_tools_are_read() {
    let text = sample(2_000_000);
    for (program, args) in [("gzip", &["-1c"][..]), ("gzip", &["-9c"]), ("zstd", &["-qc"]), ("zstd", &["-19qc"])] {
        let mut command = std::process::Command::new(program);
        command.args(args).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{program}: {e}"));
        let mut stdin = child.stdin.take().unwrap();
        let input = text.clone();
        let feed = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        feed.join().unwrap().unwrap();
        let whole = run(&output.stdout, Compression::Gzip, FramingLimits::default(), &[256 << 10], 512 << 10);
        assert!(whole.unwrap().0 == text, "{program} {args:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_compressed_comes_back_however_it_is_cut(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..4),
        repeat in 1..20usize,
        gzip in any::<bool>(),
        pieces in prop::collection::vec(1..2000usize, 1..5),
        room in 1..3000usize,
    ) {
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.repeat(repeat)).collect();
        let blob: Vec<u8> = parts.iter().flat_map(|part| if gzip { member(part, 0, &[]) } else { frame(part) }).collect();
        let (output, _) = run(&blob, Compression::Gzip, FramingLimits::default(), &pieces, room).unwrap();
        prop_assert_eq!(output, parts.concat());
    }

    #[test]
    fn damaged_blobs_never_panic_and_cuts_do_not_matter(
        gzip in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        pieces in prop::collection::vec(1..300usize, 1..5),
        room in 1..3000usize,
    ) {
        let text = sample(2000);
        let mut blob = if gzip {
            [member(&text, 8, b"name\0"), member(b"more", 0, &[])].concat()
        } else {
            [frame(&text), skippable(b"toc"), frame(b"more")].concat()
        };
        for (at, byte) in &flips {
            let at = at.index(blob.len());
            blob[at] ^= byte;
        }
        blob.truncate(blob.len() - cut.index(blob.len()) / 4);
        let whole = run(&blob, Compression::Gzip, FramingLimits::default(), &[usize::MAX], 1 << 20).map(|(out, _)| out);
        let other = run(&blob, Compression::Gzip, FramingLimits::default(), &pieces, room).map(|(out, _)| out);
        prop_assert_eq!(whole.is_ok(), other.is_ok(), "{:?} {:?}", whole, other);
        if let (Ok(whole), Ok(other)) = (whole, other) {
            prop_assert_eq!(whole, other);
        }
    }

    #[test]
    fn any_bytes_are_uncompressed_or_refused(
        magic in prop::sample::select(vec![&b""[..], b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"]),
        bytes in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let blob = [magic, &bytes].concat();
        let limits = FramingLimits { output_bytes: 1 << 20, ..FramingLimits::default() };
        let _ = run(&blob, Compression::Gzip, limits, &[usize::MAX], 1 << 16);
    }
}
