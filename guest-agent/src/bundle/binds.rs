//! Mounts of opened files and directories in a place of the agent's own.
//!
//! A path of the host's choice may stand for another file a moment after it was looked at. The runtime is given
//! the path of a mount that was made from the descriptor instead, where nobody but the agent can exchange anything.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::container_id::ContainerId;

/// The mounts of one container, gone when dropped.
#[derive(Debug)]
pub(crate) struct Binds {
    dir: PathBuf,
    made: bool,
}

impl Binds {
    /// None yet, for a container below `parent`. What an unknown launch left there is removed.
    pub(crate) fn beneath(parent: &Path, id: &ContainerId) -> std::io::Result<Self> {
        let dir = parent.join(id.as_str());
        remove(&dir)?;
        Ok(Self { dir, made: false })
    }

    /// Mounts what `source` is open on as `name`, with all that is mounted below it, and gives the mount's path.
    pub(crate) fn add(&mut self, name: &str, source: impl AsFd) -> std::io::Result<PathBuf> {
        if !self.made {
            if let Some(parent) = self.dir.parent() {
                crate::paths::private_dir(parent)?;
            }
            crate::paths::private_dir(&self.dir)?;
            self.made = true;
        }
        let path = self.dir.join(name);
        let stat = rustix::fs::fstat(&source)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700))?;
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            drop(rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))?);
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree: OwnedFd = rustix::mount::open_tree(&source, "", flags)?;
        rustix::mount::move_mount(&tree, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(path)
    }
}

impl Drop for Binds {
    fn drop(&mut self) {
        if self.made
            && let Err(error) = remove(&self.dir)
        {
            tracing::error!(dir = %self.dir.display(), %error, "mounts of a container stay");
        }
    }
}

/// Unmounts and removes the mounts that [`Binds`] of this process or a killed one made at `dir`. Nothing there is fine.
/// What was mounted is never entered: it is somebody else's.
pub(crate) fn remove(dir: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        loop {
            match rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        match rustix::fs::unlink(&path) {
            Err(Errno::ISDIR) => rustix::fs::rmdir(&path)?,
            other => other?,
        }
    }
    std::fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(dir: &Path) -> bool {
        std::fs::read_to_string("/proc/self/mounts").unwrap().contains(&dir.display().to_string())
    }

    #[test]
    fn a_file_exchanged_after_it_was_opened_is_not_what_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder, state) = (dir.path().join("hosts"), dir.path().join("data"), dir.path().join("state"));
        std::fs::write(&file, "first").unwrap();
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("inside"), "kept").unwrap();
        let open = |path: &Path| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let (opened, opened_folder) = (open(&file), open(&folder));
        std::fs::rename(&file, dir.path().join("moved")).unwrap();
        std::fs::write(&file, "second").unwrap();
        let id = ContainerId::new("binds").unwrap();
        let mut binds = Binds::beneath(&state, &id).unwrap();
        let hosts = binds.add("0", &opened).unwrap();
        let data = binds.add("1", &opened_folder).unwrap();
        assert_eq!(std::fs::read_to_string(hosts).unwrap(), "first");
        assert_eq!(std::fs::read_to_string(data.join("inside")).unwrap(), "kept");
        drop(binds);
        assert!(!mounted(&state));
        assert!(!state.join("binds").exists());
        assert_eq!(std::fs::read_to_string(folder.join("inside")).unwrap(), "kept", "the source is untouched");
    }

    #[test]
    fn what_a_killed_agent_left_is_unmounted_and_never_entered() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, state) = (dir.path().join("data"), dir.path().join("state"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("inside"), "kept").unwrap();
        let opened = rustix::fs::open(&folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let id = ContainerId::new("left").unwrap();
        let mut killed = Binds::beneath(&state, &id).unwrap();
        killed.add("0", &opened).unwrap();
        killed.add("1", &opened).unwrap();
        #[expect(clippy::mem_forget, reason = "as a killed agent leaves it")]
        std::mem::forget(killed);
        assert!(mounted(&state));
        drop(Binds::beneath(&state, &id).unwrap());
        assert!(!mounted(&state));
        assert!(folder.join("inside").exists());
        remove(&state.join("left")).unwrap();
    }
}
