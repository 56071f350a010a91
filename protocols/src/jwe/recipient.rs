//! What resources are encrypted to: a session key, with the key agreement made once.

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use aes_kw::KwAes256;
use p256::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use p256::elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytesSize, PublicKey as EcKey};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::rand::SystemRandom;
use sha2::Sha256;

use super::{ALG, ContentKey, ENC, Epk, Header, JweError, PublicKey, RSA_ALG, ecdh};
use crate::encoding::b64url;
use crate::kbs::{Response, TeePubKey};

/// A session key made ready. Every JWE has a content key of its own; on a curve all of them are wrapped under what one
/// ephemeral key, erased at once, agreed on with the session's.
pub struct Recipient {
    /// The protected header as it travels.
    protected: String,
    wrapping: Wrapping,
}

enum Wrapping {
    Agreed(Box<KwAes256>),
    Rsa(Box<rsa::PublicKey>),
}

impl std::fmt::Debug for Recipient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipient").field("protected", &self.protected).finish_non_exhaustive()
    }
}

impl Recipient {
    /// Makes the key agreement with a session key, where its kind has one.
    ///
    /// # Errors
    /// [`JweError::Key`]; [`JweError::Encrypt`] when the system gives no randomness.
    pub fn new(to: &TeePubKey) -> Result<Self, JweError> {
        let (alg, epk, wrapping) = match PublicKey::of(to)? {
            PublicKey::P256(key) => agree_p256(&key),
            PublicKey::P521(key) => agree("P-521", &key),
            PublicKey::Rsa(key) => Some((RSA_ALG, None, Wrapping::Rsa(key))),
        }
        .ok_or(JweError::Encrypt)?;
        let header = Header { alg: alg.to_owned(), enc: ENC.to_owned(), epk };
        let protected = b64url(&serde_json::to_vec(&header).map_err(|_| JweError::Encrypt)?);
        Ok(Self { protected, wrapping })
    }

    /// Encrypts `plaintext` so that only the holder of the session key reads it.
    ///
    /// # Errors
    /// [`JweError::Encrypt`] when the system gives no randomness.
    pub fn encrypt(&self, plaintext: &[u8]) -> Result<Response, JweError> {
        let mut content_key = ContentKey::default();
        let mut iv = [0u8; 12];
        getrandom::fill(content_key.as_mut_slice()).map_err(|_| JweError::Encrypt)?;
        getrandom::fill(&mut iv).map_err(|_| JweError::Encrypt)?;
        let encrypted_key = self.wrap(&content_key).ok_or(JweError::Encrypt)?;
        let sealed = Aes256Gcm::new_from_slice(content_key.as_slice())
            .map_err(|_| JweError::Encrypt)?
            .encrypt(&Nonce::from(iv), Payload { msg: plaintext, aad: self.protected.as_bytes() })
            .map_err(|_| JweError::Encrypt)?;
        let (ciphertext, tag) = sealed.split_last_chunk::<16>().ok_or(JweError::Encrypt)?;
        Ok(Response {
            protected: self.protected.clone(),
            encrypted_key: b64url(&encrypted_key),
            iv: b64url(&iv),
            ciphertext: b64url(ciphertext),
            tag: b64url(tag),
        })
    }

    fn wrap(&self, content_key: &ContentKey) -> Option<Vec<u8>> {
        match &self.wrapping {
            Wrapping::Agreed(key) => {
                let mut wrapped = vec![0; ecdh::WRAPPED];
                key.wrap_key(content_key.as_slice(), &mut wrapped).ok()?;
                Some(wrapped)
            }
            Wrapping::Rsa(key) => key.oaep_encrypt::<Sha256>(content_key.as_slice()).ok(),
        }
    }
}

/// Algorithm, ephemeral key where there is one, and what wraps content keys.
type Agreement = (&'static str, Option<Epk>, Wrapping);

/// As [`agree`]: almost every resource is for a key on P-256, for which `ring` takes a fifth of the time.
fn agree_p256(to: &p256::PublicKey) -> Option<Agreement> {
    let secret = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).ok()?;
    let public = secret.compute_public_key().ok()?;
    let (x, y) = public.as_ref().strip_prefix(&[4])?.split_at_checked(32)?;
    let epk = Epk { crv: "P-256".to_owned(), kty: "EC".to_owned(), x: b64url(x), y: b64url(y) };
    let to = UnparsedPublicKey::new(&ECDH_P256, to.to_sec1_point(false));
    let agreed = |shared: &[u8]| ecdh::Agreed::new(shared.to_vec());
    let wrapping = ecdh::wrapping_key(&agree_ephemeral(secret, &to, agreed).ok()?, b"", b"");
    Some((ALG, Some(epk), Wrapping::Agreed(Box::new(wrapping))))
}

fn agree<C>(crv: &str, to: &EcKey<C>) -> Option<Agreement>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let secret = ecdh::generate::<C>()?;
    let (x, y) = ecdh::coordinates(&secret.public_key());
    let epk = Epk { crv: crv.to_owned(), kty: "EC".to_owned(), x, y };
    let wrapping = ecdh::wrapping_key(&ecdh::agreed(&secret, to), b"", b"");
    Some((ALG, Some(epk), Wrapping::Agreed(Box::new(wrapping))))
}
