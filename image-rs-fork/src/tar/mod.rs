//! A strict reader of tar archives: ustar, PAX and GNU headers. Where two readers could take the same
//! bytes for different entries, the archive is refused rather than guessed at.

mod header;
mod pax;

use std::io::{ErrorKind, Read};

use self::header::{BLOCK, Header};
use self::pax::Pax;

/// The largest PAX header or GNU long name, in bytes.
const MAX_EXTENSION: u64 = 1024 * 1024;
/// The longest path or link target, in bytes (`PATH_MAX` without its NUL).
const MAX_PATH: usize = 4095;
/// Sizes below this fit the header's own octal field, so that a PAX size has no reason to differ.
const OCTAL_SIZES: u64 = 1 << 33;

/// The archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TarError {
    /// It breaks the format or means two things.
    #[error("{0}")]
    Format(String),
    /// The bytes themselves could not be had.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Seconds since 1970 and nanoseconds, within 1970 to 2262; times outside count as 1970, as the common
/// unpackers take them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mtime {
    /// Whole seconds.
    pub(crate) seconds: i64,
    /// 0 to 999,999,999.
    pub(crate) nanoseconds: u32,
}

impl Mtime {
    /// The last second whose nanoseconds fit 63 bits.
    const LAST: i64 = 9_223_372_035;

    pub(crate) const fn bounded(seconds: i64, nanoseconds: u32) -> Self {
        if seconds < 0 || seconds > Self::LAST {
            Self { seconds: 0, nanoseconds: 0 }
        } else {
            Self { seconds, nanoseconds }
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file of this many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A hard link and the path it leads to.
    Hardlink(Vec<u8>),
    /// A character device, major and minor.
    Character(u32, u32),
    /// A block device, major and minor.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// One entry; a file's content is read from the [`Reader`] before the next entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The path as written, never empty, without NUL.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) kind: Kind,
    /// Permission bits, 07777 at most.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Modification time.
    pub(crate) mtime: Mtime,
    /// Extended attributes in the archive's order; no name twice.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads an archive from front to back.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    input: R,
    /// Offset in the archive, for messages.
    offset: u64,
    /// Bytes of the current file not yet read.
    content: u64,
    /// Zero bytes after the current file's content.
    padding: u64,
    ended: bool,
}

/// Headers that describe the entry after them.
#[derive(Default)]
struct Pending {
    pax: Option<Pax>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Pending {
    const fn any(&self) -> bool {
        self.pax.is_some() || self.name.is_some() || self.link.is_some()
    }
}

fn format<T>(problem: impl Into<String>) -> Result<T, TarError> {
    Err(TarError::Format(problem.into()))
}

impl<R: Read> Reader<R> {
    /// Reads from `input`, which should be buffered.
    pub(crate) const fn new(input: R) -> Self {
        Self { input, offset: 0, content: 0, padding: 0, ended: false }
    }

    /// The next entry; what is left of the last one's content is passed over. At the archive's end the
    /// input is read to its own end, where nothing but zeros may follow.
    ///
    /// # Errors
    /// [`TarError`]; the archive is of no use afterwards.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let at = self.offset;
        self.skip_content()?;
        match self.entry() {
            Err(TarError::Format(problem)) => format(format!("{problem} (in the entry after offset {at})")),
            other => other,
        }
    }

    /// Reads from the current file's content; 0 at its end.
    ///
    /// # Errors
    /// [`TarError`], also when the archive ends within the content.
    pub(crate) fn read_content(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let want = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        let Some(part) = buffer.get_mut(..want).filter(|part| !part.is_empty()) else { return Ok(0) };
        let got = loop {
            match self.input.read(part) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if got == 0 {
            return format("the archive ends within a file");
        }
        self.offset = self.offset.saturating_add(got as u64);
        self.content = self.content.saturating_sub(got as u64);
        Ok(got)
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        let mut buffer = [0u8; 4096];
        while self.content > 0 {
            self.read_content(&mut buffer)?;
        }
        // Padding is not content; writers leave anything there, readers pass it over.
        self.content = std::mem::take(&mut self.padding);
        while self.content > 0 {
            self.read_content(&mut buffer)?;
        }
        Ok(())
    }

    fn entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut pending = Pending::default();
        loop {
            let Some(header) = self.header()? else {
                if pending.any() {
                    return format("the archive ends after a header that describes the next entry");
                }
                self.ended = true;
                return Ok(None);
            };
            match header.typeflag {
                b'x' => {
                    let bytes = self.extension(&header)?;
                    // Two in a row: some readers merge them, some take the last.
                    if pending.pax.replace(Pax::parse(&bytes).map_err(TarError::Format)?).is_some() {
                        return format("two PAX headers for one entry");
                    }
                }
                b'g' => {
                    let bytes = self.extension(&header)?;
                    let pax = Pax::parse(&bytes).map_err(TarError::Format)?;
                    // Some readers apply it to all entries, some to none.
                    if pax.describes_entries() {
                        return format("a global PAX header that describes entries");
                    }
                }
                b'L' => {
                    let name = long_name(self.extension(&header)?)?;
                    if pending.name.replace(name).is_some() {
                        return format("two GNU long names for one entry");
                    }
                }
                b'K' => {
                    let link = long_name(self.extension(&header)?)?;
                    if pending.link.replace(link).is_some() {
                        return format("two GNU long links for one entry");
                    }
                }
                _ => return self.complete(&header, pending).map(Some),
            }
        }
    }

    /// The next header; `None` at the archive's end, after which the input has been read to its end.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let mut block = [0u8; BLOCK];
        match self.block(&mut block)? {
            0 => return Ok(None),
            BLOCK => {}
            _ => return format("the archive ends within a header"),
        }
        if block.iter().any(|b| *b != 0) {
            return Header::parse(&block).map(Some).map_err(TarError::Format);
        }
        // One block of zeros is enough of an end only where nothing but zeros follows.
        loop {
            let got = self.block(&mut block)?;
            if block.get(..got).unwrap_or_default().iter().any(|b| *b != 0) {
                return format("bytes after the archive's end");
            }
            if got < BLOCK {
                return Ok(None);
            }
        }
    }

    /// Fills `block`, or as much of it as the input has.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<usize, TarError> {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(got) => filled = filled.saturating_add(got),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.offset = self.offset.saturating_add(filled as u64);
        Ok(filled)
    }

    /// The content of a header that describes other entries. Its length is always the header's own.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        if header.size > MAX_EXTENSION {
            return format(format!("a header of {} bytes, at most {MAX_EXTENSION}", header.size));
        }
        self.begin_content(header.size);
        let mut bytes = Vec::new();
        let mut buffer = [0u8; 4096];
        loop {
            match self.read_content(&mut buffer)? {
                0 => break,
                got => bytes.extend_from_slice(buffer.get(..got).unwrap_or_default()),
            }
        }
        self.skip_content()?;
        Ok(bytes)
    }

    const fn begin_content(&mut self, size: u64) {
        self.content = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn complete(&mut self, header: &Header, pending: Pending) -> Result<Entry, TarError> {
        let pax = pending.pax.unwrap_or_default();
        if pax.sparse {
            return format("a sparse file");
        }
        let path = one_of("path", pax.path, pending.name, &header.path)?;
        let link = one_of("link target", pax.link, pending.link, &header.link)?;
        if path.is_empty() || path.len() > MAX_PATH || link.len() > MAX_PATH {
            return format("an empty path, or a path or link target above 4095 bytes");
        }
        let size = match pax.size {
            Some(size) if size != header.size && (size < OCTAL_SIZES || header.size != 0) => {
                return format(format!("{}: size {} by its header, {size} by PAX", show(&path), header.size));
            }
            Some(size) => size,
            None => header.size,
        };
        // Legacy archives mark directories by a slash; the old type NUL is a plain file otherwise.
        let slash = path.ends_with(b"/");
        let (major, minor) = (header.major, header.minor);
        let kind = match header.typeflag {
            0 if slash => Kind::Directory,
            0 | b'0' if slash => return format(format!("{}: a file whose name ends in a slash", show(&path))),
            0 | b'0' => Kind::File(size),
            b'1' => Kind::Hardlink(link),
            b'2' if link.is_empty() => return format(format!("{}: a symbolic link to nothing", show(&path))),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::Character(major, minor),
            b'4' => Kind::Block(major, minor),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return format(format!("{}: a sparse file", show(&path))),
            other => return format(format!("{}: type {:?} is not known", show(&path), char::from(other))),
        };
        match kind {
            Kind::File(size) => self.begin_content(size),
            // Some readers take such bytes for content, some for the next header.
            _ if size != 0 => return format(format!("{}: content where its type has none", show(&path))),
            _ => {}
        }
        let id = |pax: Option<u64>, header: Option<u64>, what: &str| {
            // The highest number means "no change" to the kernel.
            let found = pax.or(header).and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX);
            found.ok_or_else(|| TarError::Format(format!("{}: {what} is not below 2^32 - 1", show(&path))))
        };
        let uid = id(pax.uid, header.uid, "the owner")?;
        let gid = id(pax.gid, header.gid, "the group")?;
        let mtime = pax.mtime.unwrap_or_else(|| Mtime::bounded(header.mtime, 0));
        Ok(Entry { path, kind, mode: header.mode & 0o7777, uid, gid, mtime, xattrs: pax.xattrs })
    }
}

/// A path as PAX, the GNU header or the header itself gives it; PAX and GNU together are ambiguous.
fn one_of(what: &str, pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>, header: &[u8]) -> Result<Vec<u8>, TarError> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => format(format!("a PAX and a GNU {what} for one entry")),
        (Some(long), _) | (None, Some(long)) => Ok(long),
        (None, None) => Ok(header.to_vec()),
    }
}

/// A GNU long name: up to its NUL, after which there are only NULs.
fn long_name(mut bytes: Vec<u8>) -> Result<Vec<u8>, TarError> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    if bytes.get(end..).unwrap_or_default().iter().any(|b| *b != 0) {
        return format("a NUL within a GNU long name");
    }
    bytes.truncate(end);
    if bytes.is_empty() { format("an empty GNU long name") } else { Ok(bytes) }
}

/// A path for people: cut, and escaped where it is not printable ASCII.
pub(crate) fn show(path: &[u8]) -> String {
    let shown = path.get(..200).unwrap_or(path);
    format!("`{}`", shown.escape_ascii())
}

#[cfg(test)]
pub(crate) mod build;
#[cfg(test)]
mod tests;
