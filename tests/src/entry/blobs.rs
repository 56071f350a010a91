//! What reads a layer's blob: the tar parser, the decompressors, the EROFS writer.

use image_rs_fork::erofs::{ErofsError, ErofsLimits, LayerReader, LayerWriter};
use image_rs_fork::framing::{Buffer, Compression, Decompressor, FramingError, FramingLimits, FramingTotals};
use image_rs_fork::tar::{EntryKind, EntryMeta, EntrySink, Parser, TarError, TarLimits, TarPath, TarTotals};
use image_rs_fork::verity::Blocks;
use image_rs_fork::{Limits, measure_archive};
use protocols::digest::Sha256Digest;
use protocols::reason;

use crate::erofs_image;

/// Bytes that a mutated blob may unpack to: enough for every seed, little enough for many rounds.
const MOST: u64 = 4 << 20;

const fn tar_limits() -> TarLimits {
    TarLimits {
        archive_bytes: MOST,
        file_bytes: MOST,
        entries: 1000,
        record_bytes: 1 << 16,
        name_bytes: 4095,
        component_bytes: 255,
        components: 256,
        sparse_pieces: 256,
    }
}

/// Everything a sink is told, with data joined, and what the parser promises checked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    entries: Vec<String>,
    data: Vec<u8>,
    left: Option<u64>,
}

impl Told {
    fn take(&mut self, bytes: u64) {
        let left = self.left.as_mut().expect("data belong to a file");
        *left = left.checked_sub(bytes).expect("no more data than the file's size");
    }
}

impl EntrySink for Told {
    type Error = TarError;

    fn entry(&mut self, meta: &EntryMeta<'_>) -> Result<(), TarError> {
        assert!(self.left.is_none(), "an entry ends before the next begins");
        assert!(TarPath::from_clean(meta.path.as_bytes()).is_some());
        assert!(!meta.path.is_root() || meta.kind == EntryKind::Dir);
        assert!(meta.mode <= 0o7777 && meta.mtime_nsec < 1_000_000_000);
        assert!(meta.uid != u32::MAX && meta.gid != u32::MAX);
        let names: Vec<_> = meta.xattrs.iter().map(|(name, _)| name).collect();
        assert!(names.is_sorted() && names.iter().all(|name| !name.starts_with(b"trusted.overlay.")));
        self.entries.push(format!("{meta:?}"));
        self.left = Some(meta.size());
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        assert!(!bytes.is_empty());
        self.take(bytes.len() as u64);
        self.data.extend_from_slice(bytes);
        Ok(())
    }

    fn hole(&mut self, len: u64) -> Result<(), TarError> {
        assert!(len > 0);
        self.take(len);
        self.data.resize(self.data.len() + usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn end(&mut self) -> Result<(), TarError> {
        assert_eq!(self.left.take(), Some(0), "a file has its size");
        Ok(())
    }
}

fn parse(bytes: &[u8], piece: usize) -> (Told, Result<TarTotals, TarError>) {
    let mut told = Told::default();
    let mut parser = Parser::new(tar_limits());
    for piece in bytes.chunks(piece) {
        if let Err(error) = parser.push(piece, &mut told) {
            assert_eq!(parser.push(b"x", &mut Told::default()), Err(TarError::Refused));
            return (told, Err(error));
        }
    }
    (told, parser.finish())
}

/// A tar archive, as it is and with its checksums put right: however it is cut, the sink is told the same.
///
/// # Panics
/// When a promise of the parser does not hold.
pub fn tar(bytes: &[u8]) {
    for archive in [bytes, &super::with_checksums(bytes)] {
        let whole = parse(archive, usize::MAX);
        for piece in [1, 511, 1000] {
            let cut = parse(archive, piece);
            assert_eq!(whole.1, cut.1, "pieces of {piece}");
            // What came before a refusal may be told up to the refusal, never otherwise.
            assert_eq!(whole.0.entries, cut.0.entries, "pieces of {piece}");
            if whole.1.is_ok() {
                assert_eq!(whole.0.data, cut.0.data, "pieces of {piece}");
            }
        }
    }
}

fn decompress(bytes: &[u8], piece: usize, room: usize) -> Result<(Vec<u8>, FramingTotals), FramingError> {
    let limits = FramingLimits { output_bytes: MOST, ratio: 1000, zstd_window: 1 << 20 };
    let mut output = Vec::new();
    let mut full = |buffer: Buffer| {
        assert!(!buffer.filled().is_empty() && buffer.filled().len() <= room);
        output.extend_from_slice(buffer.filled());
        Ok::<_, FramingError>(buffer)
    };
    let mut decompressor = Decompressor::new(Compression::Gzip, limits, Buffer::new(room));
    for piece in bytes.chunks(piece) {
        decompressor.push(piece, &mut full)?;
    }
    let totals = decompressor.finish(&mut full)?;
    Ok((output, totals))
}

/// A blob in the framing that `magic` begins.
fn framed(magic: &[u8], bytes: &[u8]) {
    // Every mutation is of this framing, and not one of plain bytes.
    let mut blob = magic.to_vec();
    blob.extend_from_slice(bytes.get(magic.len()..).unwrap_or_default());
    let whole = decompress(&blob, usize::MAX, 64 * 1024);
    for (piece, room) in [(1, 64 * 1024), (4096, 64 * 1024), (7, 100)] {
        match (&whole, decompress(&blob, piece, room)) {
            (Ok(one), Ok(other)) => assert_eq!(*one, other, "pieces of {piece}"),
            (Err(one), Err(other)) => assert!(
                [one.code(), other.code()].contains(&reason::IMAGE_LIMIT) || one.code() == other.code(),
                "pieces of {piece}: {one}, {other}"
            ),
            (one, other) => panic!("pieces of {piece}: {one:?}, {other:?}"),
        }
    }
    if let Ok((output, totals)) = whole {
        assert_eq!((totals.input_bytes, totals.output_bytes), (blob.len() as u64, output.len() as u64));
    }
}

/// A gzip blob: however it is cut, it unpacks to the same or is refused.
///
/// # Panics
/// When a promise of the decompressor does not hold.
pub fn gzip(bytes: &[u8]) {
    framed(&[0x1f, 0x8b], bytes);
}

/// A zstd blob: however it is cut, it unpacks to the same or is refused.
///
/// # Panics
/// When a promise of the decompressor does not hold.
pub fn zstd(bytes: &[u8]) {
    framed(&[0x28, 0xb5, 0x2f, 0xfd], bytes);
}

/// A layer's EROFS image in memory.
///
/// # Errors
/// Those of the writer.
pub fn write_erofs(archive: &[u8]) -> Result<Vec<u8>, ErofsError> {
    let limits = ErofsLimits { blocks: 4096, ..ErofsLimits::default() };
    let mut writer = LayerWriter::new(Blocks::new(), limits);
    let mut parser =
        Parser::new(TarLimits { archive_bytes: MOST, file_bytes: MOST, entries: 1000, ..TarLimits::default() });
    parser.push(archive, &mut writer)?;
    parser.finish()?;
    let mut streamed = writer.into_streamed()?;
    streamed.settle_whiteouts(|_| Ok(false)).unwrap();
    let (finished, out) = streamed.finish(&Sha256Digest::of(archive))?;
    let image = out.as_bytes().to_vec();
    assert_eq!(image.len() as u64, finished.file_bytes());
    Ok(image)
}

/// A layer's archive through the EROFS writer: the image reads back, and says in `tree-v1` what the archive itself
/// says there; or both layouts refuse the archive, for the same reason.
///
/// # Panics
/// When the two layouts differ.
pub fn erofs(bytes: &[u8]) {
    for archive in [bytes, &super::with_checksums(bytes)] {
        agree(archive);
    }
}

/// Both layouts make the same of an archive.
///
/// # Panics
/// When they do not.
pub fn agree(archive: &[u8]) {
    let limits = Limits { image_bytes: MOST, layer_bytes: MOST, entries: 1000, ..Limits::default() };
    match (write_erofs(archive), measure_archive(archive, &limits)) {
        (Ok(image), Ok(digest)) => {
            let listing = erofs_image::read(&image);
            assert_eq!(erofs_image::tree_digest(&listing), digest, "{listing:#?}");
            let reader = LayerReader::open(Blocks::from(image.as_chunks().0.to_vec())).unwrap();
            for (path, node) in &listing {
                let found = reader.find(TarPath::from_clean(path).unwrap()).unwrap();
                let is_dir = matches!(found, image_rs_fork::erofs::Found::Directory { .. });
                assert_eq!(is_dir, node.kind == 'd', "{}", path.escape_ascii());
            }
        }
        (Err(one), Err(other)) => assert_eq!(one.code(), other.code(), "{one} / {other}"),
        (one, other) => panic!("erofs: {:?}, tree: {other:?}", one.map(|image| image.len())),
    }
}
