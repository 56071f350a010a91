//! The JWE that carries a resource to a session key: flattened JSON (RFC 7516 section 7.2.2), the content by A256GCM,
//! its key by ECDH-ES+A256KW on P-256 or P-521 (RFC 7518 section 4.6, Concat KDF with SHA-256, no party info) or by
//! RSA-OAEP-256 (RFC 7518 section 4.3).
//!
//! Real clients rebuild the protected header to compute the AAD, so it is written exactly as
//! `{"alg":…,"enc":…}`, with `,"epk":{"crv":…,"kty":…,"x":…,"y":…}` where there is one, compact.

pub mod ecdh;
mod keys;
mod recipient;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::encoding::un_b64url;
use crate::kbs::{Response, TeePubKey};

pub use self::ecdh::concat_kdf;
pub use self::keys::{KeyAlgorithm, PublicKey, SecretKey};
pub use self::recipient::Recipient;

/// Key agreement of every session of ours.
pub const ALG: &str = "ECDH-ES+A256KW";
/// Key transport to RSA keys.
pub const RSA_ALG: &str = "RSA-OAEP-256";
/// Content encryption of every resource.
pub const ENC: &str = "A256GCM";

/// A content key.
type ContentKey = Zeroizing<[u8; 32]>;

/// A resource could not be encrypted or decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JweError {
    /// Not a session key that resources are encrypted to.
    #[error("the session key is neither on P-256 or P-521 for {ALG}, nor RSA of 2048 to 8192 bits for {RSA_ALG}")]
    Key,
    /// Not a JWE of this form.
    #[error("malformed JWE: {0}")]
    Malformed(&'static str),
    /// Encrypted to another key, or altered.
    #[error("the JWE does not decrypt under this key")]
    Decrypt,
    /// The system gave no randomness, or the cipher refused.
    #[error("the JWE cannot be made")]
    Encrypt,
}

/// The protected header; the order of the fields is the order on the wire.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    enc: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epk: Option<Epk>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Epk {
    crv: String,
    kty: String,
    x: String,
    y: String,
}

/// A fresh P-256 key.
///
/// # Errors
/// [`JweError::Encrypt`] when the system gives no randomness.
pub fn generate() -> Result<p256::SecretKey, JweError> {
    ecdh::generate().ok_or(JweError::Encrypt)
}

/// The JWK of a P-256 session key, with exactly the members that are hashed.
#[must_use]
pub fn jwk(key: &p256::PublicKey) -> TeePubKey {
    PublicKey::P256(*key).jwk()
}

/// Encrypts `plaintext` so that only the holder of `to` reads it.
///
/// # Errors
/// [`JweError::Key`], [`JweError::Encrypt`].
pub fn encrypt(to: &TeePubKey, plaintext: &[u8]) -> Result<Response, JweError> {
    Recipient::new(to)?.encrypt(plaintext)
}

/// Decrypts what was encrypted to `key`.
///
/// # Errors
/// [`JweError::Malformed`], [`JweError::Decrypt`].
pub fn decrypt(key: &SecretKey, response: &Response) -> Result<Zeroizing<Vec<u8>>, JweError> {
    let bytes = |text: &str, what| un_b64url(text).map_err(|_| JweError::Malformed(what));
    let header: Header = serde_json::from_slice(&bytes(&response.protected, "protected header")?)
        .map_err(|_| JweError::Malformed("protected header"))?;
    if header.enc != ENC {
        return Err(JweError::Malformed("algorithms"));
    }
    let encrypted_key = bytes(&response.encrypted_key, "key")?;
    let iv: [u8; 12] = bytes(&response.iv, "iv")?.try_into().map_err(|_| JweError::Malformed("iv"))?;
    let tag: [u8; 16] = bytes(&response.tag, "tag")?.try_into().map_err(|_| JweError::Malformed("tag"))?;
    let mut sealed = bytes(&response.ciphertext, "ciphertext")?;
    sealed.extend_from_slice(&tag);

    let content_key = key.unwrap(&header, &encrypted_key)?;
    Aes256Gcm::new_from_slice(content_key.as_slice())
        .map_err(|_| JweError::Decrypt)?
        .decrypt(&Nonce::from(iv), Payload { msg: &sealed, aad: response.protected.as_bytes() })
        .map(Zeroizing::new)
        .map_err(|_| JweError::Decrypt)
}

#[cfg(test)]
mod tests;
