//! `cargo xtask package`, as a platform engineer gives it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// In the folder that `TCL_BINARIES` names, else beside the test's own.
fn binaries() -> PathBuf {
    let named = std::env::var_os("TCL_BINARIES").map(PathBuf::from);
    named.unwrap_or_else(|| std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf())
}

fn xtask(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(arguments).current_dir(folder).env("SOURCE_DATE_EPOCH", "1750000000").output().unwrap()
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(inside).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn one_command_makes_everything_and_twice_the_same() {
    let made = |name: &str| {
        let folder = tempfile::Builder::new().prefix(name).tempdir().unwrap();
        for given in ["configuration", "guest"] {
            fs::create_dir(folder.path().join(given)).unwrap();
        }
        fs::write(folder.path().join("configuration/guest-agent.toml"), "environment = \"production\"\n").unwrap();
        fs::write(folder.path().join("guest/vmlinuz"), "kernel").unwrap();
        let binaries = binaries();
        let given = ["package", "--out", "dist", "--binaries", binaries.to_str().unwrap()];
        let more = ["--configuration", "configuration", "--guest", "guest"];
        let done = xtask(folder.path(), &[&given[..], &more[..]].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        folder
    };
    let (one, two) = (made("one"), made("elsewhere"));
    let dist = one.path().join("dist");
    let first = files(&dist);
    let second = files(&two.path().join("dist"));
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    for (path, bytes) in &first {
        assert!(bytes == &second[path], "{} is another one", path.display());
    }
    for name in [
        "SHA256SUMS",
        "attestor/index.json",
        "node/index.json",
        "runtimeclass.yaml",
        "guest.toml",
        "extension.toml",
        "trusted-container-launcher-extension.img",
        "trusted-container-launcher-overlay.tar.zst",
        "trusted-container-launcher-beside.tar.zst",
    ] {
        assert!(first.contains_key(Path::new(name)), "{name}");
    }
    let checked = Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(dist).output();
    assert!(checked.unwrap().status.success());
}

#[test]
fn what_is_missing_or_not_known_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&["package", "--binaries", "none"][..], "--out"),
        (&["deb", "--out"], "--out needs"),
        (&["attestor-image", "--output", "x"], "--output"),
        (&["node-image", "--out", "x", "--binaries", "none"], "--guest"),
        (&["attestor-image", "--out", "x", "--binaries", "none"], "none/key-broker"),
    ] {
        let done = xtask(folder.path(), arguments);
        let error = String::from_utf8(done.stderr).unwrap();
        assert!(!done.status.success() && error.contains(said), "{arguments:?}: {error}");
    }
}
