//! Maps of sparse files: where the pieces of data lie that the archive stores.

use super::error::{TarError, show};
use super::limits::TarLimits;
use super::number::{decimal, numeric};

/// One piece of data: offset and length in the unpacked file, bytes.
pub(super) type Piece = (u64, u64);

/// Adds a piece.
///
/// # Errors
/// [`TarError::Limit`] when there are too many, [`TarError::Sparse`] for a negative number.
pub(super) fn add(
    pieces: &mut Vec<Piece>,
    offset: i64,
    length: i64,
    limits: &TarLimits,
    at: u64,
) -> Result<(), TarError> {
    let (Ok(offset), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
        return Err(TarError::Sparse { offset: at, problem: "a negative number" });
    };
    if pieces.len() >= usize::try_from(limits.sparse_pieces).unwrap_or(usize::MAX) {
        return Err(TarError::Limit {
            offset: at,
            what: "pieces of a sparse file",
            limit: u64::from(limits.sparse_pieces),
        });
    }
    pieces.push((offset, length));
    Ok(())
}

/// Reads the pairs of an old GNU map; an offset that begins with NUL ends them.
///
/// # Errors
/// As [`add`], and [`TarError::Number`].
pub(super) fn add_gnu(pieces: &mut Vec<Piece>, map: &[u8], limits: &TarLimits, at: u64) -> Result<(), TarError> {
    for pair in map.as_chunks::<24>().0 {
        let Some((offset, length)) = pair.split_at_checked(12) else { break };
        if offset.first() == Some(&0) {
            break;
        }
        let number = |bytes: &[u8]| {
            numeric(bytes).ok_or_else(|| TarError::Number { offset: at, field: "sparse map", value: show(bytes) })
        };
        add(pieces, number(offset)?, number(length)?, limits, at)?;
    }
    Ok(())
}

/// Reads a map of format 0.1: decimal numbers joined by commas, offset and length in turn.
///
/// # Errors
/// As [`add`], and [`TarError::Number`].
pub(super) fn add_list(pieces: &mut Vec<Piece>, list: &[u8], limits: &TarLimits, at: u64) -> Result<(), TarError> {
    let mut numbers = list.split(|b| *b == b',').map(|text| {
        decimal(text).ok_or_else(|| TarError::Number { offset: at, field: "GNU.sparse.map", value: show(text) })
    });
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or(TarError::Sparse { offset: at, problem: "an offset without a length" })?;
        add(pieces, offset?, length?, limits, at)?;
    }
    Ok(())
}

/// Checks that pieces are in order, apart, within `size`, and that `stored` bytes are exactly their sum.
///
/// # Errors
/// [`TarError::Sparse`].
pub(super) fn check(pieces: &[Piece], size: u64, stored: u64, at: u64) -> Result<(), TarError> {
    let problem = |problem| TarError::Sparse { offset: at, problem };
    let mut end = 0u64;
    let mut data = 0u64;
    for (offset, length) in pieces {
        if *offset < end {
            return Err(problem("pieces overlap or are out of order"));
        }
        end = offset.checked_add(*length).filter(|end| *end <= size).ok_or(problem("a piece beyond the file's end"))?;
        data += length; // at most `end`
    }
    if data != stored {
        return Err(problem("the pieces are not the stored bytes"));
    }
    Ok(())
}

/// Reads the map of format 1.0 from the front of a file's data while it streams: decimal numbers, each
/// followed by a newline; first how many pairs there are, then the pairs.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    /// Pairs still to come; `None` before their number is known.
    left: Option<i64>,
    /// The offset of a pair whose length is still to come.
    offset: Option<i64>,
    /// The digits of the number being read.
    digits: u64,
    /// How many there are.
    count: u8,
}

impl MapReader {
    /// Whether the last number was read.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Takes bytes up to the map's end; gives how many of `input` were read.
    ///
    /// # Errors
    /// As [`add`], and [`TarError::Sparse`] for anything but numbers.
    pub(super) fn read(
        &mut self,
        input: &[u8],
        pieces: &mut Vec<Piece>,
        limits: &TarLimits,
        at: u64,
    ) -> Result<usize, TarError> {
        let bad = || TarError::Sparse { offset: at, problem: "no decimal number in a map of format 1.0" };
        for (read, byte) in input.iter().enumerate() {
            if self.is_done() {
                return Ok(read);
            }
            match byte {
                b'0'..=b'9' => {
                    self.count = self.count.checked_add(1).filter(|count| *count <= 19).ok_or_else(bad)?;
                    self.digits = self.digits * 10 + u64::from(byte - b'0'); // 19 digits fit
                }
                b'\n' if self.count > 0 => {
                    let value = i64::try_from(self.digits).map_err(|_| bad())?;
                    self.digits = 0;
                    self.count = 0;
                    match (self.left, self.offset.take()) {
                        (None, _) => self.left = Some(value),
                        (Some(_), None) => self.offset = Some(value),
                        (Some(left), Some(offset)) => {
                            add(pieces, offset, value, limits, at)?;
                            self.left = Some(left - 1);
                        }
                    }
                }
                _ => return Err(bad()),
            }
        }
        Ok(input.len())
    }
}
