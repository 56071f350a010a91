//! What a registry can answer instead of what was asked.

use protocols::digest::Sha256Digest;
use protocols::reason::{self, Code, Refusal};

/// A request to a registry that did not give what it asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// The configuration, auth file or root file cannot be used.
    #[error("registry configuration: {reason}")]
    Config {
        /// What cannot be used and why.
        reason: String,
    },
    /// `registries.conf` blocks the repository.
    #[error("{repository} is blocked by the entry for {prefix} in registries.conf")]
    Blocked {
        /// What was asked for.
        repository: String,
        /// The prefix that blocks it.
        prefix: String,
    },
    /// Plain HTTP would be needed for a host the configuration does not list.
    #[error("{host} is not listed for plain HTTP ({what})")]
    PlainHttp {
        /// The host that is not listed.
        host: String,
        /// Where plain HTTP came up: the registry itself, a redirect, a token server.
        what: &'static str,
    },
    /// 404: no such repository, manifest or blob.
    #[error("{what} is not at {host}")]
    NotFound {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// 401 or 403, with whatever credentials there are.
    #[error("{host} denies {what} (status {status})")]
    Denied {
        /// The registry or its token server.
        host: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
    },
    /// Not reachable, a server error, a connection that broke or stalled.
    #[error("{host} gave no answer for {what}: {reason}")]
    Unavailable {
        /// The registry or its token server.
        host: String,
        /// What was asked for.
        what: String,
        /// What happened.
        reason: String,
    },
    /// An answer that does not follow the distribution specification.
    #[error("{host} gave an answer for {what} that cannot be used: {reason}")]
    Malformed {
        /// The registry or its token server.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// An answer above its limit.
    #[error("{what} at {host} is larger than {limit} bytes")]
    TooLarge {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Bytes with another digest than they were asked for by.
    #[error("{what} at {host} has digest {actual}")]
    Digest {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The digest it was asked for by.
        expected: Sha256Digest,
        /// The digest of the bytes.
        actual: Sha256Digest,
    },
    /// Bytes of another size than their descriptor says.
    #[error("{what} at {host} has {actual} bytes, not {expected}")]
    Size {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// The size in the descriptor.
        expected: u64,
        /// The size that was seen, which is one more than expected when the rest was not read.
        actual: u64,
    },
    /// A referrer that is not a golden value's artifact manifest.
    #[error("{what} at {host} is not a golden value's artifact: {reason}")]
    Artifact {
        /// The registry.
        host: String,
        /// The artifact.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl RegistryError {
    /// The stable reason code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Blocked { .. } => reason::IMAGE_BLOCKED,
            Self::PlainHttp { .. } => reason::IMAGE_PLAIN_HTTP,
            Self::NotFound { .. } => reason::IMAGE_NOT_FOUND,
            Self::Denied { .. } => reason::IMAGE_DENIED,
            Self::Config { .. } | Self::Unavailable { .. } | Self::Malformed { .. } => reason::IMAGE_REGISTRY,
            Self::TooLarge { .. } => reason::IMAGE_LIMIT,
            Self::Digest { .. } => reason::IMAGE_BLOB_DIGEST,
            Self::Size { .. } => reason::IMAGE_BLOB_SIZE,
            Self::Artifact { .. } => reason::GOLDEN_MALFORMED,
        }
    }

    /// The refusal a launch ends with.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let (subject, expected, actual) = match self {
            Self::Config { reason } => ("[registry]".to_owned(), "a usable configuration".to_owned(), reason.clone()),
            Self::Blocked { repository, prefix } => {
                (repository.clone(), "a repository that may be used".to_owned(), format!("{prefix} is blocked"))
            }
            Self::PlainHttp { host, what } => (host.clone(), "TLS".to_owned(), format!("plain HTTP ({what})")),
            Self::NotFound { host, what } => {
                (format!("{what} at {host}"), "an answer".to_owned(), "status 404".to_owned())
            }
            Self::Denied { host, what, status } => {
                (format!("{what} at {host}"), "access".to_owned(), format!("status {status}"))
            }
            Self::Unavailable { host, what, reason } | Self::Malformed { host, what, reason } => {
                (format!("{what} at {host}"), "an answer".to_owned(), reason.clone())
            }
            Self::TooLarge { host, what, limit } => {
                (format!("{what} at {host}"), format!("at most {limit} bytes"), "more".to_owned())
            }
            Self::Digest { host, what, expected, actual } => {
                (format!("{what} at {host}"), expected.to_string(), actual.to_string())
            }
            Self::Size { host, what, expected, actual } => {
                (format!("{what} at {host}"), format!("{expected} bytes"), format!("{actual} bytes"))
            }
            Self::Artifact { host, what, reason } => {
                (format!("{what} at {host}"), "a golden value's artifact manifest".to_owned(), reason.clone())
            }
        };
        Refusal::new(self.code(), subject, expected, actual)
    }
}
