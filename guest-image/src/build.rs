//! One build: from packages and programs to the files of an image.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::contents::{self, Ours};
use crate::error::{ImageError, io};
use crate::kernel::Kernel;
use crate::packages::{Lock, Unpacked};
use crate::programs::{output, sha256};
use crate::root::{self, Verity};
use crate::tree::Tree;
use crate::{libraries, manifest, uki};

/// Names of an image's files.
pub mod names {
    /// The kernel.
    pub const KERNEL: &str = "vmlinuz";
    /// The initrd, zstd.
    pub const INITRD: &str = "initrd.img";
    /// The root file system with its hash tree, in the verity flavour.
    pub const ROOT: &str = "root.img";
    /// The command line, without an end of line.
    pub const COMMAND_LINE: &str = "cmdline";
    /// Kernel, initrd and command line in one program for firmware.
    pub const UKI: &str = "guest.efi";
    /// What firmware and the platform will measure; `tclctl reference sign` takes it.
    pub const REFERENCES: &str = "reference-values.json";
    /// What the image is made of, CycloneDX.
    pub const COMPONENTS: &str = "components.cdx.json";
    /// What the image is: flavour, command line, digests of the files above.
    pub const IMAGE: &str = "image.json";
}

/// Where the root file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// In the initrd.
    Initrd,
    /// On a disk, beneath dm-verity, its root hash on the command line.
    Verity,
}

/// What SNP's launch measurement is computed for, beside kernel, initrd and command line.
#[derive(Debug, Clone)]
pub struct Snp {
    /// Firmware with room for the hashes of what it starts (OVMF's AmdSev).
    pub firmware: PathBuf,
    /// Virtual processors.
    pub vcpus: String,
    /// Their type, as QEMU names it.
    pub vcpu_type: String,
    /// SEV features, hex as 0x1.
    pub features: String,
}

/// What is built.
#[derive(Debug, Clone)]
pub struct Options {
    /// A folder for the image; made, and must be empty.
    pub out: PathBuf,
    /// Where the root file system is.
    pub flavour: Flavour,
    /// With a shell, which the image says in its root and on its command line.
    pub debug: bool,
    /// The folder with `guest-agent`, `guest-init` and `tclctl`.
    pub binaries: PathBuf,
    /// Debian's packages.
    pub packages: Lock,
    /// Folders whose files lie in `/etc/trusted-container-launcher`, the last of two files with one name.
    pub configuration: Vec<PathBuf>,
    /// More words for the command line.
    pub command_line: Vec<String>,
    /// Where packages are kept.
    pub cache: PathBuf,
    /// The workspace, whose `Cargo.lock` says what our programs are built of.
    pub workspace: PathBuf,
    /// Also SNP's launch measurement.
    pub snp: Option<Snp>,
}

/// Builds an image.
///
/// # Errors
/// See [`ImageError`]; files may be left in the folder.
pub fn build(options: &Options) -> Result<(), ImageError> {
    let out = &options.out;
    fs::create_dir_all(out).map_err(io(out))?;
    if fs::read_dir(out).map_err(io(out))?.next().is_some() {
        return Err(ImageError::input(out.display().to_string(), "is not empty"));
    }
    let at = |name: &str| out.join(name);
    let unpacked = Unpacked::all(&options.packages, &options.cache)?;
    let kernel = kernel(&unpacked)?;

    let scratch = tempfile::tempdir().map_err(io(Path::new("a temporary folder")))?;
    let ours = Ours { agent: scratch.path().join("guest-agent"), init: scratch.path().join("guest-init") };
    libraries::stripped(&options.binaries.join("guest-agent"), &ours.agent)?;
    libraries::stripped(&options.binaries.join("guest-init"), &ours.init)?;

    let root = contents::root(options, &unpacked, &kernel, &ours)?;
    let (mut initrd, verity) = match options.flavour {
        Flavour::Initrd => (root, None),
        Flavour::Verity => (Tree::default(), Some(root::write(&root, &at(names::ROOT))?)),
    };
    contents::initrd(&mut initrd, &unpacked, &ours)?;
    contents::root_modules(&mut initrd, &kernel)?;

    let line = command_line(options, verity.as_ref())?;
    write_bootable(options, &unpacked, &kernel, &initrd, &line)?;
    let components = manifest::components(&options.workspace, &options.packages, kernel.version())?;
    write_json(&at(names::COMPONENTS), &components)?;
    write_json(&at(names::REFERENCES), &predicted(options, &line)?)?;
    describe(options, &kernel, &line, verity.as_ref())
}

/// Builds an image's kernel with a first program that says so and does nothing more: what a boot costs at least. Of the
/// options, folders and packages count. It has no root, and nothing tells what will be measured.
///
/// # Errors
/// As [`build`].
pub fn bare(options: &Options, says: &str) -> Result<(), ImageError> {
    let out = &options.out;
    fs::create_dir_all(out).map_err(io(out))?;
    let unpacked = Unpacked::all(&options.packages, &options.cache)?;
    let mut initrd = Tree::default();
    initrd.copy("/busybox", &unpacked.package("busybox-static").join("bin/busybox"));
    initrd.file("/init", 0o755, format!("#!/busybox sh\necho {says}\nexec /busybox sleep 3600\n"));
    write_bootable(options, &unpacked, &kernel(&unpacked)?, &initrd, &command_line(options, None)?)
}

/// Kernel, initrd and command line, and the UKI of them.
fn write_bootable(
    options: &Options,
    unpacked: &Unpacked,
    kernel: &Kernel,
    initrd: &Tree,
    line: &str,
) -> Result<(), ImageError> {
    let at = |name: &str| options.out.join(name);
    fs::copy(kernel.image(), at(names::KERNEL)).map_err(io(&at(names::KERNEL)))?;
    write_initrd(initrd, &at(names::INITRD))?;
    fs::write(at(names::COMMAND_LINE), line).map_err(io(&at(names::COMMAND_LINE)))?;
    write_uki(options, unpacked, line)
}

fn write_initrd(tree: &Tree, to: &Path) -> Result<(), ImageError> {
    let scratch = tempfile::tempdir().map_err(io(Path::new("a temporary folder")))?;
    let archive = scratch.path().join("initrd");
    tree.write(&archive).map_err(io(&archive))?;
    // Firmware hashes every byte of it three times before a kernel runs.
    let zstd = ["-q", "-19", "--no-progress", "-o"];
    output("zstd", &[&zstd.map(AsRef::as_ref)[..], &[to.as_os_str(), archive.as_os_str()]].concat()).map(drop)
}

fn kernel(unpacked: &Unpacked) -> Result<Kernel, ImageError> {
    let package = unpacked.kernel()?;
    let modules = package.join("lib/modules");
    let version = fs::read_dir(&modules).map_err(io(&modules))?.flatten().next();
    let version = version.ok_or_else(|| ImageError::input("the kernel's package", "has no modules"))?.file_name();
    // Debian makes this file when the package is installed.
    output("depmod", &["-b".as_ref(), package.as_os_str(), version.as_os_str()])?;
    Kernel::newest(&package.join("boot"), &modules)
        .ok_or_else(|| ImageError::input("the kernel's package", "has no kernel"))
}

/// Nothing listens on the console, and the host reads it: only errors are told there.
fn command_line(options: &Options, verity: Option<&Verity>) -> Result<String, ImageError> {
    let mut words = vec!["console=ttyS0".to_owned(), "panic=-1".to_owned()];
    let more = if options.debug { ["tcl.debug", "agent.log=debug"] } else { ["quiet", "agent.log=error"] };
    words.extend(more.map(str::to_owned));
    words.extend(verity.map(Verity::parameter));
    words.extend(options.command_line.iter().cloned());
    let line = words.join(" ");
    // What is measured of a UKI's command line is known for these characters alone.
    if line.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && line.len() < 2048 && line.trim() == line {
        return Ok(line);
    }
    Err(ImageError::input("the command line", "must be printable ASCII of less than 2048 bytes"))
}

fn write_uki(options: &Options, unpacked: &Unpacked, line: &str) -> Result<(), ImageError> {
    let read = |path: PathBuf| fs::read(&path).map_err(io(&path));
    let stub = read(unpacked.package("systemd-boot-efi").join("usr/lib/systemd/boot/efi/linuxx64.efi.stub"))?;
    let (kernel, initrd) = (read(options.out.join(names::KERNEL))?, read(options.out.join(names::INITRD))?);
    let release = contents::os_release();
    let image = uki::write(
        &stub,
        &[(".osrel", release.as_bytes()), (".cmdline", line.as_bytes()), (".initrd", &initrd), (".linux", &kernel)],
    )?;
    let path = options.out.join(names::UKI);
    fs::write(&path, image).map_err(io(&path))
}

/// What will be measured, by name, as `tclctl` computes it.
fn predicted(options: &Options, line: &str) -> Result<Value, ImageError> {
    let tclctl = options.binaries.join("tclctl");
    let at = |name: &str| options.out.join(name).into_os_string();
    let computed = |arguments: &[std::ffi::OsString]| -> Result<BTreeMap<String, Value>, ImageError> {
        let text = output(&tclctl, arguments)?;
        serde_json::from_str(&text).map_err(|error| ImageError::input("tclctl reference compute", error.to_string()))
    };
    let words = |words: &[&str]| words.iter().map(Into::into).collect::<Vec<std::ffi::OsString>>();
    let mut values = computed(&[words(&["reference", "compute", "tpm", "--uki"]), vec![at(names::UKI)]].concat())?;
    if let Some(snp) = &options.snp {
        let mut arguments =
            words(&["reference", "compute", "snp", "--vcpus", &snp.vcpus, "--vcpu-type", &snp.vcpu_type]);
        arguments.extend(words(&["--guest-features", &snp.features, "--cmdline", line, "--ovmf"]));
        arguments.push(snp.firmware.clone().into_os_string());
        arguments.extend(["--kernel".into(), at(names::KERNEL), "--initrd".into(), at(names::INITRD)]);
        values.extend(computed(&arguments)?);
    }
    Ok(json!(values))
}

fn describe(options: &Options, kernel: &Kernel, line: &str, verity: Option<&Verity>) -> Result<(), ImageError> {
    let mut files = BTreeMap::new();
    for name in [names::KERNEL, names::INITRD, names::ROOT, names::UKI, names::REFERENCES, names::COMPONENTS] {
        let path = options.out.join(name);
        if path.exists() {
            let size = fs::metadata(&path).map_err(io(&path))?.len();
            files.insert(name, json!({ "sha256": sha256(&path)?, "bytes": size }));
        }
    }
    let mut image = json!({
        "flavour": match options.flavour { Flavour::Initrd => "initrd", Flavour::Verity => "verity" },
        "debug": options.debug,
        "kernel": kernel.version(),
        "command_line": line,
        "files": files,
    });
    if let (Some(verity), Some(fields)) = (verity, image.as_object_mut()) {
        fields.insert("root".to_owned(), json!({ "hash": verity.hash, "blocks": verity.blocks }));
    }
    write_json(&options.out.join(names::IMAGE), &image)
}

fn write_json(path: &Path, value: &Value) -> Result<(), ImageError> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| ImageError::input(path.display().to_string(), error.to_string()))?;
    text.push(b'\n');
    fs::write(path, text).map_err(io(path))
}
