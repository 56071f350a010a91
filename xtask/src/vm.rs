//! `vm run`: an image in QEMU, with a TPM and the agent's socket, until it is ended.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use guest_image::health;
use guest_image::machine::{Start, machine};
use guest_vm::{Disk, Machine};

use crate::{guest_image as images, prerequisites};

const HELP: &str = "\
Usage: cargo xtask vm run --image DIR [OPTION]…

Boots an image without KVM, waits until the agent serves, prints where, and stays until the machine or this command ends.
This machine's loopback is 10.0.2.2 in the guest.

  --image DIR       what `cargo xtask guest-image` built
  --state DIR       sockets, console and TPM; else a temporary folder. The same folder again is the same TPM
  --initdata FILE   the disk with the guest's initdata
  --image-disk FILE a disk for layers, with the serial of docs/image-disk.md; what is on it is lost
  --memory MIB      512
  --kernel          QEMU starts the kernel itself: faster, and nothing is measured. Else OVMF starts the UKI
";
/// The serial of the disk for layers.
const IMAGE_DISK: &str = "tcl-images";
/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The agent's port.
const PORT: u32 = 1024;

pub(crate) fn vm(arguments: &[String]) -> Result<()> {
    let Some(("run", arguments)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
        print!("{HELP}");
        return Ok(());
    };
    let temporary = tempfile::Builder::new().prefix("guest-").tempdir()?;
    let (machine, state) = parse(arguments, temporary.path())?;
    let begun = Instant::now();
    let mut running = machine.start(&state)?;
    println!("console  {}", running.folder().join("console").display());
    running.wait_for_port(PORT, PATIENCE)?;
    health::check(running.connect(PORT)?).context("the agent")?;
    println!("serving  after {:.1} s", begun.elapsed().as_secs_f64());
    println!("agent    {} (CONNECT {PORT})", running.vsock().display());
    let status = loop {
        if let Some(status) = running.ended_within(PATIENCE) {
            break status;
        }
    };
    println!("the machine ended ({status})");
    Ok(())
}

fn parse(arguments: &[String], temporary: &Path) -> Result<(Machine, PathBuf)> {
    let (mut image, mut state, mut memory_mib, mut start) = (None, temporary.to_owned(), 512, Start::Firmware);
    let mut disks = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--kernel" {
            start = Start::Kernel;
            continue;
        }
        let value = words.next().with_context(|| format!("{word} needs a value\n\n{HELP}"))?;
        let disk =
            |writable, serial| Ok::<_, std::io::Error>(Disk { file: std::path::absolute(value)?, serial, writable });
        match word.as_str() {
            "--image" => image = Some(PathBuf::from(value)),
            "--state" => state = std::path::absolute(value)?,
            "--initdata" => disks.push(disk(false, None)?),
            "--image-disk" => disks.push(disk(true, Some(IMAGE_DISK.to_owned()))?),
            "--memory" => memory_mib = value.parse().context("--memory")?,
            _ => bail!("unknown option {word}\n\n{HELP}"),
        }
    }
    let image = images::image(&image.with_context(|| format!("--image is needed\n\n{HELP}"))?)?;
    let mut machine = machine(&image, start, &state, &prerequisites::vsock()?)?;
    machine.memory_mib = memory_mib;
    machine.disks.extend(disks);
    Ok((machine, state))
}
