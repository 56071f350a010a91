//! `signedBy`: simple signing with OpenPGP keys, from the lookaside of the repository.

use std::fmt;

use super::identity::SignedIdentity;
use super::openpgp::{Certificate, Message};
use super::payload::{OPENPGP, Payload};
use super::scope::Name;
use super::{Rejection, Subject};
use protocols::time::Timestamp;

/// A `signedBy` requirement.
#[derive(Debug, Clone)]
pub(super) struct SignedBy {
    pub(super) keys: Vec<Certificate>,
    pub(super) identity: SignedIdentity,
}

impl fmt::Display for SignedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.keys.iter().map(Certificate::fingerprint).collect();
        write!(f, "an OpenPGP signature by one of: {}; {}", keys.join(", "), self.identity)
    }
}

impl SignedBy {
    /// Whether one signature satisfies the requirement at `now`. The payload is not read before its signature holds.
    pub(super) fn check(
        &self,
        image: &Name,
        subject: &Subject<'_>,
        message: &Message,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let mut rejection = Rejection::WrongKey;
        for key in &self.keys {
            match key.open(message, now) {
                Ok(text) => return self.speaks_of(image, subject, text),
                Err(Rejection::WrongKey) => {}
                Err(other) => rejection = other,
            }
        }
        Err(rejection)
    }

    fn speaks_of(&self, image: &Name, subject: &Subject<'_>, text: &[u8]) -> Result<(), Rejection> {
        let payload = Payload::parse(text, OPENPGP).map_err(Rejection::Unreadable)?;
        if payload.digest != subject.digest {
            return Err(Rejection::OtherDigest);
        }
        if self.identity.accepts(image, Some(&payload.reference)) {
            Ok(())
        } else {
            Err(Rejection::OtherIdentity(payload.reference))
        }
    }
}
