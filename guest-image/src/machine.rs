//! A machine for an image: QEMU without KVM, swtpm as its TPM, `vhost-device-vsock` as its way to the agent.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::names;
use crate::error::{ImageError, io};
use crate::programs::found;

/// Debian's firmware, and the variables it begins with.
const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// The program between a unix socket here and vsock there, and its version: `cargo install` builds it.
pub const VSOCK: (&str, &str) = ("vhost-device-vsock", "0.3.0");

/// What starts an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// OVMF starts the UKI, so that kernel, initrd and command line are measured.
    Firmware,
    /// QEMU gives kernel, initrd and command line to the guest; nothing measures them.
    Kernel,
}

/// One machine with an image in it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The image's folder.
    pub image: PathBuf,
    /// A folder for sockets and what the machine writes; its path must be short enough for sockets.
    pub state: PathBuf,
    /// What starts it.
    pub boot: Boot,
    /// Its memory.
    pub memory_mib: u32,
    /// More disks, read-only: one with initdata, say.
    pub disks: Vec<PathBuf>,
    /// The control socket of its TPM; the machine has one where this is given.
    pub tpm: Option<PathBuf>,
    /// The folder of `vhost-device-vsock`; the machine has a vsock where this is given.
    pub vsock: Option<PathBuf>,
}

impl Machine {
    /// Where the console's text goes.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.state.join("console")
    }

    /// The socket that leads to the guest's ports after a line `CONNECT PORT`.
    #[must_use]
    pub fn hybrid_vsock(&self) -> PathBuf {
        self.state.join("vm.vsock")
    }

    /// The socket between QEMU and `vhost-device-vsock`; there once the latter is ready.
    #[must_use]
    pub fn vsock_control(&self) -> PathBuf {
        self.state.join("vhost.sock")
    }

    /// swtpm with an empty TPM, or the one of an earlier start, and where its control socket will be.
    ///
    /// # Errors
    /// Its folder cannot be made.
    pub fn swtpm(&self) -> Result<(Command, PathBuf), ImageError> {
        let (folder, control) = (self.state.join("tpm"), self.state.join("tpm.ctrl"));
        fs::create_dir_all(&folder).map_err(io(&folder))?;
        let _ = fs::remove_file(&control);
        let mut command = Command::new(found("swtpm".as_ref()));
        command.args(["socket", "--tpm2", "--tpmstate"]).arg(option("dir=", &folder));
        command.arg("--ctrl").arg(option("type=unixio,path=", &control));
        Ok((command, control))
    }

    /// What stands between [`Machine::hybrid_vsock`] and the guest, where the machine has a vsock. It ends with the
    /// machine.
    #[must_use]
    pub fn vsock_device(&self) -> Option<Command> {
        let mut command = Command::new(self.vsock.as_ref()?.join(VSOCK.0));
        command.args(["--guest-cid", "3", "--socket"]).arg(self.vsock_control());
        command.arg("--uds-path").arg(self.hybrid_vsock());
        Some(command)
    }

    /// QEMU; TPM and vsock must be there by then.
    ///
    /// # Errors
    /// The firmware's files cannot be laid out.
    pub fn qemu(&self) -> Result<Command, ImageError> {
        let memory = self.memory_mib;
        let mut command = Command::new(found("qemu-system-x86_64".as_ref()));
        command
            // Kernels newer than 6.1 crash in this QEMU's cmpxchg16b.
            .args(["-accel", "tcg,thread=multi", "-cpu", "max,-cx16", "-smp", "2", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-monitor", "none", "-no-reboot", "-m", &format!("{memory}M")])
            .args(["-object", &format!("memory-backend-memfd,id=mem0,size={memory}M,share=on")])
            .args(["-M", "q35,memory-backend=mem0", "-serial"])
            .arg(option("file:", &self.console()))
            .args(["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile="]);
        match self.boot {
            Boot::Firmware => self.firmware(&mut command)?,
            Boot::Kernel => self.kernel(&mut command)?,
        }
        let root = Some(self.image.join(names::ROOT)).filter(|root| root.exists());
        for (place, disk) in root.iter().chain(&self.disks).enumerate() {
            let id = format!("d{place}");
            command.arg("-drive").arg(option(&format!("if=none,id={id},format=raw,readonly=on,file="), disk));
            command.args(["-device", &format!("virtio-blk-pci,drive={id}")]);
        }
        if let Some(tpm) = &self.tpm {
            command.arg("-chardev").arg(option("socket,id=tpm,path=", tpm));
            command.args(["-tpmdev", "emulator,id=t0,chardev=tpm", "-device", "tpm-tis,tpmdev=t0"]);
        }
        if self.vsock.is_some() {
            command.arg("-chardev").arg(option("socket,id=vsock,path=", &self.vsock_control()));
            command.args(["-device", "vhost-user-vsock-pci,chardev=vsock"]);
        }
        Ok(command)
    }

    /// A disk whose boot program is the UKI; the firmware is told to start nothing else.
    fn firmware(&self, command: &mut Command) -> Result<(), ImageError> {
        let (variables, esp) = (self.state.join("variables.fd"), self.state.join("esp"));
        fs::copy(VARIABLES, &variables).map_err(io(Path::new(VARIABLES)))?;
        let folder = esp.join("EFI/BOOT");
        fs::create_dir_all(&folder).map_err(io(&folder))?;
        let program = folder.join("BOOTX64.EFI");
        fs::copy(self.image.join(names::UKI), &program).map_err(io(&program))?;
        command.args(["-drive", &format!("if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}"), "-drive"]);
        command.arg(option("if=pflash,format=raw,unit=1,file=", &variables));
        command.arg("-drive").arg(option("if=none,id=esp,format=raw,readonly=on,file=fat:", &esp));
        command.args(["-device", "virtio-blk-pci,drive=esp,bootindex=0"]);
        Ok(())
    }

    fn kernel(&self, command: &mut Command) -> Result<(), ImageError> {
        let path = self.image.join(names::COMMAND_LINE);
        let line = fs::read_to_string(&path).map_err(io(&path))?;
        command.arg("-kernel").arg(self.image.join(names::KERNEL)).arg("-initrd").arg(self.image.join(names::INITRD));
        command.arg("-append").arg(line);
        Ok(())
    }
}

/// An option's text with a path at its end.
fn option(text: &str, path: &Path) -> OsString {
    let mut option = OsString::from(text);
    option.push(path);
    option
}
