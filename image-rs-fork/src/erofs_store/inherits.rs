//! What a stored layer asked of the layers below it: with this it is found again above other layers that answer the
//! same, without a download.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use protocols::digest::Sha256Digest;

use crate::erofs::{DirAttributes, Inheritance};

/// The most bytes of a record; a layer with more is not found again.
const MOST: u64 = 4 << 20;

/// The file `inherits`: paths, each ended by NUL; `/`, which is no path, stands between the two lists.
/// Nothing in it is believed: what it leads to has the name of what is asked for, or is not taken, and is measured.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Directories that no entry described, ascending.
    pub(super) implied: Vec<Vec<u8>>,
    /// Directories with whiteouts, in the archive's order.
    pub(super) marked: Vec<Vec<u8>>,
}

/// Between the lists.
const BETWEEN: &[u8] = b"/";

impl Asked {
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let between = BETWEEN.to_vec();
        let mut bytes = Vec::new();
        for path in self.implied.iter().chain([&between]).chain(&self.marked) {
            bytes.extend_from_slice(path);
            bytes.push(0);
        }
        if bytes.len() as u64 > MOST {
            return Ok(());
        }
        let mut file = File::create(path)?;
        file.write_all(&bytes)?;
        file.sync_all()
    }

    /// `None` for what cannot be read as a record.
    pub(super) fn read(path: &Path) -> Option<Self> {
        if fs::symlink_metadata(path).ok()?.len() > MOST {
            return None;
        }
        let bytes = fs::read(path).ok()?;
        let mut paths = bytes.strip_suffix(&[0])?.split(|byte| *byte == 0);
        let implied = paths.by_ref().take_while(|path| *path != BETWEEN).map(<[u8]>::to_vec).collect();
        Some(Self { implied, marked: paths.map(<[u8]>::to_vec).collect() })
    }

    /// The digest of what the layers below answer, as the writer computes it ([`crate::erofs::Finished::inherited`]).
    pub(super) fn inherited(
        &self,
        shown: impl Fn(&[u8]) -> io::Result<Option<DirAttributes>>,
    ) -> io::Result<Sha256Digest> {
        let mut inheritance = Inheritance::new();
        for path in &self.implied {
            inheritance.directory(path, &shown(path)?.unwrap_or_default());
        }
        for path in &self.marked {
            if shown(path)?.is_none() {
                inheritance.unmatched(path);
            }
        }
        Ok(inheritance.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inherits");
        let lists = [vec![], vec![b"".to_vec()], vec![b"".to_vec(), b"a\n/\xff".to_vec(), b"b".to_vec()]];
        for implied in &lists {
            for marked in &lists {
                let asked = Asked { implied: implied.clone(), marked: marked.clone() };
                asked.write(&path).unwrap();
                assert_eq!(Asked::read(&path), Some(asked));
            }
        }
        fs::write(&path, b"no end").unwrap();
        assert_eq!(Asked::read(&path), None);
        assert_eq!(Asked::read(dir.path()), None);
    }
}
