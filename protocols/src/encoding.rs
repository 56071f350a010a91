//! Base64 in the two alphabets the field uses, as serde helpers and functions.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};

/// Text was not base64 of the expected alphabet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {0} base64")]
pub struct Base64Error(&'static str);

/// Standard alphabet with padding (KBS nonces, DSSE).
#[must_use]
pub fn b64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads [`b64`].
///
/// # Errors
/// [`Base64Error`] for any other text.
pub fn un_b64(text: &str) -> Result<Vec<u8>, Base64Error> {
    STANDARD.decode(text).map_err(|_| Base64Error("standard"))
}

/// URL-safe alphabet with padding (evidence of Azure's VMs).
#[must_use]
pub fn b64url_padded(bytes: &[u8]) -> String {
    URL_SAFE.encode(bytes)
}

/// Reads [`b64url_padded`].
///
/// # Errors
/// [`Base64Error`] for any other text.
pub fn un_b64url_padded(text: &str) -> Result<Vec<u8>, Base64Error> {
    URL_SAFE.decode(text).map_err(|_| Base64Error("padded URL-safe"))
}

/// URL-safe alphabet without padding (JOSE).
#[must_use]
pub fn b64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads [`b64url`].
///
/// # Errors
/// [`Base64Error`] for any other text.
pub fn un_b64url(text: &str) -> Result<Vec<u8>, Base64Error> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Base64Error("URL-safe"))
}

/// `#[serde(with = "encoding::standard")]` for byte vectors in standard base64.
pub mod standard {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes standard base64.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::b64(bytes))
    }

    /// Reads standard base64.
    ///
    /// # Errors
    /// Any other text.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        super::un_b64(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
