//! One public key, of version 4, and what it verifies.

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use rsa::BoxedUint;
use sha1::{Digest as _, Sha1};
use sha2::{Sha256, Sha384, Sha512};

use super::packet::Input;
use super::signature::{Hash, Signature};

/// The shortest and the longest RSA modulus, in bits.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=4096;
/// 1.3.6.1.4.1.11591.15.1, Ed25519 in its older form.
const ED25519: &[u8] = &[0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1];
/// 1.2.840.10045.3.1.7
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// 1.3.132.0.34
const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];

/// A primary key or subkey.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    /// Seconds since 1970.
    pub(super) created: u64,
    /// Lower-case hex.
    pub(super) fingerprint: String,
    /// What signatures are made over: the packet's body behind a head of its own.
    pub(super) hashed: Vec<u8>,
    material: Material,
}

#[derive(Debug, Clone)]
enum Material {
    Rsa(Box<rsa::PublicKey>),
    P256(p256::ecdsa::VerifyingKey),
    P384(Box<p384::ecdsa::VerifyingKey>),
    Ed25519(ed25519_dalek::VerifyingKey),
    /// Verifies nothing, for this reason.
    Unusable(String),
}

impl PublicKey {
    /// Reads the body of a packet. A key of an algorithm that is not taken is a key that verifies nothing.
    pub(super) fn parse(body: &[u8]) -> Result<Self, String> {
        let problem = "an OpenPGP key that cannot be read, or is not of version 4";
        let length = u16::try_from(body.len()).map_err(|_| problem)?;
        let mut input = Input(body);
        let (Some(4), Some(created), Some(algorithm)) = (input.byte(), input.long(), input.byte()) else {
            return Err(problem.to_owned());
        };
        let material = match algorithm {
            1 | 3 => rsa_key(input).ok_or(problem)?,
            19 => ecdsa_key(input).ok_or(problem)?,
            22 => ed25519_key(input).ok_or(problem)?,
            _ => Material::Unusable(format!("a key of algorithm {algorithm}, not RSA, ECDSA or Ed25519")),
        };
        let mut hashed = vec![0x99];
        hashed.extend_from_slice(&length.to_be_bytes());
        hashed.extend_from_slice(body);
        let fingerprint = hex::encode(Sha1::digest(&hashed));
        Ok(Self { created: u64::from(created), fingerprint, hashed, material })
    }

    /// Why the key verifies nothing, where it does not.
    pub(super) fn unusable(&self) -> Option<&str> {
        match &self.material {
            Material::Unusable(reason) => Some(reason),
            _ => None,
        }
    }

    /// Whether `signature` is this key's over `parts` and its own hashed part.
    pub(super) fn verifies(&self, signature: &Signature, parts: &[&[u8]]) -> bool {
        signature.digest(parts).is_some_and(|digest| self.verifies_digest(signature, &digest))
    }

    /// As [`PublicKey::verifies`], with the digest of the parts.
    pub(super) fn verifies_digest(&self, signature: &Signature, digest: &[u8]) -> bool {
        digest.starts_with(signature.left()) && self.holds(signature, digest).unwrap_or(false)
    }

    fn holds(&self, signature: &Signature, digest: &[u8]) -> Option<bool> {
        let hash = signature.hash()?;
        let mut input = Input(signature.material());
        let good = match (&self.material, signature.algorithm()) {
            (Material::Rsa(key), 1 | 3) => {
                let size = usize::try_from(rsa::traits::PublicKeyParts::n(key.as_ref()).bit_width()).ok()?.div_ceil(8);
                let padded = padded(input.mpi()?, size)?;
                let signature = rsa::pkcs1v15::Signature::try_from(padded.as_slice()).ok()?;
                let key = rsa::PublicKey::clone(key);
                match hash {
                    Hash::Sha256 => rsa::pkcs1v15::VerifyingKey::<Sha256>::new(key).verify_prehash(digest, &signature),
                    Hash::Sha384 => rsa::pkcs1v15::VerifyingKey::<Sha384>::new(key).verify_prehash(digest, &signature),
                    Hash::Sha512 => rsa::pkcs1v15::VerifyingKey::<Sha512>::new(key).verify_prehash(digest, &signature),
                }
                .is_ok()
            }
            (Material::P256(key), 19) => {
                let both = [padded(input.mpi()?, 32)?, padded(input.mpi()?, 32)?].concat();
                key.verify_prehash(digest, &p256::ecdsa::Signature::from_slice(&both).ok()?).is_ok()
            }
            (Material::P384(key), 19) => {
                let both = [padded(input.mpi()?, 48)?, padded(input.mpi()?, 48)?].concat();
                key.verify_prehash(digest, &p384::ecdsa::Signature::from_slice(&both).ok()?).is_ok()
            }
            (Material::Ed25519(key), 22) => {
                let both = [padded(input.mpi()?, 32)?, padded(input.mpi()?, 32)?].concat();
                key.verify_strict(digest, &ed25519_dalek::Signature::from_slice(&both).ok()?).is_ok()
            }
            _ => return None,
        };
        Some(good && input.is_empty())
    }
}

/// A number at its full length: leading zeros are not written.
fn padded(number: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut all = vec![0; length.checked_sub(number.len())?];
    all.extend_from_slice(number);
    Some(all)
}

fn rsa_key(mut input: Input<'_>) -> Option<Material> {
    let (modulus, exponent) = (input.mpi()?, input.mpi()?);
    if !input.is_empty() {
        return None;
    }
    let modulus = BoxedUint::from_be_slice_vartime(modulus);
    let bits = modulus.bit_width_vartime();
    if !RSA_BITS.contains(&bits) {
        return Some(Material::Unusable(format!("an RSA key of {bits} bits")));
    }
    let key = rsa::PublicKey::new(modulus, BoxedUint::from_be_slice_vartime(exponent));
    Some(key.map_or_else(|e| Material::Unusable(format!("an RSA key: {e}")), |key| Material::Rsa(Box::new(key))))
}

fn ecdsa_key(mut input: Input<'_>) -> Option<Material> {
    let length = usize::from(input.byte()?);
    let (curve, point) = (input.take(length)?, input.mpi()?);
    if !input.is_empty() {
        return None;
    }
    match curve {
        P256 => p256::ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(Material::P256),
        P384 => p384::ecdsa::VerifyingKey::from_sec1_bytes(point).ok().map(|key| Material::P384(Box::new(key))),
        _ => Some(Material::Unusable("an ECDSA key on another curve than P-256 and P-384".to_owned())),
    }
}

fn ed25519_key(mut input: Input<'_>) -> Option<Material> {
    let length = usize::from(input.byte()?);
    let (curve, point) = (input.take(length)?, input.mpi()?);
    if !input.is_empty() {
        return None;
    }
    if curve != ED25519 {
        return Some(Material::Unusable("an EdDSA key on another curve than Ed25519".to_owned()));
    }
    let (&0x40, point) = point.split_first()? else { return None };
    ed25519_dalek::VerifyingKey::from_bytes(point.try_into().ok()?).ok().map(Material::Ed25519)
}
