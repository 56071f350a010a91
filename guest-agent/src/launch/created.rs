//! From a measured launch to a container that waits, and from there to one that runs.

use std::os::fd::OwnedFd;
use std::time::Duration;

use attester::Appended;
use protocols::events::{Created, Exit, ExitReason, Started, hash_str};
use rustix::fs::{Mode, OFlags};

use super::loaded::{ContainerSpec, Held};
use super::{Ledger, MeasuredLaunch};
use crate::error::AgentError;
use crate::io::Streams;
use crate::processes::First;
use crate::runtime::{Init, Made, Runtime};

/// How long a process that was killed may take to be gone.
const END_TIME: Duration = Duration::from_secs(10);

/// A container the runtime has made and the log holds as `Created`; its process has not run.
///
/// ```compile_fail,E0451
/// fn forge(spec: guest_agent::launch::ContainerSpec) -> guest_agent::launch::CreatedContainer {
///     guest_agent::launch::CreatedContainer { spec }
/// }
/// ```
///
/// A measured launch cannot be started before it was created:
///
/// ```compile_fail,E0599
/// async fn skip(launch: guest_agent::launch::MeasuredLaunch, ledger: guest_agent::launch::Ledger<'_>) {
///     let _ = launch.start(&ledger).await;
/// }
/// ```
///
/// ```no_run
/// async fn start(container: guest_agent::launch::CreatedContainer, ledger: guest_agent::launch::Ledger<'_>) {
///     let _ = container.start(&ledger).await;
/// }
/// ```
#[derive(Debug)]
pub struct CreatedContainer {
    spec: ContainerSpec,
    held: Held,
    init: Init,
    recorded: Appended,
}

/// What the agent reaches a created container's processes by.
#[derive(Debug)]
pub struct Reach {
    pub(crate) streams: Streams,
    pub(crate) first: First,
}

/// A container whose process runs; the log holds it as `Started`.
#[derive(Debug)]
pub struct StartedContainer {
    spec: ContainerSpec,
    held: Held,
    init: Init,
}

/// Why a launch came to nothing, and how its process ended where that ran.
#[derive(Debug)]
pub struct Broken {
    /// Why.
    pub error: AgentError,
    /// What the log must say instead of `Failed`.
    pub exit: Option<Box<Exit>>,
}

impl From<AgentError> for Broken {
    fn from(error: AgentError) -> Self {
        Self { error, exit: None }
    }
}

impl MeasuredLaunch {
    /// Has the runtime create the container from exactly the measured `config.json`, and records it. Gives the
    /// container and the way to its processes.
    ///
    /// # Errors
    /// [`AgentError::Config`], [`AgentError::Runtime`], [`AgentError::Attester`]. Nothing of the container stays.
    pub async fn create(self, ledger: &Ledger<'_>) -> Result<(CreatedContainer, Reach), AgentError> {
        let Self { loaded, runtime } = self;
        let (spec, held) = (loaded.spec, loaded.held);
        let made = match make(&spec, &held, ledger.runtime).await {
            Ok(made) => made,
            Err(error) => {
                delete(ledger.runtime, &spec, None).await;
                held.release().await;
                return Err(error);
            }
        };
        let created = Created {
            seq: spec.seq,
            config_h: held.bundle.spec().config_h,
            rootfs_enforced: held.layout(),
            runtime_h: runtime,
            argv_h: made.argv_h,
        };
        // What lies in the bundle now is what the runtime read: only the agent can write there.
        let recorded = match check_config(&held) {
            Ok(()) => ledger.journal.record(created).await,
            Err(error) => Err(error),
        };
        let first = recorded.and_then(|recorded| {
            let first = First::new(&made.init, held.bundle.dir(), &held.bundle.spec().bytes);
            let first = first.map_err(|source| AgentError::Io { what: "the created process", source })?;
            Ok((recorded, first))
        });
        match first {
            Ok((recorded, first)) => {
                let reach = Reach { streams: made.streams, first };
                Ok((CreatedContainer { spec, held, init: made.init, recorded }, reach))
            }
            Err(error) => {
                delete(ledger.runtime, &spec, Some(made.init)).await;
                held.release().await;
                Err(error)
            }
        }
    }
}

impl CreatedContainer {
    /// Waits for the receipt of what was created where that is asked, lets the process run and records it.
    ///
    /// # Errors
    /// [`AgentError::Attestor`], [`AgentError::QueueFull`], [`AgentError::Runtime`], [`AgentError::Attester`]. Nothing
    /// of the container stays; a process that ran before has an exit.
    pub async fn start(self, ledger: &Ledger<'_>) -> Result<StartedContainer, Broken> {
        let Self { spec, held, init, recorded } = self;
        let started = match ledger.receipt(&recorded).await {
            Ok(()) => ledger.runtime.start(&spec.id).await,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            delete(ledger.runtime, &spec, Some(init)).await;
            held.release().await;
            return Err(error.into());
        }
        match ledger.journal.record(Started { seq: spec.seq }).await {
            Ok(_) => Ok(StartedContainer { spec, held, init }),
            Err(error) => {
                let status = delete(ledger.runtime, &spec, Some(init)).await;
                held.release().await;
                let cid_h = hash_str(spec.id.as_str());
                let exit = Exit { seq: Some(spec.seq), cid_h, status, reason: ExitReason::Stopped };
                Err(Broken { error, exit: Some(Box::new(exit)) })
            }
        }
    }
}

impl CreatedContainer {
    /// The PID namespace of the process that waits for its start.
    pub(crate) fn pid_namespace(&self) -> std::io::Result<OwnedFd> {
        let path = format!("/proc/{}/ns/pid", self.init.pid().as_raw_pid());
        Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    /// Waits until somebody has killed it before its start.
    pub(crate) async fn killed(&self) {
        self.init.exited().await;
    }

    /// Removes it from the runtime without a start, and gives the status of the process that waited for it.
    pub(crate) async fn ended(self, runtime: &Runtime) -> (Option<u32>, Leftovers) {
        (delete(runtime, &self.spec, Some(self.init)).await, Leftovers { held: self.held })
    }
}

impl StartedContainer {
    /// Waits for the process to end, removes the container from the runtime, and gives the exit status.
    pub(crate) async fn ended(self, runtime: &Runtime) -> (Option<u32>, Leftovers) {
        let status = self.init.wait(runtime.children()).await;
        delete(runtime, &self.spec, None).await;
        (status, Leftovers { held: self.held })
    }
}

/// What an ended container still has mounted and on disk.
#[derive(Debug)]
pub(crate) struct Leftovers {
    held: Held,
}

impl Leftovers {
    pub(crate) async fn remove(self) {
        self.held.release().await;
    }
}

async fn make(spec: &ContainerSpec, held: &Held, runtime: &Runtime) -> Result<Made, AgentError> {
    check_config(held)?;
    runtime.create(&spec.id, held.bundle.dir(), spec.terminal, spec.stdin).await
}

fn check_config(held: &Held) -> Result<(), AgentError> {
    let actual = held.bundle.hash_config().map_err(|source| AgentError::Io { what: "config.json", source })?;
    let expected = held.bundle.spec().config_h;
    if actual == expected { Ok(()) } else { Err(AgentError::Config { expected, actual }) }
}

/// Ends whatever the runtime knows of a container, sees its process off, and gives the exit status if it was seen.
async fn delete(runtime: &Runtime, spec: &ContainerSpec, init: Option<Init>) -> Option<u32> {
    if let Err(error) = runtime.delete(&spec.id).await {
        tracing::error!(id = %spec.id, %error, "the container could not be deleted");
    }
    let ended = tokio::time::timeout(END_TIME, init?.wait(runtime.children())).await;
    ended.unwrap_or_else(|_| {
        tracing::error!(id = %spec.id, "the container's process did not end");
        None
    })
}
