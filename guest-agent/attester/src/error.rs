//! What can go wrong, each with its stable reason code.

use protocols::event_log::LogError;
use protocols::reason::{self, Code, Refusal};
use protocols::register::RegisterValue;

/// Why log and register can no longer be reconciled. Nothing is launched until the guest is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Poison {
    /// The stored log is not strictly well formed.
    #[error("the stored log is malformed: {0}")]
    Malformed(LogError),
    /// The stored log's records are not those of this register, or do not start with `Init`.
    #[error("the stored log is not of this register: {0}")]
    Foreign(&'static str),
    /// The register is neither at the log's replay nor where the write-ahead record explains it.
    #[error("the register is at {register}, the log leads to {log}")]
    Replay {
        /// The log's replay.
        log: RegisterValue,
        /// The register.
        register: RegisterValue,
    },
    /// The write-ahead record does not continue the log.
    #[error("the write-ahead record does not continue the log: {0}")]
    Wal(&'static str),
}

/// An attester or the event log refused.
#[derive(Debug, thiserror::Error)]
pub enum AttesterError {
    /// The register could not be extended.
    #[error("the register could not be extended: {detail}")]
    RegisterExtend {
        /// The platform's answer.
        detail: String,
    },
    /// The register could not be read, or the device not be reached.
    #[error("the register could not be read: {detail}")]
    RegisterUnavailable {
        /// The platform's answer.
        detail: String,
    },
    /// A fresh log found a register that something else has extended.
    #[error("the register starts at {actual}, not at {expected}")]
    RegisterStart {
        /// Zero, or the firmware log's replay.
        expected: RegisterValue,
        /// What was read.
        actual: RegisterValue,
    },
    /// The platform gave no evidence.
    #[error("no evidence: {detail}")]
    EvidenceUnavailable {
        /// The platform's answer.
        detail: String,
    },
    /// Something simulated was configured for production, or a log of another environment was found.
    #[error("{what} is refused")]
    Environment {
        /// What is not allowed there.
        what: &'static str,
    },
    /// The configuration names something that cannot be.
    #[error("attester configuration: {detail}")]
    Config {
        /// What and why.
        detail: String,
    },
    /// The initdata is not the one that the platform, or the guest's own log, was begun with.
    #[error("the initdata is {actual}, not {expected}")]
    Initdata {
        /// What the platform binds, or the log's first record names.
        expected: String,
        /// What the guest has.
        actual: String,
    },
    /// The log could not be read or written.
    #[error("event log: {step}: {source}")]
    LogWrite {
        /// What was being done.
        step: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Log and register disagree; nothing more is recorded.
    #[error("the event log is poisoned: {0}")]
    Poisoned(Poison),
    /// The event cannot be a record.
    #[error("the event cannot be recorded: {0}")]
    Event(LogError),
    /// A launch event after `Seal`.
    #[error("the log is sealed: {operation} is refused")]
    Sealed {
        /// The refused event.
        operation: &'static str,
    },
    /// The log holds its most records.
    #[error("the log is full")]
    Full,
}

impl AttesterError {
    /// What a platform was started with must be this initdata.
    pub(crate) fn same_initdata(bound: Option<RegisterValue>, digest: &RegisterValue) -> Result<(), Self> {
        if bound == Some(*digest) { Ok(()) } else { Err(Self::initdata(bound, Some(*digest))) }
    }

    /// The bytes of a file that configuration names.
    pub(crate) fn configured(path: &std::path::Path) -> Result<Vec<u8>, Self> {
        std::fs::read(path).map_err(|error| Self::Config { detail: format!("{}: {error}", path.display()) })
    }

    pub(crate) fn initdata(expected: Option<RegisterValue>, actual: Option<RegisterValue>) -> Self {
        let shown = |digest: Option<RegisterValue>| digest.map_or_else(|| "none".to_owned(), |d| d.to_string());
        Self::Initdata { expected: shown(expected), actual: shown(actual) }
    }

    /// Says of a platform that is not there what was looked for.
    pub(crate) fn with_missing(mut self, missing: &str) -> Self {
        if let Self::RegisterUnavailable { detail } | Self::EvidenceUnavailable { detail } = &mut self
            && !missing.is_empty()
        {
            detail.push_str("; missing: ");
            detail.push_str(missing);
        }
        self
    }

    /// The stable reason code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::RegisterExtend { .. } => reason::REGISTER_EXTEND,
            Self::RegisterUnavailable { .. } | Self::Config { .. } => reason::REGISTER_UNAVAILABLE,
            Self::RegisterStart { .. } => reason::REGISTER_START,
            Self::EvidenceUnavailable { .. } => reason::EVIDENCE_UNAVAILABLE,
            Self::Environment { .. } => reason::POLICY_ENVIRONMENT,
            Self::Initdata { .. } => reason::EVIDENCE_INITDATA,
            Self::LogWrite { .. } => reason::LOG_WRITE,
            Self::Poisoned(_) => reason::LOG_POISONED,
            Self::Event(error) => error.code(),
            Self::Sealed { .. } => reason::LOG_SEALED,
            Self::Full => reason::LOG_FULL,
        }
    }

    /// The explained refusal.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let (subject, expected) = match self {
            Self::Initdata { expected, actual } => {
                return Refusal::new(self.code(), "initdata", expected.clone(), actual.clone());
            }
            Self::RegisterExtend { .. } | Self::RegisterUnavailable { .. } | Self::RegisterStart { .. } => {
                ("measurement register", self.code().check())
            }
            Self::EvidenceUnavailable { .. } => ("evidence", self.code().check()),
            Self::Environment { .. } | Self::Config { .. } => ("attester", self.code().check()),
            _ => ("event log", self.code().check()),
        };
        Refusal::new(self.code(), subject, expected, self.to_string())
    }
}
