//! One entry for every kind of evidence, and the tie between evidence and event log.

use protocols::digest::Sha384Digest;
use protocols::environment::Environment;
use protocols::guest::GuestId;
use protocols::kbs::Tee;
use protocols::reason::{self, Refusal};
use protocols::register::RegisterKind;
use protocols::tcl::LogBinding;
use protocols::time::Timestamp;
use serde_json::Value;

use crate::log::LogState;
use crate::snp::{SnpClaims, SnpPolicy};
use crate::tpm::{TpmClaims, TpmPolicy};

/// What evidence and logs are judged by.
#[derive(Debug, Clone)]
pub struct EvidencePolicy {
    /// TPM quotes.
    pub tpm: TpmPolicy,
    /// SNP reports.
    pub snp: SnpPolicy,
    /// Register kinds that count, exactly.
    pub registers: Vec<RegisterKind>,
    /// The judging side's environment.
    pub environment: Environment,
}

/// What verified evidence says. The variants' contents are made only by their checkers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidenceClaims {
    /// A TPM quote.
    Tpm(Box<TpmClaims>),
    /// An SNP report.
    Snp(Box<SnpClaims>),
}

impl EvidenceClaims {
    /// Whether the platform is simulated.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        match self {
            Self::Tpm(claims) => claims.simulated(),
            Self::Snp(claims) => claims.simulated(),
        }
    }
}

/// Verifies `tee_evidence.primary_evidence` over `binding`, the digest of the runtime data
/// ([`protocols::kbs::RuntimeData::digest`]) or of an evidence request's challenge.
///
/// # Errors
/// `evidence.*`, `policy.environment`.
pub fn verify_evidence(
    tee: Tee,
    evidence: &Value,
    binding: &Sha384Digest,
    policy: &EvidencePolicy,
    now: Timestamp,
) -> Result<EvidenceClaims, Refusal> {
    let _ = (evidence, binding, policy, now);
    Err(Refusal::new(reason::EVIDENCE_MALFORMED, tee.as_str(), "", ""))
}

/// Ties a log to the evidence it was shown with: `log` must have taken exactly the `binding.count` records,
/// `binding` is what the evidence was made over. Gives the guest whose log it is.
///
/// # Errors
/// `policy.register`, `policy.environment`, `evidence.guest`, `log.replay`.
pub fn bind_log(
    claims: &EvidenceClaims,
    log: &LogState,
    binding: &LogBinding,
    policy: &EvidencePolicy,
) -> Result<GuestId, Refusal> {
    let _ = (claims, log, policy);
    Err(Refusal::new(reason::EVIDENCE_GUEST, binding.guest.to_string(), "", ""))
}
