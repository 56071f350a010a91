//! PAX extended headers: the records that change one entry.

use super::entry::{Span, cut};
use super::error::{TarError, show};
use super::limits::TarLimits;
use super::number::{decimal, time};
use super::sparse::{self, Piece};

const XATTR: &[u8] = b"SCHILY.xattr.";
/// Most bytes of an attribute's name and value: Linux's XATTR_NAME_MAX, and what a 16-bit length holds.
const XATTR_NAME: usize = 255;
const XATTR_VALUE: usize = 65_535;

/// Where a value lies in [`Records::body`].
type Range = (u32, u32);

/// The records of one `x` header. Reused from entry to entry, so that nothing is allocated per entry.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The header's data, whole.
    pub(super) body: Vec<u8>,
    pub(super) path: Option<Range>,
    pub(super) linkpath: Option<Range>,
    pub(super) size: Option<i64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<(i64, u32)>,
    /// Sorted by name, each name once.
    pub(super) xattrs: Vec<Span>,
    pub(super) sparse: SparseRecords,
}

/// The records of sparse formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct SparseRecords {
    pub(super) any: bool,
    pub(super) major: Option<Range>,
    pub(super) minor: Option<Range>,
    pub(super) name: Option<Range>,
    pub(super) size: Option<i64>,
    pub(super) realsize: Option<i64>,
    pub(super) numblocks: Option<i64>,
    pub(super) map: Option<Range>,
    pub(super) pairs: bool,
    offset: Option<i64>,
}

/// One record: key, value, and where the value lies.
struct Record<'r> {
    key: &'r [u8],
    value: &'r [u8],
    at: Range,
    key_at: Range,
}

impl Records {
    /// Forgets the last entry's records and makes room for `size` bytes.
    pub(super) fn clear(&mut self) {
        let Self { mut body, mut xattrs, .. } = std::mem::take(self);
        body.clear();
        xattrs.clear();
        *self = Self { body, xattrs, ..Self::default() };
    }

    /// A value's bytes.
    pub(super) fn get(&self, range: Option<Range>) -> Option<&[u8]> {
        range.map(|range| cut(&self.body, range))
    }

    /// Reads `body`. Of one key's records the last counts; an empty value leaves what the header says, but
    /// is an attribute's empty value. Pairs of sparse format 0.0 go to `pieces`.
    ///
    /// # Errors
    /// [`TarError::Record`], [`TarError::Number`], [`TarError::Limit`], [`TarError::Sparse`].
    pub(super) fn parse(&mut self, pieces: &mut Vec<Piece>, limits: &TarLimits, offset: u64) -> Result<(), TarError> {
        let body = std::mem::take(&mut self.body);
        let result = each(&body, offset, |record| self.take(&record, pieces, limits, offset));
        if result.is_ok() {
            // By name; of one name the last record, which lies furthest back, comes first and stays.
            let name = |span: &Span| cut(&body, span.name);
            self.xattrs.sort_unstable_by(|a, b| name(a).cmp(name(b)).then(b.name.cmp(&a.name)));
            self.xattrs.dedup_by(|a, b| name(a) == name(b));
        }
        self.body = body;
        result?;
        if self.sparse.offset.is_some() {
            return Err(TarError::Sparse { offset, problem: "an offset without a length" });
        }
        Ok(())
    }

    fn take(
        &mut self,
        record: &Record<'_>,
        pieces: &mut Vec<Piece>,
        limits: &TarLimits,
        offset: u64,
    ) -> Result<(), TarError> {
        let Record { key, value, at, .. } = *record;
        let some = (!value.is_empty()).then_some(at);
        let number = |field: &'static str| match value {
            b"" => Ok(None),
            _ => decimal(value).map(Some).ok_or_else(|| TarError::Number { offset, field, value: show(value) }),
        };
        match key {
            b"path" => self.path = some,
            b"linkpath" => self.linkpath = some,
            b"size" => self.size = number("PAX size")?,
            b"uid" => self.uid = number("PAX uid")?,
            b"gid" => self.gid = number("PAX gid")?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => {
                let bad = || TarError::Number { offset, field: "PAX mtime", value: show(value) };
                self.mtime = Some(time(value).ok_or_else(bad)?);
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    self.take_xattr(name, record, offset)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    self.take_sparse(name, record, pieces, limits, offset)?;
                }
            }
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], record: &Record<'_>, offset: u64) -> Result<(), TarError> {
        let limit =
            |what, limit: usize| TarError::Limit { offset, what, limit: u64::try_from(limit).unwrap_or(u64::MAX) };
        if name.is_empty() {
            return Err(TarError::Record { offset, problem: "an attribute without a name" });
        }
        if name.len() > XATTR_NAME {
            return Err(limit("bytes of an attribute's name", XATTR_NAME));
        }
        if record.value.len() > XATTR_VALUE {
            return Err(limit("bytes of an attribute's value", XATTR_VALUE));
        }
        let prefix = u32::try_from(XATTR.len()).unwrap_or_default();
        let (from, to) = record.key_at;
        self.xattrs.push(Span { name: (from.saturating_add(prefix), to), value: record.at });
        Ok(())
    }

    fn take_sparse(
        &mut self,
        name: &[u8],
        record: &Record<'_>,
        pieces: &mut Vec<Piece>,
        limits: &TarLimits,
        offset: u64,
    ) -> Result<(), TarError> {
        let Record { value, at, .. } = *record;
        let some = (!value.is_empty()).then_some(at);
        let sparse = &mut self.sparse;
        let number = |field: &'static str| match value {
            b"" => Ok(None),
            _ => decimal(value).map(Some).ok_or_else(|| TarError::Number { offset, field, value: show(value) }),
        };
        sparse.any = true;
        match name {
            b"major" => sparse.major = some,
            b"minor" => sparse.minor = some,
            b"name" if value.contains(&0) => {
                return Err(TarError::Record { offset, problem: "a NUL byte in GNU.sparse.name" });
            }
            b"name" => sparse.name = some,
            b"size" => sparse.size = number("GNU.sparse.size")?,
            b"realsize" => sparse.realsize = number("GNU.sparse.realsize")?,
            b"numblocks" => sparse.numblocks = number("GNU.sparse.numblocks")?,
            b"map" => sparse.map = some,
            b"offset" | b"numbytes" => {
                let bad = TarError::Sparse { offset, problem: "offsets and lengths do not alternate" };
                let value = number("GNU.sparse.offset")?;
                match (name, sparse.offset.take(), value) {
                    (b"offset", None, Some(value)) => sparse.offset = Some(value),
                    (b"numbytes", Some(start), Some(value)) => {
                        sparse.pairs = true;
                        sparse::add(pieces, start, value, limits, offset)?;
                    }
                    _ => return Err(bad),
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Checks a global header's records: those that would give entries other names, sizes or contents are refused,
/// all others have no effect, as containerd has it.
///
/// # Errors
/// [`TarError::Record`], [`TarError::GlobalRecord`].
pub(super) fn check_global(body: &[u8], offset: u64) -> Result<(), TarError> {
    each(body, offset, |Record { key, value, .. }| {
        let harmful = matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.");
        if harmful && !value.is_empty() {
            return Err(TarError::GlobalRecord { offset, key: show(key) });
        }
        Ok(())
    })
}

/// Calls `take` for each record, `length key=value\n` with the length in decimal and of the whole record.
fn each(body: &[u8], offset: u64, mut take: impl FnMut(Record<'_>) -> Result<(), TarError>) -> Result<(), TarError> {
    let bad = |problem| TarError::Record { offset, problem };
    let mut rest = body;
    while !rest.is_empty() {
        let start = body.len() - rest.len();
        let digits = rest.iter().take(20).position(|b| *b == b' ').ok_or(bad("no length"))?;
        let length = rest.get(..digits).and_then(decimal).and_then(|length| usize::try_from(length).ok());
        let (record, after) = length.and_then(|length| rest.split_at_checked(length)).ok_or(bad("a wrong length"))?;
        let inner = record.get(digits + 1..).and_then(|r| r.strip_suffix(b"\n")).ok_or(bad("no newline at its end"))?;
        let equals = inner.iter().position(|b| *b == b'=').ok_or(bad("no '='"))?;
        let (key, value) = inner.split_at_checked(equals).ok_or(bad("no '='"))?;
        let value = value.get(1..).unwrap_or_default();
        if key.is_empty() || key.contains(&0) {
            return Err(bad("an empty key or one with a NUL byte"));
        }
        if matches!(key, b"path" | b"linkpath" | b"uname" | b"gname") && value.contains(&0) {
            return Err(bad("a NUL byte in a name"));
        }
        let range = |from: usize, bytes: &[u8]| {
            let from = start + digits + 1 + from;
            match (u32::try_from(from), u32::try_from(from + bytes.len())) {
                (Ok(from), Ok(to)) => Ok((from, to)),
                _ => Err(bad("beyond 4 GiB")),
            }
        };
        take(Record { key, value, at: range(equals + 1, value)?, key_at: range(0, key)? })?;
        rest = after;
    }
    Ok(())
}
