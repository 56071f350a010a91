//! What makes a signature policy unusable. Nothing starts with such a policy.

use std::path::PathBuf;

/// A policy that cannot be taken as it is written.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Longer than [`super::MAX_POLICY`].
    #[error("the signature policy is longer than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Not JSON of the form of containers-policy.json(5): unknown, repeated or missing members.
    #[error("signature policy: {0}")]
    Form(#[from] serde_json::Error),
    /// A rule of that page is broken, or something is asked for that is not supported here.
    #[error("signature policy, {place}: {problem}")]
    Rule {
        /// The scope or requirement.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A key file cannot be read.
    #[error("signature policy, key {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}
