//! What the service's methods do. Callers are not told apart here: the gate stands before all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::events::{Exit, ExitReason, hash_str};
use protocols::register::RegisterValue;
use protocols::tcl::Mode;

use crate::attestor::RemoteAttestor;
use crate::containers::{Container, Containers, OutputStream, State};
use crate::error::{AgentError, blocking};
use crate::io::MAX_READ;
use crate::journal::Journal;
use crate::launch::{ContainerSpec, LaunchRequest, Pipeline, Places, Running, StartedContainer};
use crate::runtime::Runtime;

/// How long an ended container's entry stays for a caller who never came back.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// The grace period of a stop that names none.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone and recorded.
const KILL_TIME: Duration = Duration::from_secs(30);
/// Status of a process whose end nobody saw.
const UNKNOWN_STATUS: u32 = 255;
/// Sizes of a challenge, in bytes.
const CHALLENGE: std::ops::RangeInclusive<usize> = 16..=64;

const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;
/// The highest signal number Linux has.
const MAX_SIGNAL: u32 = 64;

/// The agent: every container and everything that launches and ends them.
#[derive(Debug)]
pub struct Agent {
    pub(crate) environment: Environment,
    pub(crate) journal: Arc<Journal>,
    pub(crate) attestor: Arc<dyn RemoteAttestor>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) containers: Arc<Containers>,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) places: Places,
    pub(crate) draining: AtomicBool,
}

/// How a launch ended for its caller.
#[derive(Debug)]
pub struct Outcome {
    /// The container's entry; `None` when the request was refused before it had one.
    pub container: Option<Arc<Container>>,
    /// Running, or why not.
    pub result: Result<(), AgentError>,
}

/// The log, and the register that stands behind exactly that log.
#[derive(Debug)]
pub struct LogExport {
    /// Header, records, end mark.
    pub log: Vec<u8>,
    /// Read while no record could be added.
    pub register: RegisterValue,
}

/// Takes a launch's entry back unless the launch has come through, whatever breaks it off.
struct EntryGuard {
    containers: Arc<Containers>,
    container: Arc<Container>,
    running: bool,
}

impl Drop for EntryGuard {
    fn drop(&mut self) {
        if !self.running {
            self.container.set_state(State::Refused);
            self.containers.remove(&self.container);
        }
    }
}

impl Agent {
    /// Launches a container. The launch goes on when the caller stops waiting for it.
    pub async fn launch(self: &Arc<Self>, request: LaunchRequest) -> Outcome {
        if self.draining.load(Ordering::Relaxed) {
            return Outcome { container: None, result: Err(AgentError::Draining) };
        }
        let container = match self.pipeline.begin(&request).await {
            Ok(container) => container,
            Err(error) => return Outcome { container: None, result: Err(error) },
        };
        let guard =
            EntryGuard { containers: Arc::clone(&self.containers), container: Arc::clone(&container), running: false };
        let agent = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut guard = guard;
            let container = Arc::clone(&guard.container);
            tracing::info!(id = %container.id, seq = container.seq, mode = %container.mode, "launching");
            let started = agent.pipeline.run(&container, request).await;
            match started {
                Ok(started) => {
                    guard.running = true;
                    agent.supervise(container, started);
                    Ok(())
                }
                Err(error) => {
                    tracing::warn!(id = %container.id, code = %error.code(), %error, "launch refused");
                    Err(error)
                }
            }
        });
        container.set_launch(task.abort_handle());
        let result = task.await.unwrap_or_else(|error| Err(error.into()));
        Outcome { container: Some(container), result }
    }

    /// Watches a running container until its entry is forgotten.
    fn supervise(self: &Arc<Self>, container: Arc<Container>, started: StartedContainer) {
        let StartedContainer { spec, streams, running } = started;
        container.set_streams(streams);
        container.set_state(State::Running);
        tracing::info!(id = %container.id, "running");
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            agent.see_off(&container, &spec, running).await;
            if !container.keep() {
                tokio::time::sleep(FORGET_AFTER).await;
                agent.containers.remove(&container);
            }
        });
    }

    async fn see_off(&self, container: &Container, spec: &ContainerSpec, running: Running) {
        let (status, leftovers) = running.ended(spec, &self.runtime).await;
        let reason = if container.stopped() { ExitReason::Stopped } else { ExitReason::Exited };
        let exit = Exit { seq: Some(container.seq), cid_h: hash_str(container.id.as_str()), status, reason };
        let recorded = self.journal.try_end(container.seq, exit.clone()).await;
        // Also when it failed: what lies here may be what fills the disk.
        leftovers.remove().await;
        if recorded.is_err() {
            // Until the log holds the end, nobody learns of it, and nobody else gets the id.
            if let Err(error) = self.journal.end(container.seq, exit).await {
                tracing::error!(id = %container.id, %error, "the exit cannot be recorded");
            }
        }
        container.set_state(State::Ended(status.unwrap_or(UNKNOWN_STATUS)));
        tracing::info!(id = %container.id, status, ?reason, "ended");
    }

    /// Waits for a container's end and gives its status.
    ///
    /// # Errors
    /// [`AgentError::Container`].
    pub async fn wait(&self, id: &str) -> Result<u32, AgentError> {
        let container = self.containers.get(id)?;
        let status = container.ended().await?;
        self.containers.waited(&container);
        Ok(status)
    }

    /// Reads what an output has; empty at its end.
    ///
    /// # Errors
    /// [`AgentError::Container`], [`AgentError::Io`].
    pub async fn read(&self, id: &str, stream: OutputStream, len: u32) -> Result<Vec<u8>, AgentError> {
        let container = self.containers.get(id)?;
        let streams = container.streams().await?;
        let output = match stream {
            OutputStream::Stdout => &streams.stdout,
            OutputStream::Stderr => &streams.stderr,
        };
        let len = usize::try_from(len).unwrap_or(MAX_READ);
        let data = output.read(len).await.map_err(|source| AgentError::Io { what: "output", source })?;
        if data.is_empty() {
            self.containers.drained(&container, stream);
        }
        Ok(data)
    }

    /// Writes some input and says how much was taken; empty data closes it.
    ///
    /// # Errors
    /// [`AgentError::Container`], [`AgentError::Io`].
    pub async fn write(&self, id: &str, data: &[u8]) -> Result<u32, AgentError> {
        let container = self.containers.get(id)?;
        let streams = container.streams().await?;
        let taken = streams.stdin.write(data).await.map_err(|source| AgentError::Io { what: "input", source })?;
        Ok(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    /// Signals a container. Without a signal: SIGTERM, and after the grace period SIGKILL; then it returns when the
    /// container is gone.
    ///
    /// # Errors
    /// [`AgentError::Container`], [`AgentError::Request`], [`AgentError::Runtime`].
    pub async fn stop(&self, id: &str, signal: u32, grace_seconds: u32) -> Result<(), AgentError> {
        let container = self.containers.get(id)?;
        if signal > MAX_SIGNAL {
            return Err(AgentError::Request { field: "signal", what: "must be from 0 to 64" });
        }
        match container.state() {
            State::Running => {}
            State::Ended(_) => return Ok(()),
            State::Launching(_) | State::Refused => return Err(container.misfit("it does not run")),
        }
        container.set_stopped();
        if signal != 0 {
            return self.signal(&container, signal).await;
        }
        let grace = match grace_seconds {
            0 => DEFAULT_GRACE,
            seconds => Duration::from_secs(seconds.into()),
        };
        self.signal(&container, SIGTERM).await?;
        if tokio::time::timeout(grace, container.ended()).await.is_ok() {
            return Ok(());
        }
        self.signal(&container, SIGKILL).await?;
        match tokio::time::timeout(KILL_TIME, container.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(container.misfit("it was killed and does not end")),
        }
    }

    async fn signal(&self, container: &Container, signal: u32) -> Result<(), AgentError> {
        match self.runtime.kill(&container.id, signal).await {
            // It may have ended in the meantime, all by itself.
            Err(error) => match tokio::time::timeout(Duration::from_secs(1), container.ended()).await {
                Ok(_) => Ok(()),
                Err(_) => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    /// Forgets an ended container, with the output nobody has read.
    ///
    /// # Errors
    /// [`AgentError::Container`].
    pub fn remove(&self, id: &str) -> Result<(), AgentError> {
        let container = self.containers.get(id)?;
        match container.state() {
            State::Ended(_) | State::Refused => {
                self.containers.remove(&container);
                Ok(())
            }
            State::Launching(_) | State::Running => Err(container.misfit("it has not ended: stop it first")),
        }
    }

    /// The log and its register.
    ///
    /// # Errors
    /// [`AgentError::Attester`] when the register cannot be read.
    pub async fn event_log(&self) -> Result<LogExport, AgentError> {
        let (log, register) = self.journal.snapshot().await?;
        Ok(LogExport { log, register })
    }

    /// Evidence over `SHA-384("tcl-evidence-v1" || challenge)`, as JSON text.
    ///
    /// # Errors
    /// [`AgentError::Request`] for a challenge of another size, [`AgentError::Attester`].
    pub async fn evidence(&self, challenge: &[u8]) -> Result<String, AgentError> {
        if !CHALLENGE.contains(&challenge.len()) {
            return Err(AgentError::Request { field: "challenge", what: "must have 16 to 64 bytes" });
        }
        let binding = Journal::evidence_binding(challenge);
        let attester = Arc::clone(self.journal.log().attester());
        Ok(blocking(move || attester.evidence(&binding)).await??.to_string())
    }

    /// Records the attestor has receipted.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        *self.attestor.delivered().borrow()
    }
}

/// What `LaunchResponse` says of an outcome besides its refusal.
impl Outcome {
    /// The platform manifest, once it was known.
    #[must_use]
    pub fn manifest(&self) -> Option<Sha256Digest> {
        self.container.as_ref().and_then(|container| container.manifest())
    }

    /// Where it was decided.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        self.container.as_ref().map(|container| container.mode)
    }
}
