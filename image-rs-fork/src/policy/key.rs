//! Public keys of sigstore signatures: SubjectPublicKeyInfo PEM, as `cosign` and `openssl` write them.

use p256::ecdsa::signature::Verifier as _;
use p384::ecdsa::signature::hazmat::PrehashVerifier as _;
use protocols::digest::Sha256Digest;
use rsa::pkcs8::{DecodePublicKey as _, EncodePublicKey as _};
use rsa::traits::PublicKeyParts as _;
use sha2::{Digest as _, Sha256, Sha384};

/// The shortest RSA modulus, in bits.
const MIN_RSA: u32 = 2048;

/// One public key.
#[derive(Debug, Clone)]
pub(super) struct SigstoreKey {
    kind: Kind,
    id: Sha256Digest,
}

#[derive(Debug, Clone)]
enum Kind {
    P256(p256::ecdsa::VerifyingKey),
    P384(Box<p384::ecdsa::VerifyingKey>),
    Ed25519(ed25519_dalek::VerifyingKey),
    Rsa(Box<rsa::pkcs1v15::VerifyingKey<Sha256>>),
}

impl SigstoreKey {
    /// Reads an SPKI PEM key: ECDSA P-256 or P-384, Ed25519, RSA of 2048 to 4096 bits.
    pub(super) fn parse(pem: &[u8]) -> Result<Self, String> {
        let problem = "not an SPKI PEM public key (ECDSA P-256 or P-384, Ed25519, RSA of 2048 to 4096 bits)";
        let pem = std::str::from_utf8(pem).map_err(|_| problem)?.trim();
        let kind = if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_pem(pem) {
            Kind::P256(key)
        } else if let Ok(key) = p384::ecdsa::VerifyingKey::from_public_key_pem(pem) {
            Kind::P384(Box::new(key))
        } else if let Ok(key) = ed25519_dalek::VerifyingKey::from_public_key_pem(pem) {
            Kind::Ed25519(key)
        } else {
            let key = rsa::PublicKey::from_public_key_pem(pem).map_err(|_| problem)?;
            let bits = key.n().bit_width();
            if bits < MIN_RSA {
                return Err(format!("an RSA key of {bits} bits, fewer than {MIN_RSA}"));
            }
            Kind::Rsa(Box::new(rsa::pkcs1v15::VerifyingKey::new(key)))
        };
        let der = match &kind {
            Kind::P256(key) => key.to_public_key_der(),
            Kind::P384(key) => key.to_public_key_der(),
            Kind::Ed25519(key) => key.to_public_key_der(),
            Kind::Rsa(key) => key.as_ref().as_ref().to_public_key_der(),
        };
        Ok(Self { kind, id: Sha256Digest::of(der.map_err(|_| problem)?.as_bytes()) })
    }

    /// SHA-256 over the SPKI DER.
    pub(super) const fn id(&self) -> &Sha256Digest {
        &self.id
    }

    /// Whether `signature` is this key's over `message`. P-384 goes with either hash: cosign's tags use SHA-256
    /// with every key, its bundles the hash of the curve's size.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.kind {
            Kind::P256(key) => {
                p256::ecdsa::Signature::from_der(signature).is_ok_and(|it| key.verify(message, &it).is_ok())
            }
            Kind::P384(key) => p384::ecdsa::Signature::from_der(signature).is_ok_and(|it| {
                key.verify_prehash(&Sha384::digest(message), &it).is_ok()
                    || key.verify_prehash(&Sha256::digest(message), &it).is_ok()
            }),
            Kind::Ed25519(key) => {
                ed25519_dalek::Signature::from_slice(signature).is_ok_and(|it| key.verify_strict(message, &it).is_ok())
            }
            Kind::Rsa(key) => {
                rsa::pkcs1v15::Signature::try_from(signature).is_ok_and(|it| key.verify(message, &it).is_ok())
            }
        }
    }
}
