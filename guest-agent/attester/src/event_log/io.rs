//! The few file operations the log needs, each durable when it returns, behind a seam for fault tests.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

const LOCK_FOR: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Durable operations on the files of one directory.
pub trait LogIo: Debug + Send + Sync {
    /// The whole file, or `None` when there is none.
    ///
    /// # Errors
    /// The system's.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Puts `bytes` in place of the file: after a crash it holds all of the old or all of the new bytes.
    ///
    /// # Errors
    /// The system's; the file may hold old or new bytes then.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file `at` bytes long, dropping what is behind, and writes `bytes` there.
    ///
    /// # Errors
    /// The system's; any part of `bytes` may be there then. Doing it again is safe.
    fn append(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Removes the file; it may be missing.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, name: &str) -> io::Result<()>;
}

impl<T: LogIo + ?Sized> LogIo for std::sync::Arc<T> {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        (**self).read(name)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        (**self).replace(name, bytes)
    }

    fn append(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        (**self).append(name, at, bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        (**self).remove(name)
    }
}

/// A real directory, held by descriptor.
#[derive(Debug)]
pub struct DirIo {
    dir: OwnedFd,
}

impl DirIo {
    /// Opens `dir`, made with mode 0700 where it is missing.
    ///
    /// # Errors
    /// The system's.
    pub fn open(dir: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { dir: rustix::fs::open(dir, flags, Mode::empty())? })
    }

    /// As [`DirIo::open`], and keeps every other writer out as long as this value lives.
    ///
    /// # Errors
    /// `WouldBlock` when another process has the directory.
    pub fn open_exclusive(dir: &Path) -> io::Result<Self> {
        let io = Self::open(dir)?;
        let deadline = Instant::now() + LOCK_FOR;
        loop {
            match rustix::fs::flock(&io.dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(io),
                // A child that a killed agent forked has the descriptor until it executes something.
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(File::from(rustix::fs::openat(self.dir.as_fd(), name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.dir)?)
    }
}

impl LogIo for DirIo {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let mut file = match self.file(name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = format!("{name}.new");
        let file = self.file(&beside, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC)?;
        file.write_all_at(bytes, 0)?;
        file.sync_all()?;
        rustix::fs::renameat(&self.dir, &beside, &self.dir, name)?;
        self.sync_dir()
    }

    fn append(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(name, OFlags::WRONLY)?;
        if file.metadata()?.len() < at {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        file.set_len(at)?;
        file.write_all_at(bytes, at)?;
        file.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => self.sync_dir(),
            Err(error) => Err(error.into()),
        }
    }
}
