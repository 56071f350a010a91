//! Sessions whose tokens were verified a moment ago: a signature is checked once for all that its token asks for, and so
//! is the key agreement with its session key made.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use p256::ecdsa::VerifyingKey;
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::jwe::{JweError, Recipient};
use protocols::time::Timestamp;

use crate::error::BrokerError;
use crate::token::Session;

/// The most sessions known, a few KiB each; then those that have expired are forgotten, or all.
const MAX_KNOWN: usize = 4096;

/// A session whose token was verified.
#[derive(Debug)]
pub(crate) struct Known {
    session: Session,
    recipient: OnceLock<Recipient>,
}

impl Deref for Known {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Known {
    /// What resources for it are encrypted to.
    pub(crate) fn recipient(&self) -> Result<&Recipient, JweError> {
        if let Some(recipient) = self.recipient.get() {
            return Ok(recipient);
        }
        let recipient = Recipient::new(&self.session.tee_pubkey)?;
        Ok(self.recipient.get_or_init(|| recipient))
    }
}

/// The sessions known, by the digest of their whole token. Only tokens with our signature get in.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<Sha256Digest, Arc<Known>>>);

impl Sessions {
    /// The session of a token of ours that counts now.
    pub(crate) fn verified(
        &self,
        token: &str,
        key: &VerifyingKey,
        environment: Environment,
        now: Timestamp,
    ) -> Result<Arc<Known>, BrokerError> {
        let name = Sha256Digest::of(token.as_bytes());
        let known = self.known().get(&name).map(Arc::clone);
        if let Some(known) = known {
            known.counts(environment, now)?;
            return Ok(known);
        }
        let session = Session::verify(token, key)?;
        session.counts(environment, now)?;
        let verified = Arc::new(Known { session, recipient: OnceLock::new() });
        let mut known = self.known();
        if known.len() >= MAX_KNOWN {
            known.retain(|_, known| !known.expired(now));
        }
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(name, Arc::clone(&verified));
        Ok(verified)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Sha256Digest, Arc<Known>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use protocols::jws::Signer;

    use super::*;

    fn signer(byte: u8) -> Signer {
        Signer::new(&p256::ecdsa::SigningKey::from_slice(&[byte; 32]).unwrap()).unwrap()
    }

    #[test]
    fn a_token_that_is_known_counts_no_longer_and_in_no_other_environment_than_before() {
        let (sessions, key) = (Sessions::default(), signer(1));
        let token = crate::token::tests::session().sign(&key).unwrap();
        let ask = |environment, now| sessions.verified(&token, key.verifying_key(), environment, Timestamp(now));
        let first = ask(Environment::Development, 1299).unwrap();
        assert!(Arc::ptr_eq(&first, &ask(Environment::Development, 1001).unwrap()));
        assert!(ask(Environment::Development, 1300).is_err());
        assert!(ask(Environment::Production, 1001).is_err());
        // Nor does a signature cover anything but what it was made over.
        let (input, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = input.split_once('.').unwrap();
        for other in [format!("{header}.e30.{signature}"), format!("{token}="), token[..token.len() - 1].to_owned()] {
            assert!(sessions.verified(&other, key.verifying_key(), Environment::Development, Timestamp(1001)).is_err());
        }
    }

    #[test]
    fn no_more_sessions_are_known_than_there_is_room_for() {
        let (sessions, key) = (Sessions::default(), signer(1));
        for number in 0..=MAX_KNOWN {
            let mut session = crate::token::tests::session();
            session.jti = number.to_string();
            let token = session.sign(&key).unwrap();
            sessions.verified(&token, key.verifying_key(), Environment::Development, Timestamp(1001)).unwrap();
        }
        assert_eq!(sessions.known().len(), 1);
    }
}
