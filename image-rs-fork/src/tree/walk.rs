//! Measures a layer as it is on disk: the same table, the same digest, whatever wrote it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use protocols::digest::Sha256Digest;
use rustix::fs::{
    AtFlags, Dir, FileType, OFlags, Stat, fgetxattr, fgetxattr_query, flistxattr, flistxattr_query, fstat, major,
    minor, readlinkat, statat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::disk::{open_beneath, open_directory, store_error};
use crate::error::ImageError;
use crate::layer::LayerError;
use crate::layer::attributes::{Attributes, Mtime, OPAQUE, Plain, Xattr};
use crate::layer::path::{MAX_DEPTH, join};
use crate::layer::table::{Directory, Kept, Table};
use crate::layer::xattrs::SELINUX;

/// Size of the buffer for file content, in bytes.
const BUFFER: usize = 128 * 1024;

struct Walk {
    root: OwnedFd,
    table: Table,
    /// Inodes with several names, by device and number.
    shared: BTreeMap<(u64, u64), usize>,
    buffer: Vec<u8>,
}

/// Reads the directory at `path`, all of it, content included, into an empty table. Blocking.
///
/// # Errors
/// `store.io`.
pub(crate) fn walk(path: &Path, table: Table) -> Result<Table, ImageError> {
    let fail = |e: Errno| store_error(path, "measure a stored layer", e);
    let root = open_directory(path).map_err(fail)?;
    let mut walk = Walk { root, table, shared: BTreeMap::new(), buffer: vec![0; BUFFER] };
    walk.run().map_err(fail)?;
    Ok(walk.table)
}

/// More than a table can hold, or its spill cannot.
fn full(_: LayerError) -> Errno {
    Errno::NOSPC
}

impl Walk {
    fn run(&mut self) -> Result<(), Errno> {
        let mut waiting = vec![Vec::new()];
        while let Some(path) = waiting.pop() {
            if path.iter().filter(|b| **b == b'/').count() > MAX_DEPTH {
                return Err(Errno::NAMETOOLONG);
            }
            let directory = open_beneath(&self.root, &path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            self.directory(&path, &directory)?;
            for entry in Dir::read_from(&directory)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let below = join(&path, name).map_err(|_| Errno::NAMETOOLONG)?;
                let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => waiting.push(below),
                    FileType::CharacterDevice if stat.st_rdev == 0 => {
                        self.table.insert_whiteout(&below).map_err(full)?
                    }
                    kind => self.inode(&directory, name, &below, kind, &stat)?,
                }
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &[u8], directory: &OwnedFd) -> Result<(), Errno> {
        let mut xattrs = xattrs(directory)?;
        let before = xattrs.len();
        xattrs.retain(|(name, value)| !(&**name == OPAQUE && &**value == b"y"));
        let opaque = xattrs.len() < before;
        let attributes = Some(attributes(&fstat(directory)?, xattrs)?);
        self.table.insert_directory(path, Directory { attributes, opaque, fresh: false }).map_err(full)
    }

    fn inode(
        &mut self,
        directory: &OwnedFd,
        name: &[u8],
        path: &[u8],
        kind: FileType,
        stat: &Stat,
    ) -> Result<(), Errno> {
        let key = (stat.st_dev, stat.st_ino);
        if let Some(inode) = self.shared.get(&key) {
            return self.table.insert_link(path, *inode).map_err(full);
        }
        let device = (major(stat.st_rdev), minor(stat.st_rdev));
        let mut found = Vec::new();
        let content = match kind {
            FileType::RegularFile => {
                let file = rustix::fs::openat(
                    directory,
                    name,
                    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME,
                    rustix::fs::Mode::empty(),
                )?;
                let (size, sha256) = self.content(&file)?;
                found = xattrs(&file)?;
                Kept::File { size, sha256 }
            }
            FileType::Symlink => Kept::Symlink(readlinkat(directory, name, Vec::new())?.into_bytes().into()),
            FileType::CharacterDevice => Kept::Character(device.0, device.1),
            FileType::BlockDevice => Kept::Block(device.0, device.1),
            FileType::Fifo => Kept::Fifo,
            // A socket is in no layer; somebody put it there.
            _ => return Err(Errno::INVAL),
        };
        let inode = self.table.insert_inode(path, attributes(stat, found)?, &content).map_err(full)?;
        if stat.st_nlink > 1 {
            self.shared.insert(key, inode);
        }
        Ok(())
    }

    fn content(&mut self, file: &OwnedFd) -> Result<(u64, Sha256Digest), Errno> {
        let (mut size, mut hasher) = (0u64, Sha256::new());
        loop {
            match rustix::io::read(file, self.buffer.as_mut_slice()) {
                Ok(0) => return Ok((size, Sha256Digest::new(hasher.finalize().into()))),
                Ok(got) => {
                    hasher.update(self.buffer.get(..got).unwrap_or_default());
                    size = size.saturating_add(got as u64);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// A directory's attributes without the marks of overlayfs.
pub(super) fn directory_attributes(directory: &OwnedFd) -> Result<Attributes, Errno> {
    let mut xattrs = xattrs(directory)?;
    xattrs.retain(|(name, _)| !name.starts_with(b"trusted.overlay."));
    attributes(&fstat(directory)?, xattrs)
}

fn attributes(stat: &Stat, xattrs: Vec<Xattr>) -> Result<Attributes, Errno> {
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).map_err(|_| Errno::OVERFLOW)?;
    let mtime = Mtime { seconds: stat.st_mtime, nanoseconds };
    let plain = Plain { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime };
    Ok(Attributes { plain, xattrs })
}

/// Every extended attribute but SELinux's label, sorted by name.
fn xattrs(file: &OwnedFd) -> Result<Vec<Xattr>, Errno> {
    // Most have none: asking first saves them the buffer.
    let mut names = match flistxattr_query(file) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => vec![0u8; other?],
    };
    let length = flistxattr(file, names.as_mut_slice())?;
    let mut found: Vec<Xattr> = Vec::new();
    for name in names.get(..length).unwrap_or_default().split(|b| *b == 0) {
        if name.is_empty() || name == SELINUX {
            continue;
        }
        let mut value = vec![0u8; fgetxattr_query(file, name)?];
        let length = fgetxattr(file, name, value.as_mut_slice())?;
        value.truncate(length);
        found.push((name.into(), value.into()));
    }
    found.sort();
    Ok(found)
}
