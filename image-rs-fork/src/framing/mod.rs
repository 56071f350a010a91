//! Layer blobs, uncompressed while they stream: gzip, zstd and plain, into bounded, recycled buffers.
//!
//! [`Decompressor::push`] takes the blob in pieces of any size; whenever its [`Buffer`] is full it hands it to the
//! caller, who gives back an empty one: the same, or one from a pool while another thread reads the full one.
//!
//! # Decisions
//!
//! **Which compression.** As containerd: a blob whose media type says it is not compressed is taken as it is. For
//! every other the first bytes say what it is, whatever the media type: gzip, zstd, or plain. What counts in the
//! end is the diffID, which is taken over the result. An empty blob is plain, and an empty layer.
//!
//! **gzip** (RFC 1952). Members follow one another; header flags FTEXT, FHCRC (checked), FEXTRA, FNAME and FCOMMENT,
//! bounded together; reserved flags are refused. CRC-32 and length of every member are checked. Zeros after the last
//! member are taken (tape blocks), anything else is refused; containerd differs by which gunzip it finds.
//!
//! **zstd** (RFC 8878). Frames follow one another, skippable frames anywhere; content checksums are checked. Refused:
//! windows above [`FramingLimits::zstd_window`] before memory is taken for them (`image.zstd_window`), frames that
//! need a dictionary, anything after the last frame that is no frame.
//!
//! **Limits.** Bytes in all, and bytes per compressed byte beyond the first 64 MiB. Checked for every buffer, so
//! that at most one buffer is made in vain.

mod buffer;
mod detect;
mod error;
mod gzip;
mod zstd;

pub use buffer::Buffer;
pub use detect::Compression;
pub use error::FramingError;

use detect::{Detected, detect};
use gzip::Gzip;
use zstd::Zstd;

/// Bytes that the ratio is not yet asked of.
const RATIO_FREE: u64 = 64 << 20;

/// How large the result may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramingLimits {
    /// Bytes of the uncompressed layer. Default 16 GiB.
    pub output_bytes: u64,
    /// Uncompressed bytes per byte of the blob, beyond the first 64 MiB. Default 1,000.
    pub ratio: u32,
    /// Bytes of the window a zstd frame asks for, which is memory we must have. Default 8 MiB.
    pub zstd_window: u64,
}

impl Default for FramingLimits {
    fn default() -> Self {
        Self { output_bytes: 16 << 30, ratio: 1000, zstd_window: 8 << 20 }
    }
}

/// What a blob was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramingTotals {
    /// What it really was, whatever its media type says.
    pub compression: Compression,
    /// Bytes of the blob.
    pub input_bytes: u64,
    /// Bytes of the uncompressed layer.
    pub output_bytes: u64,
}

/// The push decompressor. It holds one [`Buffer`], and the state of its decoder: about 48 KiB for gzip, the
/// window and 400 KiB for zstd.
#[derive(Debug)]
pub struct Decompressor {
    decoder: Decoder,
    buffer: Buffer,
    limits: FramingLimits,
    input_bytes: u64,
    /// Handed out, without what is in the buffer.
    output_bytes: u64,
}

#[derive(Debug)]
enum Decoder {
    /// The first bytes are still to come.
    Detect {
        head: [u8; 4],
        filled: usize,
    },
    Plain,
    Gzip(Box<Gzip>),
    Zstd(Box<Zstd>),
    /// The blob was refused.
    Refused,
}

/// How far a decoder came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It took all there was.
    NeedsInput,
    /// Its buffer is full; so many bytes were taken.
    NeedsRoom(usize),
}

impl Decompressor {
    /// Starts a blob that its media type says is compressed so. `buffer` is the first to be filled.
    #[must_use]
    pub fn new(declared: Compression, limits: FramingLimits, buffer: Buffer) -> Self {
        let decoder = match declared {
            Compression::None => Decoder::Plain,
            Compression::Gzip | Compression::Zstd => Decoder::Detect { head: [0; 4], filled: 0 },
        };
        Self { decoder, buffer, limits, input_bytes: 0, output_bytes: 0 }
    }

    /// Takes the next bytes of the blob, any number of them. `full` gets every buffer that is full and gives
    /// an empty one for it.
    ///
    /// # Errors
    /// [`FramingError`] as the caller's error, or what `full` returned. The decompressor is of no use after it.
    pub fn push<E: From<FramingError>>(
        &mut self,
        input: &[u8],
        full: &mut impl FnMut(Buffer) -> Result<Buffer, E>,
    ) -> Result<(), E> {
        if matches!(self.decoder, Decoder::Refused) {
            return Err(FramingError::Refused.into());
        }
        if input.is_empty() {
            return Ok(());
        }
        self.input_bytes = self.input_bytes.saturating_add(length(input));
        let result = self.take(input, full);
        if result.is_err() {
            self.decoder = Decoder::Refused;
        }
        result
    }

    /// Ends the blob: hands out the last buffer, full or not, unless it is empty.
    ///
    /// # Errors
    /// [`FramingError::Truncated`], [`FramingError::Refused`], or what `full` returned.
    pub fn finish<E: From<FramingError>>(
        mut self,
        full: &mut impl FnMut(Buffer) -> Result<Buffer, E>,
    ) -> Result<FramingTotals, E> {
        if let Decoder::Detect { head, filled } = self.decoder {
            self.begin(head.get(..filled).unwrap_or_default(), full)?;
        }
        let compression = match &self.decoder {
            Decoder::Plain | Decoder::Detect { .. } => Compression::None,
            Decoder::Gzip(gzip) if gzip.is_complete() => Compression::Gzip,
            Decoder::Zstd(zstd) if zstd.is_complete() => Compression::Zstd,
            Decoder::Gzip(_) | Decoder::Zstd(_) => {
                return Err(FramingError::Truncated { offset: self.input_bytes }.into());
            }
            Decoder::Refused => return Err(FramingError::Refused.into()),
        };
        if !self.buffer.filled().is_empty() {
            self.hand_out(full)?;
        }
        Ok(FramingTotals { compression, input_bytes: self.input_bytes, output_bytes: self.output_bytes })
    }

    fn take<E: From<FramingError>>(
        &mut self,
        mut input: &[u8],
        full: &mut impl FnMut(Buffer) -> Result<Buffer, E>,
    ) -> Result<(), E> {
        if let Decoder::Detect { head, filled } = &mut self.decoder {
            let room = head.get_mut(*filled..).unwrap_or_default();
            let count = room.len().min(input.len());
            let (first, rest) = input.split_at_checked(count).unwrap_or((input, &[]));
            if let Some(room) = room.get_mut(..count) {
                room.copy_from_slice(first);
            }
            *filled += count;
            input = rest;
            let (head, filled) = (*head, *filled);
            let head = head.get(..filled).unwrap_or_default();
            if detect(head) == Detected::TooShort {
                return Ok(());
            }
            self.begin(head, full)?;
        }
        self.decode(input, full)
    }

    /// The first bytes are known: chooses the decoder and gives them to it.
    fn begin<E: From<FramingError>>(
        &mut self,
        head: &[u8],
        full: &mut impl FnMut(Buffer) -> Result<Buffer, E>,
    ) -> Result<(), E> {
        self.decoder = match detect(head) {
            Detected::Gzip => Decoder::Gzip(Box::default()),
            Detected::Zstd => Decoder::Zstd(Box::new(Zstd::new(self.limits.zstd_window)?)),
            Detected::Plain | Detected::TooShort => Decoder::Plain,
        };
        self.decode(head, full)
    }

    fn decode<E: From<FramingError>>(
        &mut self,
        mut input: &[u8],
        full: &mut impl FnMut(Buffer) -> Result<Buffer, E>,
    ) -> Result<(), E> {
        loop {
            let step = match &mut self.decoder {
                Decoder::Plain => plain(input, &mut self.buffer),
                Decoder::Gzip(gzip) => gzip.step(input, &mut self.buffer)?,
                Decoder::Zstd(zstd) => zstd.step(input, &mut self.buffer)?,
                Decoder::Detect { .. } | Decoder::Refused => Step::NeedsInput,
            };
            match step {
                Step::NeedsInput => return Ok(()),
                Step::NeedsRoom(taken) => {
                    input = input.get(taken..).unwrap_or_default();
                    self.hand_out(full)?;
                }
            }
        }
    }

    fn hand_out<E: From<FramingError>>(&mut self, full: &mut impl FnMut(Buffer) -> Result<Buffer, E>) -> Result<(), E> {
        let filled = length(self.buffer.filled());
        self.output_bytes = self.output_bytes.saturating_add(filled);
        let FramingLimits { output_bytes: limit, ratio, .. } = self.limits;
        if self.output_bytes > limit {
            return Err(FramingError::Limit { limit }.into());
        }
        if self.output_bytes > RATIO_FREE && self.output_bytes / u64::from(ratio.max(1)) > self.input_bytes {
            let input = self.input_bytes;
            return Err(FramingError::Ratio { input, output: self.output_bytes, limit: ratio }.into());
        }
        let buffer = std::mem::replace(&mut self.buffer, Buffer::none());
        self.buffer = full(buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Copies as much as there is room for.
fn plain(input: &[u8], buffer: &mut Buffer) -> Step {
    let taken = buffer.write(input);
    if taken < input.len() { Step::NeedsRoom(taken) } else { Step::NeedsInput }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
