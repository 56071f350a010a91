//! Paths beneath a directory that is held open: walked by descriptor, never through a link.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The longest path that is looked at, in bytes: the kernel's own bound.
const MAX_PATH: usize = 4095;
/// The longest segment.
const MAX_SEGMENT: usize = 255;
/// The most segments beneath a root.
const MAX_DEPTH: usize = 64;

/// No `..` above the root, no symbolic link, no magic link of procfs.
const PLAIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// A path beneath a root: one or more plain segments. Text only; what lies there is for the walk to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Relative<'a>(&'a str);

impl<'a> Relative<'a> {
    /// What `path` is beneath `root`.
    ///
    /// # Errors
    /// Says why it is no plain path beneath `root`.
    pub(crate) fn of(root: &Path, path: &'a str) -> Result<Self, &'static str> {
        let root = root.to_str().ok_or("the root is not UTF-8")?;
        let rest = path.strip_prefix(root).and_then(|rest| rest.strip_prefix('/'));
        let rest = rest.ok_or("it is not beneath its directory")?;
        if path.len() > MAX_PATH {
            return Err("it is longer than 4095 bytes");
        }
        if rest.contains('\0') {
            return Err("it has a zero byte");
        }
        if rest.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err("it has an empty, `.` or `..` segment");
        }
        if rest.split('/').any(|segment| segment.len() > MAX_SEGMENT) {
            return Err("a segment is longer than 255 bytes");
        }
        if rest.split('/').count() > MAX_DEPTH {
            return Err("it is deeper than 64 directories");
        }
        Ok(Self(rest))
    }

    /// The directory that holds it, if not the root itself, and its last segment.
    pub(crate) fn split(self) -> (Option<Self>, &'a str) {
        self.0.rsplit_once('/').map_or((None, self.0), |(parent, name)| (Some(Self(parent)), name))
    }

    pub(crate) const fn as_str(self) -> &'a str {
        self.0
    }
}

/// A directory held open.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// Opens `path`, whose last segment is no link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens what is at `path`; `more` may forbid entering another mount.
    pub(crate) fn entry(&self, path: Relative<'_>, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat2(&self.0, path.0, flags | OFlags::CLOEXEC, Mode::empty(), PLAIN | more)
    }

    /// Opens the directory at `path` (the root for `None`), making what is missing with `mode`.
    pub(crate) fn make(&self, path: Option<Relative<'_>>, mode: Mode, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let mut at = open_dir(&self.0, ".", more)?;
        for segment in path.iter().flat_map(|path| path.0.split('/')) {
            at = make_one(&at, segment, mode, more)?;
        }
        Ok(at)
    }

    /// As far as `path` exists: that it meets directories only. Makes nothing.
    pub(crate) fn probe(&self, path: Option<Relative<'_>>, more: ResolveFlags) -> Result<(), Errno> {
        let mut at = open_dir(&self.0, ".", more)?;
        for segment in path.iter().flat_map(|path| path.0.split('/')) {
            at = match open_dir(&at, segment, more) {
                Err(Errno::NOENT) => return Ok(()),
                opened => opened?,
            };
        }
        Ok(())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Opens the directory `segment` of `at`, readable, so that its mode and owner can be set.
pub(crate) fn open_dir(at: impl AsFd, segment: &str, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(at, segment, flags, Mode::empty(), PLAIN | more)
}

/// The same, made with exactly `mode` when it is missing.
pub(crate) fn make_one(at: impl AsFd, segment: &str, mode: Mode, more: ResolveFlags) -> Result<OwnedFd, Errno> {
    let made = match rustix::fs::mkdirat(&at, segment, mode) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno),
    };
    let opened = open_dir(&at, segment, more)?;
    if made {
        rustix::fs::fchmod(&opened, mode)?; // the umask took its part
    }
    Ok(opened)
}

/// A name for what `fd` has open that other system calls take.
pub(crate) fn by_number(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// Why a walk ended, in words.
pub(crate) fn explain(errno: Errno) -> String {
    match errno {
        Errno::LOOP => "a symbolic link is on the way".to_owned(),
        Errno::XDEV => "it leaves its directory or file system".to_owned(),
        Errno::NOTDIR => "something on the way is no directory".to_owned(),
        other => io::Error::from(other).to_string(),
    }
}
