//! Verdicts and receipts, made only by checking them.

use protocols::digest::Sha256Digest;
use protocols::guest::GuestId;
use protocols::reason::Refusal;
use protocols::register::RegisterValue;
use protocols::tcl::{Outcome, Receipt, Verdict};

use crate::error::ClientError;

/// A verdict signed by the pinned key, about exactly the launch that was asked about, over exactly the log that
/// was sent, naming the nonce of this one request. Not `Clone`: it is used once.
#[derive(Debug)]
pub struct VerifiedVerdict {
    claims: Verdict,
    compact: String,
    id: Option<String>,
}

impl VerifiedVerdict {
    /// What the attestor signed.
    #[must_use]
    pub const fn claims(&self) -> &Verdict {
        &self.claims
    }

    /// The decision.
    #[must_use]
    pub const fn outcome(&self) -> &Outcome {
        &self.claims.outcome
    }

    /// The refusal, by the attestor, unless the launch passed.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.claims.outcome {
            Outcome::Pass(_) => None,
            Outcome::Refused { refusal, .. } => Some(refusal),
        }
    }

    /// The compact JWS, for anyone who wants to check it again.
    #[must_use]
    pub fn compact(&self) -> &str {
        &self.compact
    }

    /// The attestor's audit record of it: what an administrator gives to `tclctl explain`. Not signed, not trusted.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }
}

/// A receipt signed by the pinned key for exactly this guest, count and head, following the last one.
#[derive(Debug, Clone)]
pub struct VerifiedReceipt {
    claims: Receipt,
    compact: String,
    hash: Sha256Digest,
}

impl VerifiedReceipt {
    /// What the attestor signed.
    #[must_use]
    pub const fn claims(&self) -> &Receipt {
        &self.claims
    }

    /// The compact JWS; keep it durably and give it to [`crate::Attestor::restore`] after a restart.
    #[must_use]
    pub fn compact(&self) -> &str {
        &self.compact
    }

    /// SHA-256 of the compact JWS: what the next receipt names as `previous`.
    #[must_use]
    pub const fn hash(&self) -> Sha256Digest {
        self.hash
    }

    pub(crate) fn restore(
        _key: &p256::ecdsa::VerifyingKey,
        _guest: GuestId,
        _compact: &str,
    ) -> Result<Self, ClientError> {
        Err(ClientError::Request { what: "not built yet" })
    }
}

/// The last receipt verified for this guest: where the next one must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptState {
    last: Option<Last>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    hash: Sha256Digest,
    count: u64,
    head: RegisterValue,
}

impl ReceiptState {
    /// Before a guest's first receipt.
    #[must_use]
    pub const fn none() -> Self {
        Self { last: None }
    }

    /// After a verified receipt.
    #[must_use]
    pub const fn after(receipt: &VerifiedReceipt) -> Self {
        Self { last: Some(Last { hash: receipt.hash, count: receipt.claims.count, head: receipt.claims.head }) }
    }

    /// Records the attestor is known to hold: the place to send the log from.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.count)
    }

    /// The register after those records; `None` before the first receipt.
    #[must_use]
    pub fn head(&self) -> Option<RegisterValue> {
        self.last.as_ref().map(|last| last.head)
    }
}
