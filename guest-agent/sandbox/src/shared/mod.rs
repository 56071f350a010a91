//! Files the host copies into the guest: ConfigMaps, secrets, resolv.conf, termination logs.
//!
//! A file is collected under a private name and measured while it arrives; [`Shared::prepare`] gives it, whole, to the
//! caller, who logs it, and [`Ready::commit`] alone makes it visible, in one rename. Links are made as the host
//! says, but nothing here ever goes through one.

mod private;
mod ready;
mod request;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FileType, OFlags, ResolveFlags};
use sha2::{Digest as _, Sha256};

use self::private::Private;
pub use self::ready::Ready;
use self::request::{Attributes, Checked, copy_file, copy_path};
pub use self::request::{Copied, CopyRequest, FileKind};
use crate::beneath::{Relative, Root, explain};
use crate::error::SandboxError;
use crate::roots::Roots;

/// How much a host may copy in. All of it lies in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyLimits {
    /// The largest file, in bytes.
    pub file_bytes: u64,
    /// All files, visible and not yet whole, in bytes.
    pub total_bytes: u64,
    /// Files that are not yet whole or not yet committed.
    pub unfinished: usize,
    /// Files, directories and links.
    pub entries: usize,
}

impl Default for CopyLimits {
    /// 128 MiB a file, 512 MiB together, 64 unfinished, 65,536 entries.
    fn default() -> Self {
        Self { file_bytes: 128 << 20, total_bytes: 512 << 20, unfinished: 64, entries: 65_536 }
    }
}

/// The shared directory of one sandbox. Clones are the same directory.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    root: Root,
    partial: Root,
    limits: CopyLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the path beneath the root.
    unfinished: HashMap<String, Unfinished>,
    /// Sizes of what was made visible, by the same.
    visible: HashMap<String, u64>,
    visible_bytes: u64,
    /// Private files that are there, and the bytes promised to them.
    private_files: usize,
    private_bytes: u64,
    names: u64,
}

/// A regular file of which pieces have come.
#[derive(Debug)]
struct Unfinished {
    file: File,
    private: Private,
    attributes: Attributes,
    size: u64,
    received: u64,
    hash: Sha256,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // The counts stay right when a thread dies: each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Opens the directories that [`Roots::recreate`] made.
    ///
    /// # Errors
    /// [`SandboxError::System`].
    pub fn open_in(roots: &Roots, limits: CopyLimits) -> Result<Self, SandboxError> {
        let open = |path: &Path| Root::open(path).map_err(SandboxError::system(format!("open {}", path.display())));
        let path = roots.shared();
        let (root, partial) = (open(&path)?, open(&roots.partial())?);
        Ok(Self(Arc::new(Inner { path, root, partial, limits, state: Mutex::default() })))
    }

    /// Takes one request: the file when it is whole with this piece, else nothing. The pieces of a file come in
    /// order; offset 0 starts it anew. Nothing is visible yet.
    ///
    /// # Errors
    /// [`SandboxError::CopyPath`], [`SandboxError::CopyFile`], or [`SandboxError::System`] when memory is full.
    pub fn prepare(&self, request: &CopyRequest<'_>) -> Result<Option<Ready>, SandboxError> {
        let checked = Checked::of(request, &self.0.path)?;
        self.0
            .root
            .probe(checked.relative.split().0, ResolveFlags::NO_XDEV)
            .map_err(|errno| copy_path(request.path, explain(errno)))?;
        let mut state = self.0.state();
        let known = state.visible.contains_key(checked.relative.as_str());
        if !known && state.visible.len() >= self.0.limits.entries {
            return Err(copy_file(request.path, format!("more than {} entries", self.0.limits.entries)));
        }
        match checked.kind {
            FileKind::Regular => {
                let whole = self.piece(&mut state, request.path, &checked)?;
                drop(state);
                whole.map(|whole| Ready::regular(self.clone(), request.path, &checked, whole)).transpose()
            }
            FileKind::Directory => Ok(Some(Ready::directory(self.clone(), request.path, &checked))),
            FileKind::Symlink => {
                let private = Private::reserve(self, &mut state, request.path, 0)?;
                drop(state);
                Ready::symlink(self.clone(), request.path, &checked, private).map(Some)
            }
        }
    }

    /// Adds a piece to its file; the file, if that was the last.
    fn piece(&self, state: &mut State, path: &str, checked: &Checked<'_>) -> Result<Option<Unfinished>, SandboxError> {
        let refused = |why: &str| copy_file(path, why);
        let key = checked.relative.as_str();
        if checked.offset == 0 {
            if let Some(abandoned) = state.unfinished.remove(key) {
                abandoned.private.release(state);
            }
            if checked.size > self.0.limits.file_bytes {
                return Err(copy_file(path, format!("larger than {} bytes", self.0.limits.file_bytes)));
            }
            let private = Private::reserve(self, state, path, checked.size)?;
            let file = match private.create() {
                Ok(file) => file,
                Err(error) => {
                    private.release(state);
                    return Err(SandboxError::system("make a file for copied data")(error));
                }
            };
            let (attributes, size) = (checked.attributes, checked.size);
            let fresh = Unfinished { file, private, attributes, size, received: 0, hash: Sha256::new() };
            state.unfinished.insert(key.to_owned(), fresh);
        }
        let unfinished = state.unfinished.get_mut(key).ok_or_else(|| refused("it does not start at offset 0"))?;
        if checked.offset != unfinished.received {
            return Err(copy_file(path, format!("the next piece starts at {}", unfinished.received)));
        }
        if unfinished.attributes != checked.attributes || unfinished.size != checked.size {
            return Err(refused("its size, mode or owner differ from those of its first piece"));
        }
        let length = u64::try_from(checked.data.len()).unwrap_or(u64::MAX);
        let received = unfinished.received.checked_add(length).filter(|received| *received <= checked.size);
        let received = received.ok_or_else(|| refused("more data than its size"))?;
        unfinished
            .file
            .write_all_at(checked.data, checked.offset)
            .map_err(SandboxError::system("write copied data to guest memory"))?;
        unfinished.hash.update(checked.data);
        unfinished.received = received;
        Ok(if received < checked.size { None } else { state.unfinished.remove(key) })
    }

    /// Opens what a bind mount's source names, with `O_PATH` and through no link.
    ///
    /// # Errors
    /// [`SandboxError::Path`].
    pub fn open(&self, path: &str) -> Result<OwnedFd, SandboxError> {
        let relative = Relative::of(&self.0.path, path).map_err(|why| SandboxError::path(path, why))?;
        let opened = self.0.root.entry(relative, OFlags::PATH, ResolveFlags::empty());
        opened.map_err(|errno| SandboxError::path(path, explain(errno)))
    }

    /// The last `most` bytes of a regular file that a container wrote, such as its termination log.
    ///
    /// # Errors
    /// [`SandboxError::Path`] when it is no plain file beneath the shared directory.
    pub fn read_end(&self, path: &str, most: u64) -> Result<Vec<u8>, SandboxError> {
        let relative = Relative::of(&self.0.path, path).map_err(|why| SandboxError::path(path, why))?;
        // Not blocking: a container may have put a pipe in its place.
        let opened = self.0.root.entry(relative, OFlags::RDONLY | OFlags::NONBLOCK, ResolveFlags::empty());
        let fd = opened.map_err(|errno| SandboxError::path(path, explain(errno)))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| SandboxError::path(path, explain(errno)))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(SandboxError::path(path, "it is no regular file"));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut file = File::from(fd);
        let read = std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(size.saturating_sub(most)));
        let mut end = Vec::new();
        read.and_then(|_| file.take(most).read_to_end(&mut end))
            .map_err(|error| SandboxError::path(path, error.to_string()))?;
        Ok(end)
    }
}
