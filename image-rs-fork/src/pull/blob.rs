//! A layer's blob between the network and the unpacker: hashed and counted as it streams, twice.
//!
//! The receiving side is asynchronous and sends chunks through a bounded channel; all else happens on one
//! blocking thread.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::Bytes;
use protocols::digest::Sha256Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::error::ImageError;
use crate::layer::Budget;
use crate::manifest::{Compression, Layer};
use crate::store::LayerWriter;

/// Unpacked bytes that are always allowed, whatever the ratio: small layers compress extremely well.
const FREE_BYTES: u64 = 64 << 20;
/// The largest zstd window, as a power of two: 8 MiB, which a decoder holds in memory.
const ZSTD_WINDOW: u32 = 23;
/// How libzstd words a frame with a larger window; there is no code for it in an `io::Error`.
const ZSTD_WINDOW_REFUSED: &str = "Frame requires too much memory for decoding";

/// What the receiving side sends. A channel that closes without [`Part::End`] was abandoned.
#[derive(Debug)]
pub(super) enum Part {
    Chunk(Bytes),
    End,
}

/// The blob as it arrives.
struct Blob {
    parts: mpsc::Receiver<Part>,
    chunk: Bytes,
    ended: bool,
    hasher: Sha256,
    size: u64,
}

impl Blob {
    /// Makes at least one byte available, unless the blob has ended.
    fn fill(&mut self) -> io::Result<()> {
        while self.chunk.is_empty() && !self.ended {
            match self.parts.blocking_recv() {
                Some(Part::Chunk(chunk)) => {
                    self.hasher.update(&chunk);
                    self.size = self.size.saturating_add(chunk.len() as u64);
                    self.chunk = chunk;
                }
                Some(Part::End) => self.ended = true,
                None => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the pull was abandoned")),
            }
        }
        Ok(())
    }

    /// The blob's first bytes, up to `count`, without consuming them.
    fn peek(&mut self, count: usize) -> io::Result<Bytes> {
        self.fill()?;
        let mut held = self.chunk.to_vec();
        while held.len() < count && !self.ended {
            self.chunk = Bytes::new();
            self.fill()?;
            held.extend_from_slice(&self.chunk);
            self.chunk = Bytes::from(held.clone());
        }
        Ok(self.chunk.slice(..count.min(self.chunk.len())))
    }

    /// Reads what is left, so that size and digest are those of the whole blob.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            self.chunk = Bytes::new();
            self.fill()?;
            if self.ended {
                return Ok(());
            }
        }
    }
}

impl Read for Blob {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.fill()?;
        let part = self.chunk.split_to(out.len().min(self.chunk.len()));
        if let Some(out) = out.get_mut(..part.len()) {
            out.copy_from_slice(&part);
        }
        Ok(part.len())
    }
}

impl BufRead for Blob {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.fill()?;
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk = self.chunk.split_off(amount.min(self.chunk.len()));
    }
}

/// The decompressor of a media type.
enum Decoder {
    None(Box<Blob>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Box<Blob>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Box<Blob>>>),
}

impl Decoder {
    /// `Err` gives the blob back with what is wrong: its first bytes must be what its media type says.
    fn new(mut blob: Box<Blob>, compression: Compression) -> Result<Self, (Box<Blob>, String)> {
        let first = match blob.peek(4) {
            Ok(first) => first,
            Err(e) => return Err((blob, e.to_string())),
        };
        let gzip = first.starts_with(&[0x1f, 0x8b]);
        // A frame, or one of the sixteen skippable frames.
        let zstd = first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
            || (first.first().is_some_and(|b| b & 0xf0 == 0x50) && first.ends_with(&[0x2a, 0x4d, 0x18]));
        match compression {
            Compression::Gzip if gzip => Ok(Self::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(blob)))),
            Compression::Zstd if zstd => {
                let mut decoder = match zstd::stream::read::Decoder::try_with_buffer(blob) {
                    Ok(decoder) => decoder,
                    Err((blob, e)) => return Err((blob, e.to_string())),
                };
                match decoder.window_log_max(ZSTD_WINDOW) {
                    Ok(()) => Ok(Self::Zstd(Box::new(decoder))),
                    Err(e) => Err((decoder.into_inner(), e.to_string())),
                }
            }
            Compression::None if !gzip && !zstd => Ok(Self::None(blob)),
            _ => Err((blob, "the blob is not compressed as its media type says".to_owned())),
        }
    }

    fn blob(&mut self) -> &mut Blob {
        match self {
            Self::None(blob) => blob,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
        }
    }
}

impl Read for Decoder {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(blob) => blob.read(out),
            Self::Gzip(decoder) => decoder.read(out),
            Self::Zstd(decoder) => decoder.read(out),
        }
    }
}

/// The archive as it is unpacked: hashed for the diffID, held to the limits.
struct Archive<'a> {
    decoder: &'a mut Decoder,
    hasher: &'a mut Sha256,
    size: u64,
    budget: &'a Budget,
    subject: &'a str,
}

impl Archive<'_> {
    fn beyond(&self, what: &'static str, limit: u64) -> io::Error {
        io::Error::other(ImageError::Limit { subject: self.subject.to_owned(), what, limit })
    }
}

impl Read for Archive<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.decoder.read(out).map_err(|e| {
            let window = e.to_string().contains(ZSTD_WINDOW_REFUSED);
            if window { self.beyond("bytes of a zstd window", 1 << ZSTD_WINDOW) } else { e }
        })?;
        self.hasher.update(out.get(..got).unwrap_or_default());
        self.size = self.size.saturating_add(got as u64);
        let limits = self.budget.limits();
        let ratio = u64::from(limits.ratio);
        let received = self.decoder.blob().size;
        if self.size > limits.layer_bytes {
            return Err(self.beyond("unpacked bytes in one layer", limits.layer_bytes));
        }
        if !self.budget.take_bytes(got as u64) {
            return Err(self.beyond("unpacked bytes in the image", limits.image_bytes));
        }
        if self.size > FREE_BYTES.saturating_add(received.saturating_mul(ratio)) {
            return Err(self.beyond("unpacked bytes for each compressed one", ratio));
        }
        Ok(got)
    }
}

/// Unpacks a layer from its parts and checks all that can be checked of it. Blocking.
///
/// Whatever goes wrong with the content, a blob of another size or digest than the manifest's is the
/// cause and is what is told.
pub(super) fn unpack(
    parts: mpsc::Receiver<Part>,
    layer: &Layer,
    budget: &Arc<Budget>,
    writer: &mut dyn LayerWriter,
) -> Result<(), ImageError> {
    let blob = Box::new(Blob { parts, chunk: Bytes::new(), ended: false, hasher: Sha256::new(), size: 0 });
    let mut diff_id = Sha256::new();
    let (mut blob, unpacked) = match Decoder::new(blob, layer.compression) {
        Err((blob, problem)) => (blob, Err(ImageError::LayerFormat { subject: layer.subject.clone(), problem })),
        Ok(mut decoder) => {
            let mut archive = Archive {
                decoder: &mut decoder,
                hasher: &mut diff_id,
                size: 0,
                budget: budget.as_ref(),
                subject: &layer.subject,
            };
            let unpacked = writer.unpack(&mut archive);
            let blob = match decoder {
                Decoder::None(blob) => blob,
                Decoder::Gzip(decoder) => decoder.into_inner(),
                Decoder::Zstd(decoder) => decoder.into_inner(),
            };
            (blob, unpacked)
        }
    };
    match unpacked {
        Ok(()) | Err(ImageError::LayerFormat { .. } | ImageError::Unsafe { .. }) => {}
        // An altered byte can look like a bomb; what is left is read unless it is much.
        Err(ImageError::Limit { .. }) if layer.size.saturating_sub(blob.size) <= FREE_BYTES => {}
        // A full disk is no matter of the blob's bytes.
        Err(e) => return Err(e),
    }
    let abandoned = |e: io::Error| ImageError::LayerFormat { subject: layer.subject.clone(), problem: e.to_string() };
    blob.drain().map_err(abandoned)?;
    if blob.size != layer.size {
        let (subject, expected) = (layer.subject.clone(), layer.size);
        return Err(ImageError::BlobSize { subject, expected, actual: blob.size });
    }
    let actual = Sha256Digest::new(blob.hasher.finalize().into());
    if actual != layer.blob {
        return Err(ImageError::BlobDigest { subject: layer.subject.clone(), expected: layer.blob, actual });
    }
    unpacked?;
    let actual = Sha256Digest::new(diff_id.finalize().into());
    if actual != layer.diff_id {
        return Err(ImageError::DiffId { subject: layer.subject.clone(), expected: layer.diff_id, actual });
    }
    Ok(())
}
