//! The "newc" form of cpio, which the kernel unpacks into its first root file system:
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Files for a guest, by absolute path; folders come by themselves.
#[derive(Debug, Default)]
pub(super) struct Initramfs {
    // Sorted, so that a folder stands before what is in it.
    entries: BTreeMap<String, (u32, Content)>,
}

#[derive(Debug)]
enum Content {
    Folder,
    Bytes(Vec<u8>),
    Copy(PathBuf),
}

impl Initramfs {
    /// Adds a file with these permissions.
    pub(super) fn file(&mut self, path: &str, permissions: u32, bytes: Vec<u8>) {
        self.add(path, 0o100_000 | permissions, Content::Bytes(bytes));
    }

    /// Adds an executable copy of a file of this machine, links followed.
    pub(super) fn copy(&mut self, path: &str, from: &Path) {
        self.add(path, 0o100_755, Content::Copy(from.to_path_buf()));
    }

    fn add(&mut self, path: &str, mode: u32, content: Content) {
        let path = path.strip_prefix('/').expect("paths in a guest are absolute");
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert((0o040_755, Content::Folder));
        }
        self.entries.insert(path.to_owned(), (mode, content));
    }

    /// Writes the archive.
    pub(super) fn write(&self, to: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(to)?);
        let mut inode = 0;
        for (path, (mode, content)) in &self.entries {
            inode += 1;
            match content {
                Content::Folder => entry(&mut out, inode, path, *mode, &[])?,
                Content::Bytes(bytes) => entry(&mut out, inode, path, *mode, bytes)?,
                Content::Copy(from) => {
                    let bytes = std::fs::read(from)
                        .map_err(|error| io::Error::other(format!("{}: {error}", from.display())))?;
                    entry(&mut out, inode, path, *mode, &bytes)?;
                }
            }
        }
        entry(&mut out, 0, "TRAILER!!!", 0, &[])?;
        out.flush()
    }
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
    out.write_all(&[0; 3][..length.next_multiple_of(4) - length])
}
