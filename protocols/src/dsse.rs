//! DSSE envelopes (secure-systems-lab/dsse v1.0.2): a payload, its type, and signatures over both.

use serde::{Deserialize, Serialize};

use crate::encoding;
use crate::keys::{SigningKey, VerifyingKey};

/// The largest envelope we read, in bytes.
pub const MAX_ENVELOPE: usize = 256 * 1024;
/// The most signatures an envelope may carry.
pub const MAX_SIGNATURES: usize = 16;

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// The signer's key id; a hint, never trusted.
    pub keyid: String,
    /// ASN.1 DER for ECDSA, 64 raw bytes for Ed25519.
    #[serde(with = "encoding::standard")]
    pub sig: Vec<u8>,
}

/// A DSSE envelope as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Media type of the payload; part of what is signed.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The signed bytes.
    #[serde(with = "encoding::standard")]
    pub payload: Vec<u8>,
    /// At least one.
    pub signatures: Vec<EnvelopeSignature>,
}

/// An envelope could not be read or no signature counts.
#[derive(Debug, thiserror::Error)]
pub enum DsseError {
    /// Not a DSSE envelope within our limits.
    #[error("not a DSSE envelope: {0}")]
    Malformed(String),
    /// No signature names or fits a trusted key.
    #[error("no signature is by a trusted key (key ids: {})", .keyids.join(", "))]
    UnknownSigner {
        /// The key ids the envelope names.
        keyids: Vec<String>,
    },
    /// A signature names a trusted key and does not verify under it.
    #[error("the signature by key {keyid} does not verify")]
    BadSignature {
        /// The trusted key that was named.
        keyid: String,
    },
}

/// The pre-authentication encoding: what is signed.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {} {} ", payload_type.len(), payload_type, payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

impl Envelope {
    /// Signs `payload` with one key.
    #[must_use]
    pub fn sign(payload_type: &str, payload: Vec<u8>, key: &SigningKey) -> Self {
        let sig = key.sign(&pae(payload_type, &payload));
        Self {
            payload_type: payload_type.to_owned(),
            payload,
            signatures: vec![EnvelopeSignature { keyid: key.verifying_key().keyid(), sig }],
        }
    }

    /// Reads an envelope within [`MAX_ENVELOPE`] and [`MAX_SIGNATURES`].
    ///
    /// # Errors
    /// [`DsseError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, DsseError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(DsseError::Malformed(format!("{} bytes, at most {MAX_ENVELOPE}", bytes.len())));
        }
        let envelope: Self = serde_json::from_slice(bytes).map_err(|e| DsseError::Malformed(e.to_string()))?;
        if envelope.signatures.is_empty() || envelope.signatures.len() > MAX_SIGNATURES {
            return Err(DsseError::Malformed(format!("{} signatures", envelope.signatures.len())));
        }
        Ok(envelope)
    }

    /// The stored bytes: compact JSON with a fixed field order, so that one envelope has one digest.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Finds a trusted key under which a signature verifies, and gives its place in `trusted`.
    ///
    /// # Errors
    /// [`DsseError::BadSignature`] when a signature names a trusted key and fails,
    /// [`DsseError::UnknownSigner`] when none names one.
    pub fn verify(&self, trusted: &[&VerifyingKey]) -> Result<usize, DsseError> {
        let message = pae(&self.payload_type, &self.payload);
        let mut bad = None;
        for signature in &self.signatures {
            for (place, key) in trusted.iter().enumerate() {
                if key.keyid() != signature.keyid {
                    continue;
                }
                if key.verifies(&message, &signature.sig) {
                    return Ok(place);
                }
                bad = Some(signature.keyid.clone());
            }
        }
        Err(match bad {
            Some(keyid) => DsseError::BadSignature { keyid },
            None => DsseError::UnknownSigner { keyids: self.signatures.iter().map(|s| s.keyid.clone()).collect() },
        })
    }
}
