//! From a request to the one mount it means; all checks come before the first change.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, mount_remount, move_mount, open_tree,
};

use super::options::MountOptions;
use crate::beneath::by_number;

/// What is to be mounted.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) source: Source,
    pub(super) options: MountOptions,
    /// The group of the root, which then also gets the setgid bit.
    pub(super) group: Option<u32>,
    /// The mode of a directory.
    pub(super) mode: Option<u32>,
}

/// Where it comes from.
#[derive(Debug)]
pub(super) enum Source {
    /// The directory itself; nothing is mounted.
    Directory,
    /// A file system of its own; `device` names what the kernel calls its source.
    New { fstype: String, device: Option<Device> },
    /// A directory that is already there.
    Bind(OwnedFd),
    /// Directories joined: lower ones from the uppermost down, then upper and work.
    Overlay { lower: Vec<OwnedFd>, upper: Option<(OwnedFd, OwnedFd)> },
}

/// What a file system is on.
#[derive(Debug)]
pub(super) enum Device {
    /// A block device's node, held open.
    Node(OwnedFd),
    /// A tag of virtio-fs or 9P.
    Tag(String),
}

impl Plan {
    /// Mounts it at `target`; gives the mount's root, or the directory itself.
    pub(super) fn mount(&self, target: OwnedFd) -> Result<(OwnedFd, bool), Errno> {
        let mount = match &self.source {
            Source::Directory => return Ok((target, false)),
            Source::New { fstype, device } => {
                let context = fsopen(fstype.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
                match device {
                    Some(Device::Node(node)) => fsconfig_set_string(context.as_fd(), "source", by_number(node))?,
                    Some(Device::Tag(tag)) => fsconfig_set_string(context.as_fd(), "source", tag.as_str())?,
                    None => {}
                }
                self.create(&context)?
            }
            Source::Bind(from) => {
                let flags =
                    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
                open_tree(from, "", flags)?
            }
            Source::Overlay { lower, upper } => {
                let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
                // Held open by the plan: paths by number are short, need no escapes and cannot be swapped.
                let joined: Vec<String> = lower.iter().map(|dir| by_number(dir).display().to_string()).collect();
                fsconfig_set_string(context.as_fd(), "lowerdir", joined.join(":"))?;
                if let Some((upper, work)) = upper {
                    fsconfig_set_string(context.as_fd(), "upperdir", by_number(upper))?;
                    fsconfig_set_string(context.as_fd(), "workdir", by_number(work))?;
                }
                self.create(&context)?
            }
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mount, "", &target, "", flags)?;
        Ok((mount, true))
    }

    fn create(&self, context: &OwnedFd) -> Result<OwnedFd, Errno> {
        for (key, value) in &self.options.data {
            match value {
                Some(value) => fsconfig_set_string(context.as_fd(), key.as_str(), value.as_str())?,
                None => fsconfig_set_flag(context.as_fd(), key.as_str())?,
            }
        }
        if self.options.read_only() {
            fsconfig_set_flag(context.as_fd(), "ro")?; // the file system too: a device may not be writable
        }
        fsconfig_create(context.as_fd())?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, self.options.attributes)
    }

    /// A copied mount has the attributes of where it comes from; gives it those of the options. It is mounted by now,
    /// and nobody has been told of it.
    pub(super) fn restrict(&self, mount: &OwnedFd) -> Result<(), Errno> {
        if !matches!(self.source, Source::Bind(_)) {
            return Ok(());
        }
        let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
        let asked = self.options.attributes;
        for (attribute, flag) in [
            (rustix::mount::MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
            (rustix::mount::MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
            (rustix::mount::MountAttrFlags::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
        ] {
            if asked.contains(attribute) {
                flags |= flag;
            }
        }
        let path: PathBuf = by_number(mount);
        mount_remount(path, flags, c"")
    }
}
