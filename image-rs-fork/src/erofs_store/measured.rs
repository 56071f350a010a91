//! Images that this process has measured and that have not been touched since.
//!
//! Only of a store in guest memory: whoever could alter a file there without leaving a trace in its times is root in
//! the guest, and could alter it after any measurement as well.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocols::digest::Sha256Digest;

use crate::erofs::SALT;
use crate::verity::root_hash;

/// The most images that are remembered.
const MOST: usize = 4096;
/// How long a file must have been left alone: kernels before 6.13 give changes within one tick of their clock the same
/// time, and then a change behind the measurement could not be told from one before it.
const QUIET: Duration = Duration::from_secs(1);

/// What differs between a file and every other, or the same after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    /// Of its content, its attributes or its names, in seconds and nanoseconds.
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let data = file.metadata()?;
        let (place, changed) = ((data.dev(), data.ino()), (data.ctime(), data.ctime_nsec()));
        Ok(Self { place, size: data.len(), changed })
    }

    fn is_quiet(&self, now: SystemTime) -> bool {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let changed = u64::try_from(self.changed.0).unwrap_or(u64::MAX);
        seconds > changed.saturating_add(QUIET.as_secs())
    }
}

/// Root hashes by what the file was when it was measured.
#[derive(Debug)]
pub(super) struct Measured {
    /// Whether anything is remembered.
    memory: bool,
    known: Mutex<HashMap<(u64, u64), (Stamp, Sha256Digest)>>,
}

impl Measured {
    pub(super) fn new(memory: bool) -> Self {
        Self { memory, known: Mutex::default() }
    }

    /// The root hash of an image of `blocks` blocks; `None` for one without a block.
    pub(super) fn root_hash(&self, file: &File, blocks: u64) -> io::Result<Option<Sha256Digest>> {
        self.of(file, SystemTime::now(), || root_hash(file, blocks, &SALT))
    }

    fn of(
        &self,
        file: &File,
        now: SystemTime,
        measure: impl FnOnce() -> io::Result<Option<Sha256Digest>>,
    ) -> io::Result<Option<Sha256Digest>> {
        if !self.memory {
            return measure();
        }
        let stamp = Stamp::of(file)?;
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(&stamp.place).filter(|(known, _)| *known == stamp).map(|(_, hash)| *hash);
        if found.is_some() {
            return Ok(found);
        }
        let measured = measure()?;
        if let Some(hash) = measured
            && stamp.is_quiet(now)
            && Stamp::of(file)? == stamp
        {
            let mut known = known();
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(stamp.place, (stamp, hash));
        }
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_that_was_left_alone_is_measured_once_and_any_other_again() {
        let mut file = tempfile::tempfile_in("/dev/shm").unwrap();
        file.write_all(b"one").unwrap();
        let count = Cell::new(0);
        let measured = Measured::new(true);
        let measure = |measured: &Measured, now| {
            let hash = || {
                count.set(count.get() + 1);
                Ok(Some(Sha256Digest::of(&[count.get()])))
            };
            measured.of(&file, now, hash).unwrap().unwrap();
            count.get()
        };
        let later = SystemTime::now() + Duration::from_secs(5);
        // Just written: another write in the same tick would look the same.
        assert_eq!((measure(&measured, SystemTime::now()), measure(&measured, later)), (1, 2));
        assert_eq!((measure(&measured, later), measure(&measured, later)), (2, 2));
        std::thread::sleep(Duration::from_millis(20));
        (&file).write_all(b"two").unwrap();
        assert_eq!(measure(&measured, later), 3, "grown");
        std::thread::sleep(Duration::from_millis(20));
        std::os::unix::fs::FileExt::write_at(&file, b"x", 0).unwrap();
        assert_eq!((measure(&measured, later), measure(&measured, later)), (4, 4), "of the same size");
        // Not where somebody outside the guest has the storage.
        let elsewhere = Measured::new(false);
        assert_eq!((measure(&elsewhere, later), measure(&elsewhere, later)), (5, 6));
    }
}
