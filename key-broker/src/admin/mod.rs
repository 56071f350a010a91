//! Who administers: named tokens, client certificates and JWTs of identity providers, each with roles.
//!
//! An `Administrator` of a role is a value that only `Administrators::check` makes; what a role is needed for
//! takes one as an argument, so that no handler can forget to ask.

mod certificate;
mod first;
mod jwt;

use std::marker::PhantomData;

use protocols::digest::Sha256Digest;
use protocols::reason;
use protocols::time::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use subtle::ConstantTimeEq as _;

use crate::error::BrokerError;

pub(crate) use self::certificate::{CertificateRule, Named};
pub use self::first::FirstToken;
pub(crate) use self::jwt::{Provider, keys as jwt_keys};

/// What an administrator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Write and delete resources.
    Resources,
    /// Change policies and reference values.
    Policy,
    /// Read decisions, their reasons and the audit log.
    Audit,
    /// All of it.
    Admin,
}

impl Role {
    /// As configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::Policy => "policy",
            Self::Audit => "audit",
            Self::Admin => "admin",
        }
    }
}

/// A role as a type.
pub(crate) trait Needed: Send + Sync + 'static {
    /// Which.
    const ROLE: Role;
}

/// Needs [`Role::Resources`].
#[derive(Debug)]
pub(crate) struct Resources;

impl Needed for Resources {
    const ROLE: Role = Role::Resources;
}

/// Needs [`Role::Policy`].
#[derive(Debug)]
pub(crate) struct Policies;

impl Needed for Policies {
    const ROLE: Role = Role::Policy;
}

/// Needs [`Role::Audit`].
#[derive(Debug)]
pub(crate) struct Audit;

impl Needed for Audit {
    const ROLE: Role = Role::Audit;
}

/// Somebody whose credentials were checked, and who has the role `R`.
#[derive(Debug)]
pub(crate) struct Administrator<R> {
    name: String,
    role: PhantomData<R>,
}

impl<R> Administrator<R> {
    /// As configuration names the credential, for the log.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// What a request shows of who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown<'r> {
    /// The bearer token.
    pub(crate) bearer: Option<&'r str>,
    /// The certificates of the connection, the peer's own first; its key was proven in the handshake.
    pub(crate) certificates: &'r [CertificateDer<'static>],
}

/// A named token, of which only the hash is known.
#[derive(Debug)]
pub(crate) struct NamedToken {
    pub(crate) name: String,
    pub(crate) hash: Sha256Digest,
    pub(crate) roles: Vec<Role>,
}

/// Everybody who may administer.
#[derive(Debug, Default)]
pub struct Administrators {
    pub(crate) tokens: Vec<NamedToken>,
    pub(crate) certificates: Vec<CertificateRule>,
    pub(crate) providers: Vec<Provider>,
    /// Where the token lies that a first start makes; `None` where configuration names administrators, or nobody.
    pub(crate) first: Option<FirstToken>,
}

impl Administrators {
    /// Makes the token of a first start, where configuration names no administrator and none was made before. Gives
    /// the file it was written to.
    ///
    /// # Errors
    /// The file's.
    pub fn establish(&mut self) -> Result<Option<std::path::PathBuf>, crate::config::ConfigError> {
        let Some(first) = self.first.as_ref().filter(|_| self.tokens.is_empty()) else { return Ok(None) };
        let (token, path) = (first.make()?, first.path().to_owned());
        self.tokens.push(token);
        Ok(Some(path))
    }

    /// Roots of client certificates, for the handshake.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.certificates.iter().flat_map(CertificateRule::roots)
    }

    /// Whether the request's credentials are an administrator's of the role `R`. A bearer token decides alone where there
    /// is one.
    ///
    /// # Errors
    /// `attestor.denied` without credentials that count, `attestor.role` without the role.
    pub(crate) fn check<R: Needed>(&self, shown: Shown<'_>, now: Timestamp) -> Result<Administrator<R>, BrokerError> {
        let denied = |actual| {
            BrokerError::refused(reason::ATTESTOR_DENIED, "administration", "an administrator's credentials", actual)
        };
        if self.tokens.is_empty() && self.certificates.is_empty() && self.providers.is_empty() {
            return Err(denied("administration is not configured"));
        }
        let (name, roles) = match shown.bearer {
            Some(bearer) => self.bearer(bearer, now).map_err(denied)?,
            None => self.certificate(shown.certificates, now).map_err(denied)?,
        };
        if roles.contains(&R::ROLE) || roles.contains(&Role::Admin) {
            return Ok(Administrator { name, role: PhantomData });
        }
        let held = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ");
        Err(BrokerError::refused(reason::ATTESTOR_ROLE, name, R::ROLE.as_str(), held))
    }

    fn bearer(&self, bearer: &str, now: Timestamp) -> Result<(String, Vec<Role>), &'static str> {
        let hash = Sha256Digest::of(bearer.as_bytes());
        let mut found = None;
        // Every hash is compared, each in constant time: how long it takes tells nothing.
        for token in &self.tokens {
            if bool::from(token.hash.as_bytes().ct_eq(hash.as_bytes())) {
                found = Some(token);
            }
        }
        if let Some(token) = found {
            return Ok((token.name.clone(), token.roles.clone()));
        }
        if self.providers.is_empty() {
            return Err("another token");
        }
        let mut last = "another token";
        for provider in &self.providers {
            match provider.verify(bearer, now) {
                Ok(held) => return Ok(held),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    fn certificate(
        &self,
        chain: &[CertificateDer<'static>],
        now: Timestamp,
    ) -> Result<(String, Vec<Role>), &'static str> {
        if chain.is_empty() {
            return Err("none");
        }
        let rule = self.certificates.iter().find(|rule| rule.matches(chain, now));
        rule.map(|rule| (rule.name().to_owned(), rule.roles().to_vec())).ok_or("a certificate of nobody listed")
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
