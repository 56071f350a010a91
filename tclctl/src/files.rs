//! Files that are read whole or not at all, and new ones.

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::outcome::Failure;

/// A whole file of at most `limit` bytes: a longer one is refused, and never read in part.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    whole(fs::File::open(path).map_err(|error| Failure::file(path, error))?, path, limit)
}

/// The same of what comes from somewhere, under the name of `path`.
pub(crate) fn whole(from: impl Read, path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| Failure::file(path, error))?;
    if u64::try_from(bytes.len()).is_ok_and(|size| size > limit) {
        return Err(Failure::file(path, format!("more than {limit} bytes")));
    }
    Ok(bytes)
}

/// Writes a new file; an existing one is never overwritten.
pub(crate) fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|error| Failure::file(path, error))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| Failure::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of a policy's cases that is cut is a table of fewer cases.
    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        create(&path, 0o600, b"12345678").unwrap();
        assert_eq!(read(&path, 8).unwrap(), b"12345678");
        assert!(read(&path, 7).unwrap_err().to_string().contains("more than 7 bytes"));
        assert!(create(&path, 0o600, b"").is_err());
        assert_eq!(read(&path, 8).unwrap().len(), 8);
    }
}
