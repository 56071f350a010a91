//! The group of a volume's files.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode};
use rustix::io::Errno;

use super::request::{FsGroup, GroupChange};

/// The most files whose group is set; a host's volume may hold any number.
const MAX_FILES: usize = 1_000_000;
/// How deep directories may be nested.
const MAX_DEPTH: usize = 256;

/// Gives everything at and beneath `root` the group, and the group what its owner may: read and write, and enter
/// directories, in which new files get the group too. Goes through no link and enters no other mount.
pub(super) fn apply(root: impl AsFd, group: FsGroup, read_only: bool) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(&root)?;
    if read_only || (group.change == GroupChange::OnRootMismatch && stat.st_gid == group.gid) {
        return Ok(());
    }
    let mut left = MAX_FILES;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(&root, ".", flags, Mode::empty())?;
    // The root last: with `OnRootMismatch` it says that all is done.
    beneath(&dir, group, stat.st_dev, &mut left, 0)?;
    directory(&dir, group, stat.st_mode)
}

fn beneath(dir: &OwnedFd, group: FsGroup, device: u64, left: &mut usize, depth: usize) -> Result<(), Errno> {
    if depth >= MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        *left = left.checked_sub(1).ok_or(Errno::TOOBIG)?;
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            _ if stat.st_dev != device => {}
            FileType::Directory => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let child = rustix::fs::openat(dir, name, flags, Mode::empty())?;
                beneath(&child, group, device, left, depth + 1)?;
                directory(&child, group, stat.st_mode)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
                let gid = Some(Gid::from_raw(group.gid));
                rustix::fs::fchown(&file, None, gid)?;
                rustix::fs::fchmod(&file, with(stat.st_mode, 0o660))?;
            }
            _ => {
                let gid = Some(Gid::from_raw(group.gid));
                rustix::fs::chownat(dir, name, None, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
    }
    Ok(())
}

fn directory(dir: &OwnedFd, group: FsGroup, mode: RawMode) -> Result<(), Errno> {
    rustix::fs::fchown(dir, None, Some(Gid::from_raw(group.gid)))?;
    rustix::fs::fchmod(dir, with(mode, 0o2770))
}

fn with(mode: RawMode, more: RawMode) -> Mode {
    Mode::from_raw_mode((mode & 0o7777) | more)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;
    use crate::beneath::Root;

    #[test]
    fn files_get_the_group_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "").unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("a/b")).unwrap();
        std::fs::write(volume.join("a/b/f"), "").unwrap();
        symlink(&outside, volume.join("a/link")).unwrap();
        let group = FsGroup { gid: 4242, change: GroupChange::OnRootMismatch };
        apply(Root::open(&volume).unwrap(), group, false).unwrap();
        for (name, mode) in [("", 0o2775), ("a", 0o2775), ("a/b", 0o2775), ("a/b/f", 0o664)] {
            let meta = volume.join(name).symlink_metadata().unwrap();
            assert_eq!((meta.gid(), meta.mode() & 0o7777), (4242, mode), "{name}");
        }
        assert_eq!(volume.join("a/link").symlink_metadata().unwrap().gid(), 4242);
        assert_ne!(outside.metadata().unwrap().gid(), 4242);

        std::fs::write(volume.join("new"), "").unwrap();
        apply(Root::open(&volume).unwrap(), group, false).unwrap();
        assert_eq!(volume.join("new").metadata().unwrap().mode() & 0o7777, 0o644, "the root has the group: untouched");
        apply(Root::open(&volume).unwrap(), FsGroup { change: GroupChange::Always, ..group }, false).unwrap();
        assert_eq!(volume.join("new").metadata().unwrap().mode() & 0o7777, 0o664);
    }
}
