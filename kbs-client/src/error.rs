//! Why the attestor's help was not had.

use protocols::reason::{self, Code, Refusal, Source};

/// One failed step with the attestor. Every variant has a stable code.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// No connection, no answer in time, or a server error.
    #[error("the attestor is out of reach: {what}")]
    Unavailable {
        /// What happened, without addresses or secrets.
        what: String,
    },
    /// The answer is not one of this protocol, or not of the configured kind.
    #[error("the attestor's answer is not of the protocol: {what}")]
    Protocol {
        /// What is wrong.
        what: String,
    },
    /// The verdict names another request's nonce.
    #[error("the verdict names another nonce")]
    Nonce,
    /// The answer is not signed by the pinned key.
    #[error("the {what} is not signed by the attestor's pinned key")]
    Signature {
        /// `verdict` or `receipt`.
        what: &'static str,
    },
    /// The verdict is about something else.
    #[error("the verdict names another {field}: expected {expected}, got {actual}")]
    Verdict {
        /// The field that differs.
        field: &'static str,
        /// What was asked.
        expected: String,
        /// What was answered.
        actual: String,
    },
    /// The verdict is of a development attestor and this is production.
    #[error("the attestor is of the {actual} environment")]
    Environment {
        /// The attestor's environment.
        actual: protocols::environment::Environment,
    },
    /// The receipt is about something else or does not follow the last one.
    #[error("the receipt's {field} is wrong: expected {expected}, got {actual}")]
    Receipt {
        /// The field that differs.
        field: &'static str,
        /// What was sent, or the last receipt's hash.
        expected: String,
        /// What was answered.
        actual: String,
    },
    /// The session ended; attest again, once.
    #[error("the attestor does not know this session any more")]
    Session,
    /// The attestor refuses this caller this resource.
    #[error("the attestor does not release {what}")]
    Denied {
        /// The resource's path.
        what: String,
    },
    /// The attestor has no such resource.
    #[error("the attestor has no {what}")]
    NotFound {
        /// The resource's path.
        what: String,
    },
    /// The attestor refused the request and said why.
    #[error("{refusal}")]
    Refused {
        /// The attestor's refusal; its source is the attestor.
        refusal: Box<Refusal>,
        /// Records the attestor holds of this guest, where it said so.
        count: Option<u64>,
    },
    /// What this side was given cannot be sent.
    #[error("the request cannot be made: {what}")]
    Request {
        /// What is wrong.
        what: &'static str,
    },
}

impl ClientError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Unavailable { .. } => reason::ATTESTOR_UNAVAILABLE,
            Self::Protocol { .. } => reason::ATTESTOR_PROTOCOL,
            Self::Nonce => reason::ATTESTOR_NONCE,
            Self::Signature { .. } => reason::ATTESTOR_SIGNATURE,
            Self::Verdict { .. } => reason::ATTESTOR_VERDICT,
            Self::Environment { .. } => reason::POLICY_ENVIRONMENT,
            Self::Receipt { .. } => reason::LOG_RECEIPT,
            Self::Session => reason::ATTESTOR_SESSION,
            Self::Denied { .. } => reason::ATTESTOR_DENIED,
            Self::NotFound { .. } => reason::ATTESTOR_NOT_FOUND,
            Self::Refused { refusal, .. } => refusal.code,
            Self::Request { .. } => reason::EVIDENCE_UNAVAILABLE,
        }
    }

    /// The refusal for the caller, the log and the launch's answer.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let (expected, actual) = match self {
            Self::Refused { refusal, .. } => return Refusal::clone(refusal).by(Source::Attestor),
            Self::Verdict { field, expected, actual } | Self::Receipt { field, expected, actual } => {
                (format!("{field} {expected}"), actual.clone())
            }
            Self::Environment { actual } => ("production".to_owned(), actual.to_string()),
            other => (other.code().check().to_owned(), other.to_string()),
        };
        Refusal::new(self.code(), "attestor", expected, actual)
    }

    /// Records the attestor holds, where a refusal said so: the place to send the log from.
    #[must_use]
    pub const fn count(&self) -> Option<u64> {
        match self {
            Self::Refused { count, .. } => *count,
            _ => None,
        }
    }

    /// Whether attesting again, once, may help.
    #[must_use]
    pub const fn session_ended(&self) -> bool {
        matches!(self, Self::Session)
    }

    pub(crate) fn unavailable(what: impl Into<String>) -> Self {
        Self::Unavailable { what: what.into() }
    }

    pub(crate) fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol { what: what.into() }
    }
}
