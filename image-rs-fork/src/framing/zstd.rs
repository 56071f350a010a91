//! zstd frames (RFC 8878), one after the other, skippable ones between them.
//!
//! Frame headers are read here, so that a window or dictionary is refused before libzstd takes memory; the
//! rest is libzstd's.

use std::fmt;

use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::buffer::Buffer;
use super::detect::{ZSTD_MAGIC, ZSTD_SKIPPABLE};
use super::error::FramingError;
use super::{Step, length};

/// The longest frame header: magic, descriptor, window, dictionary, content size.
const HEADER_BYTES: usize = 18;

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Header,
    Skip(u64),
    Frame,
}

/// The decoder. Starts at a frame's first byte.
pub(super) struct Zstd {
    part: Part,
    /// Bytes of the blob before what is being looked at.
    offset: u64,
    head: [u8; HEADER_BYTES],
    filled: usize,
    window_limit: u64,
    decoder: Decoder<'static>,
}

impl fmt::Debug for Zstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd").field("part", &self.part).field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Zstd {
    /// # Errors
    /// [`FramingError::Memory`].
    pub(super) fn new(window_limit: u64) -> Result<Self, FramingError> {
        let mut decoder = Decoder::new().map_err(|_| FramingError::Memory)?;
        // A second lock behind our own reading of headers: at least 1 KiB, at most 2 GiB.
        let log = window_limit.clamp(1 << 10, 1 << 31).next_power_of_two().ilog2().min(31);
        decoder.set_parameter(DParameter::WindowLogMax(log)).map_err(|_| FramingError::Memory)?;
        Ok(Self { part: Part::Header, offset: 0, head: [0; HEADER_BYTES], filled: 0, window_limit, decoder })
    }

    /// Whether the blob may end here.
    pub(super) fn is_complete(&self) -> bool {
        self.part == Part::Header && self.filled == 0
    }

    /// Decodes until the input is used up or the buffer full.
    ///
    /// # Errors
    /// [`FramingError`].
    pub(super) fn step(&mut self, input: &[u8], buffer: &mut Buffer) -> Result<Step, FramingError> {
        let mut rest = input;
        // Data that are decoded already may wait for room, so they are asked for without input too.
        while !rest.is_empty() || self.part == Part::Frame {
            match self.part {
                Part::Header => {
                    let Some((byte, after)) = rest.split_first() else { break };
                    if let Some(slot) = self.head.get_mut(self.filled) {
                        *slot = *byte;
                    }
                    self.filled += 1;
                    rest = after;
                    self.offset = self.offset.saturating_add(1);
                    self.header(buffer)?;
                }
                Part::Skip(left) => {
                    let skipped = rest.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(rest);
                    rest = rest.get(skipped.len()..).unwrap_or_default();
                    self.offset = self.offset.saturating_add(length(skipped));
                    let left = left.saturating_sub(length(skipped));
                    self.part = if left == 0 { Part::Header } else { Part::Skip(left) };
                }
                Part::Frame => {
                    let (taken, written, complete) = self.decode(rest, buffer)?;
                    rest = rest.get(taken..).unwrap_or_default();
                    self.offset = self.offset.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
                    if complete {
                        self.part = Part::Header;
                    } else if buffer.room().is_empty() {
                        return Ok(Step::NeedsRoom(input.len().saturating_sub(rest.len())));
                    } else if rest.is_empty() && written == 0 {
                        break;
                    } else if taken == 0 && written == 0 {
                        return Err(self.damaged("decoding stands still"));
                    }
                }
            }
        }
        Ok(Step::NeedsInput)
    }

    /// Gives how much input was taken, output written, and whether the frame is complete.
    fn decode(&mut self, input: &[u8], buffer: &mut Buffer) -> Result<(usize, usize, bool), FramingError> {
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(buffer.room());
        let hint = self.decoder.run(&mut input, &mut output);
        let hint = hint.map_err(|error| self.damaged(&error.to_string()))?;
        let (taken, written) = (input.pos(), output.pos());
        buffer.fill(written);
        Ok((taken, written, hint == 0))
    }

    fn damaged(&self, problem: &str) -> FramingError {
        FramingError::ZstdData { offset: self.offset, problem: problem.to_owned() }
    }

    /// Looks at the header as far as it is gathered; whole, it is given to libzstd or skipped.
    fn header(&mut self, buffer: &mut Buffer) -> Result<(), FramingError> {
        let head = self.head.get(..self.filled).unwrap_or_default();
        let offset = self.offset.saturating_sub(length(head));
        match read_header(head, offset)? {
            Header::Short => {}
            Header::Skippable(0) => self.filled = 0,
            Header::Skippable(size) => {
                self.filled = 0;
                self.part = Part::Skip(size);
            }
            Header::Frame { dictionary: 0, window } if window <= self.window_limit => {
                let (head, filled) = (self.head, self.filled);
                let head = head.get(..filled).unwrap_or_default();
                let (taken, _, _) = self.decode(head, buffer)?;
                if taken != filled {
                    return Err(FramingError::ZstdHeader { offset, problem: "it is not read as a whole" });
                }
                self.filled = 0;
                self.part = Part::Frame;
            }
            Header::Frame { dictionary: 0, window } => {
                return Err(FramingError::ZstdWindow { offset, window, limit: self.window_limit });
            }
            Header::Frame { dictionary, .. } => return Err(FramingError::ZstdDictionary { offset, dictionary }),
        }
        Ok(())
    }
}

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    /// It is not whole yet.
    Short,
    /// A frame of so many bytes that are not looked at.
    Skippable(u64),
    /// A frame of data: dictionary (0 for none) and bytes of its window.
    Frame { dictionary: u32, window: u64 },
}

/// Reads a header that may be cut short (RFC 8878, 3.1).
fn read_header(head: &[u8], offset: u64) -> Result<Header, FramingError> {
    let Some((magic, rest)) = head.split_first_chunk().map(|(magic, rest)| (u32::from_le_bytes(*magic), rest)) else {
        return Ok(Header::Short);
    };
    if magic & !0xf == ZSTD_SKIPPABLE {
        let size = rest.first_chunk().map(|size| u64::from(u32::from_le_bytes(*size)));
        return Ok(size.map_or(Header::Short, Header::Skippable));
    }
    if magic != ZSTD_MAGIC {
        return Err(FramingError::ZstdTrailing { offset });
    }
    let Some((descriptor, rest)) = rest.split_first() else { return Ok(Header::Short) };
    if descriptor & 0b1000 != 0 {
        return Err(FramingError::ZstdHeader { offset, problem: "a reserved flag" });
    }
    let single = descriptor & 0b10_0000 != 0;
    let window_size = usize::from(!single);
    let dictionary_size = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied().unwrap_or(0);
    let content_size = match descriptor >> 6 {
        0 => usize::from(single),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    let parts = rest.split_at_checked(window_size).and_then(|(window, rest)| {
        let (dictionary, rest) = rest.split_at_checked(dictionary_size)?;
        Some((window.first().copied(), little_endian(dictionary), little_endian(rest.get(..content_size)?)))
    });
    let Some((window, dictionary, content)) = parts else { return Ok(Header::Short) };
    let window = match window {
        Some(byte) => {
            let base = 1u64 << (10 + (byte >> 3));
            base + base / 8 * u64::from(byte & 7)
        }
        None => content + if content_size == 2 { 256 } else { 0 },
    };
    Ok(Header::Frame { dictionary: u32::try_from(dictionary).unwrap_or(u32::MAX), window })
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
