//! Private and public keys of recipients: RSA from 2,048 bits, and P-256, P-384, P-521.

use p256::elliptic_curve::sec1::{FromSec1Point, ModulusSize, ToSec1Point};
use p256::elliptic_curve::{AffinePoint, CurveArithmetic, FieldBytesSize, PublicKey, SecretKey};
use p256::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _};
use protocols::jwe::ecdh::{self, Agreed};
use rsa::pkcs1::{DecodeRsaPrivateKey as _, DecodeRsaPublicKey as _};
use rsa::traits::PublicKeyParts as _;
use sha1::Sha1;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::header::{Algorithm, ECDH_ES, Header, PublicPoint, RSA_OAEP};
use super::{ContentKey, EncryptionError};

/// The shortest RSA modulus, in bytes.
const MIN_RSA: usize = 256;

/// A private key that opens JWE; erased when dropped.
pub struct DecryptionKey(Private);

enum Private {
    Rsa(Box<rsa::PrivateKey>),
    P256(p256::SecretKey),
    P384(p384::SecretKey),
    P521(p521::SecretKey),
}

/// A public key that JWE are made for.
#[derive(Debug)]
pub struct RecipientKey(Public);

#[derive(Debug)]
enum Public {
    Rsa(Box<rsa::PublicKey>),
    P256(p256::PublicKey),
    P384(p384::PublicKey),
    P521(p521::PublicKey),
}

impl std::fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            Private::Rsa(_) => "DecryptionKey(RSA)",
            Private::P256(_) => "DecryptionKey(P-256)",
            Private::P384(_) => "DecryptionKey(P-384)",
            Private::P521(_) => "DecryptionKey(P-521)",
        })
    }
}

/// The first PEM block whose label ends so: `openssl ecparam -genkey` writes parameters before the key.
fn block<'a>(pem: &'a str, label: &str) -> Option<&'a str> {
    let end = format!("{label}-----");
    let mut from = 0;
    loop {
        let start = from + pem.get(from..)?.find("-----BEGIN ")?;
        let block = pem.get(start..)?;
        if block.lines().next()?.trim_end().ends_with(&end) {
            return Some(block);
        }
        from = start + "-----BEGIN ".len();
    }
}

impl DecryptionKey {
    /// Reads an unencrypted PEM key: PKCS#8, PKCS#1 (`RSA PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`).
    ///
    /// # Errors
    /// [`EncryptionError::PrivateKey`] for anything else.
    pub fn from_pem(pem: &str) -> Result<Self, EncryptionError> {
        let pem = block(pem, "PRIVATE KEY").ok_or(EncryptionError::PrivateKey)?;
        let rsa = rsa::PrivateKey::from_pkcs8_pem(pem).ok().or_else(|| rsa::PrivateKey::from_pkcs1_pem(pem).ok());
        let private = if let Some(key) = rsa.filter(|key| key.size() >= MIN_RSA) {
            Private::Rsa(Box::new(key))
        } else if let Some(key) = ec_private(pem) {
            Private::P256(key)
        } else if let Some(key) = ec_private(pem) {
            Private::P384(key)
        } else if let Some(key) = ec_private(pem) {
            Private::P521(key)
        } else {
            return Err(EncryptionError::PrivateKey);
        };
        Ok(Self(private))
    }

    /// The content key, if it is wrapped for a key of this kind. Only the content's tag tells whether it is for
    /// this very key.
    pub(super) fn unwrap(&self, algorithm: &Algorithm<'_>, wrapped: &[u8]) -> Option<ContentKey> {
        match (&self.0, algorithm) {
            (Private::Rsa(key), Algorithm::RsaOaep) => content_key(key.oaep_decrypt::<Sha1>(wrapped)),
            (Private::Rsa(key), Algorithm::RsaOaep256) => content_key(key.oaep_decrypt::<Sha256>(wrapped)),
            (key, Algorithm::Ecdh { epk, apu, apv }) => {
                let shared = match (key, epk.crv.as_str()) {
                    (Private::P256(key), "P-256") => ecdh::agreed(key, &ecdh::point(&epk.x, &epk.y)?),
                    (Private::P384(key), "P-384") => ecdh::agreed(key, &ecdh::point(&epk.x, &epk.y)?),
                    (Private::P521(key), "P-521") => ecdh::agreed(key, &ecdh::point(&epk.x, &epk.y)?),
                    _ => return None,
                };
                ecdh::unwrap(&shared, apu, apv, wrapped)
            }
            _ => None,
        }
    }
}

impl RecipientKey {
    /// Reads a PEM public key: SPKI, or PKCS#1 (`RSA PUBLIC KEY`).
    ///
    /// # Errors
    /// [`EncryptionError::PublicKey`] for anything else.
    pub fn from_pem(pem: &str) -> Result<Self, EncryptionError> {
        let pem = block(pem, "PUBLIC KEY").ok_or(EncryptionError::PublicKey)?;
        let rsa = rsa::PublicKey::from_public_key_pem(pem).ok().or_else(|| rsa::PublicKey::from_pkcs1_pem(pem).ok());
        let public = if let Some(key) = rsa.filter(|key| key.size() >= MIN_RSA) {
            Public::Rsa(Box::new(key))
        } else if let Ok(key) = p256::PublicKey::from_public_key_pem(pem) {
            Public::P256(key)
        } else if let Ok(key) = p384::PublicKey::from_public_key_pem(pem) {
            Public::P384(key)
        } else if let Ok(key) = p521::PublicKey::from_public_key_pem(pem) {
            Public::P521(key)
        } else {
            return Err(EncryptionError::PublicKey);
        };
        Ok(Self(public))
    }

    /// The recipient's header and the content key wrapped for it.
    pub(super) fn wrap(&self, content_key: &ContentKey) -> Result<(Header, Vec<u8>), EncryptionError> {
        let (shared, epk) = match &self.0 {
            Public::Rsa(key) => {
                let wrapped =
                    key.oaep_encrypt::<Sha1>(content_key.as_slice()).map_err(|_| EncryptionError::PublicKey)?;
                return Ok((Header::of(RSA_OAEP, None), wrapped));
            }
            Public::P256(key) => ephemeral(key, "P-256")?,
            Public::P384(key) => ephemeral(key, "P-384")?,
            Public::P521(key) => ephemeral(key, "P-521")?,
        };
        let wrapped = ecdh::wrap(&shared, b"", b"", content_key).ok_or(EncryptionError::Cipher)?;
        Ok((Header::of(ECDH_ES, Some(epk)), wrapped.to_vec()))
    }
}

fn content_key(unwrapped: rsa::Result<Vec<u8>>) -> Option<ContentKey> {
    let unwrapped = Zeroizing::new(unwrapped.ok()?);
    unwrapped.as_slice().try_into().ok().map(Zeroizing::new)
}

fn ec_private<C>(pem: &str) -> Option<SecretKey<C>>
where
    C: CurveArithmetic + p256::pkcs8::AssociatedOid,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    SecretKey::from_pkcs8_pem(pem).ok().or_else(|| SecretKey::from_sec1_pem(pem).ok())
}

/// A fresh key, and what it and `to` agree on.
fn ephemeral<C>(to: &PublicKey<C>, crv: &str) -> Result<(Agreed, PublicPoint), EncryptionError>
where
    C: CurveArithmetic,
    AffinePoint<C>: FromSec1Point<C> + ToSec1Point<C>,
    FieldBytesSize<C>: ModulusSize,
{
    let key = ecdh::generate::<C>().ok_or(EncryptionError::Random)?;
    let (x, y) = ecdh::coordinates(&key.public_key());
    Ok((ecdh::agreed(&key, to), PublicPoint { kty: "EC".to_owned(), crv: crv.to_owned(), x, y }))
}
