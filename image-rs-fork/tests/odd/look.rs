//! A mounted tree as its user sees it, one line for each name.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use protocols::digest::Sha256Digest;

/// Lines such as `f0644 1:2 /a "content" @1.5 user.x=y`, `d0755 0:0 /d`, `l 0:0 /l -> /a`, `c0644 0:0 /n 1:3`,
/// `f0644 0:0 /b = /a` for a hard link, sorted by path. Times of 1970 are left out, and a root without oddities.
pub(crate) fn look(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first = BTreeMap::new();
    walk(root, "", &mut lines, &mut first);
    if lines.first().is_some_and(|line| line == "d0755 0:0 /") {
        lines.remove(0);
    }
    lines
}

fn walk(path: &Path, shown: &str, lines: &mut Vec<String>, first: &mut BTreeMap<(u64, u64), String>) {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        // A name that is listed and cannot be opened.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            lines.push(format!("! {shown}"));
            return;
        }
        Err(error) => panic!("{}: {error}", path.display()),
    };
    let kind = meta.file_type();
    let name = if shown.is_empty() { "/" } else { shown };
    let letter = [
        (kind.is_dir(), 'd'),
        (kind.is_file(), 'f'),
        (kind.is_symlink(), 'l'),
        (kind.is_char_device(), 'c'),
        (kind.is_block_device(), 'b'),
        (kind.is_fifo(), 'p'),
    ];
    let letter = letter.iter().find(|(is, _)| *is).unwrap().1;
    let mut line = letter.to_string();
    if letter != 'l' {
        line += &format!("{:04o}", meta.mode() & 0o7777);
    }
    line += &format!(" {}:{} {name}", meta.uid(), meta.gid());
    let before = first.get(&(meta.dev(), meta.ino())).cloned().filter(|_| !kind.is_dir());
    if let Some(before) = before {
        lines.push(format!("{line} = {before}"));
        return;
    }
    first.insert((meta.dev(), meta.ino()), name.to_owned());
    if letter == 'l' {
        line += &format!(" -> {}", cut(fs::read_link(path).unwrap().as_os_str().as_bytes()));
    }
    if matches!(letter, 'c' | 'b') {
        line += &format!(" {}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    }
    if letter == 'f' {
        let content = fs::read(path).unwrap();
        line += &match content.len() {
            0..=100 => format!(" \"{}\"", content.escape_ascii()),
            length => format!(" {length} {}", &Sha256Digest::of(&content).hex()[..8]),
        };
    }
    if (meta.mtime(), meta.mtime_nsec()) != (0, 0) {
        line += &format!(" @{}.{}", meta.mtime(), format!("{:09}", meta.mtime_nsec()).trim_end_matches('0'));
        line = line.trim_end_matches('.').to_owned();
    }
    for (name, value) in attributes(path) {
        line += &format!(" {}={}", name.escape_ascii(), cut(&value));
    }
    lines.push(line);
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            walk(&path.join(&name), &format!("{shown}/{}", cut(name.as_bytes())), lines, first);
        }
    }
}

/// Escaped; long ones by their length.
fn cut(bytes: &[u8]) -> String {
    if bytes.len() > 100 {
        format!("{}*{}", bytes[..1].escape_ascii(), bytes.len())
    } else {
        bytes.escape_ascii().to_string()
    }
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; 65_536];
    let size = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..size].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0u8; 65_536];
            let size = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(size);
            (name.to_vec(), value)
        })
        .collect()
}
