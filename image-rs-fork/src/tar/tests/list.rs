//! Writes down what a sink is told, one line an entry.

use std::fmt::Write;

use crate::tar::{EntryKind, EntryMeta, EntrySink, Parser, TarError, TarLimits};

/// A sink that keeps everything as text: type and mode, owner, mtime, path, what belongs to the type,
/// attributes. Content is quoted, holes are `{length}`.
#[derive(Debug, Default)]
pub(super) struct List {
    pub(super) text: String,
    content: Vec<u8>,
    quoted: String,
    expected: u64,
    seen: u64,
    inside: bool,
    is_file: bool,
}

impl List {
    /// Counts bytes without keeping them.
    pub(super) fn skip(&mut self, count: usize) {
        self.seen += count as u64;
    }

    /// Whether the entry at hand is a file.
    pub(super) const fn is_file(&self) -> bool {
        self.is_file
    }

    fn flush(&mut self) {
        if !self.content.is_empty() {
            if self.content.len() > 64 {
                write!(self.quoted, "[{}:{:08x}]", self.content.len(), checksum(&self.content)).unwrap();
            } else {
                write!(self.quoted, "\"{}\"", self.content.escape_ascii()).unwrap();
            }
            self.content.clear();
        }
    }
}

/// FNV-1a, to tell contents apart.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

impl EntrySink for List {
    type Error = TarError;

    fn entry(&mut self, meta: &EntryMeta<'_>) -> Result<(), TarError> {
        assert!(!std::mem::replace(&mut self.inside, true), "the last entry has not ended");
        let letter = match meta.kind {
            EntryKind::File { .. } => 'f',
            EntryKind::Dir => 'd',
            EntryKind::Symlink { .. } => 'l',
            EntryKind::Hardlink { .. } => 'h',
            EntryKind::Char { .. } => 'c',
            EntryKind::Block { .. } => 'b',
            EntryKind::Fifo => 'p',
        };
        self.is_file = letter == 'f';
        self.expected = meta.size();
        self.seen = 0;
        write!(self.text, "{letter}{:04o} {}:{} {}", meta.mode, meta.uid, meta.gid, meta.mtime).unwrap();
        if meta.mtime_nsec > 0 {
            write!(self.text, "+{}ns", meta.mtime_nsec).unwrap();
        }
        write!(self.text, " {}", meta.path).unwrap();
        match meta.kind {
            EntryKind::File { size } => write!(self.text, " {size}").unwrap(),
            EntryKind::Symlink { target } => write!(self.text, " -> {}", target.escape_ascii()).unwrap(),
            EntryKind::Hardlink { target } => write!(self.text, " = {target}").unwrap(),
            EntryKind::Char { major, minor } | EntryKind::Block { major, minor } => {
                write!(self.text, " {major}:{minor}").unwrap();
            }
            EntryKind::Dir | EntryKind::Fifo => {}
        }
        for (name, value) in meta.xattrs.iter() {
            write!(self.text, " {}={}", name.escape_ascii(), value.escape_ascii()).unwrap();
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), TarError> {
        assert!(self.inside && self.is_file && !bytes.is_empty());
        self.seen += bytes.len() as u64;
        self.content.extend_from_slice(bytes);
        Ok(())
    }

    fn hole(&mut self, len: u64) -> Result<(), TarError> {
        assert!(self.inside && self.is_file && len > 0);
        self.flush();
        self.seen += len;
        write!(self.quoted, "{{{len}}}").unwrap();
        Ok(())
    }

    fn end(&mut self) -> Result<(), TarError> {
        assert!(std::mem::replace(&mut self.inside, false));
        assert_eq!(self.seen, self.expected, "data and holes sum up to the size");
        self.flush();
        if !self.quoted.is_empty() {
            write!(self.text, " {}", self.quoted).unwrap();
            self.quoted.clear();
        }
        self.text.push('\n');
        Ok(())
    }
}

/// Parses in pieces of the given lengths, taken in turn.
pub(super) fn parse(archive: &[u8], limits: TarLimits, pieces: &[usize]) -> (String, Result<(), TarError>) {
    let mut parser = Parser::new(limits);
    let mut list = List::default();
    let mut rest = archive;
    let mut result = Ok(());
    for length in pieces.iter().cycle() {
        let (piece, after) = rest.split_at((*length).clamp(1, rest.len().max(1)).min(rest.len()));
        rest = after;
        result = parser.push(piece, &mut list);
        if rest.is_empty() || result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = parser.finish().map(|totals| {
            assert_eq!(totals.archive_bytes, archive.len() as u64);
            assert_eq!(totals.entries, list.text.lines().count() as u64);
        });
    } else {
        assert_eq!(parser.push(b"x", &mut list), Err(TarError::Refused));
        assert_eq!(parser.finish(), Err(TarError::Refused));
    }
    (list.text, result)
}

/// The whole story of one archive: its entries, then the refusal if there is one.
pub(super) fn story(archive: &[u8], pieces: &[usize]) -> String {
    let (mut text, result) = parse(archive, TarLimits::default(), pieces);
    if let Err(error) = result {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push_str(" ...\n");
        }
        writeln!(text, "{}: {error}", error.code()).unwrap();
    }
    text
}
