//! From envelopes that anyone may have stored to the one golden value that counts.

use protocols::digest::Sha256Digest;
use protocols::events::GoldenRef;
use protocols::golden::GoldenValue;
use protocols::reason::{self, Refusal};
use protocols::time::Timestamp;

use crate::signers::TrustedSigners;

/// A golden value whose signature, signer, subject and revocation state were checked.
/// Only [`authenticate`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticatedGolden {
    value: GoldenValue,
    subject: Sha256Digest,
    payload: Sha256Digest,
    signer: Sha256Digest,
}

impl AuthenticatedGolden {
    /// The signed content.
    #[must_use]
    pub const fn value(&self) -> &GoldenValue {
        &self.value
    }

    /// The platform manifest it speaks of.
    #[must_use]
    pub const fn subject(&self) -> Sha256Digest {
        self.subject
    }

    /// The configured name of the key that signed it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.value.issuer
    }

    /// How the log and verdicts name it.
    #[must_use]
    pub fn reference(&self) -> GoldenRef {
        GoldenRef {
            payload: self.payload,
            signer: self.signer,
            series_h: GoldenRef::series_hash(&self.value.issuer, &self.value.series),
            version: self.value.version,
        }
    }
}

/// Finds the golden value for `manifest` among `envelopes` (DSSE, as stored), honouring `revocations`
/// (a DSSE revocation list; `None` when the storage holds none).
///
/// # Errors
/// `golden.missing`, `.signature`, `.subject`, `.malformed`, `.signer`, `.conflict`, `.revoked`, `.unavailable`.
pub fn authenticate(
    manifest: &Sha256Digest,
    envelopes: &[Vec<u8>],
    revocations: Option<&[u8]>,
    signers: &TrustedSigners,
    now: Timestamp,
) -> Result<AuthenticatedGolden, Refusal> {
    let _ = (envelopes, revocations, signers, now);
    Err(Refusal::new(reason::GOLDEN_MISSING, manifest.to_string(), "a golden value", "none"))
}
