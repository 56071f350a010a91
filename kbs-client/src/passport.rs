//! A session that leaves its process: the token, and the key that opens what is released to it.
//!
//! Written as CoCo's attestation agent gives tokens: `{"token":"…","tee_keypair":"<PEM>"}`, PKCS#8 of an EC key, PKCS#1
//! of an RSA key. Whoever holds it reads what the guest may read, until the token runs out.

use protocols::jwe::SecretKey;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::error::ClientError;
use crate::messages::{self, Token};

/// A token with its session's key. The only way in which a session's key leaves it.
pub struct Passport {
    pub(crate) token: Token,
    pub(crate) key: SecretKey,
}

impl std::fmt::Debug for Passport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passport").field("expires", &self.token.expires).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Written {
    token: String,
    tee_keypair: String,
}

impl Passport {
    /// Reads what was written.
    ///
    /// # Errors
    /// [`ClientError::Protocol`] for anything else.
    pub fn from_json(text: &[u8]) -> Result<Self, ClientError> {
        let Written { token, tee_keypair } = messages::json_of(text, "passport")?;
        let key = SecretKey::from_pem(&Zeroizing::new(tee_keypair))
            .map_err(|error| ClientError::protocol(error.to_string()))?;
        Ok(Self { token: messages::token_of(token)?, key })
    }

    /// Writes it down: a secret.
    ///
    /// # Errors
    /// [`ClientError::Request`] never happens for keys of sessions; it is passed on, not hidden.
    pub fn to_json(&self) -> Result<Zeroizing<String>, ClientError> {
        let key = self.key.to_pem().map_err(|_| ClientError::Request { what: "its key has no written form" })?;
        Ok(Zeroizing::new(json!({ "token": self.token.text, "tee_keypair": key.as_str() }).to_string()))
    }

    /// The token alone, which opens nothing without the key.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token.text
    }

    /// When the token says that it runs out, in seconds since 1970.
    #[must_use]
    pub const fn expires(&self) -> Option<u64> {
        self.token.expires
    }
}

#[cfg(test)]
mod tests {
    use protocols::jwe::KeyAlgorithm;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_shows_nothing_by_itself() {
        let exp = protocols::encoding::b64url(br#"{"exp":7}"#);
        for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P521] {
            let key = SecretKey::generate(algorithm).unwrap();
            let token = messages::token_of(format!("e30.{exp}.c2ln")).unwrap();
            let passport = Passport { token, key };
            assert_eq!(format!("{passport:?}"), "Passport { expires: Some(7), .. }");
            let again = Passport::from_json(passport.to_json().unwrap().as_bytes()).unwrap();
            assert_eq!((again.token(), again.expires()), (passport.token(), Some(7)));
            assert_eq!(again.key.public_key(), passport.key.public_key());
        }
    }

    #[test]
    fn a_token_without_its_key_is_no_passport() {
        for text in ["", "{}", r#"{"token":"a.b.c"}"#, r#"{"token":"a.b.c","tee_keypair":"x"}"#] {
            assert_eq!(Passport::from_json(text.as_bytes()).unwrap_err().code().as_str(), "attestor.protocol");
        }
    }
}
