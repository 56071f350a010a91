//! TPM2_MakeCredential outside a TPM: TPM 2.0 part 1, section 24 and annexes B.10.4 (RSA) and C.6.4 (ECC).

use aes::Aes128;
use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use hmac::{Hmac, Mac as _};
use p256::elliptic_curve::Generate as _;
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::pkcs8::DecodePublicKey as _;
use protocols::enrolment::EnrolmentChallenge;
use protocols::tpm::EkKind;
use rand_core::TryCryptoRng;
use rsa::oaep::EncryptingKey;
use rsa::traits::{PublicKeyParts as _, RandomizedEncryptor as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

const RSA_BITS: u32 = 2048;
/// The label of the seed, its terminator included.
const IDENTITY: &[u8] = b"IDENTITY\0";

/// A public endorsement key. Its nameAlg is SHA-256 and its symmetric scheme AES-128-CFB, by its template.
pub(super) enum EkKey {
    Rsa(rsa::PublicKey),
    Ecc(p256::PublicKey),
}

impl EkKey {
    /// From SubjectPublicKeyInfo DER; `None` for other keys.
    pub(super) fn read(spki: &[u8]) -> Option<Self> {
        if let Ok(key) = p256::PublicKey::from_public_key_der(spki) {
            return Some(Self::Ecc(key));
        }
        let key = rsa::PublicKey::from_public_key_der(spki).ok()?;
        (key.n().bit_width() == RSA_BITS).then_some(Self::Rsa(key))
    }

    /// Encrypts `secret` for the object of this name in this key's TPM.
    pub(super) fn make_credential<R: TryCryptoRng>(
        &self,
        name: &[u8],
        secret: &[u8; 32],
        rng: &mut R,
    ) -> Result<EnrolmentChallenge, &'static str> {
        let failed = "a key that nothing can be encrypted to";
        let (ek, seed, encrypted_seed) = match self {
            Self::Rsa(key) => {
                let mut seed = Zeroizing::new([0; 32]);
                rng.try_fill_bytes(seed.as_mut_slice()).map_err(|_| "no randomness")?;
                let key = EncryptingKey::<Sha256>::new_with_label(key.clone(), IDENTITY);
                let encrypted = key.encrypt_with_rng(rng, seed.as_slice()).map_err(|_| failed)?;
                (EkKind::Rsa2048, seed, encrypted)
            }
            Self::Ecc(key) => {
                let ephemeral = p256::ecdh::EphemeralSecret::try_generate_from_rng(rng).map_err(|_| "no randomness")?;
                let (ours, theirs) = (point(&ephemeral.public_key())?, point(key)?);
                let shared = ephemeral.diffie_hellman(key);
                // KDFe: one round gives all 256 bits.
                let seed = Sha256::new()
                    .chain_update(1u32.to_be_bytes())
                    .chain_update(shared.raw_secret_bytes())
                    .chain_update(IDENTITY)
                    .chain_update(ours.0)
                    .chain_update(theirs.0);
                let encrypted = [sized(&ours.0), sized(&ours.1)].concat();
                (EkKind::EccP256, Zeroizing::new(seed.finalize().into()), encrypted)
            }
        };
        let mut identity = Zeroizing::new(sized(secret));
        let key = kdfa(&seed, b"STORAGE\0", name, 128);
        cfb_encrypt(key.first_chunk().ok_or(failed)?, &mut identity);
        let key = kdfa(&seed, b"INTEGRITY\0", &[], 256);
        let integrity = hmac(key.as_slice(), &[&identity, name]);
        let credential = [sized(&integrity), identity.to_vec()].concat();
        Ok(EnrolmentChallenge { ek, credential, encrypted_seed })
    }
}

/// A TPM2B of a short content.
fn sized(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap_or_default().to_be_bytes(), content].concat()
}

/// X and Y of a key's point.
fn point(key: &p256::PublicKey) -> Result<([u8; 32], [u8; 32]), &'static str> {
    let point = key.to_sec1_point(false);
    match (point.x(), point.y()) {
        (Some(x), Some(y)) => Ok(((*x).into(), (*y).into())),
        _ => Err("a key without a point"),
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// KDFa with SHA-256 and an empty second context: one round gives up to 256 bits. The label ends in its terminator.
fn kdfa(key: &[u8; 32], label: &[u8], context: &[u8], bits: u32) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(hmac(key, &[&1u32.to_be_bytes(), label, context, &bits.to_be_bytes()]))
}

/// AES-128-CFB with an IV of zeros, in place: a credential has three blocks at most.
fn cfb_encrypt(key: &[u8; 16], data: &mut [u8]) {
    let cipher = Aes128::new(key.into());
    let mut feedback = [0u8; 16];
    for chunk in data.chunks_mut(16) {
        let mut block = feedback.into();
        cipher.encrypt_block(&mut block);
        for ((byte, mask), kept) in chunk.iter_mut().zip(&block).zip(&mut feedback) {
            *byte ^= mask;
            *kept = *byte;
        }
    }
}
