//! Compact JWS with ES256 (RFC 7515, RFC 7518): verdicts, receipts, session requests.
//!
//! ECDSA gives every signature a twin, (r, -s), that anyone can compute. Receipts are chained by the hash of the
//! whole token, so only the one with the lower s is written and read: nobody on the way can change that hash.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::encoding::{b64url, un_b64url};

/// The largest token we read, in bytes.
pub const MAX_JWS: usize = 2 * 1024 * 1024;

/// A token was not ours or not signed as expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// Not a compact JWS of ES256 with the expected `typ`.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// The signature does not verify under the given key.
    #[error("the token's signature does not verify")]
    Signature,
}

/// The protected header of every token of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
}

/// A key made ready to sign: what the check of its halves costs is paid once.
pub struct Signer {
    pair: EcdsaKeyPair,
    key: p256::ecdsa::VerifyingKey,
    random: SystemRandom,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Signer {
    /// Makes a key ready. As for verifying, `ring` takes a fifth of the time; its nonce mixes key and message with what
    /// the system's random generator gives.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] when the key's halves do not agree, which those of a [`SigningKey`] do.
    ///
    /// [`SigningKey`]: p256::ecdsa::SigningKey
    pub fn new(key: &p256::ecdsa::SigningKey) -> Result<Self, JwsError> {
        let random = SystemRandom::new();
        let secret = Zeroizing::new(key.to_bytes());
        let public = key.verifying_key().to_sec1_point(false);
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &secret, public.as_bytes(), &random)
            .map_err(|_| JwsError::Malformed("key"))?;
        Ok(Self { pair, key: *key.verifying_key(), random })
    }

    /// The public half.
    #[must_use]
    pub const fn verifying_key(&self) -> &p256::ecdsa::VerifyingKey {
        &self.key
    }

    /// Signs `claims` as a compact JWS with header `{"alg":"ES256","typ":typ,"kid":kid}`.
    ///
    /// # Errors
    /// [`JwsError::Malformed`] when the claims have no JSON form.
    pub fn sign<T: Serialize>(&self, typ: &str, kid: Option<&str>, claims: &T) -> Result<String, JwsError> {
        let header = Header { alg: "ES256".to_owned(), typ: typ.to_owned(), kid: kid.map(str::to_owned) };
        let header = serde_json::to_vec(&header).map_err(|_| JwsError::Malformed("header"))?;
        let claims = serde_json::to_vec(claims).map_err(|_| JwsError::Malformed("claims"))?;
        let input = format!("{}.{}", b64url(&header), b64url(&claims));
        let signature = self.signature(input.as_bytes()).ok_or(JwsError::Malformed("key"))?;
        Ok(format!("{input}.{}", b64url(&signature.normalize_s().to_bytes())))
    }

    fn signature(&self, message: &[u8]) -> Option<p256::ecdsa::Signature> {
        p256::ecdsa::Signature::from_slice(self.pair.sign(&self.random, message).ok()?.as_ref()).ok()
    }
}

/// Signs once with a key; whoever signs often has a [`Signer`].
///
/// # Errors
/// [`JwsError::Malformed`] when the claims have no JSON form.
pub fn sign<T: Serialize>(
    typ: &str,
    kid: Option<&str>,
    claims: &T,
    key: &p256::ecdsa::SigningKey,
) -> Result<String, JwsError> {
    Signer::new(key)?.sign(typ, kid, claims)
}

/// Checks header, type and signature, and gives the claims.
///
/// # Errors
/// [`JwsError`].
pub fn verify<T: for<'de> Deserialize<'de>>(
    typ: &str,
    token: &str,
    key: &p256::ecdsa::VerifyingKey,
) -> Result<T, JwsError> {
    let (payload, input, signature) = split(typ, token)?;
    // Every request of a launch is verified here on both sides: `ring` takes a fifth of the time.
    let point = key.to_sec1_point(false);
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.as_bytes())
        .verify(input.as_bytes(), &signature.to_bytes())
        .map_err(|_| JwsError::Signature)?;
    serde_json::from_slice(&payload).map_err(|_| JwsError::Malformed("claims"))
}

fn split<'t>(typ: &str, token: &'t str) -> Result<(Vec<u8>, &'t str, p256::ecdsa::Signature), JwsError> {
    if token.len() > MAX_JWS {
        return Err(JwsError::Malformed("too long"));
    }
    let (input, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed("parts"))?;
    let (header, payload) = input.split_once('.').ok_or(JwsError::Malformed("parts"))?;
    let header = un_b64url(header).map_err(|_| JwsError::Malformed("header"))?;
    let header: Header = serde_json::from_slice(&header).map_err(|_| JwsError::Malformed("header"))?;
    if header.alg != "ES256" {
        return Err(JwsError::Malformed("algorithm"));
    }
    if header.typ != typ {
        return Err(JwsError::Malformed("type"));
    }
    let payload = un_b64url(payload).map_err(|_| JwsError::Malformed("payload"))?;
    let signature = un_b64url(signature).map_err(|_| JwsError::Malformed("signature"))?;
    let signature = p256::ecdsa::Signature::from_slice(&signature).map_err(|_| JwsError::Malformed("signature"))?;
    if signature.normalize_s() != signature {
        return Err(JwsError::Signature);
    }
    Ok((payload, input, signature))
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Verifier as _;

    use super::*;

    #[test]
    fn a_message_has_one_token() {
        let key = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        for claims in 0..32u64 {
            let token = sign("t", None, &claims, &key).unwrap();
            assert_eq!(verify::<u64>("t", &token, key.verifying_key()), Ok(claims));
            let (input, signature) = token.rsplit_once('.').unwrap();
            let low = p256::ecdsa::Signature::from_slice(&un_b64url(signature).unwrap()).unwrap();
            let twin = p256::ecdsa::Signature::from_scalars(low.r(), -low.s()).unwrap();
            key.verifying_key().verify(input.as_bytes(), &twin).unwrap();
            let twin = format!("{input}.{}", b64url(&twin.to_bytes()));
            assert_eq!(verify::<u64>("t", &twin, key.verifying_key()), Err(JwsError::Signature));
        }
    }
}
