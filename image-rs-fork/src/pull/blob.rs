//! A layer's blob between the network and the unpacker: hashed and counted as it streams, twice.
//!
//! The receiving side is asynchronous and sends chunks through a bounded channel. All else happens on one blocking
//! thread or, where a processor would have nothing to do, on two: the first hashes and decompresses the blob, the
//! second hashes and unpacks the archive. Their buffers are few and go round.

use std::sync::mpsc::sync_channel;

use bytes::{Bytes, BytesMut};
use protocols::digest::Sha256Digest;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::error::ImageError;
use crate::framing::{Buffer, Decompressor, FramingError, FramingLimits};
use crate::layer::Budget;
use crate::limits::Limits;
use crate::manifest::Layer;
use crate::ocicrypt::{Decryptor, LayerSecret};
use crate::store::LayerWriter;

/// How much of a blob is still read after it seemed to be beyond a limit.
const REST: u64 = 64 << 20;
/// Size of a buffer of unpacked bytes.
const BUFFER: usize = 128 * 1024;
/// Such buffers of a layer that two threads work on: one for each, and one on the way.
const BUFFERS: usize = 3;

/// What the receiving side sends. A channel that closes without [`Part::End`] was abandoned.
#[derive(Debug)]
pub(super) enum Part {
    /// Bytes, and the room they take until they are used.
    Chunk(Bytes, Option<OwnedSemaphorePermit>),
    End,
}

/// The blob as it arrives.
struct Blob<'a> {
    parts: mpsc::Receiver<Part>,
    /// Of the chunk that was given last.
    room: Option<OwnedSemaphorePermit>,
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
        self.room = None;
        match self.parts.blocking_recv() {
            Some(Part::Chunk(chunk, room)) => {
                self.room = room;
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
    /// The other thread has ended and says why.
    Unpacking,
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
            Self::Unpacking => ImageError::LayerFormat { subject, problem: "unpacking has ended".to_owned() },
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

/// Where the archive goes: its digest, and the writers.
struct Archive<'a> {
    layer: &'a Layer,
    budget: &'a Budget,
    hasher: Sha256,
    writers: &'a mut [Box<dyn LayerWriter>],
}

impl Archive<'_> {
    fn take(&mut self, archive: &[u8]) -> Result<(), ImageError> {
        self.hasher.update(archive);
        for writer in self.writers.iter_mut() {
            if !self.budget.take_bytes(archive.len() as u64) {
                let (subject, what) = (self.layer.subject.clone(), "unpacked bytes in the image");
                return Err(ImageError::Limit { subject, what, limit: self.budget.limits().image_bytes });
            }
            writer.push(archive)?;
        }
        Ok(())
    }

    fn end(self) -> Result<Sha256Digest, ImageError> {
        self.writers.iter_mut().try_for_each(|writer| writer.end())?;
        Ok(Sha256Digest::new(self.hasher.finalize().into()))
    }
}

/// Decompresses the whole blob. May stop before its end.
fn decompress(
    blob: &mut Blob<'_>,
    layer: &Layer,
    limits: &Limits,
    mut full: impl FnMut(Buffer) -> Result<Buffer, Stopped>,
) -> Result<(), Stopped> {
    let framing = FramingLimits { output_bytes: limits.layer_bytes, ratio: limits.ratio, ..FramingLimits::default() };
    let mut decompressor = Decompressor::new(layer.compression, framing, Buffer::new(BUFFER));
    while let Some(chunk) = blob.next().map_err(Stopped::Image)? {
        decompressor.push(&chunk, &mut full)?;
    }
    let totals = decompressor.finish(&mut full)?;
    if totals.compression != layer.compression {
        let problem = "the blob is not compressed as its media type says".to_owned();
        return Err(Stopped::Image(ImageError::LayerFormat { subject: layer.subject.clone(), problem }));
    }
    Ok(())
}

/// Takes the blob from its compression to the writers and gives the archive's digest. May stop before the blob's end.
fn stream(blob: &mut Blob<'_>, layer: &Layer, mut archive: Archive<'_>) -> Result<Sha256Digest, ImageError> {
    let limits = archive.budget.limits();
    let inline = |buffer: Buffer| {
        archive.take(buffer.filled()).map_err(Stopped::Image)?;
        Ok(buffer)
    };
    decompress(blob, layer, limits, inline).map_err(|stopped| stopped.into_image(&layer.subject))?;
    archive.end()
}

/// The same on two threads.
fn stream_split(blob: &mut Blob<'_>, layer: &Layer, mut archive: Archive<'_>) -> Result<Sha256Digest, ImageError> {
    let limits = archive.budget.limits();
    let (give, take) = sync_channel::<Buffer>(BUFFERS);
    let (give_back, take_back) = sync_channel::<Buffer>(BUFFERS);
    for _ in 1..BUFFERS {
        let _ = give_back.send(Buffer::new(BUFFER));
    }
    std::thread::scope(|threads| {
        let unpacker = std::thread::Builder::new().name("unpack".to_owned()).spawn_scoped(threads, move || {
            while let Ok(buffer) = take.recv() {
                archive.take(buffer.filled())?;
                // Nobody takes it back after the last one.
                let _ = give_back.send(buffer);
            }
            Ok(archive)
        });
        let unpacker = unpacker.map_err(|source| {
            let path = std::path::PathBuf::new();
            ImageError::StoreIo { path, doing: "start a thread", source }
        })?;
        let decompressed = decompress(blob, layer, limits, |buffer| {
            give.send(buffer).map_err(|_| Stopped::Unpacking)?;
            take_back.recv().map_err(|_| Stopped::Unpacking)
        });
        drop(give);
        let archive: Result<Archive<'_>, ImageError> =
            unpacker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // What unpacking met lies before what decompression met.
        let archive = archive?;
        decompressed.map_err(|stopped| stopped.into_image(&layer.subject))?;
        archive.end()
    })
}

/// Unpacks a layer from its parts into all `writers`, on a second thread where `split` says so, and checks all that can be checked of it. Blocking.
///
/// Whatever goes wrong with the content, a blob of another size or digest than the manifest's, or one that
/// its key does not authenticate, is the cause and is what is told.
pub(super) fn unpack(
    parts: mpsc::Receiver<Part>,
    layer: &Layer,
    secret: Option<&LayerSecret>,
    budget: &Budget,
    writers: &mut [Box<dyn LayerWriter>],
    split: bool,
) -> Result<(), ImageError> {
    let decryptor = secret.map(Decryptor::new);
    let mut blob =
        Blob { parts, room: None, ended: false, hasher: Sha256::new(), size: 0, decryptor, subject: &layer.subject };
    let archive = Archive { layer, budget, hasher: Sha256::new(), writers };
    let unpacked = if split { stream_split(&mut blob, layer, archive) } else { stream(&mut blob, layer, archive) };
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
