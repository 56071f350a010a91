//! An image of several layers, pulled and mounted, equals its layers unpacked one over the other by `tar -xp`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

#[allow(dead_code, unreachable_pub)] // a test of another crate uses the rest
#[path = "../../image-rs-fork/tests/erofs/listing.rs"]
mod listing;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration_tests::command::{run, tclctl, tool};
use integration_tests::golden::{MANIFEST_TYPE, put_manifest, upload};
use integration_tests::registry::Registry;
use protocols::digest::Sha256Digest;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, setxattr, utimensat};
use serde_json::json;

/// A layer's tree, and the names its archive holds, in their order.
struct Layer {
    tree: PathBuf,
    members: Vec<String>,
}

impl Layer {
    fn new(folder: &Path, name: &str) -> Self {
        let tree = folder.join(name);
        fs::create_dir(&tree).unwrap();
        Self { tree, members: Vec::new() }
    }

    /// A file with its mode, as a member; folders above it are made, not archived.
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> PathBuf {
        let at = self.tree.join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(&at, content).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
        self.member(path, &at)
    }

    fn directory(&mut self, path: &str, mode: u32, owner: u32) -> PathBuf {
        let at = self.tree.join(path);
        fs::create_dir_all(&at).unwrap();
        chown(&at, Some(owner), Some(owner + 1)).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
        self.member(path, &at)
    }

    fn member(&mut self, path: &str, at: &Path) -> PathBuf {
        self.members.push(path.to_owned());
        at.to_owned()
    }

    /// The layer as an archive, without anything but its members.
    fn archive(&self) -> Vec<u8> {
        // Times that are told apart, set last: making things changes the time of their directory.
        for (number, path) in (0i64..).zip(&self.members) {
            set_time(&self.tree.join(path), (1_600_000_000 + number, 1000 * number + 7));
        }
        let options = ["--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--no-recursion"];
        let mut tar = Command::new("tar");
        tar.args(options).args(["--pax-option=delete=atime,delete=ctime", "-cf", "-", "-C"]);
        let done = tar.arg(&self.tree).args(&self.members).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        done.stdout
    }
}

fn set_time(path: &Path, (tv_sec, tv_nsec): (i64, i64)) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn lowest(folder: &Path) -> Vec<u8> {
    let mut layer = Layer::new(folder, "lowest");
    for (path, mode, owner) in [
        ("bin", 0o755, 0),
        ("data", 0o2775, 100),
        ("data/old", 0o755, 100),
        ("private", 0o700, 3_000_000),
        ("removed", 0o755, 0),
        ("tmp", 0o1777, 0),
    ] {
        layer.directory(path, mode, owner);
    }
    let program = layer.file("bin/program", 0o4755, &[7; 20_000]);
    fs::hard_link(&program, layer.tree.join("bin/second")).unwrap();
    layer.members.push("bin/second".to_owned());
    symlink("../bin/program", layer.tree.join("private/link")).unwrap();
    layer.members.push("private/link".to_owned());
    layer.file("private/key", 0o600, b"secret");
    layer.file("data/old/below", 0o644, b"hidden by an opaque directory");
    layer.file("removed/file", 0o644, b"gone with its directory");
    layer.file("replaced", 0o644, b"before");
    layer.file("unlinked", 0o644, b"gone");
    layer.file("exactly-one-block", 0o644, &[1; 4096]);
    layer.file(&format!("tmp/{}", "n".repeat(250)), 0o644, b"a long name");
    let marked = layer.file("marked", 0o644, b"attributes");
    setxattr(&marked, "user.mark", b"value\0with a zero", XattrFlags::empty()).unwrap();
    let sparse = layer.file("sparse", 0o644, b"start");
    File::options().write(true).open(&sparse).unwrap().write_all_at(b"end", 300_000).unwrap();
    for (name, kind, device) in [
        ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("disk", FileType::BlockDevice, rustix::fs::makedev(259, 1_048_575)),
        ("pipe", FileType::Fifo, 0),
    ] {
        mknodat(CWD, layer.tree.join(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
        layer.members.push(name.to_owned());
    }
    layer.archive()
}

fn middle(folder: &Path) -> Vec<u8> {
    let mut layer = Layer::new(folder, "middle");
    // No entry for `private`: it stays 0700 and its owner's.
    layer.file("private/added", 0o640, b"into a directory that is only implied");
    layer.file("replaced", 0o755, b"after");
    layer.file(".wh.unlinked", 0o644, b"");
    layer.file(".wh.removed", 0o644, b"");
    layer.directory("new", 0o750, 42);
    layer.file("new/file", 0o644, &[9; 5000]);
    layer.archive()
}

fn uppermost(folder: &Path) -> Vec<u8> {
    let mut layer = Layer::new(folder, "uppermost");
    layer.directory("data", 0o755, 7);
    layer.file("data/.wh..wh..opq", 0o644, b"");
    layer.file("data/new", 0o644, b"alone in its directory");
    layer.file("removed", 0o644, b"a file where a directory was removed");
    layer.archive()
}

/// Unpacks an archive over what is there, as the OCI image specification says whiteouts are meant.
fn apply(archive: &[u8], root: &Path, scratch: &Path) {
    let file = scratch.join("layer.tar");
    fs::write(&file, archive).unwrap();
    let listed = tool("tar", &["-tf", file.to_str().unwrap()]).ok().stdout;
    let mut before = BTreeMap::new();
    directories(root, &mut before);
    for member in listed.lines() {
        let (parent, name) = member.rsplit_once('/').unwrap_or(("", member));
        if name == ".wh..wh..opq" {
            for entry in fs::read_dir(root.join(parent)).unwrap() {
                remove(&entry.unwrap().path());
            }
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            remove(&root.join(parent).join(hidden));
        }
    }
    let options = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "--delay-directory-restore"];
    let _ = tool(
        "tar",
        &[&options[..], &["--exclude=.wh.*", "-xpf", file.to_str().unwrap(), "-C", root.to_str().unwrap()]].concat(),
    )
    .ok();
    // A directory without an entry of its own keeps its time, whatever came and went in it.
    for (path, time) in before {
        let own = path.strip_prefix(root).unwrap().to_str().unwrap();
        if path.is_dir() && !listed.lines().any(|member| member.trim_end_matches('/') == own) {
            set_time(&path, time);
        }
    }
}

fn directories(at: &Path, found: &mut BTreeMap<PathBuf, (i64, i64)>) {
    let data = fs::symlink_metadata(at).unwrap();
    if data.is_dir() {
        found.insert(at.to_owned(), (data.mtime(), data.mtime_nsec()));
        for entry in fs::read_dir(at).unwrap() {
            directories(&entry.unwrap().path(), found);
        }
    }
}

fn remove(path: &Path) {
    if fs::symlink_metadata(path).unwrap().is_dir() {
        fs::remove_dir_all(path).unwrap();
    } else {
        fs::remove_file(path).unwrap();
    }
}

/// Everything but the link counts of directories, which overlayfs makes up, and the root itself, which no layer has.
fn listed(root: &Path) -> Vec<String> {
    let cut = |line: String| match line.starts_with('d') {
        true => line.split(" links ").next().unwrap().to_owned(),
        false => line,
    };
    listing::full(root).into_iter().map(cut).skip(1).collect()
}

#[test]
fn a_mounted_image_equals_its_layers_unpacked_by_tar() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path(), false);
    let archives = [lowest(folder.path()), middle(folder.path()), uppermost(folder.path())];

    let blobs: Vec<_> = archives
        .iter()
        .map(|archive| {
            let mut blob = upload(&registry.address, "app", archive);
            blob["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
            blob
        })
        .collect();
    let diff_ids: Vec<_> = archives.iter().map(|archive| Sha256Digest::of(archive)).collect();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({"architecture": architecture, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let mut config = upload(&registry.address, "app", config.to_string().as_bytes());
    config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": blobs});
    put_manifest(&registry.address, "app", "1", MANIFEST_TYPE, manifest.to_string().as_bytes());

    let expected = folder.path().join("expected");
    fs::create_dir(&expected).unwrap();
    for archive in &archives {
        apply(archive, &expected, folder.path());
    }
    let expected = listed(&expected);
    assert!(expected.iter().any(|line| line.starts_with("d0700 3000000:3000001 /private ")), "{expected:#?}");

    let reference = format!("{}/app:1", registry.address);
    let (store, target) = (folder.path().join("store"), folder.path().join("target"));
    fs::create_dir(&target).unwrap();
    let (store, at) = (store.display().to_string(), target.display().to_string());
    for layout in ["erofs", "tree"] {
        let _ = run(tclctl(&["pull", &reference, "--store", &store, "--layout", layout, "--plain-http"])).ok();
        let _ = run(tclctl(&["mount", &reference, "--store", &store, &at])).ok();
        let mounted = std::panic::catch_unwind(|| listed(&target));
        let ended = run(tclctl(&["umount", &at]));
        if ended.status != 0 {
            let _ = Command::new("umount").arg("-l").arg(&target).stderr(Stdio::null()).status();
        }
        let _ = ended.ok();
        let mounted = mounted.unwrap();
        for (have, want) in mounted.iter().zip(&expected) {
            assert_eq!(have, want, "{layout}");
        }
        assert_eq!(mounted.len(), expected.len(), "{layout}");
    }
}
