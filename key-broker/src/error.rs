//! Why a request was not served, and how that is told: a code and its facts to the caller, the rest to our log.

use broker_store::StoreError;
use protocols::reason::{self, Code, Refusal, Source};

/// One request that was not served.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A check failed.
    #[error("{refusal}")]
    Refused {
        /// Which, and why.
        refusal: Box<Refusal>,
        /// Records held of the guest, where that helps the sender to go on.
        count: Option<u64>,
        /// Whether the caller has shown evidence that holds.
        verified: bool,
    },
    /// The body was not read: too long, too slow, or cut.
    #[error("body: {0}")]
    Body(BodyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something that cannot fail did.
    #[error("internal: {0}")]
    Internal(&'static str),
}

/// What kept a body from being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More bytes than any request needs.
    #[error("too large")]
    TooLarge,
    /// It did not come in time.
    #[error("not received in time")]
    Timeout,
    /// The connection ended within it.
    #[error("cut short")]
    Cut,
}

impl BodyError {
    /// For the count.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::Cut => "cut",
        }
    }
}

impl From<Refusal> for BrokerError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { refusal: Box::new(refusal.by(Source::Attestor)), count: None, verified: false }
    }
}

impl BrokerError {
    /// A refusal of `code` about `subject`.
    #[must_use]
    pub fn refused(
        code: Code,
        subject: impl Into<String>,
        expected: impl Into<String>,
        actual: impl Into<String>,
    ) -> Self {
        Refusal::new(code, subject, expected, actual).into()
    }

    /// The session or challenge does not count.
    #[must_use]
    pub fn session(actual: &'static str) -> Self {
        Self::refused(reason::ATTESTOR_SESSION, "session", "a session of this attestor, unexpired", actual)
    }

    /// Adds how many records are held of the guest.
    #[must_use]
    pub fn holding(self, held: u64) -> Self {
        match self {
            Self::Refused { refusal, verified, .. } => Self::Refused { refusal, count: Some(held), verified },
            other => other,
        }
    }

    /// Says that the caller has shown evidence that holds.
    #[must_use]
    pub(crate) fn by_verified(self) -> Self {
        match self {
            Self::Refused { refusal, count, .. } => Self::Refused { refusal, count, verified: true },
            other => other,
        }
    }

    /// Whether the caller has shown evidence that holds.
    pub(crate) const fn verified(&self) -> bool {
        matches!(self, Self::Refused { verified: true, .. })
    }

    /// What the caller is told: nothing of the store's or our own trouble but that it is there.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused { refusal, .. } => Refusal::clone(refusal),
            Self::Body(error) => {
                let expected = "a body of at most 2 MiB (16 KiB for a challenge), in time";
                Refusal::new(reason::ATTESTOR_PROTOCOL, "request", expected, error.to_string())
            }
            Self::Store(_) | Self::Internal(_) => Refusal::new(
                reason::ATTESTOR_UNAVAILABLE,
                "attestor",
                "a working store",
                "it failed; see the attestor's log",
            ),
        }
        .by(Source::Attestor)
    }

    /// Records held, for the sender.
    #[must_use]
    pub const fn count(&self) -> Option<u64> {
        match self {
            Self::Refused { count, .. } => *count,
            _ => None,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        let refusal = match self {
            Self::Refused { refusal, .. } => refusal,
            Self::Body(BodyError::TooLarge) => return 413,
            Self::Body(BodyError::Timeout) => return 408,
            Self::Body(BodyError::Cut) => return 400,
            Self::Store(_) | Self::Internal(_) => return 503,
        };
        let code = refusal.code;
        if code == reason::ATTESTOR_RATE {
            return 429;
        }
        if code.class() == reason::Class::Unavailable {
            return 503;
        }
        match code.as_str() {
            "attestor.session" => 401,
            "attestor.not_found" => 404,
            "attestor.audit" => 503,
            "attestor.protocol" | "evidence.malformed" | "log.malformed" | "log.digest" => 400,
            "log.fork" | "log.regress" | "log.gap" | "log.replay" | "log.full" | "log.sealed" => 409,
            _ => 403,
        }
    }
}
