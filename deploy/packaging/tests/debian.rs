//! The Debian packages, in a Debian of their own: installed, configured, installed again, removed, purged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use packaging::deb;
use support::{EPOCH, binaries, ok, programs, run, seen, workspace};

/// Where apt of this machine gets Debian from.
const SOURCES: &[&str] = &["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];

/// A root file system of what every Debian 12 has, and nobody else's.
fn debian() -> tempfile::TempDir {
    let kept = binaries().join("../tools/debian-12-procps.tar");
    if !kept.exists() {
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        let sources = SOURCES.iter().find(|path| Path::new(path).exists()).unwrap_or(&"");
        let made = tempfile::Builder::new().suffix(".tar").tempfile_in(kept.parent().unwrap()).unwrap();
        ok(Command::new("mmdebstrap")
            .args(["--quiet", "--mode=root", "--variant=essential", "--include=passwd,procps", "bookworm"])
            .arg(made.path())
            .arg(sources));
        fs::rename(made.path(), &kept).unwrap();
        // It is there no more, and nothing is left to remove.
        let _ = made.keep();
    }
    let root = tempfile::tempdir().unwrap();
    ok(Command::new("tar").arg("--directory").arg(root.path()).args(["--extract", "--file"]).arg(&kept));
    root
}

fn chroot(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("chroot");
    // Maintainer scripts must not believe that this machine's systemd is theirs.
    command.arg(root).args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Every path with what it is, but for what dpkg itself keeps.
fn listing(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let relative = path.strip_prefix(root).unwrap().to_path_buf();
            if ["var/lib/dpkg", "var/log", "dev", "etc/.pwd.lock"].iter().any(|kept| relative.starts_with(kept)) {
                continue;
            }
            let entry = fs::symlink_metadata(&path).unwrap();
            let mut what = format!("{:o} {}:{}", entry.mode(), entry.uid(), entry.gid());
            if entry.is_dir() {
                folders.push(path.clone());
            } else if relative.starts_with("etc") && entry.is_file() && !relative.to_string_lossy().ends_with('-') {
                what.push_str(&fs::read_to_string(&path).unwrap_or_default());
            }
            // Copies that the user database keeps of its last state.
            if !relative.to_string_lossy().ends_with('-') {
                found.insert(relative, what);
            }
        }
    }
    found
}

#[test]
fn packages_install_remove_and_purge_cleanly() {
    let built = tempfile::tempdir().unwrap();
    let again = tempfile::tempdir().unwrap();
    let packages: Vec<PathBuf> = deb::CRATES
        .iter()
        .map(|folder| deb::package(&workspace(), folder, &programs(), built.path(), EPOCH).unwrap())
        .collect();
    let twice = deb::package(&workspace(), "key-broker", &programs(), again.path(), EPOCH).unwrap();
    assert!(fs::read(&packages[1]).unwrap() == fs::read(twice).unwrap(), "two builds are the same");

    let debian = debian();
    let root = debian.path();
    for package in &packages {
        fs::copy(package, root.join(package.file_name().unwrap())).unwrap();
    }
    let before = listing(root);
    let files: Vec<String> = packages.iter().map(|path| format!("/{}", path.file_name().unwrap().display())).collect();
    let names = ["guest-agent", "key-broker", "tclctl"];
    let install = || {
        let arguments: Vec<&str> = ["dpkg", "--install"].into_iter().chain(files.iter().map(String::as_str)).collect();
        ok(&mut chroot(root, &arguments))
    };
    install();
    for name in names {
        let said = ok(&mut chroot(root, &[name, "--version"]));
        assert_eq!(said.trim(), format!("{name} {}", env!("CARGO_PKG_VERSION")));
        let depends = ok(&mut chroot(root, &["dpkg-query", "--show", "--showformat=${Depends}", name]));
        let symbols = run("objdump", ["-T".as_ref(), root.join("usr/bin").join(name).as_os_str()]);
        assert!(newest(&symbols) <= declared(&depends), "{name} needs more than {depends}");
    }
    // What root writes there, the attestor reads and nobody else.
    let configuration = root.join("etc/key-broker");
    let owners = fs::metadata(&configuration).unwrap();
    let group = ok(&mut chroot(root, &["getent", "group", "key-broker"]));
    assert_eq!(owners.permissions().mode() & 0o7777, 0o750);
    assert_eq!((owners.uid(), owners.gid().to_string()), (0, group.split(':').nth(2).unwrap().to_owned()));
    // Nothing starts by itself.
    let started: Vec<_> = listing(root).into_keys().filter(|path| path.to_string_lossy().contains(".wants/")).collect();
    let had: Vec<_> = before.keys().filter(|path| path.to_string_lossy().contains(".wants/")).cloned().collect();
    assert_eq!(started, had);
    units(root);

    // The example, filled in with keys that the package's own program makes.
    ok(&mut chroot(root, &["key-broker", "keygen", "--store-key", "/etc/key-broker/store.key"]));
    let key = ok(&mut chroot(root, &["key-broker", "keygen", "/etc/key-broker/signing.pem"]));
    let example = fs::read_to_string(root.join("usr/share/doc/key-broker/examples/key-broker.toml")).unwrap();
    let print = ["key-broker", "--config", "/etc/key-broker/key-broker.toml", "--print-key"];
    fs::write(configuration.join("key-broker.toml"), &example).unwrap();
    assert!(!seen(&mut chroot(root, &print)).ok, "an example that is not filled in starts nothing");
    let filled = example
        .replace("@SIGNER@", "release@example.com")
        .replace("@SIGNER_KEY@", key.trim())
        .replace("@REGISTER@", "software");
    fs::write(configuration.join("key-broker.toml"), filled).unwrap();
    assert_eq!(ok(&mut chroot(root, &print)), key);

    // Once more, over what somebody changed.
    fs::write(root.join("etc/default/key-broker"), "KEY_BROKER_LOG=debug\n").unwrap();
    fs::create_dir_all(root.join("var/lib/key-broker")).unwrap();
    fs::write(root.join("var/lib/key-broker/broker.redb"), "store").unwrap();
    install();
    assert_eq!(fs::read_to_string(root.join("etc/default/key-broker")).unwrap(), "KEY_BROKER_LOG=debug\n");

    ok(&mut chroot(root, &[&["dpkg", "--remove"][..], &names].concat()));
    let removed = listing(root);
    let left: BTreeSet<String> = removed
        .keys()
        .filter(|path| !before.contains_key(*path))
        .map(|path| path.display().to_string())
        .filter(|path| !path.starts_with("etc/systemd"))
        .collect();
    let kept = [
        "etc/default/key-broker",
        "etc/key-broker",
        "etc/key-broker/key-broker.toml",
        "etc/key-broker/signing.pem",
        "etc/key-broker/store.key",
        "etc/trusted-container-launcher",
        "etc/trusted-container-launcher/policy.rego",
        "var/lib/key-broker",
        "var/lib/key-broker/broker.redb",
    ];
    assert_eq!(left, kept.into_iter().map(str::to_owned).collect());

    ok(&mut chroot(root, &[&["dpkg", "--purge"][..], &names].concat()));
    let after = listing(root);
    let changed: Vec<_> = before.iter().filter(|(path, what)| after.get(*path) != Some(what)).collect();
    let new: Vec<_> = after.keys().filter(|path| !before.contains_key(*path)).collect();
    assert!(changed.is_empty() && new.is_empty(), "changed: {changed:?}, new: {new:?}");
    assert_eq!(ok(&mut chroot(root, &["dpkg", "--audit"])), "");
}

/// The minor version of the newest C library that a program has a symbol of.
fn newest(symbols: &str) -> u32 {
    let versions = symbols.split("GLIBC_2.").skip(1);
    versions.filter_map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()).max().unwrap()
}

/// The minor version of the C library that a package depends on.
fn declared(depends: &str) -> u32 {
    depends.split_once("libc6 (>= 2.").unwrap().1.split_once(')').unwrap().0.parse().unwrap()
}

/// systemd reads the units, and finds little that the attestor may do.
fn units(root: &Path) {
    let root = format!("--root={}", root.display());
    for unit in ["key-broker.service", "guest-agent.service"] {
        let unit = format!("/usr/lib/systemd/system/{unit}");
        let said = seen(Command::new("systemd-analyze").args(["verify", "--man=no", &root, &unit]));
        // Units of systemd's own, which this small system does not have, are no fault of theirs.
        let mut wrong = said.err.lines().filter(|line| line.contains(unit.rsplit('/').next().unwrap()));
        let wrong: Vec<&str> = wrong.by_ref().filter(|line| !line.ends_with(".target not found.")).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    let exposure = ["security", "--offline=true", "--threshold=15", &root, "key-broker.service"];
    run("systemd-analyze", exposure);
}
