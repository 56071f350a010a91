//! What is in a guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::build::Options;
use crate::error::{ImageError, io};
use crate::kernel::Kernel;
use crate::packages::Unpacked;
use crate::programs::{output, sha256};
use crate::tree::Tree;
use crate::{libraries, pause};

/// What finds and maps a verity root, which is read as fast as it is hashed.
const ROOT_MODULES: [&str; 7] =
    ["virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "sha256_ssse3", "dm-verity", "erofs"];
/// What the agent and its containers want beside: shim, network, layers, encrypted storage.
const MODULES: [&str; 12] = [
    "vmw_vsock_virtio_transport",
    "virtio_net",
    "overlay",
    "loop",
    "configfs",
    "aesni_intel",
    "ecb",
    "xts",
    "authenc",
    "dm-crypt",
    "dm-integrity",
    "virtiofs",
];
/// Where guest-init finds modules.
const MODULES_PLACE: &str = "/usr/lib/guest/modules";
/// The agent's measured configuration.
const CONFIGURATION: &str = "/etc/trusted-container-launcher";
/// Says in the root, and so in what is measured, that the guest has a shell.
const DEBUG_MARK: &str = "/etc/guest-debug";

/// Programs of packages that a guest has: the package, where it has it, and where the guest has it.
const PROGRAMS: [(&str, &[&str], &str); 2] = [
    ("runc", &["usr/sbin/runc", "usr/bin/runc"], "/usr/bin/runc"),
    ("e2fsprogs", &["sbin/mke2fs", "usr/sbin/mke2fs"], "/usr/sbin/mke2fs"),
];

/// Programs of ours, stripped.
pub(crate) struct Ours {
    pub(crate) agent: PathBuf,
    pub(crate) init: PathBuf,
}

/// The root file system, modules of the first stage apart.
pub(crate) fn root(options: &Options, unpacked: &Unpacked, kernel: &Kernel, ours: &Ours) -> Result<Tree, ImageError> {
    let mut tree = Tree::default();
    for folder in ["/proc", "/sys", "/dev", "/run", "/tmp", "/var", "/root", "/usr/lib64"] {
        tree.folder(folder);
    }
    for (link, target) in [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        tree.link(&format!("/{link}"), target);
    }
    tree.copy("/usr/bin/guest-agent", &ours.agent);
    let mut programs = vec![ours.agent.clone()];
    for (package, candidates, place) in PROGRAMS {
        let folder = unpacked.package(package);
        let mut found = candidates.iter().map(|candidate| folder.join(candidate)).filter(|path| path.is_file());
        let program = found.next().ok_or_else(|| ImageError::input(package, "has not its program where it was"))?;
        tree.copy(place, &program);
        programs.push(program);
    }
    tree.link("/usr/sbin/mkfs.ext4", "mke2fs");
    let mke2fs = unpacked.package("e2fsprogs").join("etc/mke2fs.conf");
    tree.file("/etc/mke2fs.conf", 0o644, fs::read(&mke2fs).map_err(io(&mke2fs))?);
    let packages: Vec<PathBuf> = unpacked.folders().collect();
    libraries::add(&mut tree, &programs, &packages)?;
    tree.file("/etc/ssl/certs/ca-certificates.crt", 0o644, certificates(&unpacked.package("ca-certificates"))?);
    tree.file("/etc/hostname", 0o644, "guest\n");
    tree.file("/etc/resolv.conf", 0o644, "");
    tree.file("/etc/os-release", 0o644, os_release());
    let loaded = kernel.modules(&ROOT_MODULES)?;
    let more: Vec<PathBuf> = kernel.modules(&MODULES)?.into_iter().filter(|module| !loaded.contains(module)).collect();
    modules(&mut tree, 1, &more)?;
    pause::add(&mut tree, pause::PLACE);
    configuration(&mut tree, options)?;
    if options.debug {
        let busybox = unpacked.package("busybox-static").join("bin/busybox");
        tree.copy("/usr/bin/busybox", &busybox);
        tree.link("/usr/bin/sh", "busybox");
        tree.file(DEBUG_MARK, 0o644, "This guest image has a shell.\n");
    }
    Ok(tree)
}

/// What is in the initrd whichever flavour it is.
pub(crate) fn initrd(tree: &mut Tree, unpacked: &Unpacked, ours: &Ours) -> Result<(), ImageError> {
    tree.copy("/init", &ours.init);
    ["/proc", "/sys", "/dev"].iter().for_each(|folder| tree.folder(folder));
    if !tree.holds("/lib64") {
        tree.link("/lib64", "usr/lib64");
        tree.link("/lib", "usr/lib");
    }
    let packages: Vec<PathBuf> = unpacked.folders().collect();
    libraries::add(tree, std::slice::from_ref(&ours.init), &packages)
}

/// The modules of the first stage.
pub(crate) fn root_modules(tree: &mut Tree, kernel: &Kernel) -> Result<(), ImageError> {
    modules(tree, 0, &kernel.modules(&ROOT_MODULES)?)
}

/// Adds modules, named so that they are loaded in their order. Without a root of its own both stages lie in one folder.
fn modules(tree: &mut Tree, stage: u8, modules: &[PathBuf]) -> Result<(), ImageError> {
    for (place, module) in modules.iter().enumerate() {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        tree.file(&format!("{MODULES_PLACE}/{stage}{place:02}-{name}"), 0o644, fs::read(module).map_err(io(module))?);
    }
    Ok(())
}

/// All of Mozilla's certificates, as Debian's own tool concatenates them.
fn certificates(package: &Path) -> Result<Vec<u8>, ImageError> {
    let folder = package.join("usr/share/ca-certificates/mozilla");
    let entries = fs::read_dir(&folder).map_err(io(&folder))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        all.extend(fs::read(&path).map_err(io(&path))?);
        if !all.ends_with(b"\n") {
            all.push(b'\n');
        }
    }
    Ok(all)
}

pub(crate) fn os_release() -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("ID=trusted-container-launcher\nNAME=\"Trusted Container Launcher\"\nVERSION_ID={version}\n")
}

/// The measured configuration: ours, and what the folders of the options put in its place or beside it.
fn configuration(tree: &mut Tree, options: &Options) -> Result<(), ImageError> {
    let mut files = Tree::default();
    let own = [
        ("guest-agent.toml", include_str!("../configuration/guest-agent.toml")),
        ("policy.rego", include_str!("../configuration/policy.rego")),
    ];
    own.into_iter().for_each(|(name, text)| files.file(&format!("/{name}"), 0o644, text));
    let scratch = tempfile::tempdir().map_err(io(Path::new("a temporary folder")))?;
    for folder in &options.configuration {
        let entries = fs::read_dir(folder).map_err(io(folder))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().and_then(|name| name.to_str()).filter(|_| path.is_file());
            let name = name.ok_or_else(|| ImageError::input(path.display().to_string(), "is no file"))?;
            files.file(&format!("/{name}"), 0o644, fs::read(&path).map_err(io(&path))?);
        }
    }
    files.lay_out(scratch.path()).map_err(io(scratch.path()))?;
    let at = |name: &str| scratch.path().join(name);
    let names: Vec<String> = files.paths().map(str::to_owned).collect();
    for name in names {
        let path = at(&name);
        let mut bytes = fs::read(&path).map_err(io(&path))?;
        if name == "guest-agent.toml" {
            let text = String::from_utf8(bytes).map_err(|_| ImageError::input(name.as_str(), "is no text"))?;
            let policy = format!("sha256:{}", sha256(&at("policy.rego"))?);
            let pause = pause_digest(&options.binaries.join("tclctl"))?;
            bytes = text.replace("@POLICY_DIGEST@", &policy).replace("@PAUSE_DIGEST@", &pause).into_bytes();
        }
        tree.file(&format!("{CONFIGURATION}/{name}"), 0o644, bytes);
    }
    Ok(())
}

/// What the agent will measure of the pause bundle, as `tclctl` says it.
fn pause_digest(tclctl: &Path) -> Result<String, ImageError> {
    let scratch = tempfile::tempdir().map_err(io(Path::new("a temporary folder")))?;
    let mut tree = Tree::default();
    pause::add(&mut tree, "/pause");
    tree.lay_out(scratch.path()).map_err(io(scratch.path()))?;
    let bundle = scratch.path().join("pause");
    // A guest's files have neither times nor other owners than root.
    let folders = pause::FOLDERS.iter().map(|folder| bundle.join("rootfs").join(folder));
    let others = ["rootfs/pause", "rootfs", "config.json", ""].iter().map(|place| bundle.join(place));
    for path in folders.chain(others) {
        fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)).map_err(io(&path))?;
    }
    let owner = fs::metadata(&bundle).map(|meta| std::os::unix::fs::MetadataExt::uid(&meta)).map_err(io(&bundle))?;
    if owner != 0 {
        return Err(ImageError::input("the pause bundle", "is measured as root's: build as root"));
    }
    Ok(output(tclctl, &["pause-digest".as_ref(), bundle.as_os_str()])?.trim().to_owned())
}
