//! What is kept of a layer's inodes: 64 bytes for each, the newest in memory, the others in a file where there is one.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;

use super::attributes::{Mtime, Plain};
use super::table::{Inode, Kept};
use crate::error::ImageError;
use crate::tree::disk::store_error;

/// Records on one page, which is what is written or read at once.
const PAGE: usize = 256;
/// Pages that a [`Reader`] keeps: a directory's inodes lie close together.
const PAGES: usize = 8;
/// The low half of a record's first word; the high half is the kind.
const MODE: u32 = 0xffff;

/// Kind and mode, owner, group, nanoseconds; seconds; size, device or place of the target; digest or its length.
type Record = [u8; 64];

/// A file that takes records, and its path for errors.
#[derive(Debug)]
struct Spill {
    file: File,
    path: PathBuf,
}

/// The inodes of one layer by their places.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// All records, or those since the last whole page that was spilled.
    newest: Vec<Record>,
    /// Records in the spill.
    spilled: usize,
    spill: Option<Spill>,
    /// Spilled records that a hard link changed.
    changed: BTreeMap<usize, Record>,
    /// Targets of symbolic links.
    targets: Vec<u8>,
}

impl Records {
    /// Keeps all but the newest in `file`, which is empty and this layer's alone; `path` is told in errors.
    pub(super) fn spilling(file: File, path: &Path) -> Self {
        Self { spill: Some(Spill { file, path: path.to_owned() }), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.spilled.saturating_add(self.newest.len())
    }

    /// Adds an inode; gives its place.
    pub(super) fn add(&mut self, plain: &Plain, content: &Kept) -> Result<usize, ImageError> {
        let place = self.len();
        let target = self.targets.len() as u64;
        if let Kept::Symlink(text) = content {
            self.targets.extend_from_slice(text);
        }
        self.newest.push(pack(plain, content, target));
        if let Some(spill) = &self.spill
            && self.newest.len() >= PAGE
        {
            let written = spill.file.write_all_at(self.newest.as_flattened(), offset(self.spilled));
            written.map_err(|e| store_error(&spill.path, "keep what is measured", e))?;
            self.spilled = place.saturating_add(1);
            self.newest.clear();
        }
        Ok(place)
    }

    /// The inode at a place.
    pub(super) fn get(&self, place: usize) -> Result<Option<Inode>, ImageError> {
        let mut record = [0; 64];
        match self.held(place) {
            Some(held) => record = *held,
            None => self.read(place, &mut record)?,
        }
        Ok(self.unpack(&record))
    }

    /// Gives an inode other attributes.
    pub(super) fn describe(&mut self, place: usize, plain: &Plain) -> Result<(), ImageError> {
        let mut record = [0; 64];
        match self.held(place) {
            Some(held) => record = *held,
            None => self.read(place, &mut record)?,
        }
        let kind = kind(&record);
        put_plain(&mut record, kind, plain);
        match place.checked_sub(self.spilled).and_then(|at| self.newest.get_mut(at)) {
            Some(newest) => *newest = record,
            None => {
                self.changed.insert(place, record);
            }
        }
        Ok(())
    }

    /// Reads many, those that lie close together for little.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader { records: self, pages: BTreeMap::new() }
    }

    /// A record that is in memory.
    fn held(&self, place: usize) -> Option<&Record> {
        match place.checked_sub(self.spilled) {
            Some(at) => self.newest.get(at),
            None => self.changed.get(&place),
        }
    }

    /// Reads records from a place on out of the spill.
    fn read(&self, place: usize, into: &mut [u8]) -> Result<(), ImageError> {
        match &self.spill {
            Some(spill) if place < self.spilled => {
                let read = spill.file.read_exact_at(into, offset(place));
                read.map_err(|e| store_error(&spill.path, "read what is measured", e))
            }
            // A place always comes from `add`.
            _ => Err(store_error(Path::new(""), "read what is measured", std::io::ErrorKind::NotFound)),
        }
    }

    fn unpack(&self, record: &Record) -> Option<Inode> {
        let (words, rest) = record.as_chunks::<4>().0.split_at_checked(4)?;
        let [first, uid, gid, nanoseconds] = words else { return None };
        let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        let rest = rest.as_flattened();
        let (seconds, rest) = rest.split_first_chunk::<8>()?;
        let (value, digest) = rest.split_first_chunk::<8>()?;
        let value = u64::from_le_bytes(*value);
        let mtime = Mtime { seconds: i64::from_le_bytes(*seconds), nanoseconds: word(nanoseconds) };
        let plain = Plain { mode: word(first) & MODE, uid: word(uid), gid: word(gid), mtime };
        let device = || (u32::try_from(value >> 32).unwrap_or(0), u32::try_from(value & 0xffff_ffff).unwrap_or(0));
        let content = match kind(record) {
            b'f' => Kept::File { size: value, sha256: Sha256Digest::new(*digest.first_chunk()?) },
            b'l' => {
                let length = usize::try_from(u64::from_le_bytes(*digest.first_chunk()?)).ok()?;
                let start = usize::try_from(value).ok()?;
                Kept::Symlink(self.targets.get(start..start.checked_add(length)?)?.into())
            }
            b'c' => Kept::Character(device().0, device().1),
            b'b' => Kept::Block(device().0, device().1),
            _ => Kept::Fifo,
        };
        Some(Inode { plain, content })
    }
}

/// Reads records in any order, a page at a time.
pub(super) struct Reader<'a> {
    records: &'a Records,
    pages: BTreeMap<usize, Box<[u8]>>,
}

impl Reader<'_> {
    /// The inode at a place.
    pub(super) fn get(&mut self, place: usize) -> Result<Option<Inode>, ImageError> {
        if let Some(held) = self.records.held(place) {
            return Ok(self.records.unpack(held));
        }
        let page = place / PAGE;
        if !self.pages.contains_key(&page) {
            let mut bytes = match self.pages.len() < PAGES {
                true => vec![0; PAGE.saturating_mul(size_of::<Record>())].into(),
                // Archives come in nearly the order of paths: the page furthest away is the one to give up.
                false if self.pages.first_key_value().is_some_and(|(first, _)| *first < page) => {
                    self.pages.pop_first().map(|(_, bytes)| bytes).unwrap_or_default()
                }
                false => self.pages.pop_last().map(|(_, bytes)| bytes).unwrap_or_default(),
            };
            self.records.read(page.saturating_mul(PAGE), &mut bytes)?;
            self.pages.insert(page, bytes);
        }
        let records = self.pages.get(&page).map(|bytes| bytes.as_chunks::<64>().0).unwrap_or_default();
        Ok(records.get(place % PAGE).and_then(|record| self.records.unpack(record)))
    }
}

fn offset(place: usize) -> u64 {
    (place as u64).saturating_mul(size_of::<Record>() as u64)
}

fn kind(record: &Record) -> u8 {
    record.get(2).copied().unwrap_or(0)
}

/// The attributes' part of a record.
fn put_plain(record: &mut Record, kind: u8, plain: &Plain) {
    let first = (u32::from(kind) << 16) | (plain.mode & MODE);
    let words = [first, plain.uid, plain.gid, plain.mtime.nanoseconds];
    let (parts, rest) = record.as_chunks_mut::<4>().0.split_at_mut(words.len());
    parts.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_le_bytes());
    if let Some(to) = rest.as_flattened_mut().first_chunk_mut() {
        *to = plain.mtime.seconds.to_le_bytes();
    }
}

fn pack(plain: &Plain, content: &Kept, target: u64) -> Record {
    let device = |major: u32, minor: u32| (u64::from(major) << 32) | u64::from(minor);
    let mut last = [0; 32];
    let (kind, value) = match content {
        Kept::File { size, sha256 } => {
            last = *sha256.as_bytes();
            (b'f', *size)
        }
        Kept::Symlink(text) => {
            if let Some(to) = last.first_chunk_mut() {
                *to = (text.len() as u64).to_le_bytes();
            }
            (b'l', target)
        }
        Kept::Character(major, minor) => (b'c', device(*major, *minor)),
        Kept::Block(major, minor) => (b'b', device(*major, *minor)),
        Kept::Fifo => (b'p', 0),
    };
    let mut record = [0; 64];
    put_plain(&mut record, kind, plain);
    let bytes = value.to_le_bytes().into_iter().chain(last);
    record.iter_mut().skip(24).zip(bytes).for_each(|(to, byte)| *to = byte);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(number: u32) -> Plain {
        let mtime = Mtime { seconds: -i64::from(number), nanoseconds: 999_999_999 - number };
        Plain { mode: number & 0o7777, uid: number, gid: u32::MAX - number, mtime }
    }

    fn content(number: u32) -> Kept {
        match number % 5 {
            0 => {
                let sha256 = Sha256Digest::of(&number.to_le_bytes());
                Kept::File { size: u64::from(number) << 20, sha256 }
            }
            1 => Kept::Symlink(format!("to/{number}").into_bytes().into()),
            2 => Kept::Character(number, u32::MAX),
            3 => Kept::Block(u32::MAX, number),
            _ => Kept::Fifo,
        }
    }

    #[test]
    fn what_was_added_comes_back_from_memory_and_from_the_spill() {
        let file = tempfile::tempfile().unwrap();
        for mut records in [Records::default(), Records::spilling(file, Path::new("spill"))] {
            let count = 20 * u32::try_from(PAGE).unwrap() + 7;
            for number in 0..count {
                assert_eq!(records.add(&plain(number), &content(number)).unwrap(), number as usize);
            }
            for number in [0, 5, count - 1] {
                records.describe(number as usize, &plain(number + 1)).unwrap();
            }
            let expected = |number: u32| {
                let changed = [0, 5, count - 1].contains(&number);
                Inode { plain: plain(number + u32::from(changed)), content: content(number) }
            };
            let mut reader = records.reader();
            // Forwards, backwards and across all pages.
            let across = (0..count).map(|number| number.wrapping_mul(7919) % count);
            for number in (0..count).chain((0..count).rev()).chain(across) {
                assert_eq!(reader.get(number as usize).unwrap(), Some(expected(number)));
            }
            assert!(reader.pages.len() <= PAGES);
            assert_eq!(records.get(1).unwrap(), Some(expected(1)));
            assert!(records.get(count as usize).is_err());
        }
    }
}
