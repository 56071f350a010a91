//! Signing and verifying keys: ECDSA P-256 (RFC 6979, SHA-256) and Ed25519.
//!
//! Private keys are PKCS#8 PEM, public keys SubjectPublicKeyInfo PEM: what `openssl` reads and writes.
//! ECDSA signatures are ASN.1 DER, Ed25519 signatures 64 raw bytes.

use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _, KeypairBytes,
};
use p256::ecdsa::signature::{Signer as _, Verifier as _};

use crate::digest::Sha256Digest;

/// A key could not be read, made or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a PKCS#8 PEM private key of a known kind.
    #[error("not a PKCS#8 PEM private key (ECDSA P-256 or Ed25519)")]
    Private,
    /// Not an SPKI PEM public key of a known kind.
    #[error("not an SPKI PEM public key (ECDSA P-256 or Ed25519)")]
    Public,
    /// The system gave no randomness.
    #[error("no randomness")]
    Random,
}

/// Which kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 with SHA-256.
    EcdsaP256,
    /// Ed25519.
    Ed25519,
}

/// A private signing key; erased from memory when dropped.
pub enum SigningKey {
    /// ECDSA P-256.
    EcdsaP256(p256::ecdsa::SigningKey),
    /// Ed25519.
    Ed25519(ed25519_dalek::SigningKey),
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.verifying_key().keyid())
    }
}

impl SigningKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`KeyError::Random`] when the system gives no randomness.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        loop {
            let mut seed = zeroize::Zeroizing::new([0u8; 32]);
            getrandom::fill(seed.as_mut_slice()).map_err(|_| KeyError::Random)?;
            match kind {
                KeyKind::Ed25519 => return Ok(Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&seed))),
                KeyKind::EcdsaP256 => {
                    // A seed outside the field's order (chance 2^-32) is drawn again.
                    if let Ok(key) = p256::ecdsa::SigningKey::from_slice(seed.as_slice()) {
                        return Ok(Self::EcdsaP256(key));
                    }
                }
            }
        }
    }

    /// Reads a PKCS#8 PEM private key.
    ///
    /// # Errors
    /// [`KeyError::Private`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if let Ok(key) = p256::ecdsa::SigningKey::from_pkcs8_pem(pem) {
            return Ok(Self::EcdsaP256(key));
        }
        ed25519_dalek::SigningKey::from_pkcs8_pem(pem).map(Self::Ed25519).map_err(|_| KeyError::Private)
    }

    /// Writes a PKCS#8 PEM private key.
    ///
    /// # Errors
    /// [`KeyError::Private`] when the key cannot be encoded.
    pub fn to_pem(&self) -> Result<zeroize::Zeroizing<String>, KeyError> {
        let ending = ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF;
        match self {
            Self::EcdsaP256(key) => key.to_pkcs8_pem(ending).map_err(|_| KeyError::Private),
            // PKCS#8 version 1, without the public half: OpenSSL 3.0 does not read version 2.
            Self::Ed25519(key) => KeypairBytes { secret_key: key.to_bytes(), public_key: None }
                .to_pkcs8_pem(ending)
                .map_err(|_| KeyError::Private),
        }
    }

    /// Signs `message` (hashed inside for ECDSA; deterministic for both kinds).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::EcdsaP256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
            Self::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        match self {
            Self::EcdsaP256(key) => VerifyingKey::EcdsaP256(*key.verifying_key()),
            Self::Ed25519(key) => VerifyingKey::Ed25519(key.verifying_key()),
        }
    }
}

/// A public key that signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyingKey {
    /// ECDSA P-256.
    EcdsaP256(p256::ecdsa::VerifyingKey),
    /// Ed25519.
    Ed25519(ed25519_dalek::VerifyingKey),
}

impl VerifyingKey {
    /// Reads an SPKI PEM public key.
    ///
    /// # Errors
    /// [`KeyError::Public`].
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_pem(pem) {
            return Ok(Self::EcdsaP256(key));
        }
        ed25519_dalek::VerifyingKey::from_public_key_pem(pem).map(Self::Ed25519).map_err(|_| KeyError::Public)
    }

    /// SubjectPublicKeyInfo DER. Empty only if the key could not be encoded, which no valid key gives.
    #[must_use]
    pub fn to_der(&self) -> Vec<u8> {
        match self {
            Self::EcdsaP256(key) => key.to_public_key_der(),
            Self::Ed25519(key) => key.to_public_key_der(),
        }
        .map(|document| document.as_bytes().to_vec())
        .unwrap_or_default()
    }

    /// Writes SPKI PEM.
    ///
    /// # Errors
    /// [`KeyError::Public`] when the key cannot be encoded.
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let ending = ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF;
        match self {
            Self::EcdsaP256(key) => key.to_public_key_pem(ending),
            Self::Ed25519(key) => key.to_public_key_pem(ending),
        }
        .map_err(|_| KeyError::Public)
    }

    /// Lower-case hex of SHA-256 over the SPKI DER: the key's name in envelopes and logs.
    #[must_use]
    pub fn keyid(&self) -> String {
        Sha256Digest::of(&self.to_der()).hex()
    }

    /// Whether `signature` is this key's over `message`. Ed25519 is checked strictly (no small-order keys).
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::EcdsaP256(key) => p256::ecdsa::Signature::from_der(signature)
                .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
            Self::Ed25519(key) => ed25519_dalek::Signature::from_slice(signature)
                .is_ok_and(|signature| key.verify_strict(message, &signature).is_ok()),
        }
    }
}
