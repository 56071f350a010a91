//! The guest's first program: loads the kernel's modules, enters the verity root where the command line names one, and
//! becomes the agent. It reads the initrd, the kernel's command line and disks; the latter count only as far as the
//! root hash on the command line vouches for them.

mod error;
mod modules;
mod parameters;
mod root;

use std::convert::Infallible;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::mount::{MountFlags, mount};
use rustix::system::RebootCommand;

use error::{InitError, io};
use parameters::Root;

/// What this program becomes.
const AGENT: &str = "/usr/bin/guest-agent";
/// The word with which an image that has a shell starts it on the console.
const DEBUG: &str = "tcl.debug";
const SHELL: &str = "/usr/bin/busybox";
const PATH: &str = "/usr/sbin:/usr/bin";

fn main() -> ExitCode {
    if !rustix::process::getpid().is_init() {
        eprintln!("guest-init: starts a guest, as its first process, and nothing else");
        return ExitCode::from(64);
    }
    let Err(error) = start();
    eprintln!("guest-init: {}: {error}", error.code());
    // A serial console drops what it has not sent yet.
    let _ = rustix::termios::tcdrain(std::io::stderr());
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

fn start() -> Result<Infallible, InitError> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for (kind, place, flags, options) in [
        ("proc", "/proc", quiet, c""),
        ("sysfs", "/sys", quiet, c""),
        ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
    ] {
        mount(kind, place, kind, flags, options).map_err(io(format!("mount {kind}")))?;
    }
    let line = std::fs::read_to_string("/proc/cmdline").map_err(io("/proc/cmdline"))?;
    modules::load()?;
    if let Some(root) = Root::parse(&line)? {
        root.enter()?;
        modules::load()?;
    }
    if line.split_ascii_whitespace().any(|word| word == DEBUG) && Path::new(SHELL).exists() {
        let shell = Command::new(SHELL).args(["setsid", "-c", "sh"]).env_clear().env("PATH", PATH).spawn();
        drop(shell.map_err(io(SHELL))?);
    }
    // Words of the command line are the environment here: none of them reaches the agent.
    Err(io(AGENT)(Command::new(AGENT).env_clear().env("PATH", PATH).exec()))
}
