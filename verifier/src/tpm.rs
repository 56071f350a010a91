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

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::kbs::TpmEvidence;
use protocols::reason::{self, Code, Refusal};
use protocols::tpm::{Attest, PCR_COUNT, Signature, pcr_digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use subtle::ConstantTimeEq as _;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::hex;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const PRIME256V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// What refusals are about.
const SUBJECT: &str = "TPM quote";

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
}

impl TpmClaims {
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
pub fn verify_tpm(evidence: &TpmEvidence, nonce: &[u8; 32], policy: &TpmPolicy) -> Result<TpmClaims, Refusal> {
    let quote = &evidence.tpm_quote;
    let malformed =
        |error: protocols::tpm::TpmError| refuse(reason::EVIDENCE_MALFORMED, "a TPM quote", error.to_string());
    let attest = Attest::parse(&quote.message).map_err(malformed)?;
    let signature = Signature::parse(&quote.signature).map_err(malformed)?;
    let pcrs = pcrs(&quote.pcrs)?;

    let Some(ak) = policy.aks.iter().find(|ak| ak.spki_der == evidence.ak_public) else {
        let actual = format!("key {}", Sha256Digest::of(&evidence.ak_public));
        return Err(refuse(reason::EVIDENCE_AK, format!("one of {} enrolled keys", policy.aks.len()), actual));
    };
    if ak.simulated && policy.environment == Environment::Production {
        return Err(refuse(reason::POLICY_ENVIRONMENT, "a hardware TPM's key", "a SIMULATED TPM's key"));
    }
    if !verifies(&ak.spki_der, &quote.message, &signature) {
        let actual = "a signature that does not verify";
        return Err(refuse(reason::EVIDENCE_SIGNATURE, "a quote signed by the enrolled key", actual));
    }
    if !bool::from(attest.extra_data.as_slice().ct_eq(nonce)) {
        let expected = format!("extraData {}", hex(nonce));
        return Err(refuse(reason::EVIDENCE_NONCE, expected, hex(&attest.extra_data)));
    }
    if !attest.selects_all_sha256() {
        let actual = format!("{:?}", attest.pcr_select);
        return Err(refuse(reason::EVIDENCE_PCR, "one selection, SHA-256 PCRs 0 to 23", actual));
    }
    let digest = pcr_digest(&pcrs);
    if attest.pcr_digest != digest.as_bytes() {
        let expected = format!("PCR digest {}", hex(&attest.pcr_digest));
        return Err(refuse(reason::EVIDENCE_PCR, expected, format!("{digest} of the values presented")));
    }
    Ok(TpmClaims {
        pcrs,
        ak_spki: ak.spki_der.clone(),
        clock: attest.clock_info.clock,
        reset_count: attest.clock_info.reset_count,
        restart_count: attest.clock_info.restart_count,
        firmware_version: attest.firmware_version,
        simulated: ak.simulated,
    })
}

/// Exactly 24 values of 64 lower-case hex digits.
fn pcrs(texts: &[String]) -> Result<[Sha256Digest; PCR_COUNT], Refusal> {
    let values: Option<Vec<Sha256Digest>> = texts.iter().map(|text| format!("sha256:{text}").parse().ok()).collect();
    values.and_then(|values| values.try_into().ok()).ok_or_else(|| {
        let expected = format!("{PCR_COUNT} PCR values of 64 hex digits");
        refuse(reason::EVIDENCE_MALFORMED, expected, format!("{} values, or others", texts.len()))
    })
}

/// Whether the signature fits the key's kind and verifies. A listed key of any other kind verifies nothing.
fn verifies(spki_der: &[u8], message: &[u8], signature: &Signature) -> bool {
    let Ok(spki) = SubjectPublicKeyInfoOwned::from_der(spki_der) else { return false };
    let Some(key) = spki.subject_public_key.as_bytes() else { return false };
    let curve = spki.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    match signature {
        Signature::EcdsaP256 { .. } if spki.algorithm.oid == EC && curve == Some(PRIME256V1) => {
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key);
            signature.ecdsa_raw().is_some_and(|raw| key.verify(message, &raw).is_ok())
        }
        Signature::Rsassa(raw) if spki.algorithm.oid == RSA => {
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(message, raw).is_ok()
        }
        _ => false,
    }
}

fn refuse(code: Code, expected: impl Into<String>, actual: impl Into<String>) -> Refusal {
    Refusal::new(code, SUBJECT, expected, actual)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
