//! `vm run`: an image in QEMU, with a TPM and the agent's socket, until it is ended.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use guest_image::health;
use guest_image::machine::{Boot, Machine};

use crate::{guest_image as images, prerequisites};

const HELP: &str = "\
Usage: cargo xtask vm run --image DIR [OPTION]…

Boots an image without KVM, waits until the agent serves, prints where, and stays until the machine or this command ends.
This machine's loopback is 10.0.2.2 in the guest.

  --image DIR       what `cargo xtask guest-image` built
  --state DIR       sockets, console and TPM; else a temporary folder. The same folder again is the same TPM
  --initdata FILE   the disk with the guest's initdata
  --disk FILE       one more disk, read-only; may be repeated
  --memory MIB      512
  --kernel          QEMU starts the kernel itself: faster, and nothing is measured. Else OVMF starts the UKI
";
/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn vm(arguments: &[String]) -> Result<()> {
    let Some(("run", arguments)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
        print!("{HELP}");
        return Ok(());
    };
    let temporary = tempfile::Builder::new().prefix("guest-").tempdir()?;
    let mut machine = parse(arguments, temporary.path())?;
    std::fs::create_dir_all(&machine.state)?;
    machine.vsock = Some(prerequisites::vsock()?);
    let (swtpm, control) = machine.swtpm()?;
    let mut services = vec![Running::start(swtpm)?];
    machine.tpm = Some(control.clone());
    if let Some(vsock) = machine.vsock_device() {
        services.push(Running::start(vsock)?);
    }
    for socket in [control, machine.vsock_control()] {
        wait(Duration::from_secs(10), || socket.exists()).with_context(|| socket.display().to_string())?;
    }
    let begun = Instant::now();
    let mut qemu = Running::start(machine.qemu()?)?;
    println!("console  {}", machine.console().display());
    loop {
        if health::check(&machine.hybrid_vsock()).is_ok() {
            break;
        }
        if let Some(status) = qemu.0.try_wait()? {
            bail!("the machine ended ({status}):\n{}", tail(&machine.console()));
        }
        if begun.elapsed() > PATIENCE {
            bail!("the agent does not serve:\n{}", tail(&machine.console()));
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    println!("serving  after {:.1} s", begun.elapsed().as_secs_f64());
    println!("agent    {} (CONNECT 1024)", machine.hybrid_vsock().display());
    let status = qemu.0.wait()?;
    println!("the machine ended ({status})");
    Ok(())
}

fn parse(arguments: &[String], temporary: &Path) -> Result<Machine> {
    let (mut image, mut state, mut memory_mib, mut boot) = (None, temporary.to_owned(), 512, Boot::Firmware);
    let mut disks = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--kernel" {
            boot = Boot::Kernel;
            continue;
        }
        let value = words.next().with_context(|| format!("{word} needs a value\n\n{HELP}"))?;
        match word.as_str() {
            "--image" => image = Some(PathBuf::from(value)),
            "--state" => state = std::path::absolute(value)?,
            "--initdata" | "--disk" => disks.push(std::path::absolute(value)?),
            "--memory" => memory_mib = value.parse().context("--memory")?,
            _ => bail!("unknown option {word}\n\n{HELP}"),
        }
    }
    let image = images::image(&image.with_context(|| format!("--image is needed\n\n{HELP}"))?)?;
    Ok(Machine { image, state, boot, memory_mib, disks, tpm: None, vsock: None })
}

fn wait(patience: Duration, ready: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !ready() {
        if begun.elapsed() > patience {
            bail!("is not there in time");
        }
        std::thread::sleep(LOOK_PAUSE);
    }
    Ok(())
}

fn tail(console: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

/// A process that ends with this value.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Result<Self> {
        let name = command.get_program().display().to_string();
        Ok(Self(command.spawn().with_context(|| name)?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
