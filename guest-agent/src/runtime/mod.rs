//! Drives an OCI runtime: any executable with runc's commands `create`, `start`, `kill` and `delete`.
//!
//! The runtime's own state lives under `<state_dir>/runtime`; nothing else uses that directory. Every command
//! runs from the descriptor that was hashed, in a fixed environment, with its messages in a JSON log file.

mod binary;
mod children;
mod console;
mod exec;
#[cfg(test)]
mod tests;

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::events::hash_list;

pub use binary::Binary;
pub use children::{Children, Handle, Init};
pub(crate) use exec::{Executed, Execution};

use crate::container_id::ContainerId;
use crate::error::{AgentError, RuntimeStep};
use crate::io::Streams;
use console::ConsoleSocket;

/// How long a runtime command may take before it is killed.
const COMMAND_TIME: Duration = Duration::from_secs(120);
/// How much of a runtime's log is read, in bytes, from its end.
const MAX_LOG: u64 = 64 * 1024;
/// The only environment a runtime sees.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the runtime writes the container's first process id, in the bundle.
const PID_FILE: &str = "pid";

/// The configured runtime and the directory of its state.
#[derive(Debug)]
pub struct Runtime {
    path: PathBuf,
    binary: OnceLock<Binary>,
    root: PathBuf,
    logs: PathBuf,
    children: Arc<Children>,
}

/// What `create` left: a process that waits for `start`, and the agent's ends of its streams.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) init: Init,
    pub(crate) streams: Streams,
    pub(crate) argv_h: Sha384Digest,
}

impl Runtime {
    /// Makes the state directories beneath `state_dir`. The executable at `path` is opened when it is first
    /// needed and never again.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub fn new(path: &Path, state_dir: &Path, children: Arc<Children>) -> std::io::Result<Self> {
        let (root, logs) = (state_dir.join("runtime"), state_dir.join("runtime-logs"));
        for dir in [&root, &logs] {
            crate::paths::private_dir(dir)?;
        }
        Ok(Self { path: path.to_owned(), binary: OnceLock::new(), root, logs, children })
    }

    /// SHA-256 of the executable that runs.
    ///
    /// # Errors
    /// [`AgentError::RuntimeUnavailable`] when it cannot be opened; the next call tries again.
    pub fn digest(&self) -> Result<Sha256Digest, AgentError> {
        Ok(self.binary()?.digest())
    }

    fn binary(&self) -> Result<&Binary, AgentError> {
        if let Some(binary) = self.binary.get() {
            return Ok(binary);
        }
        let unavailable = |source| AgentError::RuntimeUnavailable { path: self.path.clone(), source };
        let binary = Binary::open(&self.path).map_err(unavailable)?;
        // Whoever came first stays: one descriptor is hashed and executed.
        Ok(self.binary.get_or_init(|| binary))
    }

    /// The directory of the runtime's own state.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The agent's children.
    #[must_use]
    pub const fn children(&self) -> &Arc<Children> {
        &self.children
    }

    /// Creates a container from the bundle directory `bundle`; its process waits for `start`.
    pub(crate) async fn create(
        &self,
        id: &ContainerId,
        bundle: BorrowedFd<'_>,
        terminal: bool,
        stdin: bool,
    ) -> Result<Made, AgentError> {
        let failed = |message: String| AgentError::Runtime { step: RuntimeStep::Create, message };
        let io = |error: std::io::Error| failed(error.to_string());
        // The bundle is entered by descriptor: the runtime finds `config.json` in its working directory.
        let bundle_path = PathBuf::from(format!("/proc/self/fd/{}", bundle.as_raw_fd()));
        let console =
            terminal.then(|| ConsoleSocket::bind(&bundle_path, ConsoleSocket::NAME)).transpose().map_err(io)?;

        let mut args = vec!["create".to_owned(), "--pid-file".to_owned(), PID_FILE.to_owned()];
        if console.is_some() {
            args.extend(["--console-socket".to_owned(), ConsoleSocket::NAME.to_owned()]);
        }
        args.push(id.as_str().to_owned());
        let log = self.log_path(id);
        let (mut command, argv_h) = self.command(&log, &args)?;
        command.current_dir(&bundle_path);
        let mut streams = None;
        if console.is_none() {
            let (ours, ends) = Streams::pipes(stdin).map_err(io)?;
            command.stdin(ends.stdin.map_or_else(Stdio::null, Stdio::from));
            command.stdout(ends.stdout).stderr(ends.stderr);
            streams = Some(ours);
        }

        let guard = self.children.command().await;
        self.finish(&log, RuntimeStep::Create, command).await?;
        let pid = read_pid(bundle, PID_FILE).map_err(io)?;
        let init = self.children.take(&guard, pid).map_err(io)?;
        drop(guard);
        let streams = match (streams, console) {
            (Some(streams), _) => streams,
            (None, Some(console)) => {
                let master = console.master().await.map_err(io)?;
                Streams::terminal(master, stdin).map_err(io)?
            }
            (None, None) => return Err(failed("no streams".to_owned())),
        };
        Ok(Made { init, streams, argv_h })
    }

    /// Lets a created container's process run.
    pub(crate) async fn start(&self, id: &ContainerId) -> Result<(), AgentError> {
        self.run(id, RuntimeStep::Start, &["start", id.as_str()]).await
    }

    /// Sends a signal to a container's first process.
    pub(crate) async fn kill(&self, id: &ContainerId, signal: u32) -> Result<(), AgentError> {
        self.run(id, RuntimeStep::Kill, &["kill", id.as_str(), &signal.to_string()]).await
    }

    /// Removes a container and what it still runs. One that is not there counts as removed.
    pub(crate) async fn delete(&self, id: &ContainerId) -> Result<(), AgentError> {
        let done = self.run(id, RuntimeStep::Delete, &["delete", "--force", id.as_str()]).await;
        let _ = std::fs::remove_file(self.log_path(id));
        done
    }

    async fn run(&self, id: &ContainerId, step: RuntimeStep, args: &[&str]) -> Result<(), AgentError> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let log = self.log_path(id);
        let (command, _) = self.command(&log, &args)?;
        let _guard = self.children.command().await;
        self.finish(&log, step, command).await
    }

    fn log_path(&self, id: &ContainerId) -> PathBuf {
        self.logs.join(format!("{id}.json"))
    }

    fn command(&self, log: &Path, args: &[String]) -> Result<(tokio::process::Command, Sha384Digest), AgentError> {
        let binary = self.binary()?;
        let mut argv = vec!["--root".to_owned(), self.root.display().to_string()];
        argv.extend(["--log".to_owned(), log.display().to_string(), "--log-format".to_owned(), "json".to_owned()]);
        argv.extend_from_slice(args);
        let mut command = tokio::process::Command::new(binary.exec_path());
        command.arg0(binary.name()).args(&argv).env_clear().env("PATH", PATH).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        Ok((command, hash_list(&argv)))
    }

    async fn finish(
        &self,
        log: &Path,
        step: RuntimeStep,
        mut command: tokio::process::Command,
    ) -> Result<(), AgentError> {
        let _ = std::fs::remove_file(log);
        let failed = |message: String| AgentError::Runtime { step, message };
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        // The container's ends of its pipes live in the command: only the container may keep them open.
        drop(command);
        let Ok(ended) = tokio::time::timeout(COMMAND_TIME, child.wait()).await else {
            let _ = child.kill().await;
            return Err(failed(format!("no end after {} s", COMMAND_TIME.as_secs())));
        };
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(last_message(log).unwrap_or_else(|| status.to_string()))),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

fn read_pid(bundle: BorrowedFd<'_>, name: &str) -> std::io::Result<i32> {
    use rustix::fs::{Mode, OFlags};
    use std::io::Read as _;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file: OwnedFd = rustix::fs::openat(bundle, name, flags, Mode::empty())?;
    let mut text = String::new();
    std::fs::File::from(file).take(32).read_to_string(&mut text)?;
    text.trim().parse().map_err(|_| std::io::Error::other("the runtime wrote no process id"))
}

/// The last error a runtime wrote in its JSON log, on one line.
fn last_message(log: &Path) -> Option<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(log).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(MAX_LOG))).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_LOG).read_to_end(&mut bytes).ok()?;
    String::from_utf8_lossy(&bytes).lines().rev().find_map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        let level = entry.get("level")?.as_str()?;
        let message = entry.get("msg")?.as_str()?;
        matches!(level, "error" | "fatal").then(|| message.to_owned())
    })
}
