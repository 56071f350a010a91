//! ECDH-ES+A256KW (RFC 7518 section 4.6) on any of the NIST curves: points as JWK coordinates, the key that two sides
//! agree on, and AES key wrap (RFC 3394) under it.

use aes_kw::KwAes256;
use p256::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use p256::elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytesSize, Generate as _, PublicKey, SecretKey, ecdh};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::encoding::{b64url, un_b64url};

/// A 32-byte key under AES key wrap, in bytes.
pub const WRAPPED: usize = 40;

/// What two keys agree on.
pub type Agreed = Zeroizing<Vec<u8>>;

/// A fresh key; `None` when the system gives no randomness.
#[must_use]
pub fn generate<C: CurveArithmetic>() -> Option<SecretKey<C>> {
    SecretKey::try_generate().ok()
}

/// The coordinates of a key, base64url, each as long as the curve's field.
#[must_use]
pub fn coordinates<C>(key: &PublicKey<C>) -> (String, String)
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    // A public key is never the point at infinity, so an uncompressed point has both coordinates.
    let point = key.as_affine().to_sec1_point(false);
    let (x, y) = (point.x().map(|x| b64url(x)), point.y().map(|y| b64url(y)));
    (x.unwrap_or_default(), y.unwrap_or_default())
}

/// The key with these coordinates: of exactly the field's length, and on the curve.
#[must_use]
pub fn point<C>(x: &str, y: &str) -> Option<PublicKey<C>>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let (x, y) = (un_b64url(x).ok()?, un_b64url(y).ok()?);
    if x.len() != y.len() {
        return None;
    }
    PublicKey::from_sec1_bytes(&[&[4], x.as_slice(), &y].concat()).ok()
}

/// What the holders of the two keys agree on.
#[must_use]
pub fn agreed<C: CurveArithmetic>(secret: &SecretKey<C>, public: &PublicKey<C>) -> Agreed {
    let shared = ecdh::diffie_hellman(secret.to_nonzero_scalar(), public.as_affine());
    Zeroizing::new(shared.raw_secret_bytes().to_vec())
}

/// The key encryption key of two sides that agree on `shared`. `apu` and `apv` are what they say of themselves.
#[must_use]
pub fn wrapping_key(shared: &Agreed, apu: &[u8], apv: &[u8]) -> KwAes256 {
    let key = Zeroizing::new(concat_kdf(shared, super::ALG, apu, apv, 256));
    aes_gcm::aead::KeyInit::new((&*key).into())
}

/// Wraps a content key.
#[must_use]
pub fn wrap(shared: &Agreed, apu: &[u8], apv: &[u8], key: &[u8; 32]) -> Option<[u8; WRAPPED]> {
    let mut wrapped = [0; WRAPPED];
    wrapping_key(shared, apu, apv).wrap_key(key, &mut wrapped).ok()?;
    Some(wrapped)
}

/// Unwraps a content key; `None` when it was wrapped under another key, or is not 40 bytes long.
#[must_use]
pub fn unwrap(shared: &Agreed, apu: &[u8], apv: &[u8], wrapped: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let wrapped: &[u8; WRAPPED] = wrapped.try_into().ok()?;
    let mut key = Zeroizing::new([0; 32]);
    wrapping_key(shared, apu, apv).unwrap_key(wrapped, key.as_mut_slice()).ok()?;
    Some(key)
}

/// One round of the Concat KDF (NIST SP 800-56A section 5.8.1, RFC 7518 section 4.6.2), enough for 256 bits.
#[must_use]
pub fn concat_kdf(shared: &[u8], alg: &str, apu: &[u8], apv: &[u8], bits: u32) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(1u32.to_be_bytes());
    hasher.update(shared);
    for field in [alg.as_bytes(), apu, apv] {
        // The fields have a few bytes.
        hasher.update(u32::try_from(field.len()).unwrap_or(u32::MAX).to_be_bytes());
        hasher.update(field);
    }
    hasher.update(bits.to_be_bytes());
    hasher.finalize().into()
}
