//! A machine that runs.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use crate::VmError;
use crate::connect::connect;
use crate::process::Process;

/// How often a guest that starts is asked.
const PAUSE: Duration = Duration::from_millis(100);
/// Lines of the console that are told.
const LINES: usize = 20;

/// QEMU and what it needs; all of it ends when this is dropped.
#[derive(Debug)]
pub struct Running {
    folder: PathBuf,
    // Dropped first: the helpers would end under it.
    qemu: Process,
    _helpers: Vec<Process>,
}

impl Running {
    pub(crate) const fn new(folder: PathBuf, qemu: Process, helpers: Vec<Process>) -> Self {
        Self { folder, qemu, _helpers: helpers }
    }

    /// The folder it was started in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The hybrid vsock socket: whoever connects says `CONNECT PORT` and is answered `OK`. What the guest connects to at
    /// CID 2 arrives at the same path with `_PORT` behind it.
    #[must_use]
    pub fn vsock(&self) -> PathBuf {
        self.folder.join("vsock.sock")
    }

    /// QEMU's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.qemu.pid()
    }

    /// What the guest has written to its console.
    #[must_use]
    pub fn console(&self) -> String {
        let bytes = std::fs::read(self.folder.join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace("\r\n", "\n")
    }

    /// Connects to a vsock port of the guest.
    ///
    /// # Errors
    /// [`VmError::Connect`].
    pub fn connect(&self, port: u32) -> Result<UnixStream, VmError> {
        connect(&self.vsock(), port).map_err(|error| VmError::Connect { port, what: error.to_string() })
    }

    /// Waits until somebody listens at a vsock port of the guest.
    ///
    /// # Errors
    /// [`VmError::Ended`] with the console's end where the machine ends first, [`VmError::Connect`] after `patience`.
    pub fn wait_for_port(&mut self, port: u32, patience: Duration) -> Result<(), VmError> {
        let deadline = Instant::now() + patience;
        loop {
            let error = match self.connect(port) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if let Some(status) = self.ended() {
                let words = format!("{}\n{}", self.qemu.words(), self.last_lines());
                return Err(VmError::ended("qemu", status, words));
            }
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// How QEMU ended; `None` while the machine runs. A guest that switches itself off ends it well.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.qemu.status()
    }

    /// Waits for the machine's end.
    pub fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            let ended = self.ended();
            if ended.is_some() || Instant::now() > deadline {
                return ended;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn last_lines(&self) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n")
    }
}
