//! A tree of files for a guest: sorted, without times and owners, so that the same files give the same bytes.
//!
//! Its archive is the "newc" form of cpio, which the kernel unpacks into its first root file system:
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Files for a guest, by absolute path; folders come by themselves.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    // Sorted, so that a folder stands before what is in it.
    entries: BTreeMap<String, (u32, Content)>,
}

#[derive(Debug, Clone)]
enum Content {
    Folder,
    Bytes(Vec<u8>),
    Copy(PathBuf),
    Link(String),
}

impl Tree {
    /// Adds a file with these permissions.
    ///
    /// # Panics
    /// When the path is not absolute, as none of these.
    pub fn file(&mut self, path: &str, permissions: u32, bytes: impl Into<Vec<u8>>) {
        self.add(path, 0o100_000 | permissions, Content::Bytes(bytes.into()));
    }

    /// Adds an executable copy of a file of this machine, links followed.
    ///
    /// # Panics
    /// As [`Tree::file`].
    pub fn copy(&mut self, path: &str, from: &Path) {
        self.add(path, 0o100_755, Content::Copy(from.to_path_buf()));
    }

    /// Adds a symbolic link.
    ///
    /// # Panics
    /// As [`Tree::file`].
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, 0o120_777, Content::Link(target.to_owned()));
    }

    /// Adds an empty folder.
    ///
    /// # Panics
    /// As [`Tree::file`].
    pub fn folder(&mut self, path: &str) {
        self.add(path, 0o040_755, Content::Folder);
    }

    /// Whether something is at `path`.
    #[must_use]
    pub fn holds(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_start_matches('/'))
    }

    /// Every path, without its first slash.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    #[allow(clippy::expect_used)] // paths are written down in this workspace
    fn add(&mut self, path: &str, mode: u32, content: Content) {
        let path = path.strip_prefix('/').expect("paths in a guest are absolute");
        for (end, _) in path.match_indices('/') {
            let folder = path.get(..end).unwrap_or_default();
            self.entries.entry(folder.to_owned()).or_insert((0o040_755, Content::Folder));
        }
        self.entries.insert(path.to_owned(), (mode, content));
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn write(&self, to: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(to)?);
        let mut inode = 0;
        for (path, (mode, content)) in &self.entries {
            inode += 1;
            match content {
                Content::Folder => entry(&mut out, inode, path, *mode, &[])?,
                Content::Bytes(bytes) => entry(&mut out, inode, path, *mode, bytes)?,
                Content::Copy(from) => entry(&mut out, inode, path, *mode, &read(from)?)?,
                Content::Link(target) => entry(&mut out, inode, path, *mode, target.as_bytes())?,
            }
        }
        entry(&mut out, 0, "TRAILER!!!", 0, &[])?;
        out.flush()
    }

    /// Writes the files into an empty folder, for a program that makes a file system of them.
    ///
    /// # Errors
    /// As [`Tree::write`].
    pub fn lay_out(&self, folder: &Path) -> io::Result<()> {
        for (path, (mode, content)) in &self.entries {
            let to = folder.join(path);
            match content {
                Content::Folder => fs::create_dir(&to)?,
                Content::Bytes(bytes) => fs::write(&to, bytes)?,
                Content::Copy(from) => fs::write(&to, read(from)?)?,
                Content::Link(target) => {
                    symlink(target, &to)?;
                    continue;
                }
            }
            fs::set_permissions(&to, Permissions::from_mode(mode & 0o7777))?;
        }
        Ok(())
    }
}

fn read(from: &Path) -> io::Result<Vec<u8>> {
    fs::read(from).map_err(|error| io::Error::other(format!("{}: {error}", from.display())))
}

fn entry(out: &mut impl Write, inode: u32, path: &str, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let size = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let name = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
    // Magic, inode, mode, owner, group, links, time, size, device, device of a node, length of the name, checksum.
    write!(out, "070701{inode:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}", 0, 0, 1, 0)?;
    write!(out, "{:08x}{:08x}{:08x}{:08x}{name:08x}{:08x}", 0, 0, 0, 0, 0)?;
    out.write_all(path.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, 110 + path.len() + 1)?;
    out.write_all(bytes)?;
    pad(out, bytes.len())
}

fn pad(out: &mut impl Write, length: usize) -> io::Result<()> {
    for _ in length..length.next_multiple_of(4) {
        out.write_all(&[0])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn folders_come_first_and_the_same_files_give_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, paths: &[&str]| {
            let mut tree = Tree::default();
            paths.iter().for_each(|path| tree.file(path, 0o644, path.as_bytes()));
            tree.link("/etc/link", "a");
            tree.write(&dir.path().join(name)).unwrap();
            fs::create_dir(dir.path().join("laid")).unwrap_or_default();
            (fs::read(dir.path().join(name)).unwrap(), tree)
        };
        let (one, tree) = write("one", &["/etc/a", "/usr/bin/b"]);
        assert_eq!(one, write("two", &["/usr/bin/b", "/etc/a"]).0);
        assert_eq!(one.len() % 4, 0);
        assert_eq!(tree.paths().collect::<Vec<_>>(), ["etc", "etc/a", "etc/link", "usr", "usr/bin", "usr/bin/b"]);
        tree.lay_out(&dir.path().join("laid")).unwrap();
        assert_eq!(fs::read(dir.path().join("laid/etc/link")).unwrap(), b"/etc/a");
    }
}
