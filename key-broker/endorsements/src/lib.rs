//! Endorsements: what AMD says of a chip's key, and what Intel says of a kind of platform. They come from a
//! [`Directory`], which is an air-gap bundle and a cache in one, or from a service over HTTP by [`Service`].
//!
//! Nothing here decides anything. Whatever is found is shown to the verifier, whose pinned roots decide; only what
//! passed there should be kept ([`Directory::keep`]), so that nobody's answer stays in the way of a right one.

mod amd;
mod client;
mod directory;
mod intel;

use std::path::PathBuf;

pub use amd::VekName;
pub use client::{Limits, Service};
pub use directory::{Directory, MAX_KEPT};
pub use intel::{PckAuthority, PlatformName};

/// What the answers of Intel's services are made of.
pub mod answers {
    pub use crate::intel::{decoded, list, signed};
}

/// Endorsements were not to be had.
#[derive(Debug, thiserror::Error)]
pub enum EndorsementError {
    /// The evidence does not say whose endorsement it needs.
    #[error("no endorsement can be named: {0}")]
    Unnamed(&'static str),
    /// The address is none to ask at.
    #[error("{address}: {what}")]
    Address {
        /// As it was configured.
        address: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Nothing came, within the attempts and the time there are.
    #[error("{url}: {what}")]
    Unavailable {
        /// What was asked for.
        url: String,
        /// The last answer.
        what: String,
    },
    /// The service does not have it.
    #[error("{url}: not there")]
    Missing {
        /// What was asked for.
        url: String,
    },
    /// What came is not of the form that such an answer has.
    #[error("{url}: {what}")]
    Malformed {
        /// What was asked for.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}
