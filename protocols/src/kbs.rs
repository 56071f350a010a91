//! The KBS protocol 0.4.0 as real servers and clients speak it: bodies, names, hashes.
//!
//! Field naming is mixed on the wire (`tee-pubkey` but `primary_evidence`) and kept so.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Sha384Digest;
use crate::encoding;
use crate::jcs::{self, JcsError};
use crate::tcl::LogBinding;

/// The only version spoken; checked for equality.
pub const VERSION: &str = "0.4.0";
/// Name of the session cookie.
pub const SESSION_COOKIE: &str = "kbs-session-id";
/// The largest request body, in bytes.
pub const MAX_BODY: usize = 2 * 1024 * 1024;
/// Prefix of every error's `type`.
pub const ERROR_TYPE_PREFIX: &str = "https://github.com/confidential-containers/kbs/errors/";

/// TEE names we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tee {
    /// AMD SEV-SNP.
    Snp,
    /// Intel TDX.
    Tdx,
    /// Azure SNP with vTPM.
    AzSnpVtpm,
    /// Azure TDX with vTPM.
    AzTdxVtpm,
    /// A TPM 2.0.
    Tpm,
    /// Unauthenticated sample evidence, which counts in development by name alone.
    Sample,
    /// The same of a device.
    #[serde(rename = "sampledevice")]
    SampleDevice,
    /// Intel SGX; nothing here verifies it, as none of those below.
    Sgx,
    /// Arm CCA.
    Cca,
    /// Hygon CSV.
    Csv,
    /// IBM Secure Execution.
    Se,
    /// NVIDIA GPUs.
    Nvidia,
    /// Hygon DCUs.
    Hygondcu,
    /// NVIDIA DPUs.
    NvidiaDpu,
}

impl Tee {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Snp => "snp",
            Self::Tdx => "tdx",
            Self::AzSnpVtpm => "az-snp-vtpm",
            Self::AzTdxVtpm => "az-tdx-vtpm",
            Self::Tpm => "tpm",
            Self::Sample => "sample",
            Self::SampleDevice => "sampledevice",
            Self::Sgx => "sgx",
            Self::Cca => "cca",
            Self::Csv => "csv",
            Self::Se => "se",
            Self::Nvidia => "nvidia",
            Self::Hygondcu => "hygondcu",
            Self::NvidiaDpu => "nvidia-dpu",
        }
    }

    /// Whether it is a device beside the platform: its evidence stands for no guest.
    #[must_use]
    pub const fn is_device(self) -> bool {
        matches!(self, Self::SampleDevice | Self::Nvidia | Self::Hygondcu | Self::NvidiaDpu)
    }
}

/// POST `/kbs/v0/auth`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: String,
    /// Which evidence will come.
    pub tee: Tee,
    /// Any JSON; the key is required. Ours holds [`crate::tcl::Hello`] under `tcl`.
    #[serde(rename = "extra-params")]
    pub extra_params: Value,
}

/// Answer to [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// 32 random bytes in standard base64, kept as text because the text is hashed.
    pub nonce: String,
    /// `""` from a stock server; ours answers [`crate::tcl::HelloReply`] under `tcl` when asked.
    #[serde(rename = "extra-params")]
    pub extra_params: Value,
}

/// The guest's session key as a JWK with exactly the members that are hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
pub enum TeePubKey {
    /// P-256 or P-521, coordinates base64url of fixed length.
    #[allow(clippy::upper_case_acronyms)]
    EC {
        /// `P-256` or `P-521`.
        crv: String,
        /// `ECDH-ES+A256KW`.
        alg: String,
        /// X coordinate.
        x: String,
        /// Y coordinate.
        y: String,
    },
    /// RSA.
    #[allow(clippy::upper_case_acronyms)]
    RSA {
        /// `RSA-OAEP-256` or `RSA1_5`.
        alg: String,
        /// Modulus.
        n: String,
        /// Exponent.
        e: String,
    },
}

/// What the evidence is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeData {
    /// The challenge's nonce as received.
    pub nonce: String,
    /// The session key.
    #[serde(rename = "tee-pubkey")]
    pub tee_pubkey: TeePubKey,
    /// The event log's head; only with our own attestor (`kind = "tcl"`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogBinding>,
}

impl RuntimeData {
    /// SHA-384 over the canonical JSON of the runtime data plus `additional-evidence`.
    ///
    /// SNP and TDX pad it with zeros to 64 bytes, a TPM takes its first 32 bytes ([`tpm_nonce`]).
    ///
    /// # Errors
    /// [`JcsError`] never happens for these types; it is passed on, not hidden.
    pub fn digest(&self, additional_evidence: &str) -> Result<Sha384Digest, JcsError> {
        #[derive(Serialize)]
        struct Hashed<'r> {
            #[serde(rename = "additional-evidence")]
            additional_evidence: &'r str,
            #[serde(flatten)]
            data: &'r RuntimeData,
        }
        Ok(Sha384Digest::of(&jcs::canonical(&Hashed { additional_evidence, data: self })?))
    }

    /// SHA-384 over the canonical JSON of the runtime data alone: what evidence of an additional device is bound to.
    ///
    /// # Errors
    /// As [`RuntimeData::digest`].
    pub fn device_digest(&self) -> Result<Sha384Digest, JcsError> {
        Ok(Sha384Digest::of(&jcs::canonical(self)?))
    }
}

/// REPORT_DATA of SNP and TDX: the digest, right-padded with zeros to 64 bytes.
#[must_use]
pub fn report_data(digest: &Sha384Digest) -> [u8; 64] {
    let mut out = [0u8; 64];
    for (to, from) in out.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    out
}

/// Qualifying data of a TPM quote: the digest's first 32 bytes.
#[must_use]
pub fn tpm_nonce(digest: &Sha384Digest) -> [u8; 32] {
    let mut out = [0u8; 32];
    for (to, from) in out.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    out
}

/// What evidence over somebody's challenge is bound to: never the challenge itself, so that nobody has bytes of their
/// choice quoted.
#[must_use]
pub fn challenge_binding(challenge: &[u8]) -> Sha384Digest {
    Sha384Digest::of_parts(&[b"tcl-evidence-v1", challenge])
}

/// Initdata as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitData {
    /// `toml`.
    pub format: String,
    /// The text whose digest is bound into the evidence.
    pub body: String,
}

/// Evidence in its outer form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeeEvidence {
    /// JSON of the session's TEE.
    pub primary_evidence: Value,
    /// `""`, or a string of JSON `{"<tee>": <evidence>}`.
    pub additional_evidence: String,
}

/// POST `/kbs/v0/attest`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// Initdata, or null.
    #[serde(rename = "init-data")]
    pub init_data: Option<InitData>,
    /// What the evidence is bound to.
    #[serde(rename = "runtime-data")]
    pub runtime_data: RuntimeData,
    /// The evidence.
    #[serde(rename = "tee-evidence")]
    pub tee_evidence: TeeEvidence,
}

/// Answer to [`Attestation`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenResponse {
    /// A JWT.
    pub token: String,
}

/// Error body. `reason` and `id` are additions of ours; real clients ignore them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// [`ERROR_TYPE_PREFIX`] and a variant.
    #[serde(rename = "type")]
    pub error_type: String,
    /// A sentence.
    pub detail: String,
    /// A stable reason code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Name of the server's record of this refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Evidence of `tee = "sample"` and `tee = "sampledevice"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleEvidence {
    /// A security version that it gives itself.
    pub svn: String,
    /// The digest of the runtime data.
    #[serde(with = "encoding::standard")]
    pub report_data: Vec<u8>,
}

/// Evidence of `tee = "tpm"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmEvidence {
    /// The quote.
    pub tpm_quote: TpmQuote,
    /// The attestation key as SubjectPublicKeyInfo DER.
    #[serde(with = "encoding::standard")]
    pub ak_public: Vec<u8>,
}

/// A TPM quote and the PCR values it covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmQuote {
    /// TPMT_SIGNATURE.
    #[serde(with = "encoding::standard")]
    pub signature: Vec<u8>,
    /// TPMS_ATTEST.
    #[serde(with = "encoding::standard")]
    pub message: Vec<u8>,
    /// SHA-256 PCRs 0 to 23, hex, in order.
    pub pcrs: Vec<String>,
}

/// Evidence of `tee = "snp"`: the report in the shape of the `sev` crate, see [`crate::snp`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnpEvidence {
    /// The report as JSON.
    pub attestation_report: Value,
    /// VCEK or VLEK with intermediates, or null.
    pub cert_chain: Option<Vec<SnpCertificate>>,
}

/// One entry of the SNP certificate table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnpCertificate {
    /// `VCEK`, `VLEK`, `ASK`, `ARK`.
    pub cert_type: String,
    /// DER as a JSON array of numbers.
    pub data: Vec<u8>,
}

/// Evidence of `tee = "tdx"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TdxEvidence {
    /// The firmware's log (CCEL) in standard base64, or null.
    pub cc_eventlog: Option<String>,
    /// The quote, see [`crate::tdx`].
    #[serde(with = "encoding::standard")]
    pub quote: Vec<u8>,
}

/// The flattened JWE (RFC 7516 section 7.2.2) that carries a resource; see [`crate::jwe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// base64url of the protected header; also the AAD.
    pub protected: String,
    /// base64url.
    pub encrypted_key: String,
    /// base64url, 12 bytes.
    pub iv: String,
    /// base64url.
    pub ciphertext: String,
    /// base64url, 16 bytes.
    pub tag: String,
}
