//! gzip members (RFC 1952), one after the other.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::buffer::Buffer;
use super::error::FramingError;
use super::{Step, length};

const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;
/// Most bytes of a header: the longest extra field (estargz keeps 24 bytes there), and room for names.
const HEADER_BYTES: usize = 128 * 1024;

/// The part of a member that the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The ten bytes every header starts with.
    Fixed,
    ExtraLength,
    Extra(usize),
    Name,
    Comment,
    HeaderCrc,
    Data,
    /// CRC-32 and length.
    Trailer,
    /// Zeros behind the last member.
    Zeros,
}

/// The decoder. Starts at a member's first byte.
#[derive(Debug)]
pub(super) struct Gzip {
    part: Part,
    /// Bytes of the blob before what is being looked at.
    offset: u64,
    /// A field of fixed length that is being gathered.
    field: [u8; 10],
    filled: usize,
    flags: u8,
    /// Of the header, for FHCRC, and its length so far.
    header_crc: Crc,
    header_bytes: usize,
    inflate: Decompress,
    crc: Crc,
    /// At least one member is complete.
    any: bool,
}

impl Default for Gzip {
    fn default() -> Self {
        Self {
            part: Part::Fixed,
            offset: 0,
            field: [0; 10],
            filled: 0,
            flags: 0,
            header_crc: Crc::new(),
            header_bytes: 0,
            inflate: Decompress::new(false),
            crc: Crc::new(),
            any: false,
        }
    }
}

impl Gzip {
    /// Whether the blob may end here.
    pub(super) const fn is_complete(&self) -> bool {
        self.any && (matches!(self.part, Part::Zeros) || matches!(self.part, Part::Fixed) && self.filled == 0)
    }

    /// Decodes until the input is used up or the buffer full.
    ///
    /// # Errors
    /// [`FramingError`].
    pub(super) fn step(&mut self, input: &[u8], buffer: &mut Buffer) -> Result<Step, FramingError> {
        let mut rest = input;
        // Data that are decoded already may wait for room, so they are asked for without input too.
        while !rest.is_empty() || self.part == Part::Data {
            let taken = match self.part {
                Part::Data => {
                    let (taken, complete) = self.data(rest, buffer)?;
                    if !complete {
                        self.offset = self.offset.saturating_add(length(rest.get(..taken).unwrap_or_default()));
                        let all = input.len().saturating_sub(rest.len()).saturating_add(taken);
                        return match (buffer.room().is_empty(), all == input.len()) {
                            (true, _) => Ok(Step::NeedsRoom(all)),
                            (false, true) => Ok(Step::NeedsInput),
                            (false, false) => Err(self.damaged("decoding stands still")),
                        };
                    }
                    taken
                }
                Part::Fixed if self.any && self.filled == 0 && rest.first() == Some(&0) => {
                    self.part = Part::Zeros;
                    0
                }
                Part::Zeros => match rest.iter().position(|b| *b != 0) {
                    Some(at) => {
                        let offset = self.offset.saturating_add(u64::try_from(at).unwrap_or(u64::MAX));
                        return Err(FramingError::GzipTrailing { offset });
                    }
                    None => rest.len(),
                },
                Part::Fixed => self.gather(rest, 10, Self::fixed)?,
                Part::ExtraLength => self.gather(rest, 2, Self::extra_length)?,
                Part::HeaderCrc => self.gather(rest, 2, Self::check_header)?,
                Part::Trailer => self.gather(rest, 8, Self::trailer)?,
                Part::Extra(left) => {
                    let extra = rest.get(..left).unwrap_or(rest);
                    self.header(extra)?;
                    self.part = if extra.len() == left { self.after(FEXTRA) } else { Part::Extra(left - extra.len()) };
                    extra.len()
                }
                Part::Name | Part::Comment => {
                    let nul = rest.iter().position(|b| *b == 0);
                    let text = nul.and_then(|nul| rest.get(..=nul)).unwrap_or(rest);
                    self.header(text)?;
                    if nul.is_some() {
                        self.part = self.after(if self.part == Part::Name { FNAME } else { FCOMMENT });
                    }
                    text.len()
                }
            };
            self.offset = self.offset.saturating_add(u64::try_from(taken).unwrap_or(u64::MAX));
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(Step::NeedsInput)
    }

    /// Inflates; gives how much input was taken and whether the member's data are complete.
    fn data(&mut self, input: &[u8], buffer: &mut Buffer) -> Result<(usize, bool), FramingError> {
        let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(input, buffer.room(), FlushDecompress::None);
        let status = status.map_err(|error| self.damaged(error.message().unwrap_or("no deflate data")))?;
        let count = |after: u64, before: u64| usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX);
        self.crc.update(buffer.fill(count(self.inflate.total_out(), before_out)));
        let complete = status == Status::StreamEnd;
        if complete {
            self.part = Part::Trailer;
        }
        Ok((count(self.inflate.total_in(), before_in), complete))
    }

    /// Gathers a field of `size` bytes; once it is whole, `read` says what comes next.
    fn gather(
        &mut self,
        input: &[u8],
        size: usize,
        read: impl FnOnce(&mut Self, [u8; 10]) -> Result<Part, FramingError>,
    ) -> Result<usize, FramingError> {
        let room = self.field.get_mut(self.filled..size).unwrap_or_default();
        let count = room.len().min(input.len());
        if let (Some(room), Some(input)) = (room.get_mut(..count), input.get(..count)) {
            room.copy_from_slice(input);
        }
        self.filled += count;
        if self.filled == size {
            self.filled = 0;
            self.part = read(self, self.field)?;
        } else if self.part == Part::Fixed {
            self.check_magic()?;
        }
        Ok(count)
    }

    /// What is no member behind another shows by its first bytes, however few there are.
    fn check_magic(&self) -> Result<(), FramingError> {
        let magic = [0x1f, 0x8b, 8];
        let seen = self.field.get(..self.filled.min(3)).unwrap_or_default();
        if self.filled > 0 && !magic.starts_with(seen) {
            return Err(FramingError::GzipTrailing { offset: self.offset });
        }
        Ok(())
    }

    fn fixed(&mut self, field: [u8; 10]) -> Result<Part, FramingError> {
        let [a, b, method, flags, ..] = field;
        if [a, b, method] != [0x1f, 0x8b, 8] {
            return Err(FramingError::GzipTrailing { offset: self.offset });
        }
        if flags & RESERVED != 0 {
            return Err(self.wrong("reserved flags"));
        }
        self.flags = flags;
        self.header_crc = Crc::new();
        self.header_bytes = 0;
        self.header(&field)?;
        self.crc = Crc::new();
        self.inflate.reset(false);
        Ok(self.after(0))
    }

    fn extra_length(&mut self, field: [u8; 10]) -> Result<Part, FramingError> {
        let [low, high, ..] = field;
        self.header(&[low, high])?;
        let size = usize::from(u16::from_le_bytes([low, high]));
        Ok(if size == 0 { self.after(FEXTRA) } else { Part::Extra(size) })
    }

    fn check_header(&mut self, field: [u8; 10]) -> Result<Part, FramingError> {
        let [low, high, ..] = field;
        let [a, b, ..] = self.header_crc.sum().to_le_bytes();
        if [low, high] == [a, b] { Ok(Part::Data) } else { Err(self.wrong("its checksum is another")) }
    }

    fn trailer(&mut self, field: [u8; 10]) -> Result<Part, FramingError> {
        let [a, b, c, d, e, f, g, h, ..] = field;
        let (expected, actual) = (u32::from_le_bytes([a, b, c, d]), self.crc.sum());
        let offset = self.offset;
        if expected != actual {
            return Err(FramingError::GzipCrc { offset, expected, actual });
        }
        let (expected, actual) = (u32::from_le_bytes([e, f, g, h]), self.crc.amount());
        if expected != actual {
            return Err(FramingError::GzipSize { offset, expected, actual });
        }
        self.any = true;
        Ok(Part::Fixed)
    }

    /// Counts and sums up bytes of the header.
    fn header(&mut self, bytes: &[u8]) -> Result<(), FramingError> {
        self.header_crc.update(bytes);
        self.header_bytes = self.header_bytes.saturating_add(bytes.len());
        if self.header_bytes > HEADER_BYTES { Err(self.wrong("longer than 128 KiB")) } else { Ok(()) }
    }

    /// The part of the header behind that of `flag`; flags stand in the order of their parts.
    fn after(&self, flag: u8) -> Part {
        let has = |other: u8| self.flags & other != 0;
        if flag < FEXTRA && has(FEXTRA) {
            Part::ExtraLength
        } else if flag < FNAME && has(FNAME) {
            Part::Name
        } else if flag < FCOMMENT && has(FCOMMENT) {
            Part::Comment
        } else if has(FHCRC) {
            Part::HeaderCrc
        } else {
            Part::Data
        }
    }

    fn damaged(&self, problem: &str) -> FramingError {
        FramingError::GzipData { offset: self.offset, problem: problem.to_owned() }
    }

    const fn wrong(&self, problem: &'static str) -> FramingError {
        FramingError::GzipHeader { offset: self.offset, problem }
    }
}
