//! Files on their way into a package.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use tar::{Builder, EntryType, Header};

use crate::error::file;
use crate::{Epoch, PackagingError, Result};

/// Files by their path from the root, without a slash before it; folders come by themselves.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    // Sorted, so that a folder stands before what is in it, and nothing hangs on the order of a disk.
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    mode: u32,
    /// User and group.
    owner: u32,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Folder,
    File(Vec<u8>),
    Link(String),
}

impl Tree {
    /// Adds a file of root's.
    pub fn file(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        self.add(path, Entry { mode, owner: 0, content: Content::File(bytes.into()) });
    }

    /// Adds a folder with this owner.
    pub fn folder(&mut self, path: &str, mode: u32, owner: u32) {
        self.add(path, Entry { mode, owner, content: Content::Folder });
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, Entry { mode: 0o777, owner: 0, content: Content::Link(target.to_owned()) });
    }

    /// Adds a file of this machine, its links followed.
    ///
    /// # Errors
    /// [`PackagingError::File`].
    pub fn copy(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        self.file(path, mode, fs::read(from).map_err(file(from))?);
        Ok(())
    }

    /// Adds everything in a folder of this machine beneath `path`, as root's: folders 0755, files 0644 or 0755.
    ///
    /// # Errors
    /// [`PackagingError::File`]; a socket, device or pipe is one.
    pub fn copy_folder(&mut self, path: &str, from: &Path) -> Result<()> {
        let beneath = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        if !path.is_empty() {
            self.folder(path, 0o755, 0);
        }
        for entry in fs::read_dir(from).map_err(file(from))? {
            let from = entry.map_err(file(from))?.path();
            let name = from.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let found = fs::symlink_metadata(&from).map_err(file(&from))?;
            if found.is_dir() {
                self.copy_folder(&beneath(&name), &from)?;
            } else if found.is_symlink() {
                let target = fs::read_link(&from).map_err(file(&from))?;
                self.link(&beneath(&name), &target.to_string_lossy());
            } else if found.is_file() {
                let mode = if found.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                self.copy(&beneath(&name), mode, &from)?;
            } else {
                let error = std::io::Error::other("neither a file nor a folder nor a link");
                return Err(PackagingError::File { path: from, error });
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, entry: Entry) {
        for (end, _) in path.match_indices('/') {
            let folder = path.get(..end).unwrap_or_default().to_owned();
            self.entries.entry(folder).or_insert(Entry { mode: 0o755, owner: 0, content: Content::Folder });
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Bytes of all files.
    pub(crate) fn size(&self) -> usize {
        self.entries
            .values()
            .map(|entry| match &entry.content {
                Content::File(bytes) => bytes.len(),
                Content::Folder | Content::Link(_) => 0,
            })
            .sum()
    }

    /// The tree as a tar archive (GNU).
    ///
    /// # Errors
    /// [`PackagingError::Archive`]: a path that tar cannot hold.
    pub fn tar(&self, epoch: Epoch) -> Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_mode(entry.mode);
            header.set_uid(entry.owner.into());
            header.set_gid(entry.owner.into());
            header.set_mtime(epoch.0);
            header.set_size(0);
            match &entry.content {
                Content::Folder => {
                    header.set_entry_type(EntryType::Directory);
                    archive.append_data(&mut header, format!("{path}/"), std::io::empty())
                }
                Content::File(bytes) => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, path, bytes.as_slice())
                }
                Content::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    archive.append_link(&mut header, path, target)
                }
            }
            .map_err(PackagingError::Archive)?;
        }
        archive.into_inner().map_err(PackagingError::Archive)
    }

    /// Writes the tree into a folder, for tools that take one; owners and times are theirs to set.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(file(folder))?;
        for (path, entry) in &self.entries {
            let path = folder.join(path);
            match &entry.content {
                Content::Folder => fs::create_dir_all(&path),
                Content::File(bytes) => fs::write(&path, bytes),
                Content::Link(target) => symlink(target, &path),
            }
            .map_err(file(&path))?;
            if !matches!(entry.content, Content::Link(_)) {
                fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode)).map_err(file(&path))?;
            }
        }
        Ok(())
    }
}
