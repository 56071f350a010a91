//! What can be done to the processes of a running container: execute, signal, wait, their streams, their limits.
//!
//! A process is named by the container's id and its own; its own empty or the same as the container's: the first
//! process. Nothing here holds a lock while it waits for a process, a file or the runtime.

use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};

use super::launch::UNKNOWN_STATUS;
use super::{Agent, MAX_SIGNAL, SIGKILL, SIGTERM};
use crate::cgroup::{Resources, Stats};
use crate::containers::{Container, OutputStream, State};
use crate::error::{AgentError, ProcessFault, RuntimeStep, blocking};
use crate::io::{MAX_READ, Streams};
use crate::processes::{DRAIN_TIME, ExecRequest, FORGET_AFTER, FinalProcess, First, Process, ProcessId};
use crate::runtime::{Executed, Execution, Init};

/// What a request means.
enum Target {
    First(Arc<Container>),
    Other(Arc<Container>, Arc<Process>),
}

impl Agent {
    /// Executes another process in a running container: recorded, and receipted where that is asked, before it
    /// runs. It runs when this returns, and goes on when the caller stops waiting.
    ///
    /// A command that is not there, or cannot be executed, is a process that ends at once with 127 or 126, as a
    /// shell has it: a client that is refused may wait for an end that never comes.
    ///
    /// # Errors
    /// [`AgentError::Process`] when the id is taken or the request can be no process of this container,
    /// [`AgentError::Container`], [`AgentError::Draining`], [`AgentError::Attester`], [`AgentError::Attestor`],
    /// [`AgentError::QueueFull`], [`AgentError::Runtime`]. Nothing of it stays.
    pub async fn exec(self: &Arc<Self>, id: &str, exec_id: &str, request: ExecRequest) -> Result<(), AgentError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(AgentError::Draining);
        }
        let container = self.containers.get(id)?;
        let fault = |fault| process_fault(id, exec_id, fault);
        if is_first(id, exec_id) {
            return Err(fault(ProcessFault::Taken));
        }
        let first = Arc::clone(running(&container)?);
        let process = first.template.process(&request).map_err(fault)?;
        let entry = container.processes.begin(ProcessId::new(exec_id)?).map_err(fault)?;
        let agent = Arc::clone(self);
        let task = tokio::spawn(async move {
            let executed = agent.execute(&container, &first, &request, process).await;
            let (streams, init, status) = match executed.or_else(|error| not_startable(error, &request)) {
                Ok(begun) => begun,
                Err(error) => {
                    entry.fail();
                    container.processes.forget(&entry);
                    return Err(error);
                }
            };
            entry.run(streams, init.as_ref().map(Init::handle));
            let children = Arc::clone(agent.runtime.children());
            tokio::spawn(async move {
                entry.end(match init {
                    Some(init) => init.wait(&children).await.unwrap_or(UNKNOWN_STATUS),
                    None => status,
                });
                // Only the table keeps what has ended: forgotten, its descriptors are closed at once, and this ends.
                let forgotten = entry.forgotten();
                let (entry, container) = (into_weak(entry), into_weak(container));
                tokio::select! {
                    () = forgotten => {}
                    () = tokio::time::sleep(FORGET_AFTER) => {
                        if let (Some(entry), Some(container)) = (entry.upgrade(), container.upgrade()) {
                            container.processes.forget(&entry);
                        }
                    }
                }
            });
            Ok(())
        });
        task.await.unwrap_or_else(|error| Err(error.into()))
    }

    async fn execute(
        &self,
        container: &Container,
        first: &First,
        request: &ExecRequest,
        process: FinalProcess,
    ) -> Result<Begun, AgentError> {
        self.journal.ready()?;
        check_cwd(first, request).await?;
        self.announce(container, &process).await?;
        let execution = Execution { process: process.bytes, terminal: request.terminal };
        let Executed { init, streams } = self.runtime.exec(&container.id, first.bundle(), &execution).await?;
        Ok((streams, Some(init), UNKNOWN_STATUS))
    }

    /// Sees to it that the log holds the process, and the attestor where its receipt is waited for.
    async fn announce(&self, container: &Container, process: &FinalProcess) -> Result<(), AgentError> {
        let ledger = self.pipeline.ledger(container.mode);
        let record = |n| async move {
            let event = process.event(container.seq, &container.id, n);
            let recorded = self.journal.record_exec(event).await?;
            recorded.ok_or_else(|| container.misfit("it does not run"))
        };
        let receipt = |recorded| async move { ledger.receipt(&recorded).await };
        let n = container.processes.executions.announce(process.digest(), record, receipt).await?;
        tracing::debug!(id = %container.id, n, "executing");
        Ok(())
    }

    /// Signals a process; one that is gone has taken every signal.
    ///
    /// SIGKILL to the first process kills every process of the container's control group. SIGTERM to a first process
    /// that does not handle it is a SIGKILL: the kernel would drop it, as a container's first process is an init.
    ///
    /// # Errors
    /// [`AgentError::Process`], [`AgentError::Container`], [`AgentError::Request`], [`AgentError::Io`].
    pub async fn signal_process(&self, id: &str, exec_id: &str, signal: u32) -> Result<(), AgentError> {
        if signal > MAX_SIGNAL {
            return Err(AgentError::Request { field: "signal", what: "must be from 0 to 64" });
        }
        let io = |source| AgentError::Io { what: "signal", source };
        match self.target(id, exec_id)? {
            Target::Other(_, process) => {
                let live = process.live_now().map_err(|fault| process_fault(id, exec_id, fault))?;
                match named(signal) {
                    Some(signal) => live.handle.as_ref().map_or(Ok(()), |handle| handle.signal(signal)).map_err(io),
                    None if signal == 0 => Ok(()),
                    None => {
                        Err(AgentError::Request { field: "signal", what: "an executed process takes 1 to 31 only" })
                    }
                }
            }
            Target::First(container) => {
                let Some(first) = container.processes.first() else {
                    return match container.state() {
                        State::Ended(_) => Ok(()),
                        _ => Err(container.misfit("it does not run")),
                    };
                };
                if matches!(signal, SIGTERM | SIGKILL) {
                    container.set_stopped();
                }
                let deaf = signal == SIGTERM && !handles(first.handle.pid(), SIGTERM);
                match named(if deaf { SIGKILL } else { signal }) {
                    Some(Signal::KILL) => {
                        let (first, group) = (first.handle.clone(), first.cgroup.clone());
                        // The group first: the end of an init waits for its children, which must not be frozen then.
                        let killed = move || group.kill_all().and(first.signal(Signal::KILL));
                        blocking(killed).await?.map_err(io)
                    }
                    Some(signal) => first.handle.signal(signal).map_err(io),
                    None if signal == 0 || matches!(container.state(), State::Ended(_)) => Ok(()),
                    // Real-time signals: only the runtime can name them without `unsafe`.
                    None => self.signal(&container, signal).await,
                }
            }
        }
    }

    /// Waits for a process's end and gives its status, 128 + signal after a signal. An executed process is forgotten
    /// then; everybody who waited is told.
    ///
    /// # Errors
    /// [`AgentError::Process`], [`AgentError::Container`].
    pub async fn wait_process(&self, id: &str, exec_id: &str) -> Result<u32, AgentError> {
        match self.target(id, exec_id)? {
            Target::First(container) => {
                let status = container.ended().await?;
                self.containers.waited(&container);
                Ok(status)
            }
            Target::Other(container, process) => {
                let status = process.ended().await.map_err(|fault| process_fault(id, exec_id, fault))?;
                process.drained().await;
                container.processes.forget(&process);
                Ok(status)
            }
        }
    }

    /// Reads what an output has, as soon as it has anything; empty at its end, at the latest a short time after the
    /// process's end: what it left behind may hold its output open for ever.
    ///
    /// # Errors
    /// [`AgentError::Process`], [`AgentError::Container`], [`AgentError::Io`].
    pub async fn read_process(
        &self,
        id: &str,
        exec_id: &str,
        stream: OutputStream,
        len: u32,
    ) -> Result<Vec<u8>, AgentError> {
        let fault = |fault| process_fault(id, exec_id, fault);
        let len = usize::try_from(len).unwrap_or(MAX_READ);
        match self.target(id, exec_id)? {
            Target::First(container) => {
                let _place = container.processes.reader().map_err(fault)?;
                let silent = async {
                    let _ = container.ended().await;
                    tokio::time::sleep(DRAIN_TIME).await;
                };
                let data = read(container.streams().await?, stream, len, silent).await?;
                if data.is_empty() {
                    self.containers.drained(&container, stream);
                }
                Ok(data)
            }
            Target::Other(_, process) => {
                let _place = process.reader().map_err(fault)?;
                let live = process.live().await.map_err(fault)?;
                read(&live.streams, stream, len, process.silent()).await
            }
        }
    }

    /// Writes some input and says how much was taken; empty data ends the input.
    ///
    /// # Errors
    /// [`AgentError::Process`], [`AgentError::Container`], [`AgentError::Io`].
    pub async fn write_process(&self, id: &str, exec_id: &str, data: &[u8]) -> Result<u32, AgentError> {
        let io = |source| AgentError::Io { what: "input", source };
        let taken = match self.target(id, exec_id)? {
            Target::First(container) => container.streams().await?.stdin.write(data).await,
            Target::Other(_, process) => {
                let live = process.live().await.map_err(|fault| process_fault(id, exec_id, fault))?;
                live.streams.stdin.write(data).await
            }
        };
        Ok(u32::try_from(taken.map_err(io)?).unwrap_or(u32::MAX))
    }

    /// Ends a process's input.
    ///
    /// # Errors
    /// As for [`Agent::write_process`].
    pub async fn close_stdin(&self, id: &str, exec_id: &str) -> Result<(), AgentError> {
        self.write_process(id, exec_id, &[]).await.map(|_| ())
    }

    /// Sets the size of a process's terminal, in characters.
    ///
    /// # Errors
    /// [`AgentError::Process`] with [`ProcessFault::NoTerminal`] where there is none, [`AgentError::Container`],
    /// [`AgentError::Io`].
    pub async fn resize(&self, id: &str, exec_id: &str, rows: u16, columns: u16) -> Result<(), AgentError> {
        let fault = |fault| process_fault(id, exec_id, fault);
        let resized = match self.target(id, exec_id)? {
            Target::First(container) => container.streams().await?.resize(rows, columns),
            Target::Other(_, process) => process.live().await.map_err(fault)?.streams.resize(rows, columns),
        };
        match resized {
            Ok(true) => Ok(()),
            Ok(false) => Err(fault(ProcessFault::NoTerminal)),
            Err(source) => Err(AgentError::Io { what: "terminal", source }),
        }
    }

    /// What a container uses.
    ///
    /// # Errors
    /// [`AgentError::Container`] when it is not known or was never created, [`AgentError::Process`] when too many
    /// reads of its numbers have not ended.
    pub async fn stats(&self, id: &str) -> Result<Stats, AgentError> {
        let container = self.containers.get(id)?;
        let group = created(&container)?.cgroup.clone();
        let place = container.processes.measurer().map_err(|fault| process_fault(id, "", fault))?;
        // The place goes with the read, not with the caller: a caller who leaves does not end what blocks.
        let stats = move || {
            let stats = group.stats();
            drop(place);
            stats
        };
        blocking(stats).await
    }

    /// Sets limits of a running container.
    ///
    /// # Errors
    /// [`AgentError::Container`], [`AgentError::Request`], [`AgentError::Runtime`].
    pub async fn update(&self, id: &str, resources: Resources) -> Result<(), AgentError> {
        let container = self.containers.get(id)?;
        let first = created(&container)?;
        if resources.is_empty() {
            return Ok(());
        }
        let resources = resources.oci().map_err(|what| AgentError::Request { field: "resources", what })?;
        self.runtime.update(&container.id, first.bundle(), &resources).await
    }

    /// Freezes every process of a container.
    ///
    /// # Errors
    /// [`AgentError::Container`], [`AgentError::Runtime`].
    pub async fn pause(&self, id: &str) -> Result<(), AgentError> {
        let container = self.containers.get(id)?;
        running(&container)?;
        self.runtime.pause(&container.id).await
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// [`AgentError::Container`], [`AgentError::Runtime`].
    pub async fn resume(&self, id: &str) -> Result<(), AgentError> {
        let container = self.containers.get(id)?;
        running(&container)?;
        self.runtime.resume(&container.id).await
    }

    /// Waits until the kernel kills something in a container for lack of memory, and gives the container's id. Each
    /// time is told to one of those who wait, or to the next who does.
    ///
    /// # Errors
    /// None; the type is that of every method.
    pub async fn oom_event(&self) -> Result<String, AgentError> {
        Ok(self.oom.next().await)
    }

    /// Tells of lack of memory in a container until it has ended.
    pub(super) fn watch_oom(self: &Arc<Self>, container: &Arc<Container>, first: &First) {
        let Some(mut watch) = first.take_oom() else { return };
        let (agent, container) = (Arc::clone(self), Arc::clone(container));
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // What was killed may have been all there was: its end must not hide the reason.
                    biased;
                    event = watch.next() => match event {
                        Ok(Some(())) => agent.oom.push(container.id.as_str()),
                        Ok(None) => return,
                        Err(error) => {
                            tracing::warn!(id = %container.id, %error, "lack of memory is not seen any more");
                            return;
                        }
                    },
                    _ = container.ended() => return,
                }
            }
        });
    }

    fn target(&self, id: &str, exec_id: &str) -> Result<Target, AgentError> {
        let container = self.containers.get(id)?;
        if is_first(id, exec_id) {
            return Ok(Target::First(container));
        }
        let process = container.processes.get(&ProcessId::new(exec_id)?);
        let process = process.map_err(|fault| process_fault(id, exec_id, fault))?;
        Ok(Target::Other(container, process))
    }
}

/// A process that was begun: its streams, and itself, or the status it has ended with.
type Begun = (Streams, Option<Init>, u32);

/// What became of a command that the runtime found missing or not executable; any other error stays one.
fn not_startable(error: AgentError, request: &ExecRequest) -> Result<Begun, AgentError> {
    let AgentError::Runtime { step: RuntimeStep::Exec, message } = &error else { return Err(error) };
    let Some((status, what)) = shell_status(message, request) else { return Err(error) };
    let text = format!("{}: {what}\n", error.code());
    match Streams::ended_with(text.as_bytes(), request.terminal) {
        Ok(streams) => {
            tracing::info!(status, %error, "a command could not be started");
            Ok((streams, None, status))
        }
        Err(_) => Err(error),
    }
}

/// The status a shell gives a command that the runtime's message says this of.
fn shell_status(message: &str, request: &ExecRequest) -> Option<(u32, &'static str)> {
    let says = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    if !request.args.first().is_some_and(|command| message.contains(command.as_str())) {
        return None;
    }
    if says(&["no such file or directory", "No such file or directory", "not found in $PATH"]) {
        Some((127, "the command is not there"))
    } else if says(&["permission denied", "Permission denied", "is a directory", "exec format error"]) {
        Some((126, "the command cannot be executed"))
    } else {
        None
    }
}

fn into_weak<T>(arc: Arc<T>) -> Weak<T> {
    Arc::downgrade(&arc)
}

fn is_first(id: &str, exec_id: &str) -> bool {
    exec_id.is_empty() || exec_id == id
}

fn process_fault(id: &str, exec_id: &str, fault: ProcessFault) -> AgentError {
    // The container is known: its id is one. The process's may be anything.
    AgentError::Process { id: id.to_owned(), process: exec_id.chars().take(64).collect(), fault }
}

fn created(container: &Container) -> Result<&Arc<First>, AgentError> {
    container.processes.first().ok_or_else(|| container.misfit("it was not created"))
}

fn running(container: &Container) -> Result<&Arc<First>, AgentError> {
    match container.state() {
        State::Running => created(container),
        _ => Err(container.misfit("it does not run")),
    }
}

fn named(signal: u32) -> Option<Signal> {
    Signal::from_named_raw(i32::try_from(signal).ok()?)
}

/// Whether a process has a handler of its own for a signal.
fn handles(pid: Pid, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap_or_default();
    caught(&status) & (1u64 << signal.saturating_sub(1)) != 0
}

/// The mask of handled signals in the text of `/proc/PID/status`.
fn caught(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

async fn read(
    streams: &Streams,
    stream: OutputStream,
    len: usize,
    silent: impl Future<Output = ()>,
) -> Result<Vec<u8>, AgentError> {
    let output = match stream {
        OutputStream::Stdout => &streams.stdout,
        OutputStream::Stderr => &streams.stderr,
    };
    let data = tokio::select! {
        biased;
        data = output.read(len) => data,
        () = silent => output.read_now(len),
    };
    data.map_err(|source| AgentError::Io { what: "output", source })
}

/// Checks the working directory in the container as it is now: it may have been changed since its start.
async fn check_cwd(first: &First, request: &ExecRequest) -> Result<(), AgentError> {
    let cwd = first.template.cwd(request);
    let pid = first.handle.pid();
    blocking(move || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{}/root", pid.as_raw_pid()), flags, Mode::empty());
        let root = root.map_err(|error| AgentError::Io { what: "the container's root", source: error.into() })?;
        let cwd = cwd.to_str().ok_or(AgentError::Request { field: "cwd", what: "is no text" })?;
        crate::bundle::cwd::check(root.as_fd(), cwd).map_err(|what| AgentError::Bundle { what })
    })
    .await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtimes_message_tells_what_a_shell_would() {
        let status = |command: &str, message: &str| {
            let request = ExecRequest { args: vec![command.to_owned()], ..Default::default() };
            shell_status(message, &request).map(|(status, _)| status)
        };
        let runc = "exec failed: unable to start container process: exec:";
        assert_eq!(status("/x", &format!("{runc} \"/x\": stat /x: no such file or directory")), Some(127));
        assert_eq!(status("x", &format!("{runc} \"x\": executable file not found in $PATH")), Some(127));
        assert_eq!(status("/etc", &format!("{runc} \"/etc\": is a directory")), Some(126));
        assert_eq!(status("/etc/x", &format!("{runc} \"/etc/x\": permission denied")), Some(126));
        assert_eq!(status("/x", "cannot exec in a stopped container"), None);
        assert_eq!(status("/x", "open /proc/7/ns/pid: no such file or directory"), None, "not the command");
    }

    #[test]
    fn handled_signals_are_read_from_the_mask() {
        assert_eq!(caught("Name:\tsh\nSigIgn:\t0000000000004000\nSigCgt:\t0000000000014006\n"), 0x14006);
        assert_eq!((caught(""), caught("SigCgt:\tx\n")), (0, 0));
        assert!(!handles(rustix::process::getpid(), SIGTERM), "tests do not handle it");
    }
}
