//! How the log is asked for over HTTP, by administrators who may audit.

use protocols::digest::Sha256Digest;
use protocols::tcl::RecordBytes;
use serde::{Deserialize, Serialize};

/// Path of the newest checkpoint: `GET`.
pub const CHECKPOINT_PATH: &str = "/tcl/v1/audit/checkpoint";
/// Path of entries: `GET`, `?from=<place>`.
pub const ENTRIES_PATH: &str = "/tcl/v1/audit/entries";
/// Path of proofs of inclusion: `GET`, `?place=<place>&size=<size>`.
pub const PROOF_PATH: &str = "/tcl/v1/audit/proof";
/// Path of proofs of consistency: `GET`, `?old=<size>&new=<size>`.
pub const CONSISTENCY_PATH: &str = "/tcl/v1/audit/consistency";
/// The most entries in one answer.
pub const MAX_ENTRIES: usize = 1024;

/// The newest checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointResponse {
    /// Compact JWS of a [`crate::Checkpoint`].
    pub checkpoint: String,
}

/// Entries from a place on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntriesResponse {
    /// Their exact bytes, standard base64; none where the log has ended.
    pub entries: Vec<RecordBytes>,
}

/// A proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofResponse {
    /// In the order of RFC 9162.
    pub proof: Vec<Sha256Digest>,
}
