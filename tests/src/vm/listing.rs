//! A folder's tree as text, read errors included: one line for each name, to be compared across machines.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use protocols::digest::Sha256Digest;

/// Lists everything below `root`, `root` itself first, in the order of the paths' bytes. What cannot be read is
/// a line `PATH ! ERROR`.
#[must_use]
pub fn listing(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    visit(root, Path::new(""), &mut lines);
    lines
}

fn visit(root: &Path, path: &Path, lines: &mut Vec<String>) {
    let full = root.join(path);
    let name = format!("/{}", path.as_os_str().as_bytes().escape_ascii());
    let line = fs::symlink_metadata(&full).and_then(|meta| Ok((describe(&full, &meta)?, meta)));
    let meta = match line {
        Ok((line, meta)) => {
            lines.push(format!("{name} {line}"));
            meta
        }
        Err(error) => return lines.push(format!("{name} ! {error}")),
    };
    if !meta.is_dir() {
        return;
    }
    let names = fs::read_dir(&full)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>());
    match names {
        Ok(mut names) => {
            names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
            names.iter().for_each(|name| visit(root, &path.join(name), lines));
        }
        Err(error) => lines.push(format!("{name} ! {error}")),
    }
}

fn describe(full: &Path, meta: &Metadata) -> io::Result<String> {
    let kind = meta.file_type();
    let what = if kind.is_file() {
        // The length says that nothing was cut off; the digest, that nothing was changed.
        format!("file {} {}", meta.len(), Sha256Digest::of(&fs::read(full)?))
    } else if kind.is_symlink() {
        format!("link {}", fs::read_link(full)?.as_os_str().as_bytes().escape_ascii())
    } else if kind.is_char_device() {
        format!("char {}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
    } else if kind.is_block_device() {
        format!("block {}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
    } else if kind.is_fifo() {
        "pipe".to_owned()
    } else {
        "directory".to_owned()
    };
    let links = if kind.is_dir() { String::new() } else { format!(" x{}", meta.nlink()) };
    let owner = format!("{}:{}", meta.uid(), meta.gid());
    let time = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
    Ok(format!("{:04o} {owner} {time}{links} {what}{}", meta.mode() & 0o7777, attributes(full)?))
}

fn attributes(full: &Path) -> io::Result<String> {
    let mut names = vec![0; 64 * 1024];
    let length = rustix::fs::llistxattr(full, &mut names)?;
    let mut names: Vec<&[u8]> = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut text = String::new();
    for name in names {
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::lgetxattr(full, OsStr::from_bytes(name), &mut value)?;
        text.push_str(&format!(" {}={}", name.escape_ascii(), value[..length].escape_ascii()));
    }
    Ok(text)
}
