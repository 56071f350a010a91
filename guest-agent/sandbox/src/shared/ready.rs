//! A file that is whole and waits for its log record.

use protocols::digest::Sha256Digest;
use rustix::fs::{Gid, Mode, ResolveFlags, Uid};
use rustix::io::Errno;
use sha2::Digest as _;

use super::private::Private;
use super::request::{Attributes, Checked, Copied, FileKind, copy_path};
use super::{Shared, Unfinished};
use crate::beneath::{Relative, explain, make_one};
use crate::error::SandboxError;

/// A file, directory or link that [`Ready::commit`] makes visible; dropped instead, it leaves nothing.
#[derive(Debug)]
#[must_use = "nothing is visible before `commit`"]
pub struct Ready {
    shared: Shared,
    copied: Copied,
    dir_mode: u32,
    /// None for a directory, which is made in its place.
    private: Option<Private>,
}

impl Ready {
    pub(super) fn directory(shared: Shared, path: &str, checked: &Checked<'_>) -> Self {
        let copied = copied(path, checked, 0, Sha256Digest::of(b""));
        Self { shared, copied, dir_mode: checked.attributes.dir_mode, private: None }
    }

    pub(super) fn symlink(
        shared: Shared,
        path: &str,
        checked: &Checked<'_>,
        private: Private,
    ) -> Result<Self, SandboxError> {
        let target = std::str::from_utf8(checked.data).map_err(|_| copy_path(path, "the target is not UTF-8"))?;
        let Attributes { uid, gid, dir_mode, .. } = checked.attributes;
        private.link(target, uid, gid).map_err(SandboxError::system("make a copied link"))?;
        let size = u64::try_from(target.len()).unwrap_or(u64::MAX);
        let copied = copied(path, checked, size, Sha256Digest::of(checked.data));
        Ok(Self { shared, copied, dir_mode, private: Some(private) })
    }

    /// Owner first: a change of owner may take mode bits away.
    pub(super) fn regular(
        shared: Shared,
        path: &str,
        checked: &Checked<'_>,
        whole: Unfinished,
    ) -> Result<Self, SandboxError> {
        let Attributes { mode, dir_mode, uid, gid } = checked.attributes;
        let Unfinished { file, private, hash, size, .. } = whole;
        let copied = copied(path, checked, size, Sha256Digest::new(hash.finalize().into()));
        let ready = Self { shared, copied, dir_mode, private: Some(private) };
        rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .and_then(|()| rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)))
            .map_err(SandboxError::system("set a copied file's owner and mode"))?;
        Ok(ready)
    }

    /// What will be visible.
    #[must_use]
    pub const fn copied(&self) -> &Copied {
        &self.copied
    }

    /// Makes it visible, and the directories on the way.
    ///
    /// # Errors
    /// [`SandboxError::CopyPath`] when by now a link, a file or another mount is on the way, or a directory in its
    /// place.
    pub fn commit(self) -> Result<Copied, SandboxError> {
        let Self { shared, copied, dir_mode, private } = self;
        let inner = &shared.0;
        let refused = |errno: Errno| copy_path(&copied.path, explain(errno));
        let relative = Relative::of(&inner.path, &copied.path).map_err(|why| copy_path(&copied.path, why))?;
        let (parent, name) = relative.split();
        let dir_mode = Mode::from_raw_mode(dir_mode);
        let parent = inner.root.make(parent, dir_mode, ResolveFlags::NO_XDEV).map_err(refused)?;
        match &private {
            Some(private) => private.rename(&parent, name).map_err(refused)?,
            None => {
                let mode = Mode::from_raw_mode(copied.mode);
                let made = make_one(&parent, name, mode, ResolveFlags::NO_XDEV).map_err(refused)?;
                rustix::fs::fchown(&made, Some(Uid::from_raw(copied.uid)), Some(Gid::from_raw(copied.gid)))
                    .and_then(|()| rustix::fs::fchmod(&made, mode))
                    .map_err(refused)?;
            }
        }
        let mut state = inner.state();
        if let Some(private) = private {
            private.release(&mut state);
        }
        let before = state.visible.insert(relative.as_str().to_owned(), copied.size).unwrap_or(0);
        state.visible_bytes = state.visible_bytes.saturating_sub(before).saturating_add(copied.size);
        drop(state);
        Ok(copied)
    }
}

fn copied(path: &str, checked: &Checked<'_>, size: u64, sha256: Sha256Digest) -> Copied {
    let Attributes { mode, uid, gid, .. } = checked.attributes;
    let mode = if checked.kind == FileKind::Symlink { 0o777 } else { mode };
    Copied { path: path.to_owned(), kind: checked.kind, mode, uid, gid, size, sha256 }
}
