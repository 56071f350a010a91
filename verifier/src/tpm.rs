//! TPM 2.0 quotes under an enrolled attestation key.

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::kbs::TpmEvidence;
use protocols::reason::{self, Refusal};

/// An attestation key the attestor was told of; a plain TPM's key proves nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledAk {
    /// SubjectPublicKeyInfo DER, ECDSA P-256 or RSA of 2048 bits or more.
    pub spki_der: Vec<u8>,
    /// The key of a software TPM: counts in development only.
    pub simulated: bool,
}

/// Which quotes count. An empty list accepts none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmPolicy {
    /// Enrolled keys.
    pub aks: Vec<EnrolledAk>,
    /// The judging side's environment.
    pub environment: Environment,
}

/// What a verified quote says. Only [`verify_tpm`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmClaims {
    pcrs: [Sha256Digest; 24],
    ak_spki: Vec<u8>,
    clock: u64,
    reset_count: u32,
    restart_count: u32,
    firmware_version: u64,
    simulated: bool,
}

impl TpmClaims {
    /// The quoted SHA-256 PCRs 0 to 23.
    #[must_use]
    pub const fn pcrs(&self) -> &[Sha256Digest; 24] {
        &self.pcrs
    }

    /// One quoted PCR; `None` beyond 23.
    #[must_use]
    pub fn pcr(&self, number: u32) -> Option<Sha256Digest> {
        self.pcrs.get(usize::try_from(number).ok()?).copied()
    }

    /// The enrolled key, SPKI DER.
    #[must_use]
    pub fn ak_spki(&self) -> &[u8] {
        &self.ak_spki
    }

    /// Milliseconds the TPM has been powered, as quoted.
    #[must_use]
    pub const fn clock(&self) -> u64 {
        self.clock
    }

    /// TPM resets (boots) since its last clear.
    #[must_use]
    pub const fn reset_count(&self) -> u32 {
        self.reset_count
    }

    /// Resumes since the last reset.
    #[must_use]
    pub const fn restart_count(&self) -> u32 {
        self.restart_count
    }

    /// The TPM vendor's firmware version.
    #[must_use]
    pub const fn firmware_version(&self) -> u64 {
        self.firmware_version
    }

    /// Whether the key was enrolled as a software TPM's.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        self.simulated
    }
}

/// Verifies a quote over `nonce` ([`protocols::kbs::tpm_nonce`]).
///
/// # Errors
/// `evidence.malformed`, `.ak`, `.signature`, `.nonce`, `.pcr`, `policy.environment`.
pub fn verify_tpm(evidence: &TpmEvidence, nonce: &[u8; 32], policy: &TpmPolicy) -> Result<TpmClaims, Refusal> {
    let _ = (evidence, nonce, policy);
    Err(Refusal::new(reason::EVIDENCE_MALFORMED, "tpm evidence", "", ""))
}
