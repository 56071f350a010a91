//! What both stores do with their directories: one owner at a time, and nothing half-written that stays.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, fsync, renameat_with};
use rustix::io::Errno;

use crate::error::ImageError;
use crate::tree::disk::{open_directory, store_error};

/// In the name of a layer that is not complete.
pub(crate) const PARTIAL: &str = ".partial-";

/// Makes a directory (0700), and those above it, where they are missing.
pub(crate) fn make(path: &Path) -> Result<(), ImageError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|e| store_error(path, "make the image store", e))
}

/// Takes the store at `root` for as long as the file is open.
pub(crate) fn lock(root: &Path) -> Result<File, ImageError> {
    let lock = File::create(root.join("lock")).map_err(|e| store_error(root, "make the store's lock", e))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| {
        let busy = std::io::Error::other("another process has the image store open");
        let error = if e == Errno::WOULDBLOCK { busy } else { e.into() };
        store_error(root, "lock the image store", error)
    })?;
    Ok(lock)
}

/// The names in a directory; none where it does not exist.
pub(crate) fn names(path: &Path) -> Result<Vec<String>, ImageError> {
    let fail = |e| store_error(path, "count what is stored", e);
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()).map_err(fail)).collect()
}

/// Removes what broken pulls left; gives the names of stored layers, those used longest ago first.
pub(crate) fn clear(layers: &Path) -> Result<Vec<String>, ImageError> {
    let fail = |e| store_error(layers, "remove leftovers of a broken pull", e);
    let mut found = Vec::new();
    for entry in fs::read_dir(layers).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(PARTIAL) {
            fs::remove_dir_all(entry.path()).map_err(fail)?;
        } else {
            found.push((entry.metadata().and_then(|data| data.modified()).map_err(fail)?, name));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, name)| name).collect())
}

/// Removes a stored layer; cut short, it leaves nothing that would be taken for one.
pub(crate) fn remove_layer(layers: &Path, name: &str) -> Result<(), ImageError> {
    let (path, partial) = (layers.join(name), layers.join(format!("{name}{PARTIAL}removed")));
    let removed = fs::rename(&path, &partial).and_then(|()| fs::remove_dir_all(&partial));
    removed.map_err(|e| store_error(&path, "remove a stored layer", e))
}

/// A layer's directory that is removed unless it is published.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) path: PathBuf,
    layers: PathBuf,
    kept: bool,
}

impl Partial {
    /// A new directory in `layers`, which is its owner's alone: `count` makes names enough.
    pub(crate) fn make(layers: &Path, name: &str, count: &AtomicU64) -> Result<Self, ImageError> {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let path = layers.join(format!("{name}{PARTIAL}{number}"));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|e| store_error(layers, "make a layer's directory", e))?;
        Ok(Self { path, layers: layers.to_owned(), kept: false })
    }

    /// Gives the directory its final name and has it counted, as one step for all who hold `turn`; `known` gives the
    /// stored layer where there is one of that name already.
    pub(crate) fn publish<L, F>(
        mut self,
        name: &str,
        turn: &Mutex<()>,
        keep: impl FnOnce() -> L,
        known: impl FnOnce() -> Option<F>,
    ) -> Result<Published<L, F>, ImageError> {
        let fail = |e: Errno| store_error(&self.path, "complete a layer", e);
        let turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        match renameat_with(CWD, &self.path, CWD, self.layers.join(name), RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return known().map(Published::Known).ok_or_else(|| fail(Errno::EXIST)),
            Err(e) => return Err(fail(e)),
        }
        self.kept = true;
        let kept = keep();
        drop(turn);
        open_directory(&self.layers).and_then(fsync).map_err(fail)?;
        Ok(Published::New(kept))
    }
}

/// What became of a complete layer.
pub(crate) enum Published<L, F> {
    /// It is stored.
    New(L),
    /// The same was stored before.
    Known(F),
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            // Nothing refers to it; it is removed when the store is next opened.
            tracing::warn!(path = %self.path.display(), %error, "a layer that was not completed stays");
        }
    }
}
