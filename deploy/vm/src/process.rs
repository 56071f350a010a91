//! A program in the background.

use std::fs::File;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::VmError;

/// How long a helper may take to listen.
const READY: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(10);
/// Bytes of a log that are told.
const WORDS: usize = 2000;

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with both outputs in `log`.
    pub(crate) fn start(name: &'static str, command: &mut Command, log: PathBuf) -> Result<Self, VmError> {
        let fail = |source| VmError::File { path: log.clone(), source };
        let output = File::create(&log).map_err(fail)?;
        command.stdin(Stdio::null()).stdout(output.try_clone().map_err(fail)?).stderr(output);
        match command.spawn() {
            Ok(child) => Ok(Self { name, child, log }),
            Err(source) => Err(VmError::Program { program: command.get_program().into(), source }),
        }
    }

    /// Waits until its socket is there.
    pub(crate) fn listening(&mut self, socket: &Path) -> Result<(), VmError> {
        let deadline = Instant::now() + READY;
        while !socket.metadata().is_ok_and(|meta| meta.file_type().is_socket()) {
            if let Some(status) = self.status() {
                return Err(VmError::ended(self.name, status, self.words()));
            }
            if Instant::now() > deadline {
                let what = "does not listen".to_owned();
                return Err(VmError::Ended { name: self.name, what, words: self.words() });
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The end of its log.
    pub(crate) fn words(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let tail = bytes.get(bytes.len().saturating_sub(WORDS)..).unwrap_or_default();
        String::from_utf8_lossy(tail).trim().to_owned()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_before_it_listens_is_told_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such device >&2; exit 3"]);
        let mut process = Process::start("helper", &mut command, dir.path().join("log")).unwrap();
        let error = process.listening(&dir.path().join("socket")).unwrap_err();
        assert_eq!(error.to_string(), "helper ended with exit status: 3: no such device");
        let mut absent = Command::new("/no/such/program");
        let error = Process::start("helper", &mut absent, dir.path().join("log")).unwrap_err();
        assert!(error.to_string().starts_with("/no/such/program: "), "{error}");
    }

    #[test]
    fn a_program_ends_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process::start("helper", Command::new("sleep").arg("1000"), dir.path().join("log")).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }
}
