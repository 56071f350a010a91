//! A file under a name the host cannot say, on the shared directory's file system.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::request::copy_file;
use super::{Inner, Shared, State};
use crate::error::SandboxError;

/// A private name and the bytes promised to it. Given up with [`Private::release`], or by dropping it outside the
/// lock.
#[derive(Debug)]
pub(super) struct Private {
    /// Weak: the directory's state holds unfinished files, which must not hold the directory.
    inner: Weak<Inner>,
    name: String,
    bytes: u64,
}

impl Private {
    pub(super) fn reserve(shared: &Shared, state: &mut State, path: &str, bytes: u64) -> Result<Self, SandboxError> {
        let limits = &shared.0.limits;
        if state.private_files >= limits.unfinished {
            return Err(copy_file(path, format!("more than {} unfinished files", limits.unfinished)));
        }
        let total = state.visible_bytes.checked_add(state.private_bytes).and_then(|sum| sum.checked_add(bytes));
        if total.is_none_or(|total| total > limits.total_bytes) {
            return Err(copy_file(path, format!("more than {} bytes together", limits.total_bytes)));
        }
        state.names += 1;
        state.private_files += 1;
        state.private_bytes += bytes;
        Ok(Self { inner: Arc::downgrade(&shared.0), name: state.names.to_string(), bytes })
    }

    /// Makes it an empty regular file that only root reads.
    pub(super) fn create(&self) -> io::Result<File> {
        let inner = self.inner.upgrade().ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&inner.partial, &self.name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Makes it a symbolic link.
    pub(super) fn link(&self, target: &str, uid: u32, gid: u32) -> Result<(), Errno> {
        let inner = self.inner.upgrade().ok_or(Errno::NOENT)?;
        let partial = &inner.partial;
        rustix::fs::symlinkat(target, partial, &self.name)?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(partial, &self.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Gives it its place in one step; what was there under that name, unless a directory, is gone.
    pub(super) fn rename(&self, parent: impl AsFd, name: &str) -> Result<(), Errno> {
        let inner = self.inner.upgrade().ok_or(Errno::NOENT)?;
        rustix::fs::renameat(&inner.partial, &self.name, parent, name)
    }

    /// Removes what there is under the name, and gives the promise back. For whoever holds the lock.
    pub(super) fn release(mut self, state: &mut State) {
        if let Some(inner) = std::mem::take(&mut self.inner).upgrade() {
            self.undo(&inner, state);
        }
    }

    fn undo(&self, inner: &Inner, state: &mut State) {
        let _ = rustix::fs::unlinkat(&inner.partial, &self.name, AtFlags::empty());
        state.private_files = state.private_files.saturating_sub(1);
        state.private_bytes = state.private_bytes.saturating_sub(self.bytes);
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.upgrade() {
            self.undo(&inner, &mut inner.state());
        }
    }
}
