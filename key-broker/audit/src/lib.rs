//! What the attestor did, so that nobody changes it afterwards unnoticed: entries in a Merkle tree (RFC 9162, section 2.1,
//! SHA-256), signed checkpoints of it, and proofs that an entry is in it or that it grew out of an earlier one.
//!
//! Pure: the attestor stores and serves, `tclctl audit` reads and checks, both by what stands here.

mod checkpoint;
mod entry;
mod messages;
mod proof;
mod tree;
mod verify;

pub use checkpoint::{CHECKPOINT_TYP, Checkpoint};
pub use entry::{Entry, Event, MAX_ENTRY, Outcome};
pub use messages::{
    CHECKPOINT_PATH, CONSISTENCY_PATH, CheckpointResponse, ENTRIES_PATH, EntriesResponse, MAX_ENTRIES, PROOF_PATH,
    ProofResponse,
};
pub use proof::{Plan, verify_consistency, verify_inclusion};
pub use tree::{Row, Subtree, Tree, leaf_hash};
pub use verify::Verifier;

/// Why a log, or a word about it, does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// Not a checkpoint signed by the expected key.
    #[error("checkpoint: {0}")]
    Checkpoint(#[from] protocols::jws::JwsError),
    /// Bytes at a place are no entry of that place.
    #[error("entry {place}: {what}")]
    Entry {
        /// From 0.
        place: u64,
        /// Why.
        what: &'static str,
    },
    /// The entries do not hash to what was signed: one was edited, left out, added or moved.
    #[error("{size} entries hash to {actual}, the checkpoint says {expected}: an entry was edited, left out or moved")]
    Root {
        /// Entries hashed.
        size: u64,
        /// The checkpoint's root.
        expected: protocols::digest::Sha256Digest,
        /// What they hash to.
        actual: protocols::digest::Sha256Digest,
    },
    /// Two signed checkpoints are not of one log.
    #[error("a checkpoint of {older} entries is not of the log with {newer}: the log was forked or rewritten")]
    Fork {
        /// Entries of the earlier one.
        older: u64,
        /// Entries of the later one.
        newer: u64,
    },
    /// A log is shorter than one that was signed before.
    #[error("{actual} entries, where {expected} were signed before: entries were taken away")]
    Shrunk {
        /// Entries signed before.
        expected: u64,
        /// Entries now.
        actual: u64,
    },
    /// A proof does not prove it.
    #[error("the proof does not lead to the root")]
    Proof,
    /// A tree's parts do not make one.
    #[error("not a tree of {0} entries")]
    Tree(u64),
}
