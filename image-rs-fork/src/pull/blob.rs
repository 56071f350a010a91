//! A layer's blob between the network and the unpacker: hashed and counted as it streams, twice.
//!
//! The receiving side is asynchronous and sends chunks through a bounded channel; all else happens on one
//! blocking thread.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use protocols::digest::Sha256Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::error::ImageError;
use crate::framing::{Buffer, Decompressor, FramingError, FramingLimits};
use crate::layer::Budget;
use crate::manifest::Layer;
use crate::ocicrypt::{Decryptor, LayerSecret};
use crate::store::LayerWriter;

/// How much of a blob is still read after it seemed to be beyond a limit.
const REST: u64 = 64 << 20;
/// Size of the buffer of unpacked bytes.
const BUFFER: usize = 256 * 1024;

/// What the receiving side sends. A channel that closes without [`Part::End`] was abandoned.
#[derive(Debug)]
pub(super) enum Part {
    Chunk(Bytes),
    End,
}

/// The blob as it arrives.
struct Blob<'a> {
    parts: mpsc::Receiver<Part>,
    ended: bool,
    hasher: Sha256,
    size: u64,
    /// Where the blob is ciphertext.
    decryptor: Option<Decryptor>,
    subject: &'a str,
}

impl Blob<'_> {
    /// The next bytes, hashed, counted and decrypted; `None` at the end.
    fn next(&mut self) -> Result<Option<Bytes>, ImageError> {
        if self.ended {
            return Ok(None);
        }
        match self.parts.blocking_recv() {
            Some(Part::Chunk(chunk)) => {
                self.hasher.update(&chunk);
                self.size = self.size.saturating_add(chunk.len() as u64);
                let Some(decryptor) = &mut self.decryptor else { return Ok(Some(chunk)) };
                // In place: nobody else holds a chunk.
                let mut chunk = BytesMut::from(chunk);
                decryptor.apply(&mut chunk);
                Ok(Some(chunk.freeze()))
            }
            Some(Part::End) => {
                self.ended = true;
                Ok(None)
            }
            None => {
                let problem = "the pull was abandoned".to_owned();
                Err(ImageError::LayerFormat { subject: self.subject.to_owned(), problem })
            }
        }
    }
}

/// Why decompression stopped.
enum Stopped {
    Framing(FramingError),
    Image(ImageError),
}

impl From<FramingError> for Stopped {
    fn from(error: FramingError) -> Self {
        Self::Framing(error)
    }
}

impl Stopped {
    fn into_image(self, subject: &str) -> ImageError {
        let subject = subject.to_owned();
        match self {
            Self::Image(error) => error,
            Self::Framing(FramingError::Limit { limit }) => {
                ImageError::Limit { subject, what: "unpacked bytes in one layer", limit }
            }
            Self::Framing(FramingError::Ratio { limit, .. }) => {
                ImageError::Limit { subject, what: "unpacked bytes for each compressed one", limit: limit.into() }
            }
            Self::Framing(FramingError::ZstdWindow { window, limit, .. }) => {
                ImageError::ZstdWindow { subject, window, limit }
            }
            Self::Framing(error) => ImageError::LayerFormat { subject, problem: error.to_string() },
        }
    }
}

/// Takes the blob from its compression to the writer and gives the archive's digest. May stop before the blob's end.
fn stream(
    blob: &mut Blob<'_>,
    layer: &Layer,
    budget: &Budget,
    writer: &mut dyn LayerWriter,
) -> Result<Sha256Digest, ImageError> {
    let limits = budget.limits();
    let framing = FramingLimits { output_bytes: limits.layer_bytes, ratio: limits.ratio, ..FramingLimits::default() };
    let mut decompressor = Decompressor::new(layer.compression, framing, Buffer::new(BUFFER));
    let mut hasher = Sha256::new();
    let mut unpack = |archive: Buffer| {
        if !budget.take_bytes(archive.filled().len() as u64) {
            let (subject, what) = (layer.subject.clone(), "unpacked bytes in the image");
            return Err(Stopped::Image(ImageError::Limit { subject, what, limit: limits.image_bytes }));
        }
        hasher.update(archive.filled());
        writer.push(archive.filled()).map_err(Stopped::Image)?;
        Ok(archive)
    };
    let named = |stopped: Stopped| stopped.into_image(&layer.subject);
    while let Some(chunk) = blob.next()? {
        decompressor.push(&chunk, &mut unpack).map_err(named)?;
    }
    let totals = decompressor.finish(&mut unpack).map_err(named)?;
    if totals.compression != layer.compression {
        let problem = "the blob is not compressed as its media type says".to_owned();
        return Err(ImageError::LayerFormat { subject: layer.subject.clone(), problem });
    }
    writer.end()?;
    Ok(Sha256Digest::new(hasher.finalize().into()))
}

/// Unpacks a layer from its parts and checks all that can be checked of it. Blocking.
///
/// Whatever goes wrong with the content, a blob of another size or digest than the manifest's, or one that
/// its key does not authenticate, is the cause and is what is told.
pub(super) fn unpack(
    parts: mpsc::Receiver<Part>,
    layer: &Layer,
    secret: Option<&LayerSecret>,
    budget: &Arc<Budget>,
    writer: &mut dyn LayerWriter,
) -> Result<(), ImageError> {
    let decryptor = secret.map(Decryptor::new);
    let mut blob = Blob { parts, ended: false, hasher: Sha256::new(), size: 0, decryptor, subject: &layer.subject };
    let unpacked = stream(&mut blob, layer, budget, writer);
    match unpacked {
        Ok(_) | Err(ImageError::LayerFormat { .. } | ImageError::Unsafe { .. }) => {}
        // An altered byte can look like a bomb; what is left is read unless it is much.
        Err(ImageError::Limit { .. } | ImageError::ZstdWindow { .. })
            if layer.size.saturating_sub(blob.size) <= REST => {}
        // A full disk is no matter of the blob's bytes.
        Err(e) => return Err(e),
    }
    while blob.next()?.is_some() {}
    if blob.size != layer.size {
        let (subject, expected) = (layer.subject.clone(), layer.size);
        return Err(ImageError::BlobSize { subject, expected, actual: blob.size });
    }
    let actual = Sha256Digest::new(blob.hasher.finalize().into());
    if actual != layer.blob {
        return Err(ImageError::BlobDigest { subject: layer.subject.clone(), expected: layer.blob, actual });
    }
    // Under a wrong key whatever unpacking says is noise.
    if blob.decryptor.is_some_and(|decryptor| decryptor.verify().is_err()) {
        let problem = "its HMAC is another one: it was altered, or its key is of another layer".to_owned();
        return Err(ImageError::Decrypt { subject: layer.subject.clone(), problem });
    }
    let actual = unpacked?;
    if actual != layer.diff_id {
        return Err(ImageError::DiffId { subject: layer.subject.clone(), expected: layer.diff_id, actual });
    }
    Ok(())
}
