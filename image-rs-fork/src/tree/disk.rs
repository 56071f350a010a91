//! Carries out a layer's table on disk, beneath one directory.
//!
//! Paths are resolved already: every lookup refuses symbolic links, so nothing can lead outside.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    chmodat, chownat, fchmod, fchown, fsetxattr, fstat, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::error::ImageError;
use crate::layer::attributes::{Attributes, OPAQUE, Plain, Xattr};
use crate::layer::path::split;
use crate::layer::sink::{Changed, Device, LinkKind, Sink};
use crate::space::Growth;

/// Beneath the root, through no symbolic link, over no mount.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// `store.full` or `store.io`.
pub(crate) fn store_error(path: &Path, doing: &'static str, error: impl Into<std::io::Error>) -> ImageError {
    let source: std::io::Error = error.into();
    let path = path.to_owned();
    match source.raw_os_error() {
        Some(code) if code == Errno::NOSPC.raw_os_error() || code == Errno::DQUOT.raw_os_error() => {
            ImageError::StoreFull { path }
        }
        _ => ImageError::StoreIo { path, doing, source },
    }
}

/// Opens a directory by a path that follows no symbolic link.
pub(crate) fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens what is at `path` beneath `root`; the root itself for the empty path.
pub(crate) fn open_beneath(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { &b"."[..] } else { path };
    openat2(root, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

/// What an entry counts for beside its content, in bytes: about what its inode and name take in memory.
pub(super) const ENTRY: u64 = 1024;
/// Files take whole blocks.
const BLOCK: u64 = 4096;

/// What a file of so many bytes counts for.
pub(super) const fn blocks(content: u64) -> u64 {
    content.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// What a file has that was just made, before it is described.
#[derive(Debug, Clone, Copy)]
struct Fresh {
    owner: (u32, u32),
    /// Permissions that making it leaves of those that were asked for.
    mask: u32,
}

impl Fresh {
    /// Makes a file in the directory to see.
    fn probe(root: &OwnedFd) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(root, PROBE, flags, Mode::from_raw_mode(PERMISSIONS))?;
        let stat = fstat(&file);
        unlinkat(root, PROBE, AtFlags::empty())?;
        let stat = stat?;
        Ok(Self { owner: (stat.st_uid, stat.st_gid), mask: stat.st_mode & 0o7777 })
    }

    /// The mode to make a file with that is to have `mode`. Until the layer is complete only root reaches it.
    const fn ask(mode: u32) -> u32 {
        if mode & !PERMISSIONS == 0 { mode } else { 0o600 }
    }

    fn owns(&self, attributes: &Plain) -> bool {
        self.owner == (attributes.uid, attributes.gid)
    }

    /// Whether a file made for `mode` has it.
    const fn has(&self, mode: u32) -> bool {
        mode & !PERMISSIONS == 0 && mode & self.mask == mode
    }
}

/// Modes that a file can be made with; others change with its owner.
const PERMISSIONS: u32 = 0o777;
/// The name of the file that is made and removed again before there is another.
const PROBE: &[u8] = b"probe";

/// A layer's directory while it is filled.
#[derive(Debug)]
pub(crate) struct Disk {
    growth: Growth,
    root: OwnedFd,
    fresh: Fresh,
    /// For errors.
    path: PathBuf,
    /// The directory of the last path: most entries follow one from the same directory.
    parent: Option<(Vec<u8>, OwnedFd)>,
    file: Option<OwnedFd>,
    /// Bytes of the file, and what of its blocks is counted.
    file_size: (u64, u64),
}

impl Disk {
    /// Fills the empty directory at `path`.
    pub(crate) fn new(path: &Path, growth: Growth) -> Result<Self, ImageError> {
        let root = open_directory(path).map_err(|e| store_error(path, "open the layer's directory", e))?;
        let fresh = Fresh::probe(&root).map_err(|e| store_error(path, "create a file", e))?;
        Ok(Self { growth, root, fresh, path: path.to_owned(), parent: None, file: None, file_size: (0, 0) })
    }

    /// What has been counted.
    pub(crate) fn into_growth(self) -> Growth {
        self.growth
    }

    fn fail(&self, doing: &'static str) -> impl FnOnce(Errno) -> ImageError {
        let path = self.path.clone();
        move |error| store_error(&path, doing, error)
    }

    /// The directory a path is in, and its name there.
    fn at<'p>(&mut self, path: &'p [u8]) -> Result<(&OwnedFd, &'p [u8]), ImageError> {
        let (parent, name) = split(path).ok_or(Errno::INVAL).map_err(self.fail("name an entry"))?;
        if self.parent.as_ref().is_none_or(|(open, _)| open != parent) {
            self.parent = None;
            let opened = open_beneath(&self.root, parent, OFlags::PATH | OFlags::DIRECTORY)
                .map_err(self.fail("open a directory of the layer"))?;
            self.parent = Some((parent.to_vec(), opened));
        }
        match &self.parent {
            Some((_, directory)) => Ok((directory, name)),
            None => Err(self.fail("open a directory of the layer")(Errno::INVAL)),
        }
    }

    /// Runs `make` with the directory and name of `path`.
    fn make(
        &mut self,
        path: &[u8],
        doing: &'static str,
        make: impl FnOnce(&OwnedFd, &[u8]) -> Result<(), Errno>,
    ) -> Result<(), ImageError> {
        self.growth.grow(ENTRY)?;
        let (directory, name) = self.at(path)?;
        let made = make(directory, name);
        made.map_err(self.fail(doing))
    }
}

fn ids(attributes: &Plain) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
}

fn times(attributes: &Plain) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: attributes.mtime.seconds, tv_nsec: attributes.mtime.nanoseconds.into() },
    }
}

/// In the kernel's order: a change of owner takes set-id bits and capabilities away, so those come after.
fn describe(file: &OwnedFd, attributes: &Plain, xattrs: &[Xattr]) -> Result<(), Errno> {
    let (uid, gid) = ids(attributes);
    fchown(file, uid, gid)?;
    fchmod(file, Mode::from_raw_mode(attributes.mode))?;
    complete(file, attributes, xattrs)
}

/// The same for a file that was made for these attributes: with many files, each call that changes nothing counts.
fn describe_made(file: &OwnedFd, fresh: Fresh, attributes: &Plain, xattrs: &[Xattr]) -> Result<(), Errno> {
    if !fresh.owns(attributes) {
        return describe(file, attributes, xattrs);
    }
    if !fresh.has(attributes.mode) {
        fchmod(file, Mode::from_raw_mode(attributes.mode))?;
    }
    complete(file, attributes, xattrs)
}

fn complete(file: &OwnedFd, attributes: &Plain, xattrs: &[Xattr]) -> Result<(), Errno> {
    for (name, value) in xattrs {
        fsetxattr(file, &**name, value, XattrFlags::empty())?;
    }
    futimens(file, &times(attributes))
}

/// The same for what is not opened: symbolic links, devices and pipes, which have no extended attributes.
fn describe_at(
    directory: &OwnedFd,
    name: &[u8],
    fresh: Option<Fresh>,
    attributes: &Plain,
    kind: LinkKind,
) -> Result<(), Errno> {
    if !fresh.is_some_and(|fresh| fresh.owns(attributes)) {
        let (uid, gid) = ids(attributes);
        chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if kind != LinkKind::Symlink {
        // Known to be no symbolic link, so there is nothing to follow.
        chmodat(directory, name, Mode::from_raw_mode(attributes.mode), AtFlags::empty())?;
    }
    utimensat(directory, name, &times(attributes), AtFlags::SYMLINK_NOFOLLOW)
}

impl Sink for Disk {
    fn directory(&mut self, path: &[u8]) -> Result<(), ImageError> {
        self.make(path, "make a directory", |directory, name| mkdirat(directory, name, Mode::RWXU))
    }

    fn directory_done(&mut self, path: &[u8], attributes: &Attributes, opaque: bool) -> Result<(), ImageError> {
        let done = open_beneath(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY).and_then(|directory| {
            if opaque {
                fsetxattr(&directory, OPAQUE, b"y", XattrFlags::empty())?;
            }
            describe(&directory, &attributes.plain, &attributes.xattrs)
        });
        done.map_err(self.fail("describe a directory"))
    }

    fn file(&mut self, path: &[u8], attributes: &Attributes) -> Result<(), ImageError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.growth.grow(ENTRY)?;
        self.file_size = (0, 0);
        let (directory, name) = self.at(path)?;
        let opened = openat(directory, name, flags, Mode::from_raw_mode(Fresh::ask(attributes.plain.mode)));
        self.file = Some(opened.map_err(self.fail("create a file"))?);
        Ok(())
    }

    fn write(&mut self, mut content: &[u8]) -> Result<(), ImageError> {
        let (size, counted) = &mut self.file_size;
        *size = size.saturating_add(content.len() as u64);
        let needed = blocks(*size);
        if needed > *counted {
            self.growth.grow(needed.saturating_sub(*counted))?;
            *counted = needed;
        }
        while !content.is_empty() {
            let file = self.file.as_ref().ok_or(Errno::BADF).map_err(self.fail("write a file"))?;
            match rustix::io::write(file.as_fd(), content) {
                Ok(0) => return Err(self.fail("write a file")(Errno::IO)),
                Ok(written) => content = content.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(e) => return Err(self.fail("write a file")(e)),
            }
        }
        Ok(())
    }

    fn file_done(&mut self, attributes: &Attributes) -> Result<(), ImageError> {
        let file = self.file.take().ok_or(Errno::BADF).map_err(self.fail("close a file"))?;
        let described = describe_made(&file, self.fresh, &attributes.plain, &attributes.xattrs);
        described.map_err(self.fail("describe a file"))
    }

    fn symlink(&mut self, path: &[u8], target: &[u8], attributes: &Attributes) -> Result<(), ImageError> {
        let fresh = Some(self.fresh);
        self.make(path, "make a symbolic link", |directory, name| {
            symlinkat(target, directory, name)?;
            describe_at(directory, name, fresh, &attributes.plain, LinkKind::Symlink)
        })
    }

    fn device(&mut self, path: &[u8], device: Device, attributes: &Attributes) -> Result<(), ImageError> {
        let (kind, number) = match device {
            Device::Character(major, minor) => (FileType::CharacterDevice, makedev(major, minor)),
            Device::Block(major, minor) => (FileType::BlockDevice, makedev(major, minor)),
            Device::Fifo => (FileType::Fifo, 0),
        };
        let fresh = Some(self.fresh);
        self.make(path, "make a device or pipe", |directory, name| {
            mknodat(directory, name, kind, Mode::empty(), number)?;
            describe_at(directory, name, fresh, &attributes.plain, LinkKind::Device)
        })
    }

    fn link(&mut self, path: &[u8], existing: &[u8], changed: Option<&Changed<'_>>) -> Result<(), ImageError> {
        let (from, old) = split(existing).ok_or(Errno::INVAL).map_err(self.fail("make a hard link"))?;
        let from =
            open_beneath(&self.root, from, OFlags::PATH | OFlags::DIRECTORY).map_err(self.fail("make a hard link"))?;
        // Without AT_SYMLINK_FOLLOW a link to a symbolic link is one to the link itself.
        self.make(path, "make a hard link", |directory, name| {
            linkat(&from, old, directory, name, AtFlags::empty())?;
            match changed {
                None => Ok(()),
                Some(Changed { plain, xattrs, kind: LinkKind::File }) => {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    describe(&openat(directory, name, flags, Mode::empty())?, plain, xattrs)
                }
                Some(Changed { plain, kind, .. }) => describe_at(directory, name, None, plain, *kind),
            }
        })
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), ImageError> {
        self.make(path, "make a whiteout", |directory, name| {
            mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))
        })
    }

    fn remove(&mut self, path: &[u8], directory: bool) -> Result<(), ImageError> {
        if !directory {
            let (parent, name) = self.at(path)?;
            let removed = unlinkat(parent, name, AtFlags::empty());
            return removed.map_err(self.fail("remove an entry"));
        }
        let (parent, name) = self.at(path)?;
        let removed = remove_below(parent, name).and_then(|()| unlinkat(parent, name, AtFlags::REMOVEDIR));
        let removed = removed.map_err(self.fail("remove a directory"));
        // The kept descriptor may be of a directory that is gone.
        self.parent = None;
        removed
    }
}

/// Removes what a directory holds. Depth is bounded by the bound on paths.
fn remove_below(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        match unlinkat(&directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                remove_below(&directory, name)?;
                unlinkat(&directory, name, AtFlags::REMOVEDIR)?;
            }
            other => other?,
        }
    }
    Ok(())
}

/// Gives the directory `to` the attributes of `from`, its extended ones included, but no mark of overlayfs.
pub(crate) fn copy_directory(from: &Path, to: &Path) -> Result<(), ImageError> {
    let copied = open_directory(from).and_then(|from| {
        let attributes = super::walk::directory_attributes(&from)?;
        describe(&open_directory(to)?, &attributes.plain, &attributes.xattrs)
    });
    copied.map_err(|e| store_error(to, "describe the root directory", e))
}
