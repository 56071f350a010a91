//! The push parser's states.

use super::entry::EntrySink;
use super::error::TarError;
use super::header::{BLOCK, Block, Header, gnu_sparse_block, sum, text};
use super::limits::TarLimits;
use super::next::{Next, Stored};
use super::pax::check_global;
use super::sparse::{self, MapReader};

/// What an archive held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TarTotals {
    /// Entries handed to the sink.
    pub entries: u64,
    /// Bytes of the archive, those after its end included.
    pub archive_bytes: u64,
    /// Bytes of all files when unpacked, holes included.
    pub file_bytes: u64,
    /// Bytes after the two blocks of zeros that end the archive; their content is not looked at.
    pub trailing_bytes: u64,
}

/// An extended header's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extended {
    Pax,
    Global,
    LongName,
    LongLink,
}

/// What the next byte belongs to.
#[derive(Debug)]
enum State {
    /// A header, or zeros.
    Header,
    /// After one block of zeros.
    Zeros,
    /// After the end.
    Trailer,
    /// An extended header's data.
    Extended { kind: Extended, left: u64, padding: u64 },
    /// A file's data, then its padding.
    Data { left: u64, padding: u64 },
    /// A block of an old GNU sparse map.
    GnuMap { blocks: u64, size: u64, stored: u64 },
    /// The map in front of a sparse file's data, format 1.0.
    Map { reader: MapReader, read: u64, size: u64, stored: u64 },
    /// A sparse file's data: `done` bytes of the unpacked file were handed out, pieces before `piece` are
    /// complete.
    Pieces { piece: usize, done: u64, size: u64, padding: u64 },
    /// What fills a block behind data.
    Padding { left: u64 },
    /// The archive was refused.
    Refused,
}

/// The push parser. Bytes go in as they come, entries come out; memory is bounded by [`TarLimits`].
#[derive(Debug)]
pub struct Parser {
    state: State,
    limits: TarLimits,
    totals: TarTotals,
    /// A block that arrived in pieces, and how much of it there is.
    block: Block,
    filled: usize,
    /// Where the header being worked on starts.
    offset: u64,
    /// What extended headers say about the next entry.
    next: Next,
    /// A global header's data.
    global: Vec<u8>,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new(TarLimits::default())
    }
}

impl Parser {
    /// A parser at the start of an archive.
    #[must_use]
    pub fn new(limits: TarLimits) -> Self {
        Self {
            state: State::Header,
            limits,
            totals: TarTotals::default(),
            block: [0; BLOCK],
            filled: 0,
            offset: 0,
            next: Next::default(),
            global: Vec::new(),
        }
    }

    /// Takes the next bytes of the archive, any number of them.
    ///
    /// # Errors
    /// The parser's [`TarError`] as the sink's error, or the sink's own. The parser is of no use after it.
    pub fn push<S: EntrySink>(&mut self, input: &[u8], sink: &mut S) -> Result<(), S::Error> {
        if matches!(self.state, State::Refused) {
            return Err(TarError::Refused.into());
        }
        let result = self.run(input, sink);
        if result.is_err() {
            self.state = State::Refused;
        }
        result
    }

    /// Ends the archive. One without the closing zeros is complete too, as long as no entry is cut short.
    ///
    /// # Errors
    /// [`TarError::Truncated`], [`TarError::Dangling`], [`TarError::Refused`].
    pub fn finish(self) -> Result<TarTotals, TarError> {
        match self.state {
            State::Refused => Err(TarError::Refused),
            State::Header | State::Zeros if self.filled > 0 => {
                Err(TarError::Truncated { offset: self.totals.archive_bytes })
            }
            State::Header | State::Zeros | State::Trailer | State::Padding { .. } if self.next.is_pending() => {
                Err(TarError::Dangling { offset: self.totals.archive_bytes })
            }
            State::Header | State::Zeros | State::Trailer | State::Padding { .. } => Ok(self.totals),
            _ => Err(TarError::Truncated { offset: self.totals.archive_bytes }),
        }
    }

    fn run<S: EntrySink>(&mut self, input: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let limit = self.limits.archive_bytes;
        let (mut rest, beyond) = split(input, limit.saturating_sub(self.totals.archive_bytes));
        let after = self.totals.archive_bytes.saturating_add(length(rest));
        self.totals.archive_bytes = after;
        while !rest.is_empty() {
            rest = match &mut self.state {
                State::Data { left, padding } => {
                    let (bytes, rest) = split(rest, *left);
                    *left -= length(bytes);
                    let end = (*left == 0).then_some(*padding);
                    sink.data(bytes)?;
                    if let Some(padding) = end {
                        sink.end()?;
                        self.state = padded(padding);
                    }
                    rest
                }
                State::Padding { left } => {
                    let (bytes, rest) = split(rest, *left);
                    *left -= length(bytes);
                    if *left == 0 {
                        self.state = State::Header;
                    }
                    rest
                }
                State::Header | State::Zeros | State::GnuMap { .. } => self.gather(rest, after, sink)?,
                State::Extended { .. } => self.extended(rest)?,
                State::Map { .. } => self.map(rest, sink)?,
                State::Pieces { .. } => self.pieces(rest, sink)?,
                State::Trailer => {
                    self.totals.trailing_bytes = self.totals.trailing_bytes.saturating_add(length(rest));
                    &[]
                }
                State::Refused => &[],
            };
        }
        if !beyond.is_empty() {
            return Err(TarError::Limit { offset: limit, what: "bytes of a layer's archive", limit }.into());
        }
        Ok(())
    }

    /// Takes one whole block, from the input where it lies there in one piece.
    fn gather<'i, S: EntrySink>(&mut self, rest: &'i [u8], after: u64, sink: &mut S) -> Result<&'i [u8], S::Error> {
        if self.filled == 0
            && let Some((block, rest)) = rest.split_first_chunk::<BLOCK>()
        {
            self.offset = after - length(rest) - 512;
            self.block_read(block, sink)?;
            return Ok(rest);
        }
        let (bytes, rest) = split(rest, length(&self.block) - u64::try_from(self.filled).unwrap_or(u64::MAX));
        if let Some(room) = self.block.get_mut(self.filled..self.filled + bytes.len()) {
            room.copy_from_slice(bytes);
        }
        self.filled += bytes.len();
        if self.filled == BLOCK {
            self.filled = 0;
            self.offset = after - length(rest) - 512;
            let block = self.block;
            self.block_read(&block, sink)?;
        }
        Ok(rest)
    }

    fn block_read<S: EntrySink>(&mut self, block: &Block, sink: &mut S) -> Result<(), S::Error> {
        if let State::GnuMap { blocks, size, stored } = self.state {
            let (map, more) = gnu_sparse_block(block);
            sparse::add_gnu(&mut self.next.pieces, map, &self.limits, self.next.offset)?;
            let blocks = blocks + 1;
            if !more {
                return self.begin_pieces(size, stored, stored, sink);
            }
            if blocks * 512 >= u64::from(self.limits.record_bytes) {
                return Err(self.over("bytes of a sparse map", u64::from(self.limits.record_bytes)).into());
            }
            self.state = State::GnuMap { blocks, size, stored };
            return Ok(());
        }
        let sum = sum(block);
        match (sum, &self.state) {
            (0, State::Zeros) => {
                self.state = State::Trailer;
                return Ok(());
            }
            (0, _) => {
                self.state = State::Zeros;
                return Ok(());
            }
            (_, State::Zeros) => return Err(TarError::AfterZeros { offset: self.offset }.into()),
            _ => {}
        }
        let header = Header::parse(block, sum, self.offset)?;
        let kind = match header.typeflag {
            b'x' => Extended::Pax,
            b'g' => Extended::Global,
            b'L' => Extended::LongName,
            b'K' => Extended::LongLink,
            _ => return self.entry(&header, block, sink),
        };
        self.begin_extended(&header, kind)?;
        Ok(())
    }

    fn begin_extended(&mut self, header: &Header<'_>, kind: Extended) -> Result<(), TarError> {
        let offset = self.offset;
        let next = &mut self.next;
        let (body, pending, limit) = match kind {
            Extended::Pax => (&mut next.pax.body, &mut next.has_pax, u64::from(self.limits.record_bytes)),
            // Room for the NUL and for a block's padding that some writers count in.
            Extended::LongName => (&mut next.long_name, &mut next.has_name, u64::from(self.limits.name_bytes) + 512),
            Extended::LongLink => (&mut next.long_link, &mut next.has_link, u64::from(self.limits.name_bytes) + 512),
            Extended::Global if next.is_pending() => return Err(TarError::Dangling { offset }),
            Extended::Global => (&mut self.global, &mut false, u64::from(self.limits.record_bytes)),
        };
        if std::mem::replace(pending, true) {
            return Err(TarError::Repeated { offset, typeflag: header.typeflag });
        }
        let size = u64::try_from(header.size).map_err(|_| TarError::NegativeSize { offset, size: header.size })?;
        if size > limit {
            return Err(TarError::Limit { offset, what: "bytes of an extended header", limit });
        }
        body.clear();
        if kind == Extended::Pax {
            self.next.pieces.clear(); // of the last sparse file
        }
        self.state = State::Extended { kind, left: size, padding: padding(size) };
        if size == 0 {
            self.end_extended(kind, 0)?;
        }
        Ok(())
    }

    fn extended<'i>(&mut self, rest: &'i [u8]) -> Result<&'i [u8], TarError> {
        let State::Extended { kind, left, padding } = &mut self.state else { return Ok(rest) };
        let (bytes, rest) = split(rest, *left);
        *left -= length(bytes);
        let body = match kind {
            Extended::Pax => &mut self.next.pax.body,
            Extended::Global => &mut self.global,
            Extended::LongName => &mut self.next.long_name,
            Extended::LongLink => &mut self.next.long_link,
        };
        body.extend_from_slice(bytes);
        if *left == 0 {
            let (kind, padding) = (*kind, *padding);
            self.end_extended(kind, padding)?;
        }
        Ok(rest)
    }

    fn end_extended(&mut self, kind: Extended, padding: u64) -> Result<(), TarError> {
        self.state = padded(padding);
        let next = &mut self.next;
        let cut = |name: &mut Vec<u8>| name.truncate(text(name).len());
        match kind {
            Extended::Pax => next.pax.parse(&mut next.pieces, &self.limits, self.offset)?,
            Extended::Global => check_global(&self.global, self.offset)?,
            Extended::LongName => cut(&mut next.long_name),
            Extended::LongLink => cut(&mut next.long_link),
        }
        Ok(())
    }

    fn entry<S: EntrySink>(&mut self, header: &Header<'_>, block: &Block, sink: &mut S) -> Result<(), S::Error> {
        if self.totals.entries >= self.limits.entries {
            return Err(self.over("entries", self.limits.entries).into());
        }
        self.totals.entries += 1;
        let (meta, stored) = self.next.resolve(header, block, &self.limits, self.offset)?;
        let size = meta.size();
        self.totals.file_bytes = self.totals.file_bytes.saturating_add(size);
        if self.totals.file_bytes > self.limits.file_bytes {
            let limit = self.limits.file_bytes;
            return Err(TarError::Limit { offset: self.offset, what: "bytes of a layer's files", limit }.into());
        }
        sink.entry(&meta)?;
        match stored {
            Stored::Plain if size == 0 => {
                sink.end()?;
                self.state = State::Header;
            }
            Stored::Plain => self.state = State::Data { left: size, padding: padding(size) },
            Stored::GnuMap { stored } => self.state = State::GnuMap { blocks: 0, size, stored },
            Stored::Map { stored } => self.state = State::Map { reader: MapReader::default(), read: 0, size, stored },
            Stored::Pieces { stored } => self.begin_pieces(size, stored, stored, sink)?,
        }
        self.next.clear();
        Ok(())
    }

    fn map<'i, S: EntrySink>(&mut self, rest: &'i [u8], sink: &mut S) -> Result<&'i [u8], S::Error> {
        let State::Map { reader, read, size, stored } = &mut self.state else { return Ok(rest) };
        let (size, stored) = (*size, *stored);
        let offset = self.next.offset;
        // The map's last block is filled up behind its last number.
        let (bytes, _) = split(rest, if reader.is_done() { padding(*read) } else { stored - *read });
        let taken = if reader.is_done() {
            bytes.len()
        } else {
            reader.read(bytes, &mut self.next.pieces, &self.limits, offset)?
        };
        let (bytes, rest) = rest.split_at_checked(taken).unwrap_or((rest, &[]));
        *read += length(bytes);
        let (read, done) = (*read, reader.is_done());
        if read > u64::from(self.limits.record_bytes) {
            return Err(self.over("bytes of a sparse map", u64::from(self.limits.record_bytes)).into());
        }
        let whole = read + padding(read);
        if (done && whole > stored) || (!done && read == stored) {
            return Err(TarError::Sparse { offset, problem: "a map longer than the stored bytes" }.into());
        }
        if done && whole == read {
            self.begin_pieces(size, stored - read, stored, sink)?;
        }
        Ok(rest)
    }

    /// The map is known, `data` of the `stored` bytes are left.
    fn begin_pieces<S: EntrySink>(&mut self, size: u64, data: u64, stored: u64, sink: &mut S) -> Result<(), S::Error> {
        sparse::check(&self.next.pieces, size, data, self.next.offset)?;
        self.state = State::Pieces { piece: 0, done: 0, size, padding: padding(stored) };
        self.pieces(&[], sink)?;
        Ok(())
    }

    /// Hands out holes and data as far as `rest` goes.
    fn pieces<'i, S: EntrySink>(&mut self, mut rest: &'i [u8], sink: &mut S) -> Result<&'i [u8], S::Error> {
        let State::Pieces { piece, done, size, padding } = &mut self.state else { return Ok(rest) };
        loop {
            let (start, count) = self.next.pieces.get(*piece).copied().unwrap_or((*size, 0));
            if *done < start {
                let hole = start - *done;
                *done = start;
                sink.hole(hole)?;
            }
            let left = start.saturating_add(count).saturating_sub(*done);
            if left > 0 {
                let (bytes, after) = split(rest, left);
                rest = after;
                if bytes.is_empty() {
                    return Ok(rest);
                }
                *done = done.saturating_add(length(bytes));
                sink.data(bytes)?;
            } else if *piece < self.next.pieces.len() {
                *piece += 1;
            } else {
                let padding = *padding;
                sink.end()?;
                self.state = padded(padding);
                return Ok(rest);
            }
        }
    }

    const fn over(&self, what: &'static str, limit: u64) -> TarError {
        TarError::Limit { offset: self.offset, what, limit }
    }
}

/// Bytes that fill the last block behind `size` bytes.
const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % 512
}

const fn padded(padding: u64) -> State {
    if padding == 0 { State::Header } else { State::Padding { left: padding } }
}

/// The first `count` bytes, or all there are, and the rest.
fn split(bytes: &[u8], count: u64) -> (&[u8], &[u8]) {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    bytes.split_at_checked(count).unwrap_or((bytes, &[]))
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
