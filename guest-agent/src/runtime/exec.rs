//! `exec`, `update`, `pause` and `resume`: what the runtime does to a container that runs.
//!
//! What these commands read lies in the container's bundle directory, which only the agent can enter, and is written
//! and named by that directory's descriptor. Every command has files of its own, so that any number go on at once.

use std::io::Write as _;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::console::ConsoleSocket;
use super::{Init, Runtime, read_pid};
use crate::container_id::ContainerId;
use crate::error::{AgentError, RuntimeStep};
use crate::io::Streams;

/// A process to execute: its OCI description, and what its streams are.
#[derive(Debug)]
pub(crate) struct Execution {
    /// The OCI process, as JSON text.
    pub(crate) process: Vec<u8>,
    /// Whether it has a terminal; the process says the same.
    pub(crate) terminal: bool,
}

/// An executed process and the agent's ends of its streams.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(crate) init: Init,
    pub(crate) streams: Streams,
}

/// Files of one command in a bundle directory, gone when dropped.
#[derive(Debug)]
struct Files<'b> {
    bundle: BorrowedFd<'b>,
    number: u64,
}

impl<'b> Files<'b> {
    fn new(bundle: BorrowedFd<'b>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { bundle, number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    fn name(&self, kind: &str) -> String {
        format!("x{}.{kind}", self.number)
    }

    fn input(&self) -> String {
        self.name("json")
    }

    fn pid(&self) -> String {
        self.name("pid")
    }

    fn socket(&self) -> String {
        self.name("sock")
    }

    fn write_input(&self, bytes: &[u8]) -> std::io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(self.bundle, self.input(), flags, Mode::from_raw_mode(0o400))?;
        std::fs::File::from(file).write_all(bytes)
    }
}

impl Drop for Files<'_> {
    fn drop(&mut self) {
        for name in [self.input(), self.pid(), self.socket()] {
            let _ = rustix::fs::unlinkat(self.bundle, name, AtFlags::empty()); // most commands have one of the three
        }
    }
}

impl Runtime {
    /// Executes a process in a running container; it runs when this returns.
    pub(crate) async fn exec(
        &self,
        id: &ContainerId,
        bundle: BorrowedFd<'_>,
        execution: &Execution,
    ) -> Result<Executed, AgentError> {
        let failed = |message: String| AgentError::Runtime { step: RuntimeStep::Exec, message };
        let io = |error: std::io::Error| failed(error.to_string());
        let files = Files::new(bundle);
        files.write_input(&execution.process).map_err(io)?;
        let bundle_path = PathBuf::from(format!("/proc/self/fd/{}", bundle.as_raw_fd()));
        let console = execution.terminal.then(|| ConsoleSocket::bind(&bundle_path, &files.socket())).transpose();
        let console = console.map_err(io)?;

        let mut args = ["exec", "--detach", "--process"].map(str::to_owned).to_vec();
        args.extend([files.input(), "--pid-file".to_owned(), files.pid()]);
        if console.is_some() {
            args.extend(["--console-socket".to_owned(), files.socket()]);
        }
        args.push(id.as_str().to_owned());
        let log = self.log_of(id, files.number);
        let (mut command, _) = self.command(&log, &args)?;
        command.current_dir(&bundle_path);
        let mut streams = None;
        if console.is_none() {
            // Its client says when the input ends: without one it would be open for ever.
            let (ours, ends) = Streams::pipes(true).map_err(io)?;
            command.stdin(ends.stdin.map_or_else(Stdio::null, Stdio::from));
            command.stdout(ends.stdout).stderr(ends.stderr);
            streams = Some(ours);
        }

        let guard = self.children.command().await;
        let done = self.finish(&log, RuntimeStep::Exec, command).await;
        let _ = std::fs::remove_file(&log);
        done?;
        let pid = read_pid(bundle, &files.pid()).map_err(io)?;
        let init = self.children.take(&guard, pid).map_err(io)?;
        drop(guard);
        let streams = match (streams, console) {
            (Some(streams), _) => Ok(streams),
            (None, Some(console)) => match console.master().await {
                Ok(master) => Streams::terminal(master, true),
                Err(error) => Err(error),
            },
            (None, None) => Err(std::io::Error::other("no streams")),
        };
        match streams {
            Ok(streams) => Ok(Executed { init, streams }),
            Err(error) => {
                // It runs already: without streams nobody could see it off.
                let _ = init.handle().signal(rustix::process::Signal::KILL);
                init.wait(&self.children).await;
                Err(io(error))
            }
        }
    }

    /// Sets limits of a container: `resources` is the OCI form as JSON text.
    pub(crate) async fn update(
        &self,
        id: &ContainerId,
        bundle: BorrowedFd<'_>,
        resources: &[u8],
    ) -> Result<(), AgentError> {
        let step = RuntimeStep::Update;
        let files = Files::new(bundle);
        let written = files.write_input(resources);
        written.map_err(|error| AgentError::Runtime { step, message: error.to_string() })?;
        let args = ["update", "--resources", &files.input(), id.as_str()].map(str::to_owned);
        let log = self.log_of(id, files.number);
        let (mut command, _) = self.command(&log, &args)?;
        command.current_dir(format!("/proc/self/fd/{}", bundle.as_raw_fd()));
        let _guard = self.children.command().await;
        let done = self.finish(&log, step, command).await;
        let _ = std::fs::remove_file(&log);
        done
    }

    /// Freezes every process of a container.
    pub(crate) async fn pause(&self, id: &ContainerId) -> Result<(), AgentError> {
        self.run(id, RuntimeStep::Pause, &["pause", id.as_str()]).await
    }

    /// Lets a paused container go on.
    pub(crate) async fn resume(&self, id: &ContainerId) -> Result<(), AgentError> {
        self.run(id, RuntimeStep::Resume, &["resume", id.as_str()]).await
    }

    /// A log that no other command writes; `+` is in no container id.
    fn log_of(&self, id: &ContainerId, number: u64) -> PathBuf {
        self.logs.join(format!("{id}+{number}.json"))
    }
}
