//! What the parser tells its sink.

use super::error::TarError;
use super::path::TarPath;

/// What an entry is. Sizes are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind<'a> {
    /// A regular file; `data` and `hole` calls that follow sum up to `size` exactly.
    File {
        /// Its size when unpacked, holes included.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink {
        /// As stored: any bytes but NUL, never empty, at most [`super::TarLimits::name_bytes`].
        target: &'a [u8],
    },
    /// A further name of an entry of this layer. containerd gives the shared inode this entry's owner, mode, times
    /// and attributes.
    Hardlink {
        /// The other name, from the layer's root; normalised like every path, whether it was absolute or not.
        target: TarPath<'a>,
    },
    /// A character device; 0:0 is what overlayfs takes for a whiteout.
    Char {
        /// At most 0xfff.
        major: u32,
        /// At most 0xfffff.
        minor: u32,
    },
    /// A block device.
    Block {
        /// At most 0xfff.
        major: u32,
        /// At most 0xfffff.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One entry. Whiteouts (`.wh.*`) are entries like any other here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMeta<'a> {
    /// Where it belongs, from the layer's root. The root itself (empty path) occurs only as `Dir`.
    pub path: TarPath<'a>,
    /// What it is.
    pub kind: EntryKind<'a>,
    /// Permission, set-id and sticky bits: within 0o7777.
    pub mode: u32,
    /// Owner; never 0xffff_ffff.
    pub uid: u32,
    /// Group; never 0xffff_ffff.
    pub gid: u32,
    /// Modification time: seconds since 1970, negative before it.
    pub mtime: i64,
    /// Nanoseconds to add to `mtime`: 0 to 999,999,999.
    pub mtime_nsec: u32,
    /// Extended attributes; `trusted.overlay.*` never occurs.
    pub xattrs: Xattrs<'a>,
}

impl EntryMeta<'_> {
    /// Bytes of a file when unpacked; 0 for everything else.
    #[must_use]
    pub const fn size(&self) -> u64 {
        if let EntryKind::File { size } = self.kind { size } else { 0 }
    }
}

/// Receives the entries of one archive, in order: `entry`, then for files any number of `data` and `hole`,
/// then `end`, for every entry. After an error nothing more is called.
pub trait EntrySink {
    /// The sink's own error; the parser's refusals are turned into it.
    type Error: From<TarError>;

    /// An entry begins.
    ///
    /// # Errors
    /// The sink's own; the parser stops.
    fn entry(&mut self, meta: &EntryMeta<'_>) -> Result<(), Self::Error>;

    /// The next bytes of the file, never empty.
    ///
    /// # Errors
    /// The sink's own; the parser stops.
    fn data(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;

    /// The next `len` bytes of the file are zeros that the archive does not store; never 0.
    ///
    /// # Errors
    /// The sink's own; the parser stops.
    fn hole(&mut self, len: u64) -> Result<(), Self::Error> {
        let mut left = len;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            self.data(ZEROS.get(..count).unwrap_or_default())?;
            left = left.saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// The entry is complete.
    ///
    /// # Errors
    /// The sink's own; the parser stops.
    fn end(&mut self) -> Result<(), Self::Error>;
}

/// What `hole` hands out by default, at most so much in one call.
static ZEROS: [u8; 32 * 1024] = [0; 32 * 1024];

/// Where name and value of one attribute lie in the bytes beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) name: (u32, u32),
    pub(super) value: (u32, u32),
}

/// Extended attributes of one entry, borrowed: sorted by name (unsigned bytes), each name once.
#[derive(Clone, Copy, Default)]
pub struct Xattrs<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Xattrs<'a> {
    pub(super) const fn new(bytes: &'a [u8], spans: &'a [Span]) -> Self {
        Self { bytes, spans }
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Full name (`user.x`, `security.capability`) and value of each, in order. Names are 1 to 255 bytes
    /// without NUL, values at most 65,535 bytes, perhaps empty.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let bytes = self.bytes;
        self.spans.iter().map(move |span| (cut(bytes, span.name), cut(bytes, span.value)))
    }
}

impl PartialEq for Xattrs<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Xattrs<'_> {}

impl std::fmt::Debug for Xattrs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(n, v)| (n.escape_ascii().to_string(), v.escape_ascii().to_string())))
            .finish()
    }
}

pub(super) fn cut(bytes: &[u8], (from, to): (u32, u32)) -> &[u8] {
    let range = usize::try_from(from).unwrap_or(usize::MAX)..usize::try_from(to).unwrap_or(usize::MAX);
    bytes.get(range).unwrap_or_default()
}

/// Extended attributes, owned: for implied directories and for tests of sinks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct XattrList {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

impl XattrList {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an attribute or replaces its value. Does nothing when 4 GiB are held already.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        let middle = start.saturating_add(name.len());
        let (Ok(a), Ok(b), Ok(c)) =
            (u32::try_from(start), u32::try_from(middle), u32::try_from(middle.saturating_add(value.len())))
        else {
            return;
        };
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let span = Span { name: (a, b), value: (b, c) };
        let bytes = &self.bytes;
        match self.spans.binary_search_by(|s| cut(bytes, s.name).cmp(name)) {
            Ok(at) => {
                if let Some(slot) = self.spans.get_mut(at) {
                    *slot = span;
                }
            }
            Err(at) => self.spans.insert(at, span),
        }
    }

    /// The list as a sink sees it.
    #[must_use]
    pub fn as_xattrs(&self) -> Xattrs<'_> {
        Xattrs::new(&self.bytes, &self.spans)
    }
}
