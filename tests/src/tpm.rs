//! swtpm, the TPM simulator, on a unix socket.

use std::fs;
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::command::run;
use crate::process::{Service, program};

/// A running TPM. Its state lives as long as its process: a restart is a reboot.
#[derive(Debug)]
pub struct Tpm {
    socket: PathBuf,
    state: PathBuf,
    log: PathBuf,
    service: Service,
}

impl Tpm {
    /// Starts a TPM in `folder`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let (socket, state, log) = (folder.join("tpm.sock"), folder.join("tpm"), folder.join("tpm.log"));
        fs::create_dir_all(&state).unwrap();
        let service = Self::spawn(&socket, &state, &log);
        Self { socket, state, log, service }
    }

    fn spawn(socket: &Path, state: &Path, log: &Path) -> Service {
        let control = Self::control(socket);
        for stale in [socket, control.as_path()] {
            let _ = fs::remove_file(stale);
        }
        let mut command = Command::new(program("swtpm"));
        command
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", control.display()));
        let mut service = Service::start("swtpm", &command, log);
        service.wait_for_socket(socket);
        service
    }

    fn control(socket: &Path) -> PathBuf {
        PathBuf::from(format!("{}.ctrl", socket.display()))
    }

    /// Becomes the TPM of a machine that QEMU emulates, after a reboot: gives the socket of its control channel. Keys
    /// and NV stay, so that an enrolled attestation key is still this TPM's.
    ///
    /// # Panics
    /// When it does not start.
    pub fn into_machine(&mut self) -> PathBuf {
        self.service.stop();
        let control = Self::control(&self.socket);
        let _ = fs::remove_file(&control);
        let mut command = Command::new(program("swtpm"));
        command.args(["socket", "--tpm2", "--tpmstate"]).arg(format!("dir={}", self.state.display()));
        command.arg("--ctrl").arg(format!("type=unixio,path={}", control.display()));
        self.service = Service::start("swtpm", &command, &self.log);
        self.service.wait_for(|_| control.exists().then_some(()));
        control
    }

    /// Leaves the TPM to a machine, which starts it in this folder: keys and NV stay.
    #[must_use]
    pub fn leave(&mut self) -> PathBuf {
        self.service.stop();
        self.state.clone()
    }

    /// What a PCR of the SHA-256 bank holds, as 64 lower-case hex digits, by a control socket whose machine is gone:
    /// swtpm keeps its registers when a machine's connection breaks off.
    ///
    /// # Panics
    /// When a machine still has it, or it does not answer.
    #[must_use]
    pub fn pcr_after_machine(control: &Path, number: usize) -> String {
        let control = UnixStream::connect(control).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        // CMD_SET_DATAFD of swtpm's control channel: the data channel's descriptor goes along.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        let descriptor = [theirs.as_fd()];
        assert!(along.push(SendAncillaryMessage::ScmRights(&descriptor)));
        let command = 0x10u32.to_be_bytes();
        sendmsg(&control, &[IoSlice::new(&command)], &mut along, SendFlags::empty()).unwrap();
        let mut result = [0; 4];
        (&control).read_exact(&mut result).unwrap();
        assert_eq!(result, [0; 4], "swtpm takes the data channel");
        // TPM2_PCR_Read of one selection: SHA-256, three bytes of bits.
        let mut selection = [0; 3];
        selection[number / 8] = 1 << (number % 8);
        let mut command = vec![0x80, 0x01, 0, 0, 0, 20, 0, 0, 0x01, 0x7e, 0, 0, 0, 1, 0x00, 0x0b, 3];
        command.extend(selection);
        ours.write_all(&command).unwrap();
        let mut answer = [0; 62];
        ours.read_exact(&mut answer).unwrap();
        assert_eq!(answer[6..10], [0; 4], "{answer:?}");
        hex::encode(&answer[30..])
    }

    /// As the agent's configuration names it.
    #[must_use]
    pub fn device(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    /// Its data channel.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What `tpm2_pcrread sha256:N` reads, as 64 lower-case hex digits.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn pcr(&self, number: u32) -> String {
        let mut command = Command::new(program("tpm2_pcrread"));
        command.arg(format!("sha256:{number}")).env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.socket.display()));
        let seen = run(command).ok();
        let hex = seen.stdout.split("0x").nth(1).unwrap_or_else(|| panic!("{seen:?}"));
        hex.trim().to_lowercase()
    }

    /// Extends a PCR from outside, as something else in the guest would.
    ///
    /// # Panics
    /// When it cannot be extended.
    pub fn extend(&self, number: u32, digest: &str) {
        let mut command = Command::new(program("tpm2_pcrextend"));
        command
            .arg(format!("{number}:sha256={digest}"))
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.socket.display()));
        let _ = run(command).ok();
    }

    /// The TPM is gone.
    pub fn kill(&mut self) {
        self.service.kill();
        let _ = fs::remove_file(&self.socket);
    }

    /// The machine reboots: PCRs are zero again, keys and NV stay.
    pub fn reboot(&mut self) {
        self.service.stop();
        self.service = Self::spawn(&self.socket, &self.state, &self.log);
    }
}
