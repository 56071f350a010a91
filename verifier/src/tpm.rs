//! TPM 2.0 quotes under an enrolled attestation key.
//!
//! The checks, in their fixed order:
//!
//! | # | code | passes when |
//! |---|---|---|
//! | 1 | `evidence.malformed` | the quote (magic, type ATTEST_QUOTE), its signature (ECDSA P-256 or RSASSA with SHA-256) and 24 PCR values are strictly well formed |
//! | 2 | `evidence.ak` | policy lists the key, byte for byte |
//! | 3 | `policy.environment` | a software TPM's key is shown in development only |
//! | 4 | `evidence.signature` | the signature over the quote verifies under the listed key |
//! | 5 | `evidence.nonce` | extraData is what was asked for, all 32 bytes |
//! | 6 | `evidence.pcr` | exactly one selection, SHA-256 PCRs 0 to 23, whose digest is that of the values presented |

mod quote;

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::kbs::TpmEvidence;
use protocols::reason::{self, Code, Refusal};
use protocols::register::RegisterKind;
use protocols::tpm::{PCR_COUNT, Signature};
use serde::{Deserialize, Serialize};

use crate::trace::Trace;
pub(crate) use quote::Quote;

/// What refusals are about.
const SUBJECT: &str = "TPM quote";

/// How the attestor came to trust a key. It decides the kind of the register behind the key, whatever a guest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Enrolment {
    /// Somebody listed it: the least that can be said of a key.
    #[default]
    #[serde(rename = "tpm-listed")]
    Listed,
    /// It was shown to be in the TPM that a manufacturer's endorsement certificate names (`tclctl ak enroll`).
    #[serde(rename = "tpm-ek")]
    Endorsed,
}

impl Enrolment {
    /// The kind of register that stands behind a key of this enrolment.
    #[must_use]
    pub const fn register(self) -> RegisterKind {
        match self {
            Self::Listed => RegisterKind::TpmListed,
            Self::Endorsed => RegisterKind::TpmEk,
        }
    }
}

/// An attestation key the attestor was told of; a plain TPM's key proves nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledAk {
    /// SubjectPublicKeyInfo DER, ECDSA P-256 or RSA of 2048 bits or more.
    pub spki_der: Vec<u8>,
    /// The key of a software TPM: counts in development only.
    pub simulated: bool,
    /// How it came to be trusted.
    pub enrolment: Enrolment,
}

/// Which quotes count. An empty list accepts none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmPolicy {
    /// Enrolled keys.
    pub aks: Vec<EnrolledAk>,
    /// The one PCR that holds event logs, 0 to 15.
    pub pcr: u32,
    /// The judging side's environment.
    pub environment: Environment,
}

/// What a verified quote says. Only [`verify_tpm`] makes one:
///
/// ```compile_fail,E0277
/// let forged: verifier::TpmClaims = serde_json::from_str("{}").unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmClaims {
    pcrs: [Sha256Digest; PCR_COUNT],
    ak_spki: Vec<u8>,
    clock: u64,
    reset_count: u32,
    restart_count: u32,
    firmware_version: u64,
    simulated: bool,
    enrolment: Enrolment,
}

impl TpmClaims {
    /// What a verified quote under a trusted key says.
    pub(crate) fn new(quote: Quote<'_>, ak_spki: Vec<u8>, simulated: bool) -> Self {
        let attest = quote.attest;
        Self {
            pcrs: quote.pcrs,
            ak_spki,
            clock: attest.clock_info.clock,
            reset_count: attest.clock_info.reset_count,
            restart_count: attest.clock_info.restart_count,
            firmware_version: attest.firmware_version,
            simulated,
            enrolment: Enrolment::Listed,
        }
    }

    /// The quoted SHA-256 PCRs 0 to 23.
    #[must_use]
    pub const fn pcrs(&self) -> &[Sha256Digest; PCR_COUNT] {
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

    /// How the key came to be trusted.
    #[must_use]
    pub const fn enrolment(&self) -> Enrolment {
        self.enrolment
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
/// `evidence.malformed`, `.ak`, `.signature`, `.nonce`, `.pcr`, `policy.environment`; see the module's table.
pub fn verify_tpm(
    evidence: &TpmEvidence,
    nonce: &[u8],
    policy: &TpmPolicy,
    trace: &mut Trace,
) -> Result<TpmClaims, Refusal> {
    let quote = &evidence.tpm_quote;
    let signature = Signature::parse(&quote.signature);
    let quote = Quote::read(&quote.message, signature, &quote.pcrs, trace)?;
    let ak = policy.aks.iter().find(|ak| ak.spki_der == evidence.ak_public);
    let ak = ak.ok_or_else(|| {
        let actual = format!("key {}", Sha256Digest::of(&evidence.ak_public));
        refuse(reason::EVIDENCE_AK, format!("one of {} enrolled keys", policy.aks.len()), actual)
    });
    let told = |ak: &&EnrolledAk| {
        (format!("one of {} enrolled keys", policy.aks.len()), format!("key {}", Sha256Digest::of(&ak.spki_der)))
    };
    let ak = trace.outcome(("attestation key", reason::EVIDENCE_AK), ak, told)?;
    trace.require(
        (SUBJECT, "environment", reason::POLICY_ENVIRONMENT),
        !(ak.simulated && policy.environment == Environment::Production),
        || format!("a key for {}", policy.environment),
        || (if ak.simulated { "a SIMULATED TPM's key" } else { "a hardware TPM's key" }).to_owned(),
    )?;
    quote.verify(&ak.spki_der, nonce, trace)?;
    Ok(TpmClaims { enrolment: ak.enrolment, ..TpmClaims::new(quote, ak.spki_der.clone(), ak.simulated) })
}

fn refuse(code: Code, expected: impl Into<String>, actual: impl Into<String>) -> Refusal {
    Refusal::new(code, SUBJECT, expected, actual)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
