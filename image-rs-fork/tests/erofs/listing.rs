//! Everything there is to see of a tree, one line for each name.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use protocols::digest::Sha256Digest;

/// Lines such as `f0644 1:2 1700000000.0 /a 3:sha256…`, sorted by path. Hard links name the first of their group
/// and how many there are, counted and as the file system says.
pub(crate) fn full(root: &Path) -> Vec<String> {
    let mut groups: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
    walk(root, &mut |path, shown| {
        let meta = fs::symlink_metadata(path).unwrap();
        if !meta.is_dir() {
            groups.entry((meta.dev(), meta.ino())).or_default().push(shown.to_owned());
        }
    });
    let mut lines = Vec::new();
    walk(root, &mut |path, shown| {
        let meta = fs::symlink_metadata(path).unwrap();
        let mut line = short(path, shown);
        line += &format!(" {}.{:09}", meta.mtime(), meta.mtime_nsec());
        for (name, value) in xattrs(path) {
            line += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
        }
        if meta.is_dir() {
            line += &format!(" links {}", meta.nlink());
        } else {
            let group = &groups[&(meta.dev(), meta.ino())];
            line += &format!(" links {} of {} {}", group[0], group.len(), meta.nlink());
        }
        if meta.is_file() {
            line += &format!(" {}", Sha256Digest::of(&fs::read(path).unwrap()));
        }
        lines.push(line);
    });
    lines
}

/// Lines such as `f0644 1:2 /a abc`, `l /b -> a`, `w /gone` for a whiteout, `d0755 0:0 /c opaque`, sorted by path.
pub(crate) fn brief(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk(root, &mut |path, shown| {
        let mut line = short(path, shown);
        let meta = fs::symlink_metadata(path).unwrap();
        if meta.is_file() {
            line += &format!(" {}", fs::read(path).unwrap().escape_ascii());
        }
        for (name, value) in xattrs(path) {
            line += &match name.as_slice() {
                b"trusted.overlay.opaque" => " opaque".to_owned(),
                _ => format!(" {}={}", name.escape_ascii(), value.escape_ascii()),
            };
        }
        lines.push(line);
    });
    lines
}

fn short(path: &Path, shown: &str) -> String {
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let owner = format!("{}:{}", meta.uid(), meta.gid());
    let mode = meta.mode() & 0o7777;
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    if kind.is_symlink() {
        let target = fs::read_link(path).unwrap();
        format!("l {owner} {shown} -> {}", target.as_os_str().as_bytes().escape_ascii())
    } else if kind.is_char_device() && meta.rdev() == 0 {
        format!("w {shown}")
    } else if kind.is_char_device() || kind.is_block_device() {
        let letter = if kind.is_char_device() { 'c' } else { 'b' };
        format!("{letter}{mode:04o} {owner} {shown} {major}:{minor}")
    } else if kind.is_fifo() {
        format!("p{mode:04o} {owner} {shown}")
    } else if kind.is_dir() {
        format!("d{mode:04o} {owner} {shown}")
    } else {
        format!("f{mode:04o} {owner} {shown}")
    }
}

fn walk(root: &Path, each: &mut dyn FnMut(&Path, &str)) {
    fn inner(path: &Path, shown: &str, each: &mut dyn FnMut(&Path, &str)) {
        each(path, if shown.is_empty() { "/" } else { shown });
        if fs::symlink_metadata(path).unwrap().is_dir() {
            let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            for name in names {
                inner(&path.join(&name), &format!("{shown}/{}", name.as_bytes().escape_ascii()), each);
            }
        }
    }
    inner(root, "", each);
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; 65_536];
    let size = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    names[..size]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0u8; 65_536];
            let size = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(size);
            (name.to_vec(), value)
        })
        .collect()
}
