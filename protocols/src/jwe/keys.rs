//! Session keys: what a resource is encrypted to, and what opens it.

use p256::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use p256::elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytesSize, PublicKey as EcKey};
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};
use rsa::BoxedUint;
use rsa::pkcs1::{DecodeRsaPrivateKey as _, EncodeRsaPrivateKey as _};
use rsa::traits::PublicKeyParts as _;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{ALG, ContentKey, Epk, Header, JweError, RSA_ALG, ecdh};
use crate::encoding::{b64url, un_b64url};
use crate::kbs::TeePubKey;

/// The size of RSA keys made here, in bits.
const RSA_BITS: usize = 3072;
/// The shortest and longest RSA modulus, in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// The longest RSA exponent, in bytes: what is beyond costs the encrypting side and protects nothing.
const MAX_EXPONENT: usize = 4;

/// The public half of a session key, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// On P-256: every session of ours.
    P256(p256::PublicKey),
    /// On P-521.
    P521(Box<p521::PublicKey>),
    /// RSA of 2048 to 8192 bits.
    Rsa(Box<rsa::PublicKey>),
}

impl PublicKey {
    /// Reads a session key: an EC key on the curve whose coordinates have exactly the field's length, or an RSA key of
    /// a size we take, for the algorithm that goes with it.
    ///
    /// # Errors
    /// [`JweError::Key`] for any other key.
    pub fn of(jwk: &TeePubKey) -> Result<Self, JweError> {
        let key = match jwk {
            TeePubKey::EC { crv, alg, x, y } if alg == ALG => match crv.as_str() {
                "P-256" => ecdh::point(x, y).map(Self::P256),
                "P-521" => ecdh::point(x, y).map(|key| Self::P521(Box::new(key))),
                _ => None,
            },
            TeePubKey::RSA { alg, n, e } if alg == RSA_ALG => rsa_key(n, e).map(|key| Self::Rsa(Box::new(key))),
            _ => None,
        };
        key.ok_or(JweError::Key)
    }

    /// The JWK with exactly the members that are hashed.
    #[must_use]
    pub fn jwk(&self) -> TeePubKey {
        let ec = |crv: &str, (x, y)| TeePubKey::EC { crv: crv.to_owned(), alg: ALG.to_owned(), x, y };
        match self {
            Self::P256(key) => ec("P-256", ecdh::coordinates(key)),
            Self::P521(key) => ec("P-521", ecdh::coordinates(key)),
            Self::Rsa(key) => TeePubKey::RSA {
                alg: RSA_ALG.to_owned(),
                n: b64url(&key.n().to_be_bytes_trimmed_vartime()),
                e: b64url(&key.e().to_be_bytes_trimmed_vartime()),
            },
        }
    }

    /// The key that can also sign requests of our own protocol.
    #[must_use]
    pub const fn p256(&self) -> Option<&p256::PublicKey> {
        match self {
            Self::P256(key) => Some(key),
            Self::P521(_) | Self::Rsa(_) => None,
        }
    }
}

/// A session's secret key; erased when dropped.
pub enum SecretKey {
    /// On P-256.
    P256(p256::SecretKey),
    /// On P-521.
    P521(Box<p521::SecretKey>),
    /// RSA of 2048 to 8192 bits.
    Rsa(Box<rsa::PrivateKey>),
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::P256(_) => "SecretKey(P-256)",
            Self::P521(_) => "SecretKey(P-521)",
            Self::Rsa(_) => "SecretKey(RSA)",
        })
    }
}

/// Kinds of session keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// ECDH-ES+A256KW on P-256: every session of ours.
    #[default]
    P256,
    /// ECDH-ES+A256KW on P-521.
    P521,
    /// RSA-OAEP-256.
    Rsa,
}

impl SecretKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`JweError::Encrypt`] when the system gives no randomness.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, JweError> {
        let made = match algorithm {
            KeyAlgorithm::P256 => ecdh::generate().map(Self::P256),
            KeyAlgorithm::P521 => ecdh::generate().map(|key| Self::P521(Box::new(key))),
            KeyAlgorithm::Rsa => {
                rsa::PrivateKey::new(&mut getrandom::SysRng, RSA_BITS).ok().map(|key| Self::Rsa(Box::new(key)))
            }
        };
        made.ok_or(JweError::Encrypt)
    }

    /// The key as CoCo's clients keep it: PKCS#8 of an EC key, PKCS#1 of an RSA key.
    ///
    /// # Errors
    /// [`JweError::Key`] never happens for keys that were made or read here; it is passed on, not hidden.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, JweError> {
        match self {
            Self::P256(key) => key.to_pkcs8_pem(LineEnding::LF).map_err(|_| JweError::Key),
            Self::P521(key) => key.to_pkcs8_pem(LineEnding::LF).map_err(|_| JweError::Key),
            Self::Rsa(key) => key.to_pkcs1_pem(LineEnding::LF).map_err(|_| JweError::Key),
        }
    }

    /// Reads what CoCo's clients keep: PKCS#8 of an EC key, PKCS#1 or PKCS#8 of an RSA key.
    ///
    /// # Errors
    /// [`JweError::Key`] for any other key.
    pub fn from_pem(pem: &str) -> Result<Self, JweError> {
        let rsa = || rsa::PrivateKey::from_pkcs8_pem(pem).ok().or_else(|| rsa::PrivateKey::from_pkcs1_pem(pem).ok());
        if let Ok(key) = p256::SecretKey::from_pkcs8_pem(pem) {
            Ok(Self::P256(key))
        } else if let Ok(key) = p521::SecretKey::from_pkcs8_pem(pem) {
            Ok(Self::P521(Box::new(key)))
        } else {
            let key = rsa().filter(|key| RSA_BYTES.contains(&key.size())).ok_or(JweError::Key)?;
            Ok(Self::Rsa(Box::new(key)))
        }
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        match self {
            Self::P256(key) => PublicKey::P256(key.public_key()),
            Self::P521(key) => PublicKey::P521(Box::new(key.public_key())),
            Self::Rsa(key) => PublicKey::Rsa(Box::new(key.to_public_key())),
        }
    }

    /// The content key that was wrapped for this key.
    pub(super) fn unwrap(&self, header: &Header, wrapped: &[u8]) -> Result<ContentKey, JweError> {
        let unwrapped = match (self, header.alg.as_str(), &header.epk) {
            (Self::P256(key), ALG, Some(epk)) if epk.is("P-256") => {
                ecdh::unwrap(&ecdh::agreed(key, &epk.point()?), b"", b"", exactly::<{ ecdh::WRAPPED }>(wrapped)?)
            }
            (Self::P521(key), ALG, Some(epk)) if epk.is("P-521") => {
                ecdh::unwrap(&ecdh::agreed(key, &epk.point()?), b"", b"", exactly::<{ ecdh::WRAPPED }>(wrapped)?)
            }
            (Self::Rsa(key), RSA_ALG, None) => {
                let unwrapped = key.oaep_decrypt::<Sha256>(wrapped).ok().map(Zeroizing::new);
                unwrapped.and_then(|key| key.as_slice().try_into().ok().map(Zeroizing::new))
            }
            _ => return Err(JweError::Malformed("algorithms")),
        };
        unwrapped.ok_or(JweError::Decrypt)
    }
}

fn exactly<const N: usize>(wrapped: &[u8]) -> Result<&[u8], JweError> {
    if wrapped.len() == N { Ok(wrapped) } else { Err(JweError::Malformed("key")) }
}

impl Epk {
    fn is(&self, crv: &str) -> bool {
        self.kty == "EC" && self.crv == crv
    }

    fn point<C>(&self) -> Result<EcKey<C>, JweError>
    where
        C: CurveArithmetic,
        AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
        FieldBytesSize<C>: ModulusSize,
    {
        ecdh::point(&self.x, &self.y).ok_or(JweError::Malformed("ephemeral key"))
    }
}

fn rsa_key(n: &str, e: &str) -> Option<rsa::PublicKey> {
    let (n, e) = (un_b64url(n).ok()?, un_b64url(e).ok()?);
    // RFC 7518 section 6.3.1: as few octets as there are.
    let plain = n.first() != Some(&0) && e.first() != Some(&0);
    if !plain || !RSA_BYTES.contains(&n.len()) || e.len() > MAX_EXPONENT {
        return None;
    }
    rsa::PublicKey::new(BoxedUint::from_be_slice_vartime(&n), BoxedUint::from_be_slice_vartime(&e)).ok()
}
