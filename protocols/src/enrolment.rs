//! The files by which an attestation key is shown to be in a TPM with a manufacturer's certificate (TPM 2.0 part 1,
//! section 24): request, challenge, answer, and the secret that stays with whoever challenged. Each is one JSON object.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::encoding;
use crate::tpm::EkKind;

/// Made beside the TPM: what is to be enrolled. Nothing of it is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentRequest {
    /// The attestation key's public area, TPMT_PUBLIC.
    #[serde(with = "encoding::standard")]
    pub ak_public: Vec<u8>,
    /// The endorsement key's certificate, DER.
    #[serde(with = "encoding::standard")]
    pub ek_certificate: Vec<u8>,
    /// Whether the TPM is software behind a socket, as far as the guest knows.
    pub simulated: bool,
}

/// What only the TPM of the certificate can open, and only for the key of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentChallenge {
    /// The endorsement key that it is made to.
    pub ek: EkKind,
    /// TPMS_ID_OBJECT: HMAC and encrypted secret.
    #[serde(with = "encoding::standard")]
    pub credential: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET's content: the seed, encrypted to the endorsement key.
    #[serde(with = "encoding::standard")]
    pub encrypted_seed: Vec<u8>,
}

/// What the TPM made of the challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentAnswer {
    /// The opened secret.
    #[serde(with = "hex::serde")]
    pub secret: Vec<u8>,
}

/// What the challenger keeps to itself until the answer comes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolmentSecret {
    /// The secret inside the challenge.
    #[serde(with = "hex::serde")]
    pub secret: [u8; 32],
    /// The key that will be enrolled, SubjectPublicKeyInfo DER.
    #[serde(with = "encoding::standard")]
    pub ak_spki: Vec<u8>,
    /// SHA-256 of the endorsement certificate.
    pub ek_certificate: Sha256Digest,
    /// Whether the challenger takes the TPM for a software one.
    pub simulated: bool,
}

impl std::fmt::Debug for EnrolmentSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolmentSecret").field("ek_certificate", &self.ek_certificate).finish_non_exhaustive()
    }
}
