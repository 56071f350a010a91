//! A mounted image equals the tree that GNU tar unpacks from the same archive.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::layer::{Layer, run};
use crate::listing;

/// Archives `members` of `tree`, writes the layer, and compares the mounted image with what `tar -xp` unpacks.
fn assert_equals_tar(tree: &Path, members: &[&str]) -> Layer {
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("layer.tar");
    run(Command::new("tar")
        .args(["--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(tree)
        .args(members));
    let unpacked = unpack(&archive, work.path());
    let layer = Layer::new(&fs::read(&archive).unwrap()).unwrap();
    layer.check();
    let mounted = layer.mount();
    let (have, want) = (listing::full(mounted.path()), listing::full(&unpacked));
    assert_lists_equal(&have, &want);
    layer
}

/// What `tar -xp` makes of an archive, in a folder below `work`.
pub(crate) fn unpack(archive: &Path, work: &Path) -> PathBuf {
    let unpacked = work.join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    run(Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "--same-owner",
            "--delay-directory-restore",
            "-xpf",
        ])
        .arg(archive)
        .arg("-C")
        .arg(&unpacked));
    unpacked
}

/// Line by line, so that a difference shows one line and not two trees.
pub(crate) fn assert_lists_equal(have: &[String], want: &[String]) {
    for (have, want) in have.iter().zip(want) {
        assert_eq!(have, want);
    }
    assert_eq!(have.len(), want.len());
}

/// One thing to make in a random tree.
#[derive(Debug, Clone)]
struct Thing {
    parent: usize,
    kind: u8,
    name: String,
    size: usize,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    xattrs: Vec<(String, Vec<u8>)>,
}

fn thing() -> impl Strategy<Value = Thing> {
    let name = prop_oneof![
        8 => "[a-z.!+-]{1,12}",
        1 => "[a-z]{200,255}",
        1 => "[\u{e0}-\u{ff}]{1,20}",
    ];
    // Around the ends of blocks, where inode and tail fit or do not.
    let size = prop_oneof![
        3 => 0usize..200,
        3 => 3900usize..4200,
        2 => (1usize..5).prop_flat_map(|blocks| (blocks * 4096 - 80..blocks * 4096 + 80).boxed()),
        1 => 0usize..200_000,
    ];
    let xattr = ("(user|security)\\.[a-z]{1,20}", proptest::collection::vec(any::<u8>(), 0..200));
    let owner = prop_oneof![3 => Just((0, 0)), 1 => (0u32..5_000_000, 0u32..5_000_000)];
    (
        any::<usize>(),
        0u8..12,
        name,
        size,
        0u32..0o10_000,
        owner,
        (0i64..9_000_000_000, 0i64..1_000_000_000),
        prop_oneof![4 => Just(Vec::new()), 1 => proptest::collection::vec(xattr, 0..4)],
    )
        .prop_map(|(parent, kind, name, size, mode, owner, mtime, xattrs)| Thing {
            parent,
            kind,
            name,
            size,
            mode,
            owner,
            mtime,
            xattrs,
        })
}

fn make(root: &Path, things: &[Thing]) {
    let mut dirs = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Thing)> = Vec::new();
    for thing in things {
        let path = dirs[thing.parent % dirs.len()].join(&thing.name);
        if thing.name.chars().all(|c| c == '.') || fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match thing.kind {
            0..=2 => {
                fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            3 => symlink("x".repeat(thing.size % 4000 + 1), &path).unwrap(),
            4 => {
                let kind = [FileType::CharacterDevice, FileType::BlockDevice, FileType::Fifo][thing.size % 3];
                let device = rustix::fs::makedev(thing.owner.0 % 4096, thing.mode * 200 + 1);
                let device = if kind == FileType::Fifo { 0 } else { device };
                rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), device).unwrap();
            }
            5 if !files.is_empty() => {
                fs::hard_link(&files[thing.parent % files.len()], &path).unwrap();
                continue;
            }
            6 => {
                // A sparse file, which GNU tar stores whole without --sparse.
                let file = File::create(&path).unwrap();
                file.set_len(thing.size as u64 * 3).unwrap();
                file.write_all_at(b"end", thing.size as u64).unwrap();
                files.push(path.clone());
            }
            _ => {
                let data: Vec<u8> = (0..thing.size).map(|n| (n / 7 + thing.size).to_le_bytes()[0]).collect();
                fs::write(&path, data).unwrap();
                files.push(path.clone());
            }
        }
        made.push((path, thing));
    }
    // Innermost first, since making things changes the time of the directory they are in.
    for (path, thing) in made.iter().rev() {
        let meta = fs::symlink_metadata(path).unwrap();
        std::os::unix::fs::lchown(path, Some(thing.owner.0), Some(thing.owner.1)).unwrap();
        if !meta.is_symlink() {
            fs::set_permissions(path, fs::Permissions::from_mode(thing.mode)).unwrap();
        }
        for (name, value) in &thing.xattrs {
            if (meta.is_file() || meta.is_dir()) && !name.starts_with("security") {
                rustix::fs::lsetxattr(path, name.as_str(), value, XattrFlags::empty()).unwrap();
            }
        }
        let time = Timespec { tv_sec: thing.mtime.0, tv_nsec: thing.mtime.1 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    chown(root, Some(5), Some(6)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 50, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_equals_what_tar_unpacks(things in proptest::collection::vec(thing(), 0..80)) {
        let tree = tempfile::tempdir().unwrap();
        make(tree.path(), &things);
        assert_equals_tar(tree.path(), &["."]);
    }
}

#[test]
fn a_directory_of_many_names_equals_what_tar_unpacks() {
    let tree = tempfile::tempdir().unwrap();
    for n in 0..5000 {
        fs::write(tree.path().join(format!("{}-{n}", "n".repeat(n % 200))), n.to_string()).unwrap();
    }
    assert_equals_tar(tree.path(), &["."]);
}

#[test]
fn a_real_tree_equals_what_tar_unpacks() {
    let members =
        ["--no-recursion", ".", "usr", "usr/share", "--recursion", "etc", "usr/share/doc", "usr/share/zoneinfo"];
    let layer = assert_equals_tar(Path::new("/"), &members);
    assert!(layer.finished.entries > 1000, "{} entries", layer.finished.entries);
}

#[test]
fn attributes_too_large_for_one_block_equal_what_tar_unpacks() {
    // The file system that the tree is on must take large attributes, so it is made in memory.
    let tree = tempfile::tempdir().unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(tree.path()));
    let inner = tree.path().join("inner");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("file"), vec![7; 5000]).unwrap();
    fs::create_dir(inner.join("dir")).unwrap();
    fs::write(inner.join("dir/below"), b"x").unwrap();
    for name in ["file", "dir"] {
        for n in 0..3 {
            let value = vec![n; 7000 + usize::from(n)];
            rustix::fs::lsetxattr(inner.join(name), format!("user.a{n}"), &value, XattrFlags::empty()).unwrap();
        }
    }
    let archive = tree.path().join("layer.tar");
    run(Command::new("tar")
        .args(["--format=posix", "--xattrs", "--xattrs-include=*", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(&inner)
        .arg("."));
    let layer = Layer::new(&fs::read(&archive).unwrap()).unwrap();
    let mounted = layer.mount();
    let (have, want) = (listing::full(mounted.path()), listing::full(&inner));
    run(Command::new("umount").arg("-l").arg(tree.path()));
    assert_eq!(have, want);
}
