//! `sigstoreSigned`: signatures by key.

use std::fmt;

use super::bundle::Bundle;
use super::identity::SignedIdentity;
use super::key::SigstoreKey;
use super::payload::{Payload, SIGSTORE};
use super::scope::Name;
use super::{Rejection, Subject};

/// A `sigstoreSigned` requirement.
#[derive(Debug, Clone)]
pub(super) struct Sigstore {
    pub(super) keys: Vec<SigstoreKey>,
    pub(super) identity: SignedIdentity,
}

impl fmt::Display for Sigstore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(|key| key.id().to_string()).collect();
        write!(f, "a sigstore signature by one of: {}; {}", keys.join(", "), self.identity)
    }
}

impl Sigstore {
    /// Whether one signature of cosign's tag satisfies the requirement. The payload is not read before its signature
    /// holds.
    pub(super) fn check_payload(
        &self,
        image: &Name,
        subject: &Subject<'_>,
        payload: &[u8],
        signature: &[u8],
    ) -> Result<(), Rejection> {
        if !self.keys.iter().any(|key| key.verifies(payload, signature)) {
            return Err(Rejection::WrongKey);
        }
        let payload = Payload::parse(payload, SIGSTORE).map_err(Rejection::Unreadable)?;
        if payload.digest != subject.digest {
            return Err(Rejection::OtherDigest);
        }
        self.named(image, Some(payload.reference))
    }

    /// Whether one bundle satisfies the requirement.
    pub(super) fn check_bundle(&self, image: &Name, subject: &Subject<'_>, bundle: &Bundle) -> Result<(), Rejection> {
        self.named(image, bundle.check(&self.keys, &subject.digest, subject.bytes)?.reference)
    }

    fn named(&self, image: &Name, reference: Option<String>) -> Result<(), Rejection> {
        if self.identity.accepts(image, reference.as_deref()) {
            return Ok(());
        }
        Err(reference.map_or(Rejection::NoIdentity, Rejection::OtherIdentity))
    }
}
