//! What is booted, and the programs and arguments that boot it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Process;
use crate::{Running, VmError};

/// The longest path of a unix socket, in bytes.
const MAX_SOCKET_PATH: usize = 107;
/// The longest name of a socket of ours in the guest's folder, with its slash; ports behind it have five more digits.
const MAX_NAME: usize = "/vsock.sock_65535".len();

/// The programs, by path or by the name that `PATH` has them under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The emulator.
    pub qemu: PathBuf,
    /// The software TPM.
    pub swtpm: PathBuf,
    /// The vsock device: `vhost-device-vsock`.
    pub vsock: PathBuf,
}

impl Default for Programs {
    fn default() -> Self {
        Self { qemu: "qemu-system-x86_64".into(), swtpm: "swtpm".into(), vsock: "vhost-device-vsock".into() }
    }
}

/// What the machine starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Boot {
    /// A kernel that QEMU loads. Neither initrd nor command line is measured then.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// Its first root file system.
        initrd: PathBuf,
        /// Its command line; the console is `ttyS0`.
        command_line: String,
    },
    /// A firmware that finds and measures what it boots; arguments for QEMU name that.
    Firmware {
        /// The firmware's code, read only.
        code: PathBuf,
        /// Its variables, of which each machine gets a copy.
        variables: PathBuf,
    },
}

/// A disk of the guest, raw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The file.
    pub file: PathBuf,
    /// The serial that the guest sees; at most 20 bytes.
    pub serial: Option<String>,
    /// Whether the guest may write to it.
    pub writable: bool,
}

/// A machine to be started.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The programs.
    pub programs: Programs,
    /// What it boots.
    pub boot: Boot,
    /// Its memory.
    pub memory_mib: u32,
    /// Its processors.
    pub processors: u32,
    /// QEMU's `-accel`: emulation, unless said otherwise.
    pub accelerator: String,
    /// QEMU's `-cpu`.
    pub cpu: String,
    /// Its disks, `vda` first.
    pub disks: Vec<Disk>,
    /// The folder of the software TPM's state, kept by the caller; absent: a new TPM. A machine always has one.
    pub tpm_state: Option<PathBuf>,
    /// Whether it has QEMU's user network: the host's 127.0.0.1 is 10.0.2.2 there.
    pub network: bool,
    /// More arguments for QEMU.
    pub arguments: Vec<OsString>,
}

impl Machine {
    /// An emulated machine of two processors and 512 MiB, with a network.
    #[must_use]
    pub fn new(boot: Boot) -> Self {
        Self {
            programs: Programs::default(),
            boot,
            memory_mib: 512,
            processors: 2,
            accelerator: "tcg,thread=multi".to_owned(),
            // Newer kernels crash near cmpxchg16b under QEMU 7.2.
            cpu: "max,-cx16".to_owned(),
            disks: Vec::new(),
            tpm_state: None,
            network: true,
            arguments: Vec::new(),
        }
    }

    /// Starts it in `folder`, which is made and then holds its sockets, logs and console. Blocks until QEMU runs, not
    /// until anybody in the guest listens.
    ///
    /// # Errors
    /// [`VmError`]; nothing runs then.
    pub fn start(&self, folder: &Path) -> Result<Running, VmError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| VmError::File { path, source }
        };
        fs::create_dir_all(folder).map_err(file(folder))?;
        let folder = folder.canonicalize().map_err(file(folder))?;
        if folder.as_os_str().len() + MAX_NAME > MAX_SOCKET_PATH {
            return Err(VmError::Path { path: folder, what: "too long for the sockets in it" });
        }
        plain(&folder)?;
        let at = |name: &str| folder.join(name);

        let mut vsock_command = Command::new(&self.programs.vsock);
        vsock_command.args(["--guest-cid", "3", "--socket"]).arg(at("vhost.sock"));
        vsock_command.arg("--uds-path").arg(at("vsock.sock"));
        let mut vsock = Process::start("vhost-device-vsock", &mut vsock_command, at("vsock.log"))?;

        let state = self.tpm_state.clone().unwrap_or_else(|| at("tpm"));
        fs::create_dir_all(&state).map_err(file(&state))?;
        let state = state.canonicalize().map_err(file(&state))?;
        plain(&state)?;
        let mut tpm_command = Command::new(&self.programs.swtpm);
        tpm_command.args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", state.display())]);
        tpm_command.args(["--ctrl", &format!("type=unixio,path={}", at("tpm.sock").display())]);
        let mut tpm = Process::start("swtpm", &mut tpm_command, at("tpm.log"))?;
        vsock.listening(&at("vhost.sock"))?;
        tpm.listening(&at("tpm.sock"))?;

        if let Boot::Firmware { variables, .. } = &self.boot {
            let copy = at("variables.fd");
            fs::copy(variables, &copy).map_err(file(variables))?;
        }
        let mut command = Command::new(&self.programs.qemu);
        command.args(self.qemu(&folder)?);
        let qemu = Process::start("qemu", &mut command, at("qemu.log"))?;
        Ok(Running::new(folder, qemu, vec![vsock, tpm]))
    }

    /// QEMU's arguments.
    fn qemu(&self, folder: &Path) -> Result<Vec<OsString>, VmError> {
        let at = |name: &str| folder.join(name).display().to_string();
        let memory = self.memory_mib;
        let mut given: Vec<OsString> = Vec::new();
        let mut give = |arguments: &[&str]| given.extend(arguments.iter().map(OsString::from));
        give(&["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"]);
        give(&["-accel", &self.accelerator, "-cpu", &self.cpu, "-smp", &self.processors.to_string()]);
        // The vsock device reads the guest's memory.
        give(&["-m", &format!("{memory}M"), "-machine", "q35,memory-backend=memory"]);
        give(&["-object", &format!("memory-backend-memfd,id=memory,size={memory}M,share=on")]);
        give(&["-serial", &format!("file:{}", at("console"))]);
        give(&["-chardev", &format!("socket,id=vsock,path={}", at("vhost.sock"))]);
        give(&["-device", "vhost-user-vsock-pci,chardev=vsock"]);
        give(&["-chardev", &format!("socket,id=tpm,path={}", at("tpm.sock"))]);
        give(&["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0"]);
        if self.network {
            give(&["-netdev", "user,id=network", "-device", "virtio-net-pci,netdev=network,romfile="]);
        }
        for (number, disk) in self.disks.iter().enumerate() {
            let read_only = if disk.writable { "off" } else { "on" };
            let file = plain(&disk.file)?;
            give(&["-drive", &format!("file={file},if=none,id=disk{number},format=raw,readonly={read_only}")]);
            let serial = disk.serial.as_ref().map_or_else(String::new, |serial| format!(",serial={serial}"));
            give(&["-device", &format!("virtio-blk-pci,drive=disk{number}{serial}")]);
        }
        match &self.boot {
            Boot::Kernel { kernel, initrd, command_line } => {
                give(&["-kernel", plain(kernel)?, "-initrd", plain(initrd)?, "-append", command_line]);
            }
            Boot::Firmware { code, .. } => {
                give(&["-drive", &format!("if=pflash,format=raw,readonly=on,file={}", plain(code)?)]);
                give(&["-drive", &format!("if=pflash,format=raw,file={}", at("variables.fd"))]);
            }
        }
        given.extend(self.arguments.iter().cloned());
        Ok(given)
    }
}

/// A path that can stand among QEMU's comma-separated options.
fn plain(path: &Path) -> Result<&str, VmError> {
    let text = path.to_str().filter(|text| !text.contains(','));
    text.ok_or_else(|| VmError::Path { path: path.to_owned(), what: "has a comma, or is no UTF-8" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let (kernel, initrd) = ("/boot/vmlinuz".into(), "/tmp/initrd".into());
        Machine::new(Boot::Kernel { kernel, initrd, command_line: "quiet".to_owned() })
    }

    #[test]
    fn the_device_that_reads_the_guests_memory_gets_all_of_it() {
        let machine = Machine { memory_mib: 768, ..machine() };
        let line: Vec<String> = machine
            .qemu(Path::new("/run/vm"))
            .unwrap()
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let line = line.join(" ");
        assert!(line.contains("-m 768M ") && line.contains("id=memory,size=768M,share=on"), "{line}");
        assert!(line.ends_with("-kernel /boot/vmlinuz -initrd /tmp/initrd -append quiet"), "{line}");
    }

    #[test]
    fn disks_come_in_their_order_with_their_serials() {
        let disk = |file: &str, serial: Option<&str>, writable| Disk {
            file: file.into(),
            serial: serial.map(str::to_owned),
            writable,
        };
        let mut machine = machine();
        machine.disks = vec![disk("/a", None, false), disk("/b", Some("tcl-images"), true)];
        let line = machine.qemu(Path::new("/run/vm")).unwrap();
        for words in [
            "file=/a,if=none,id=disk0,format=raw,readonly=on",
            "virtio-blk-pci,drive=disk0",
            "file=/b,if=none,id=disk1,format=raw,readonly=off",
            "virtio-blk-pci,drive=disk1,serial=tcl-images",
        ] {
            assert!(line.iter().any(|word| word == words), "{words}: {line:?}");
        }
        machine.disks = vec![disk("/a,readonly=off", None, false)];
        assert!(matches!(machine.qemu(Path::new("/run/vm")), Err(VmError::Path { .. })), "no option in a name");
    }

    #[test]
    fn a_folder_too_long_for_sockets_is_refused_before_anything_runs() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("f".repeat(100));
        assert!(matches!(machine().start(&long), Err(VmError::Path { .. })));
    }
}
