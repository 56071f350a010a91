//! What the service's methods do. Callers are not told apart here: the gate stands before all of it.

mod launch;
mod processes;
mod provide;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::register::RegisterValue;
use protocols::tcl::Mode;

use crate::attestor::RemoteAttestor;
use crate::cgroup::OomEvents;
use crate::containers::{Container, Containers, OutputStream, State};
use crate::error::{AgentError, blocking};
use crate::io::MAX_READ;
use crate::journal::Journal;
use crate::launch::{Pipeline, Places};
use crate::runtime::Runtime;

/// The grace period of a stop that names none.
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone and recorded.
const KILL_TIME: Duration = Duration::from_secs(30);
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
    /// Containers in which something was killed for lack of memory.
    pub(crate) oom: OomEvents,
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

impl Agent {
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
        let created = match container.state() {
            State::Created => true,
            State::Running => false,
            State::Ended(_) => return Ok(()),
            State::Launching(_) | State::Refused => return Err(container.misfit("it does not run")),
        };
        container.set_stopped();
        if signal != 0 {
            return self.signal(&container, signal).await;
        }
        if created {
            // Nothing of the workload runs yet that could end by itself.
            return self.kill(&container).await;
        }
        let grace = match grace_seconds {
            0 => DEFAULT_GRACE,
            seconds => Duration::from_secs(seconds.into()),
        };
        self.signal(&container, SIGTERM).await?;
        if tokio::time::timeout(grace, container.ended()).await.is_ok() {
            return Ok(());
        }
        self.kill(&container).await
    }

    /// Kills a container and waits until its end is recorded and nothing of it is left.
    async fn kill(&self, container: &Container) -> Result<(), AgentError> {
        self.signal(container, SIGKILL).await?;
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
            State::Launching(_) | State::Created | State::Running => {
                Err(container.misfit("it has not ended: stop it first"))
            }
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
