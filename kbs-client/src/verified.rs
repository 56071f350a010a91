//! Verdicts and receipts, made only by checking them.
//!
//! Freshness is by nonce, never by a clock. A verdict must name this request's nonce. A receipt names the nonce of
//! the request that *first* committed its head, which after a lost answer is an older one, so its freshness is the
//! head's own: it counts only for exactly the guest, count and head just sent, and only as the next of the last
//! receipt this agent verified. A log only grows, so an old receipt stands for no newer history than its own, and
//! an attestor that lost its store breaks the chain with the next head.

use p256::ecdsa::VerifyingKey;
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::guest::GuestId;
use protocols::jcs;
use protocols::jws::{self, JwsError};
use protocols::reason::Refusal;
use protocols::tcl::{LogBinding, Outcome, Place, RECEIPT_TYP, Receipt, VERDICT_TYP, Verdict};

use crate::error::ClientError;
use crate::messages::Question;

/// The most receipts an agent may have missed.
const MAX_MISSED: usize = 1024;

/// Everything one decide request asked, to hold the answer against.
pub(crate) struct Asked<'a> {
    pub(crate) nonce: &'a str,
    pub(crate) question: &'a Question,
    pub(crate) receipted: &'a Place,
    pub(crate) environment: Environment,
}

/// A verdict signed by the pinned key, about exactly the launch that was asked about, over exactly the log that
/// was receipted, naming the nonce of this one request. Not `Clone`: it is used once.
#[derive(Debug)]
pub struct VerifiedVerdict {
    claims: Verdict,
    compact: String,
    id: Option<String>,
}

impl VerifiedVerdict {
    pub(crate) fn check(
        key: &VerifyingKey,
        asked: &Asked<'_>,
        compact: String,
        id: Option<String>,
    ) -> Result<Self, ClientError> {
        let claims: Verdict = open(VERDICT_TYP, "verdict", &compact, key)?;
        if claims.nonce != asked.nonce {
            return Err(ClientError::Nonce);
        }
        let process = jcs::canonical(&asked.question.process)
            .map_err(|_| ClientError::Request { what: "the process has no canonical form" })?;
        let image = &asked.question.image;
        same("guest", &asked.receipted.guest, &claims.guest)?;
        same("container", &asked.question.cid, &claims.cid)?;
        same("launch", &asked.question.seq, &claims.seq)?;
        same("manifest", &image.manifest, &claims.manifest)?;
        same("config", &image.config, &claims.config)?;
        same("root file system", &image.rootfs.digest, &claims.rootfs)?;
        same("process", &Sha256Digest::of(&process), &claims.process)?;
        same("log head", &asked.receipted.head, &claims.head)?;
        same("record count", &asked.receipted.count, &claims.count)?;
        let of_development = claims.observe || claims.environment != Environment::Production;
        if asked.environment == Environment::Production && of_development {
            return Err(ClientError::Environment { actual: claims.environment });
        }
        // An unsigned name: kept only if it is a plain short word.
        let id = id.filter(|id| (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric()));
        Ok(Self { claims, compact, id })
    }

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
    /// Checks signature, guest, count and head; [`Self::follows`] must still be asked.
    pub(crate) fn check(key: &VerifyingKey, log: &LogBinding, compact: String) -> Result<Self, ClientError> {
        let receipt = Self::open(key, log.guest, compact)?;
        let claims = &receipt.claims;
        if claims.count != log.count {
            return Err(receipt_field("count", &log.count, &claims.count));
        }
        if claims.head != log.head {
            return Err(receipt_field("head", &log.head, &claims.head));
        }
        Ok(receipt)
    }

    /// Whether this receipt comes right after the last verified one and those whose answers were lost since, or is
    /// the last verified one.
    pub(crate) fn follows(&self, state: &ReceiptState, missed: &[Self]) -> Result<(), ClientError> {
        let mut last = state.last.clone();
        for between in missed.iter().take_while(|missed| missed.hash != self.hash) {
            between.next_of(last.as_ref())?;
            last = Some(Last::of(between));
        }
        // The very receipt this agent holds, sent again.
        if last.as_ref().is_some_and(|last| last.hash == self.hash) {
            return Ok(());
        }
        self.next_of(last.as_ref())
    }

    /// Reads the receipts an agent missed: signed, of this guest, no newer than the log just sent.
    pub(crate) fn missed(key: &VerifyingKey, log: &LogBinding, compact: Vec<String>) -> Result<Vec<Self>, ClientError> {
        if compact.len() > MAX_MISSED {
            return Err(ClientError::protocol("more receipts than can have been missed"));
        }
        compact.into_iter().map(|compact| Self::open(key, log.guest, compact)).collect()
    }

    pub(crate) fn restore(key: &VerifyingKey, guest: GuestId, compact: &str) -> Result<Self, ClientError> {
        Self::open(key, guest, compact.to_owned())
    }

    fn open(key: &VerifyingKey, guest: GuestId, compact: String) -> Result<Self, ClientError> {
        let claims: Receipt = open(RECEIPT_TYP, "receipt", &compact, key)?;
        if claims.guest != guest {
            return Err(receipt_field("guest", &guest, &claims.guest));
        }
        let hash = Sha256Digest::of(compact.as_bytes());
        Ok(Self { claims, compact, hash })
    }

    fn next_of(&self, last: Option<&Last>) -> Result<(), ClientError> {
        let name = |hash: Option<Sha256Digest>| hash.map_or_else(|| "none".to_owned(), |hash| hash.to_string());
        let expected = last.map(|last| last.hash);
        if self.claims.previous != expected {
            return Err(receipt_field("previous receipt", &name(expected), &name(self.claims.previous)));
        }
        if let Some(last) = last.filter(|last| self.claims.count <= last.place.count) {
            return Err(receipt_field("count", &format!("more than {}", last.place.count), &self.claims.count));
        }
        Ok(())
    }

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
}

/// The last receipt verified for this guest: where the next one must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiptState {
    last: Option<Last>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    hash: Sha256Digest,
    place: Place,
}

impl Last {
    const fn of(receipt: &VerifiedReceipt) -> Self {
        let Receipt { guest, count, head, .. } = receipt.claims;
        Self { hash: receipt.hash, place: Place { guest, count, head } }
    }
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
        Self { last: Some(Last::of(receipt)) }
    }

    /// Records the attestor is known to hold: the place to send the log from.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.place.count)
    }

    /// The place that it receipted: what decisions are asked for over. `None` before the first receipt.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.last.as_ref().map(|last| last.place)
    }
}

fn open<T: for<'de> serde::Deserialize<'de>>(
    typ: &str,
    what: &'static str,
    compact: &str,
    key: &VerifyingKey,
) -> Result<T, ClientError> {
    jws::verify(typ, compact, key).map_err(|error| match error {
        JwsError::Signature => ClientError::Signature { what },
        JwsError::Malformed(part) => ClientError::protocol(format!("malformed {what}: {part}")),
    })
}

fn same<T: PartialEq + ToString>(field: &'static str, expected: &T, actual: &T) -> Result<(), ClientError> {
    if expected == actual {
        return Ok(());
    }
    Err(ClientError::Verdict { field, expected: expected.to_string(), actual: actual.to_string() })
}

fn receipt_field(field: &'static str, expected: &impl ToString, actual: &impl ToString) -> ClientError {
    ClientError::Receipt { field, expected: expected.to_string(), actual: actual.to_string() }
}

#[cfg(test)]
#[path = "verified_tests.rs"]
mod tests;
