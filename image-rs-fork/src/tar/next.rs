//! One entry out of its header and the extended headers before it.

use super::entry::{EntryKind, EntryMeta, Xattrs};
use super::error::{TarError, show};
use super::header::{Block, Header, gnu_real_size, gnu_sparse_map};
use super::limits::TarLimits;
use super::number::numeric;
use super::path::{Above, TarPath};
use super::pax::Records;
use super::sparse::{self, Piece};

const RESERVED: &[u8] = b"trusted.overlay.";
/// The largest numbers Linux holds for a device.
const MAJOR_MAX: i64 = 0xfff;
const MINOR_MAX: i64 = 0xf_ffff;

/// What stands before the next entry; all of it is reused.
#[derive(Debug, Default)]
pub(super) struct Next {
    pub(super) pax: Records,
    pub(super) has_pax: bool,
    /// Up to its NUL; empty says nothing.
    pub(super) long_name: Vec<u8>,
    pub(super) has_name: bool,
    pub(super) long_link: Vec<u8>,
    pub(super) has_link: bool,
    /// A sparse file's map; outlives `clear`, since the data come after.
    pub(super) pieces: Vec<Piece>,
    /// Where the entry's header starts; outlives `clear` too.
    pub(super) offset: u64,
    /// Prefix and name joined; a normalised path; a normalised link target.
    joined: Vec<u8>,
    path: Vec<u8>,
    target: Vec<u8>,
}

/// What lies behind an entry's header. `stored` counts bytes in the archive without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// The file as it is, or nothing.
    Plain,
    /// More of an old GNU map, then data.
    GnuMap { stored: u64 },
    /// A map of format 1.0, then data, `stored` counting both.
    Map { stored: u64 },
    /// Data of a sparse file whose map is known.
    Pieces { stored: u64 },
}

impl Next {
    /// Whether an extended header waits for its entry.
    pub(super) const fn is_pending(&self) -> bool {
        self.has_pax || self.has_name || self.has_link
    }

    /// Forgets what concerned the last entry.
    pub(super) fn clear(&mut self) {
        if self.is_pending() {
            self.pax.clear();
            self.long_name.clear();
            self.long_link.clear();
            self.has_pax = false;
            self.has_name = false;
            self.has_link = false;
        }
    }

    /// Merges headers into the entry. What a header alone decides is decided here; the caller checks totals.
    ///
    /// # Errors
    /// Nearly all of [`TarError`].
    pub(super) fn resolve<'n>(
        &'n mut self,
        header: &Header<'n>,
        block: &Block,
        limits: &TarLimits,
        offset: u64,
    ) -> Result<(EntryMeta<'n>, Stored), TarError> {
        self.offset = offset;
        let Self { pax, has_pax, long_name, long_link, pieces, joined, path: path_scratch, target, .. } = self;
        if !*has_pax {
            pieces.clear(); // of the last sparse file
        }
        let sparse_name = pax.get(pax.sparse.name);
        let name = if let Some(name) = sparse_name {
            name
        } else if let Some(name) = choose(long_name, pax.get(pax.path), "path", offset)? {
            name
        } else if header.prefix.is_empty() {
            header.name
        } else {
            joined.clear();
            joined.extend_from_slice(header.prefix);
            joined.push(b'/');
            joined.extend_from_slice(header.name);
            joined
        };
        let link = choose(long_link, pax.get(pax.linkpath), "linkpath", offset)?.unwrap_or(header.link);
        let path_error = |raw: &[u8]| {
            let path = show(raw);
            move |problem| TarError::Path { offset, problem, path }
        };
        let path = TarPath::normalize(name, Above::Clamp, limits, path_scratch).map_err(|p| path_error(name)(p))?;

        let size = pax.size.unwrap_or(header.size);
        let stored = u64::try_from(size).map_err(|_| TarError::NegativeSize { offset, size })?;
        let slash = name.ends_with(b"/");
        let device = || {
            let (Header { major, minor, .. }, in_range) = (header, |n: i64, max| (0..=max).contains(&n));
            match (u32::try_from(*major), u32::try_from(*minor)) {
                (Ok(a), Ok(b)) if in_range(*major, MAJOR_MAX) && in_range(*minor, MINOR_MAX) => Ok((a, b)),
                _ => Err(TarError::Device { offset, path: show(name), major: *major, minor: *minor }),
            }
        };
        let kind = match header.typeflag {
            0 if slash => EntryKind::Dir,
            b'0' | b'7' if slash => return Err(TarError::SlashFile { offset, path: show(name) }),
            0 | b'0' | b'7' | b'S' => EntryKind::File { size: stored },
            b'1' => {
                let target =
                    TarPath::normalize(link, Above::Refuse, limits, target).map_err(|p| path_error(link)(p))?;
                if target.is_root() {
                    return Err(TarError::LinkToRoot { offset, path: show(name) });
                }
                EntryKind::Hardlink { target }
            }
            b'2' if link.is_empty() => return Err(TarError::EmptyLink { offset, path: show(name) }),
            b'2' => {
                if link.len() > usize::try_from(limits.name_bytes).unwrap_or(usize::MAX) {
                    let limit = u64::from(limits.name_bytes);
                    return Err(TarError::Limit { offset, what: "bytes of a link's target", limit });
                }
                EntryKind::Symlink { target: link }
            }
            b'3' => device().map(|(major, minor)| EntryKind::Char { major, minor })?,
            b'4' => device().map(|(major, minor)| EntryKind::Block { major, minor })?,
            b'5' => EntryKind::Dir,
            b'6' => EntryKind::Fifo,
            typeflag => return Err(TarError::Typeflag { offset, path: show(name), typeflag }),
        };
        if path.is_root() && kind != EntryKind::Dir {
            return Err(TarError::RootReplaced { offset, path: show(name) });
        }
        let (kind, stored) = match kind {
            EntryKind::File { .. } => {
                let (size, stored) = sparse(header, block, stored, pax, pieces, limits, offset)?;
                (EntryKind::File { size }, stored)
            }
            _ if pax.sparse.any => {
                return Err(TarError::Sparse { offset, problem: "an entry that is no file has one" });
            }
            kind => (kind, Stored::Plain),
        };
        let owner = |field, value: i64| {
            let bad = || TarError::Owner { offset, path: show(name), field, value };
            u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or_else(bad)
        };
        let (mtime, mtime_nsec) = pax.mtime.unwrap_or((header.mtime, 0));
        let xattrs = Xattrs::new(&pax.body, &pax.xattrs);
        if let Some((reserved, _)) = xattrs.iter().find(|(name, _)| name.starts_with(RESERVED)) {
            return Err(TarError::ReservedAttribute { offset, path: show(name), name: show(reserved) });
        }
        let meta = EntryMeta {
            path,
            kind,
            mode: u32::try_from(header.mode & 0o7777).unwrap_or_default(),
            uid: owner("uid", pax.uid.unwrap_or(header.uid))?,
            gid: owner("gid", pax.gid.unwrap_or(header.gid))?,
            mtime,
            mtime_nsec,
            xattrs,
        };
        Ok((meta, stored))
    }
}

/// The GNU long header's text or the PAX record's; both only where they agree.
fn choose<'n>(
    long: &'n [u8],
    pax: Option<&'n [u8]>,
    field: &'static str,
    offset: u64,
) -> Result<Option<&'n [u8]>, TarError> {
    match pax {
        None => Ok((!long.is_empty()).then_some(long)),
        Some(pax) if long.is_empty() || long == pax => Ok(Some(pax)),
        Some(_) => Err(TarError::Conflict { offset, field }),
    }
}

/// A file's unpacked size and what lies behind its header, of which `stored` bytes are stored.
fn sparse(
    header: &Header<'_>,
    block: &Block,
    stored: u64,
    pax: &Records,
    pieces: &mut Vec<Piece>,
    limits: &TarLimits,
    offset: u64,
) -> Result<(u64, Stored), TarError> {
    let problem = |problem| TarError::Sparse { offset, problem };
    let records = &pax.sparse;
    if header.typeflag == b'S' {
        if !header.gnu || records.any {
            return Err(problem("type 'S' in an archive that is not GNU's"));
        }
        let real = gnu_real_size(block);
        let size = numeric(real).ok_or_else(|| TarError::Number { offset, field: "realsize", value: show(real) })?;
        let size = u64::try_from(size).map_err(|_| TarError::NegativeSize { offset, size })?;
        let (map, more) = gnu_sparse_map(block);
        sparse::add_gnu(pieces, map, limits, offset)?;
        return Ok((size, if more { Stored::GnuMap { stored } } else { Stored::Pieces { stored } }));
    }
    if !records.any {
        return Ok((stored, Stored::Plain));
    }
    let size = records.size.or(records.realsize).ok_or(problem("no size"))?;
    let size = u64::try_from(size).map_err(|_| TarError::NegativeSize { offset, size })?;
    let version = (pax.get(records.major), pax.get(records.minor));
    match version {
        (Some(b"1"), Some(b"0")) if records.map.is_none() && !records.pairs => Ok((size, Stored::Map { stored })),
        (None, None) if records.map.is_none() && !records.pairs => Err(problem("none")),
        (Some(b"0"), Some(b"0" | b"1")) | (None, None) => {
            match (pax.get(records.map), records.pairs) {
                (Some(map), false) => sparse::add_list(pieces, map, limits, offset)?,
                (None, _) => {}
                (Some(_), true) => return Err(problem("two maps")),
            }
            if records.numblocks.and_then(|count| usize::try_from(count).ok()) != Some(pieces.len()) {
                return Err(problem("GNU.sparse.numblocks is not the map's length"));
            }
            Ok((size, Stored::Pieces { stored }))
        }
        _ => Err(problem("an unknown version")),
    }
}
