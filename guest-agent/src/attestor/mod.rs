//! The agent's link to the remote attestor: one session, one delivery at a time, history in order.

#[cfg(test)]
pub(crate) mod fault;
mod keys;
mod link;
mod memory;

use async_trait::async_trait;
use kbs_client::{Question, VerifiedVerdict};
use protocols::digest::Sha256Digest;
use protocols::resource::ResourcePath;
use protocols::tcl::GoldenResource;
use protocols::time::Timestamp;
use tokio::sync::watch;
use zeroize::Zeroizing;

pub(crate) use keys::BrokerKeys;
pub use link::AttestorLink;

use crate::error::AgentError;

/// What the launch pipeline needs of the remote attestor.
#[async_trait]
pub trait RemoteAttestor: Send + Sync + std::fmt::Debug {
    /// Delivers the log, then asks for the decision on one launch.
    async fn decide(&self, question: Question) -> Result<VerifiedVerdict, AgentError>;

    /// Returns when the attestor has receipted at least the first `count` records.
    async fn deliver(&self, count: u64) -> Result<(), AgentError>;

    /// The golden values stored as a resource, unverified.
    async fn golden(&self, manifest: Sha256Digest) -> Result<Option<GoldenResource>, AgentError>;

    /// A resource, by the attestor's own policy.
    async fn resource(&self, path: ResourcePath) -> Result<Zeroizing<Vec<u8>>, AgentError>;

    /// Tells the number of receipted records whenever it grows.
    fn delivered(&self) -> watch::Receiver<u64>;

    /// The latest time the attestor has signed, zero before the first.
    fn last_time(&self) -> Timestamp;
}
