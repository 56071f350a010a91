//! What the quickstart and the tests need from Debian, and how it gets installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// A file that proves the package is there, and the package that brings it. `*` stands for one folder name.
const NEEDED: &[(&str, &str)] = &[
    ("docker-registry", "docker-registry"),
    ("runc", "runc"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("swtpm", "swtpm"),
    ("tpm2_pcrread", "tpm2-tools"),
    ("/usr/lib/*/libtss2-tcti-swtpm.so.0", "libtss2-tcti-swtpm0"),
    ("/usr/lib/*/libtss2-tcti-device.so.0", "libtss2-tcti-device0"),
    ("/usr/lib/*/pkgconfig/tss2-esys.pc", "libtss2-dev"),
    ("pkg-config", "pkg-config"),
    ("busybox", "busybox-static"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("skopeo", "skopeo"),
    ("gpg", "gpg"),
    ("gpg-agent", "gpg-agent"),
    ("gpgconf", "gpgconf"),
    ("setpriv", "util-linux"),
    ("mount", "mount"),
    ("kill", "procps"),
    ("fsck.erofs", "erofs-utils"),
    ("veritysetup", "cryptsetup-bin"),
    ("qemu-system-x86_64", QEMU),
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "ovmf"),
    ("dpkg-deb", "dpkg"),
    ("depmod", "kmod"),
    ("strip", "binutils"),
    // Guests boot this kernel; it brings kmod, whose depmod says which module needs which.
    ("/lib/modules/*/kernel/drivers/md/dm-verity.ko", "linux-image-amd64"),
    ("mke2fs", "e2fsprogs"),
    ("ldd", "libc-bin"),
    ("tar", "tar"),
    ("gzip", "gzip"),
    ("zstd", "zstd"),
    ("python3", "python3"),
    ("/usr/lib/postgresql/*/bin/initdb", "postgresql"),
    ("/usr/lib/python3/dist-packages/jwcrypto/jwe.py", "python3-jwcrypto"),
    // Packages, and what checks them.
    ("umoci", "umoci"),
    ("mmdebstrap", "mmdebstrap"),
    ("sfdisk", "fdisk"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
    ("systemd-analyze", "systemd"),
    ("nsenter", "util-linux"),
    ("/usr/lib/*/ensurepip/__init__.py", "python3-venv"),
];

/// The emulator of the guests.
const QEMU: &str = "qemu-system-x86";

/// Installs what is missing, saying so. What cannot be had is a failure, never a skip.
pub(crate) fn install() -> Result<()> {
    let missing = missing();
    if missing.is_empty() {
        println!("All there: {}.", names(NEEDED.iter().map(|(_, package)| *package)));
        return Ok(());
    }
    println!("Missing, to be installed from Debian: {}.", names(missing.iter().copied()));
    if !Path::new("/etc/debian_version").exists() {
        bail!("this is not Debian: install these programs yourself, then try again");
    }
    if user_id() != Some(0) {
        bail!("installing needs root: run this command as root, or install these packages yourself");
    }
    shell::run(apt(&["update", "-qq"]))?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    let installed = shell::run(apt(&arguments));
    if installed.is_err() && missing.contains(&QEMU) {
        // A qemu-utils from elsewhere, newer than Debian's, breaks the emulator's packages; nothing here needs it.
        println!("That did not work; once more without qemu-utils, whose other version can be in the way.");
        arguments.push("qemu-utils-");
        shell::run(apt(&arguments))?;
    } else {
        installed?;
    }
    let still = self::missing();
    if !still.is_empty() {
        bail!("still missing after the installation: {}", names(still.into_iter()));
    }
    Ok(())
}

/// The folder with the program that gives guests their vsock; built where it is missing, which takes half a minute.
pub(crate) fn vsock() -> Result<PathBuf> {
    let (name, version) = guest_image::machine::VSOCK;
    let tools = shell::target()?.join("tools");
    if !tools.join("bin").join(name).is_file() {
        println!("{name} {version} is missing, to be built from crates.io.");
        let root = tools.display().to_string();
        shell::run(shell::cargo(&["install", "--locked", "--quiet", "--version", version, "--root", &root, name]))?;
    }
    Ok(tools.join("bin"))
}

/// Launching containers, mounting and listening on root-only sockets need root.
pub(crate) fn require_root() -> Result<()> {
    if user_id() != Some(0) {
        bail!("real containers are started here: run this command as root");
    }
    Ok(())
}

fn missing() -> Vec<&'static str> {
    NEEDED.iter().filter(|(proof, _)| !present(proof)).map(|(_, package)| *package).collect()
}

fn present(proof: &str) -> bool {
    if let Some((before, after)) = proof.split_once("/*/") {
        let Ok(entries) = std::fs::read_dir(before) else { return false };
        return entries.flatten().any(|entry| entry.path().join(after).exists());
    }
    // Debian keeps some of these in /usr/sbin, which is not always on the path.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin".into(), "/usr/bin".into(), "/sbin".into(), "/bin".into()]);
    folders.iter().any(|folder| folder.join(proof).is_file())
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn user_id() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

fn names<'n>(packages: impl Iterator<Item = &'n str>) -> String {
    packages.collect::<Vec<_>>().join(" ")
}
