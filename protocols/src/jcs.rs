//! Canonical JSON (RFC 8785), the only JSON we hash or sign.

use serde::Serialize;

/// The value has no canonical form (a non-string map key, a float that is not finite).
#[derive(Debug, thiserror::Error)]
#[error("no canonical JSON form: {0}")]
pub struct JcsError(#[from] serde_json::Error);

/// Canonical bytes of `value`.
///
/// # Errors
/// [`JcsError`] when the value cannot be expressed in JSON.
pub fn canonical<T: Serialize>(value: &T) -> Result<Vec<u8>, JcsError> {
    Ok(serde_json_canonicalizer::to_vec(value)?)
}
