//! Why the agent did not do what it was asked, each with its stable reason code.

use std::path::PathBuf;

use attester::AttesterError;
use image_rs_fork::ImageError;
use kbs_client::ClientError;
use protocols::digest::Sha256Digest;
use protocols::reason::{self, Code, Refusal};
use protocols::tcl::Mode;

/// A runtime's command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeStep {
    /// `create`.
    Create,
    /// `start`.
    Start,
    /// `kill`.
    Kill,
    /// `delete`.
    Delete,
    /// `exec`.
    Exec,
    /// `update`.
    Update,
    /// `pause`.
    Pause,
    /// `resume`.
    Resume,
}

impl RuntimeStep {
    /// The command's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Kill => "kill",
            Self::Delete => "delete",
            Self::Exec => "exec",
            Self::Update => "update",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// Everything that ends a request of the agent's service.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The image was not had, not verified or not measured.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The register, the evidence or the event log.
    #[error(transparent)]
    Attester(#[from] AttesterError),
    /// The attestor.
    #[error(transparent)]
    Attestor(#[from] ClientError),
    /// A check with its own explanation: an appraisal, here or by the attestor, or a rule over the log.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The storage of golden values gave no answer.
    #[error("golden values of {manifest}: {what}")]
    GoldenUnavailable {
        /// The platform manifest.
        manifest: Sha256Digest,
        /// What happened.
        what: String,
    },
    /// The mode is not permitted.
    #[error("mode {asked} is not permitted")]
    Mode {
        /// What was asked for, as written.
        asked: String,
        /// What is permitted.
        permitted: Vec<Mode>,
    },
    /// The guest did not boot in a state that local mode may trust.
    #[error("boot state: {what} is {actual}, not {expected}")]
    BootState {
        /// What was compared.
        what: String,
        /// What the configuration names.
        expected: String,
        /// What was found.
        actual: String,
    },
    /// Evidence of a pass for one thing was shown for another.
    #[error("the verdict is about another {field}: {actual}, not {expected}")]
    OtherVerdict {
        /// What differs.
        field: &'static str,
        /// What was measured here.
        expected: Sha256Digest,
        /// What was judged.
        actual: Sha256Digest,
    },
    /// The records that the attestor has not receipted fill the queue.
    #[error("{waiting} records wait for the attestor, at most {limit} may")]
    QueueFull {
        /// Records not delivered.
        waiting: u64,
        /// The configured bound.
        limit: u64,
    },
    /// Log and register cannot be reconciled: nothing is launched any more.
    #[error("the event log is poisoned")]
    Poisoned,
    /// The agent is shutting down.
    #[error("the agent is shutting down")]
    Draining,
    /// Not a container id.
    #[error("`{}` is not a container id", text.escape_debug())]
    ContainerId {
        /// The refused text.
        text: String,
    },
    /// The container is not known, or the request does not fit its state.
    #[error("container {id}: {what}")]
    Container {
        /// The id.
        id: String,
        /// What does not fit.
        what: &'static str,
    },
    /// A value in a request cannot be used.
    #[error("{field}: {what}")]
    Request {
        /// The request's field.
        field: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// The bundle cannot be laid out.
    #[error("bundle: {what}")]
    Bundle {
        /// Which part, and why.
        what: String,
    },
    /// The configured runtime cannot be used.
    #[error("the runtime {}: {source}", path.display())]
    RuntimeUnavailable {
        /// The configured path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A command of the runtime failed.
    #[error("runtime {}: {message}", step.as_str())]
    Runtime {
        /// Which command.
        step: RuntimeStep,
        /// The runtime's own message.
        message: String,
    },
    /// `config.json` is not what was measured.
    #[error("config.json is {actual}, not the measured {expected}")]
    Config {
        /// What the log says.
        expected: Sha256Digest,
        /// What lies in the bundle.
        actual: Sha256Digest,
    },
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A task of the agent's own broke.
    #[error("the agent's own task ended: {0}")]
    Task(String),
    /// The policy does not allow a call of the host.
    #[error("{0}; it printed: {prints}", prints = .0.prints())]
    Denied(#[from] agent_policy::Denied),
    /// What was to be the policy is none.
    #[error(transparent)]
    Policy(#[from] agent_policy::PolicyError),
    /// The guest's start.
    #[error(transparent)]
    Boot(#[from] boot::BootError),
    /// The disk of the image store.
    #[error(transparent)]
    ImageDisk(#[from] image_disk::DiskError),
    /// A pull took longer than it may.
    #[error("the pull was not done after {seconds} s")]
    PullTime {
        /// How long it may take.
        seconds: u64,
    },
    /// Something of the sandbox that is no launch.
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxError),
    /// The agent does not offer a method.
    #[error("{method} is not offered")]
    NotOffered {
        /// Which.
        method: &'static str,
    },
    /// A call does not fit what the sandbox has come to.
    #[error("the sandbox: {what}")]
    Order {
        /// What does not fit.
        what: &'static str,
    },
    /// A process of a container is not known, or the request does not fit it.
    #[error("process `{}` of container {id}: {fault}", process.escape_debug())]
    Process {
        /// The container's id.
        id: String,
        /// The process's id; empty for the container's first.
        process: String,
        /// What does not fit.
        fault: ProcessFault,
    },
}

/// Why a request about one process of a container cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessFault {
    /// There is no such process, or its end was told and it is forgotten: a client's NOT_FOUND.
    #[error("it is not known")]
    Unknown,
    /// Another process of the container has this id.
    #[error("the id is taken")]
    Taken,
    /// The runtime has not started it yet.
    #[error("it has not started")]
    NotStarted,
    /// It has no terminal whose size could be set: a client's UNAVAILABLE.
    #[error("no tty")]
    NoTerminal,
    /// The container has as many processes as it may, or the process as many parked readers.
    #[error("there are too many {0}")]
    TooMany(&'static str),
    /// It asks for more than the container's own measured process has.
    #[error("{0} exceeds what the container's own process has")]
    Exceeds(&'static str),
    /// A part of the request can be no process.
    #[error("{0}")]
    Malformed(&'static str),
}

impl AgentError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Image(error) => error.code(),
            Self::Attester(error) => error.code(),
            Self::Attestor(error) => error.code(),
            Self::Refused(refusal) => refusal.code,
            Self::GoldenUnavailable { .. } => reason::GOLDEN_UNAVAILABLE,
            Self::Mode { .. } => reason::POLICY_MODE,
            Self::BootState { .. } => reason::POLICY_BOOT_STATE,
            Self::OtherVerdict { .. } => reason::ATTESTOR_VERDICT,
            Self::QueueFull { .. } => reason::LOG_QUEUE_FULL,
            Self::Poisoned => reason::LOG_POISONED,
            Self::Draining => reason::LOG_SEALED,
            Self::ContainerId { .. } | Self::Container { .. } | Self::Request { .. } => reason::RUNTIME_CONTAINER,
            Self::Bundle { .. } | Self::Config { .. } => reason::RUNTIME_BUNDLE,
            Self::RuntimeUnavailable { .. } => reason::RUNTIME_UNAVAILABLE,
            Self::Runtime { step: RuntimeStep::Create, .. } => reason::RUNTIME_CREATE,
            Self::Runtime { step: RuntimeStep::Start, .. } => reason::RUNTIME_START,
            Self::Runtime { step: RuntimeStep::Exec, .. } => reason::RUNTIME_EXEC,
            Self::Process { fault: ProcessFault::Exceeds(_), .. } => reason::POLICY_EXEC,
            Self::Process { .. } => reason::RUNTIME_PROCESS,
            Self::Runtime { .. } | Self::Io { .. } | Self::Task(_) => reason::RUNTIME_CONTAINER,
            Self::Denied(denied) => denied.code(),
            Self::Policy(error) => error.code(),
            Self::Sandbox(error) => error.code(),
            Self::Boot(error) => error.code(),
            Self::ImageDisk(error) => error.code(),
            Self::PullTime { .. } => reason::IMAGE_REGISTRY,
            Self::NotOffered { .. } => reason::KATA_METHOD,
            Self::Order { .. } => reason::KATA_ORDER,
        }
    }

    /// The explained refusal.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let (subject, expected, actual) = match self {
            Self::Image(error) => return error.refusal(),
            Self::Attester(error) => return error.refusal(),
            Self::Attestor(error) => return error.refusal(),
            Self::Refused(refusal) => return Refusal::clone(refusal),
            Self::Denied(denied) => return denied.refusal(),
            Self::Policy(error) => return error.refusal(),
            Self::Sandbox(error) => return error.refusal(),
            Self::GoldenUnavailable { manifest, what } => (manifest.to_string(), "an answer".to_owned(), what.clone()),
            Self::Mode { asked, permitted } => {
                let permitted: Vec<String> = permitted.iter().map(ToString::to_string).collect();
                ("mode".to_owned(), permitted.join(" or "), asked.clone())
            }
            Self::BootState { what, expected, actual } => (what.clone(), expected.clone(), actual.clone()),
            Self::OtherVerdict { field, expected, actual } => {
                ((*field).to_owned(), expected.to_string(), actual.to_string())
            }
            Self::QueueFull { waiting, limit } => {
                ("event log".to_owned(), format!("at most {limit} records undelivered"), waiting.to_string())
            }
            Self::Config { expected, actual } => ("config.json".to_owned(), expected.to_string(), actual.to_string()),
            Self::ContainerId { .. } => {
                ("container".to_owned(), "1 to 64 of A-Z a-z 0-9 . _ -".to_owned(), self.to_string())
            }
            Self::Container { id, what } => {
                (format!("container {id}"), self.code().check().to_owned(), (*what).to_owned())
            }
            Self::Process { id, process, fault } => (
                format!("process `{}` of container {id}", process.escape_debug()),
                self.code().check().to_owned(),
                fault.to_string(),
            ),
            _ => ("launch".to_owned(), self.code().check().to_owned(), self.to_string()),
        };
        Refusal::new(self.code(), subject, expected, actual)
    }
}

impl From<agent_policy::Proposed> for AgentError {
    fn from(error: agent_policy::Proposed) -> Self {
        match error {
            agent_policy::Proposed::Denied(denied) => Self::Denied(denied),
            agent_policy::Proposed::Invalid(error) => Self::Policy(error),
        }
    }
}

impl From<Refusal> for AgentError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<tokio::task::JoinError> for AgentError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Task(if error.is_panic() { "it panicked".to_owned() } else { "it was cancelled".to_owned() })
    }
}

/// Runs blocking work off the runtime's workers.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, AgentError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    Ok(tokio::task::spawn_blocking(work).await?)
}
