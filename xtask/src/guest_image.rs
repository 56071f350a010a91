//! `guest-image`: builds guests' images, and renews the lock of their packages.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use guest_image::{Flavour, Lock, Options, Snp};

use crate::shell::{self, cargo, root, run};

const HELP: &str = "\
Usage: cargo xtask guest-image --out DIR [OPTION]…    builds an image (docs/guest-image.md)
       cargo xtask guest-image lock [FILE]            pins the versions that Debian serves now

  --out DIR             a new folder for the image
  --flavour KIND        initrd: all in the initrd; verity: a disk beneath dm-verity (the usual one)
  --debug               with a shell on the console; measured, and said so
  --binaries DIR        guest-agent, guest-init and tclctl of this folder; else they are built, for release
  --packages FILE       another lock than guest-image/packages.lock
  --configuration DIR   files for /etc/trusted-container-launcher: guest-agent.toml, policy.rego, …; may be repeated
  --command-line WORD   one more word on the kernel's command line; may be repeated
  --snp-firmware FILE   also predict SNP's launch measurement, for this firmware (OVMF's AmdSev), with
  --snp-vcpus N, --snp-vcpu-type TYPE, --snp-features HEX
";

pub(crate) fn guest_image(arguments: &[String]) -> Result<()> {
    match arguments.first().map(String::as_str) {
        Some("lock") => return lock(arguments.get(1).map(PathBuf::from)),
        None | Some("help" | "--help" | "-h") => {
            print!("{HELP}");
            return Ok(());
        }
        _ => {}
    }
    let options = parse(arguments)?;
    guest_image::build(&options)?;
    let image = std::fs::read_to_string(options.out.join(guest_image::names::IMAGE))?;
    print!("{image}");
    Ok(())
}

fn lock(to: Option<PathBuf>) -> Result<()> {
    let to = to.unwrap_or_else(pinned);
    std::fs::write(&to, Lock::renew()?.to_string()).with_context(|| to.display().to_string())?;
    println!("{} is written.", to.display());
    Ok(())
}

fn pinned() -> PathBuf {
    root().join("guest-image/packages.lock")
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut out = None;
    let mut flavour = Flavour::Verity;
    let (mut debug, mut binaries, mut packages) = (false, None, pinned());
    let (mut configuration, mut command_line) = (Vec::new(), Vec::new());
    let (mut firmware, mut vcpus, mut vcpu_type, mut features) = (None, "1".to_owned(), None, "0x1".to_owned());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--debug" {
            debug = true;
            continue;
        }
        let value = words.next().with_context(|| format!("{word} needs a value\n\n{HELP}"))?;
        match word.as_str() {
            "--out" => out = Some(PathBuf::from(value)),
            "--flavour" => {
                flavour = match value.as_str() {
                    "initrd" => Flavour::Initrd,
                    "verity" => Flavour::Verity,
                    _ => bail!("--flavour must be initrd or verity"),
                }
            }
            "--binaries" => binaries = Some(PathBuf::from(value)),
            "--packages" => packages = PathBuf::from(value),
            "--configuration" => configuration.push(PathBuf::from(value)),
            "--command-line" => command_line.push(value.clone()),
            "--snp-firmware" => firmware = Some(PathBuf::from(value)),
            "--snp-vcpus" => vcpus.clone_from(value),
            "--snp-vcpu-type" => vcpu_type = Some(value.clone()),
            "--snp-features" => features.clone_from(value),
            _ => bail!("unknown option {word}\n\n{HELP}"),
        }
    }
    let snp = match (firmware, vcpu_type) {
        (Some(firmware), Some(vcpu_type)) => Some(Snp { firmware, vcpus, vcpu_type, features }),
        (None, None) => None,
        _ => bail!("--snp-firmware and --snp-vcpu-type belong together"),
    };
    Ok(Options {
        out: out.with_context(|| format!("--out is needed\n\n{HELP}"))?,
        flavour,
        debug,
        binaries: binaries.map_or_else(release, Ok)?,
        packages: Lock::read(&packages)?,
        configuration,
        command_line,
        cache: shell::target()?.join("guest-image/packages"),
        workspace: root(),
        snp,
    })
}

/// What an image has of ours, built as it is shipped.
fn release() -> Result<PathBuf> {
    let programs = ["guest-agent", "guest-init", "tclctl"];
    let mut arguments = vec!["build", "--release", "--workspace"];
    programs.iter().for_each(|program| arguments.extend(["--bin", program]));
    run(cargo(&arguments))?;
    shell::release_binaries()
}

/// An image's folder, or why it is none.
pub(crate) fn image(folder: &Path) -> Result<PathBuf> {
    let named = folder.join(guest_image::names::IMAGE);
    anyhow::ensure!(named.is_file(), "{}: no image; `cargo xtask guest-image` builds one", folder.display());
    Ok(folder.canonicalize()?)
}
