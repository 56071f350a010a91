//! The attestor's signed word on how far its audit log has got.

use p256::ecdsa::VerifyingKey;
use protocols::digest::Sha256Digest;
use protocols::jws::{self, Signer};
use protocols::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::AuditError;
use crate::tree::Tree;

/// JWS `typ` of a checkpoint.
pub const CHECKPOINT_TYP: &str = "tcl-checkpoint+jwt";

/// A tree of entries at a time. Two of one key must be of one log: one is a beginning of the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Entries.
    pub size: u64,
    /// Merkle tree hash over them.
    pub root: Sha256Digest,
    /// The attestor's time.
    pub issued_at: Timestamp,
}

impl Checkpoint {
    /// Of a tree.
    #[must_use]
    pub fn of(tree: &Tree, issued_at: Timestamp) -> Self {
        Self { size: tree.size(), root: tree.root(), issued_at }
    }

    /// As a compact JWS.
    ///
    /// # Errors
    /// [`AuditError::Checkpoint`] when the key cannot sign.
    pub fn sign(&self, key: &Signer) -> Result<String, AuditError> {
        Ok(key.sign(CHECKPOINT_TYP, None, self)?)
    }

    /// Reads a compact JWS that this key signed.
    ///
    /// # Errors
    /// [`AuditError::Checkpoint`].
    pub fn verify(token: &str, key: &VerifyingKey) -> Result<Self, AuditError> {
        Ok(jws::verify(CHECKPOINT_TYP, token, key)?)
    }
}
