//! Administrators by JWT of an identity provider: ES256, RS256 or EdDSA under its listed keys.

use std::collections::BTreeMap;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use protocols::encoding::un_b64url;
use protocols::time::Timestamp;
use serde_json::Value;

use super::Role;

/// The longest JWT that is looked at, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// The most keys of one provider.
const MAX_KEYS: usize = 32;
/// The most characters of a subject that the log is told.
const MAX_SUBJECT: usize = 96;

/// One `[[admin.jwt]]`.
pub(crate) struct Provider {
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) keys: Vec<Key>,
    /// JSON pointer of the claim that holds names of roles.
    pub(crate) role_claim: String,
    /// What the provider's names stand for here.
    pub(crate) roles: BTreeMap<String, Vec<Role>>,
    /// How far clocks may be apart, in seconds.
    pub(crate) leeway: u64,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// One key of a JWKS.
pub(crate) struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Reads the signature keys of a JWKS (RFC 7517); those of other uses and kinds are left out. The text says why none
/// counts.
pub(crate) fn keys(json: &[u8]) -> Result<Vec<Key>, String> {
    let set: Value = serde_json::from_slice(json).map_err(|_| "not JSON".to_owned())?;
    let listed = set.get("keys").and_then(Value::as_array).ok_or("not a JWKS: no list of keys")?;
    if listed.len() > MAX_KEYS {
        return Err(format!("more than {MAX_KEYS} keys"));
    }
    let keys: Vec<Key> =
        listed.iter().filter_map(|key| serde_json::from_value(key.clone()).ok()).filter_map(key).collect();
    if keys.is_empty() { Err("no key for ES256, RS256 or EdDSA".to_owned()) } else { Ok(keys) }
}

fn key(jwk: Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|of| *of != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    // A key that says which algorithm it is for is for no other.
    if jwk.common.key_algorithm.is_some_and(|named| named.to_string() != format!("{algorithm:?}")) {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(Key { id: jwk.common.key_id, algorithm, key })
}

impl Provider {
    /// Who a token of this provider stands for, and the roles. Signature, `exp`, `nbf`, `iss` and `aud` must all be
    /// there and hold.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Result<(String, Vec<Role>), &'static str> {
        if token.len() > MAX_TOKEN || token.bytes().filter(|byte| *byte == b'.').count() != 2 {
            return Err("another token");
        }
        let header = decode_header(token).map_err(|_| "no JWT that can be read")?;
        if critical(token) {
            return Err("a JWT with extensions that are critical");
        }
        let fits = |key: &&Key| key.algorithm == header.alg && (header.kid.is_none() || header.kid == key.id);
        let mut validation = Validation::new(header.alg);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud"]);
        // Times are compared below, by the attestor's clock.
        validation.validate_exp = false;
        let signed = |key: &Key| decode::<Value>(token, &key.key, &validation).ok();
        let claims = self.keys.iter().filter(fits).find_map(signed).ok_or("a JWT that does not hold")?.claims;
        let time = |name| claims.get(name).and_then(Value::as_u64).ok_or("a JWT without whole times");
        let (from, until) = (time("nbf")?, time("exp")?);
        if now.0 >= until.saturating_add(self.leeway) {
            return Err("a JWT that has expired");
        }
        if from > now.0.saturating_add(self.leeway) {
            return Err("a JWT from the future");
        }
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("nobody");
        let subject: String = subject.chars().filter(|c| !c.is_control()).take(MAX_SUBJECT).collect();
        Ok((format!("{subject} of {}", self.issuer), self.roles(&claims)))
    }

    fn roles(&self, claims: &Value) -> Vec<Role> {
        let named: Vec<&str> = match claims.pointer(&self.role_claim) {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        named.into_iter().filter_map(|name| self.roles.get(name)).flatten().copied().collect()
    }
}

/// Whether the header lists extensions that must be understood (RFC 7515, 4.1.11): none is, here.
fn critical(token: &str) -> bool {
    let header = token.split('.').next().and_then(|header| un_b64url(header).ok());
    let header: Option<Value> = header.and_then(|header| serde_json::from_slice(&header).ok());
    header.is_none_or(|header| header.get("crit").is_some())
}
