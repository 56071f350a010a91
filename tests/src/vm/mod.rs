//! Guests: a Debian kernel under QEMU, with an initramfs that holds exactly what a test needs.
//!
//! Everything is emulated (`-accel tcg`), so it runs wherever QEMU does. A test builds a [`Guest`], gives it files,
//! programs and kernel modules, and runs a shell script as its whole user space; what the script prints and its
//! exit status come back. The kernel is the newest of `/boot`, or the one the environment variable
//! `TCL_TEST_KERNEL` names; its modules are taken from `/lib/modules`.

mod asking;
mod host_disk;
mod listing;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command::tool;
use crate::process::{Service, program};
pub use asking::Signal;
use guest_image::{Kernel, Tree};
pub use host_disk::HostDisk;
pub use listing::listing;

/// How much processor time a guest may take from power-on to power-off.
pub const PROCESSOR_TIME: Duration = Duration::from_secs(90);
/// How long it may take by the clock: a busy machine is slow, and that is not the guest's fault.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The line that ends a script's output.
const END: &str = "guest script ended with status ";

/// A machine to be started.
#[derive(Debug)]
pub struct Guest {
    kernel: Kernel,
    files: Tree,
    modules: Vec<String>,
    memory_mib: u32,
    arguments: Vec<OsString>,
    command_line: String,
    first: Option<String>,
    processor_time: Duration,
}

/// What a machine boots.
#[derive(Debug, Clone)]
pub struct Boot {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its first root file system.
    pub initrd: PathBuf,
    /// Its command line.
    pub command_line: String,
}

/// What a guest left behind.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Exit status of its script; `None` when the guest ended before its script did.
    pub status: Option<i32>,
    /// What the script and its programs printed, both outputs together.
    pub output: String,
    /// What the kernel said.
    pub console: String,
}

impl Ended {
    /// What the script printed, which must have succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    #[must_use]
    pub fn ok(&self) -> &str {
        assert_eq!(
            self.status,
            Some(0),
            "the guest's script should succeed\n{}\n--- the kernel's last words:\n{}",
            self.output,
            self.console.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        );
        &self.output
    }

    /// What the script printed between the lines `== NAME` and the next one that begins with `== `.
    ///
    /// # Panics
    /// When there is no such line.
    #[track_caller]
    #[must_use]
    pub fn section(&self, name: &str) -> Vec<&str> {
        let mut lines = self.output.lines().skip_while(|line| line.strip_prefix("== ") != Some(name));
        assert!(lines.next().is_some(), "no section {name} in\n{}", self.output);
        lines.take_while(|line| !line.starts_with("== ")).collect()
    }
}

/// A machine that runs; killed when dropped.
#[derive(Debug)]
pub struct Running {
    service: Service,
    folder: tempfile::TempDir,
    processor_time: Duration,
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

impl Guest {
    /// A machine of 1 GiB with busybox and nothing else.
    ///
    /// # Panics
    /// Without a kernel or busybox.
    #[must_use]
    pub fn new() -> Self {
        let mut files = Tree::default();
        files.copy("/bin/busybox", &program("busybox"));
        Self {
            kernel: kernel(),
            files,
            modules: Vec::new(),
            memory_mib: 1024,
            arguments: Vec::new(),
            command_line: String::new(),
            first: None,
            processor_time: PROCESSOR_TIME,
        }
    }

    /// Makes `program` the guest's first process, with the kernel's console as its terminal. The script runs beside it,
    /// in the root that the first process has made its own, from when that has mounted `/run`; a script that fails
    /// ends the machine.
    #[must_use]
    pub fn first_process(mut self, program: &str) -> Self {
        self.first = Some(program.to_owned());
        self
    }

    /// Loads these kernel modules, and what they depend on, before the script runs.
    #[must_use]
    pub fn modules(mut self, names: &[&str]) -> Self {
        self.modules.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Puts a file there.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.file(path, 0o644, content);
        self
    }

    /// Puts a copy of a file of this machine there.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn copy(mut self, path: &str, from: &Path) -> Self {
        self.files.copy(path, from);
        self
    }

    /// Puts a program of this machine into `/usr/bin`, with the shared libraries it is linked to.
    ///
    /// # Panics
    /// When it, or one of its libraries, cannot be read.
    #[must_use]
    pub fn program(mut self, from: &Path) -> Self {
        let name = from.file_name().and_then(OsStr::to_str).unwrap();
        self.files.copy(&format!("/usr/bin/{name}"), from);
        for library in libraries(from) {
            self.files.copy(library.to_str().unwrap(), &library);
        }
        self
    }

    /// As [`Guest::program`], without what only debuggers read: for guests with little memory.
    ///
    /// # Panics
    /// As [`Guest::program`].
    #[must_use]
    pub fn small_program(mut self, from: &Path) -> Self {
        let name = from.file_name().and_then(OsStr::to_str).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let small = folder.path().join(name);
        let _ = tool("strip", &["-o", small.to_str().unwrap(), from.to_str().unwrap()]).ok();
        self = self.program(from);
        self.files.file(&format!("/usr/bin/{name}"), 0o755, std::fs::read(&small).unwrap());
        self
    }

    /// Its memory.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// How much processor time it may take from power-on to power-off, [`PROCESSOR_TIME`] usually.
    #[must_use]
    pub fn processor_time(mut self, most: Duration) -> Self {
        self.processor_time = most;
        self
    }

    /// Adds arguments to QEMU's: devices, say.
    #[must_use]
    pub fn qemu<S: AsRef<OsStr>>(mut self, arguments: &[S]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Adds words to the kernel's command line.
    #[must_use]
    pub fn command_line(mut self, words: &str) -> Self {
        self.command_line.push(' ');
        self.command_line.push_str(words);
        self
    }

    /// Starts the machine with a busybox shell running `script` as root, in `/`.
    ///
    /// # Panics
    /// When QEMU cannot be started.
    #[must_use]
    pub fn start(self, script: &str) -> Running {
        let folder = tempfile::Builder::new().prefix("guest").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (arguments, memory_mib, processor_time) = (self.arguments.clone(), self.memory_mib, self.processor_time);
        let boot = self.write(script, folder.path());

        let mut command = Command::new(program("qemu-system-x86_64"));
        command
            .args(["-accel", "tcg", "-cpu", "max", "-machine", "q35", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-monitor", "none", "-no-reboot", "-m", &format!("{memory_mib}M")])
            .arg("-kernel")
            .arg(boot.kernel)
            .arg("-initrd")
            .arg(boot.initrd)
            .args(["-append", &boot.command_line])
            .arg("-serial")
            .arg(file_device(&at("console")))
            .arg("-serial")
            .arg(file_device(&at("output")))
            .args(&arguments);
        let service = Service::start("guest", &command, &at("qemu.log"));
        Running { service, folder, processor_time }
    }

    /// Writes into `folder` what boots as [`Guest::start`] boots it, for others to start. The console is the first serial
    /// port, the script's output the second.
    ///
    /// # Panics
    /// When a file cannot be read or written.
    #[must_use]
    pub fn write(mut self, script: &str, folder: &Path) -> Boot {
        let mut load = String::new();
        for (place, module) in self.kernel.modules(&self.modules).unwrap().iter().enumerate() {
            let path = format!("/modules/{place:02}-{}", module.file_name().and_then(OsStr::to_str).unwrap());
            self.files.copy(&path, module);
            load.push_str(&format!("insmod {path} || fail {path}\n"));
        }
        self.files.file("/script", 0o755, script);
        let init = self.first.as_ref().map_or_else(|| init(&load), |first| beside(&load, first));
        self.files.file("/init", 0o755, init);
        let initrd = folder.join("initramfs");
        self.files.write(&initrd).unwrap();
        let command_line = format!("console=ttyS0 rdinit=/init panic=-1 nokaslr mitigations=off{}", self.command_line);
        Boot { kernel: self.kernel.image().to_owned(), initrd, command_line }
    }

    /// [`Guest::start`] and [`Running::ended`].
    ///
    /// # Panics
    /// As those.
    #[must_use]
    pub fn run(self, script: &str) -> Ended {
        self.start(script).ended()
    }
}

impl Running {
    /// What the script has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.read("output")
    }

    /// Waits for the machine's end.
    ///
    /// # Panics
    /// When it does not end within its processor time and [`PATIENCE`], or QEMU fails.
    #[must_use]
    pub fn ended(mut self) -> Ended {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.service.ended_within(Duration::from_millis(200)) {
                break status;
            }
            assert!(
                start.elapsed() < PATIENCE && self.service.processor_time() < self.processor_time,
                "the guest does not end:\n{}\n{}",
                self.read("console"),
                self.read("output")
            );
        };
        assert!(status.success(), "QEMU ended with {status}: {}", self.service.log());
        let output = self.read("output");
        let (output, status) = match output.rsplit_once(END) {
            Some((output, status)) => (output.to_owned(), status.trim().parse().ok()),
            None => (output, None),
        };
        Ended { status, output, console: self.read("console") }
    }

    /// A serial port's text, with the line ends the program wrote.
    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.folder.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
    }
}

/// The kernel `TCL_TEST_KERNEL` names, a path that ends in `vmlinuz-VERSION`; otherwise the newest of `/boot`.
///
/// # Panics
/// When there is none with its modules.
#[must_use]
pub fn kernel() -> Kernel {
    let modules = Path::new("/lib/modules");
    if let Some(image) = std::env::var_os("TCL_TEST_KERNEL") {
        let image = PathBuf::from(image);
        return Kernel::at(&image, modules).unwrap_or_else(|| panic!("{}: no kernel with modules", image.display()));
    }
    Kernel::newest(Path::new("/boot"), modules)
        .expect("no kernel in /boot; `cargo xtask test` installs linux-image-amd64")
}

fn file_device(path: &Path) -> OsString {
    let mut device = OsString::from("file:");
    device.push(path);
    device
}

/// The first program of the guest: what every script may count on.
fn init(load: &str) -> String {
    let begin = begin(load);
    format!(
        "{begin}sh /script
status=$?
echo \"{END}$status\"
poweroff -f
"
    )
}

/// The same, with the script beside another first process.
fn beside(load: &str, first: &str) -> String {
    let begin = begin(load);
    format!(
        "{begin}(
until grep -q ' /run ' /proc/1/mountinfo; do sleep 1; done
chroot /proc/1/root /bin/sh /script
status=$?
echo \"{END}$status\"
[ $status = 0 ] || poweroff -f
) &
exec {first} </dev/console >/dev/console 2>&1
"
    )
}

fn begin(load: &str) -> String {
    format!(
        "#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /mnt
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/ttyS1 2>&1
fail() {{ echo \"cannot load $1\"; poweroff -f; }}
{load}"
    )
}

/// The shared libraries a program is linked to, the loader among them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let seen = tool("ldd", &[program.to_str().unwrap()]).ok();
    let paths = seen.stdout.lines().filter_map(|line| {
        let path = line.split_once(" => ").map_or(line, |(_, path)| path).trim();
        path.split(' ').next().filter(|path| path.starts_with('/')).map(PathBuf::from)
    });
    paths.collect()
}
