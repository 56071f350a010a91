//! Challenges as sealed, expiring cookies: any replica with the signing key can check one, and a flood of
//! requests for them takes no memory.
//!
//! Cookie = base64url(JSON) `.` base64url(HMAC-SHA256 under a key derived from the signing key).

use hmac::{Hmac, KeyInit as _, Mac as _};
use protocols::encoding::{b64, b64url, un_b64, un_b64url};
use protocols::kbs::Tee;
use protocols::time::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::error::BrokerError;

/// The longest cookie we look at, in bytes.
const MAX_COOKIE: usize = 1024;
/// What the sealing key is derived for.
const PURPOSE: &[u8] = b"tcl-challenge-v1";

/// What was asked of one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// 32 random bytes.
    pub(crate) nonce: [u8; 32],
    /// The evidence that was announced.
    pub(crate) tee: Tee,
    /// From this second on it does not count.
    pub(crate) expires: Timestamp,
    /// Whether the log's head will be bound.
    pub(crate) tcl: bool,
}

impl Challenge {
    /// A fresh challenge, until `expires`; `tcl`: whether the log's head will be bound.
    ///
    /// # Errors
    /// [`BrokerError::Internal`] when the system gives no randomness.
    pub fn new(tee: Tee, tcl: bool, expires: Timestamp) -> Result<Self, BrokerError> {
        Ok(Self { nonce: random()?, tee, expires, tcl })
    }

    /// The nonce as it travels and is hashed: standard base64 of 32 bytes.
    #[must_use]
    pub fn nonce_text(&self) -> String {
        b64(&self.nonce)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    nonce: String,
    tee: Tee,
    expires: u64,
    tcl: bool,
}

/// Seals and opens challenges.
pub struct Sealer {
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// A sealer whose key follows from the attestor's signing key: replicas that share one open each other's.
    ///
    /// # Errors
    /// [`BrokerError::Internal`] never happens for these keys; it is passed on, not hidden.
    pub fn new(signing: &p256::ecdsa::SigningKey) -> Result<Self, BrokerError> {
        let secret = Zeroizing::new(<[u8; 32]>::from(signing.to_bytes()));
        Ok(Self { key: Zeroizing::new(keyed(secret.as_slice())?.chain_update(PURPOSE).finalize().into_bytes().into()) })
    }

    /// The cookie's value.
    ///
    /// # Errors
    /// As [`Sealer::new`].
    pub fn seal(&self, challenge: &Challenge) -> Result<String, BrokerError> {
        let sealed = Sealed {
            nonce: challenge.nonce_text(),
            tee: challenge.tee,
            expires: challenge.expires.0,
            tcl: challenge.tcl,
        };
        let body = serde_json::to_vec(&sealed).map_err(|_| BrokerError::Internal("a challenge has no JSON form"))?;
        let tag = keyed(self.key.as_slice())?.chain_update(&body).finalize().into_bytes();
        Ok(format!("{}.{}", b64url(&body), b64url(&tag)))
    }

    /// Opens a cookie of ours that has not expired.
    ///
    /// # Errors
    /// `attestor.session` for every other.
    pub fn open(&self, cookie: &str, now: Timestamp) -> Result<Challenge, BrokerError> {
        let foreign = || BrokerError::session("a cookie of another attestor");
        if cookie.len() > MAX_COOKIE {
            return Err(foreign());
        }
        let (body, tag) = cookie.split_once('.').ok_or_else(foreign)?;
        let (body, tag) = (un_b64url(body).map_err(|_| foreign())?, un_b64url(tag).map_err(|_| foreign())?);
        keyed(self.key.as_slice())?.chain_update(&body).verify_slice(&tag).map_err(|_| foreign())?;
        let sealed: Sealed = serde_json::from_slice(&body).map_err(|_| foreign())?;
        let nonce = un_b64(&sealed.nonce).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(foreign)?;
        let expires = Timestamp(sealed.expires);
        if now >= expires {
            return Err(BrokerError::session("a challenge that has expired"));
        }
        Ok(Challenge { nonce, tee: sealed.tee, expires, tcl: sealed.tcl })
    }
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>, BrokerError> {
    Hmac::new_from_slice(key).map_err(|_| BrokerError::Internal("no HMAC key"))
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], BrokerError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|_| BrokerError::Internal("the system gives no randomness"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(seed: u8) -> Sealer {
        Sealer::new(&p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap()).unwrap()
    }

    #[test]
    fn opens_what_it_sealed_until_it_expires() {
        let challenge = Challenge::new(Tee::Tpm, true, Timestamp(100)).unwrap();
        let cookie = sealer(1).seal(&challenge).unwrap();
        // Another replica with the same signing key opens it too.
        assert_eq!(sealer(1).open(&cookie, Timestamp(99)).unwrap(), challenge);
        assert!(sealer(1).open(&cookie, Timestamp(100)).is_err());
    }

    #[test]
    fn refuses_every_altered_byte_and_other_keys() {
        let cookie = sealer(1).seal(&Challenge::new(Tee::Snp, false, Timestamp(100)).unwrap()).unwrap();
        assert!(sealer(2).open(&cookie, Timestamp(1)).is_err());
        for place in 0..cookie.len() {
            let mut bytes = cookie.clone().into_bytes();
            bytes[place] ^= 1;
            let altered = String::from_utf8(bytes).unwrap();
            assert!(sealer(1).open(&altered, Timestamp(1)).is_err(), "byte {place}");
        }
        for junk in ["", ".", "a.b", "====.====", &"a".repeat(5000)] {
            assert!(sealer(1).open(junk, Timestamp(1)).is_err());
        }
    }
}
