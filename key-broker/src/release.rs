//! Whether a session gets a resource: the resource policy asked, and what it allowed remembered for the same token.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use appraisal::Tier;
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::reason::{self, Refusal};
use protocols::resource::ResourcePath;
use release::{Denied, Question, ReleasePolicy};
use serde::Serialize;

use crate::error::BrokerError;
use crate::token::Session;

/// The most answers remembered, 32 bytes each; then all are forgotten.
const MAX_ALLOWED: usize = 16_384;
/// The plugin of resources, and the method that reads one, as policies know them.
const PLUGIN: &str = "resource";
const METHOD: &str = "GET";

/// One resource policy in force.
#[derive(Debug)]
pub struct Release {
    policy: ReleasePolicy,
    status: Vec<Tier>,
    environment: Environment,
    /// Hashes of token and path that the policy allowed. An answer depends on nothing else, so it stays true as long as
    /// the token does; what was denied is asked again, since that is told with reasons.
    allowed: Mutex<HashSet<Sha256Digest>>,
}

/// What of it decides, for the digest of everything that does.
#[derive(Debug, Serialize)]
pub(crate) struct Deciding<'r> {
    policy: Sha256Digest,
    status: &'r [Tier],
}

impl Release {
    pub(crate) fn new(policy: ReleasePolicy, status: Vec<Tier>, environment: Environment) -> Self {
        Self { policy, status, environment, allowed: Mutex::default() }
    }

    pub(crate) fn deciding(&self) -> Deciding<'_> {
        Deciding { policy: self.policy.digest(), status: &self.status }
    }

    /// SHA-256 of the policy's text.
    pub(crate) const fn digest(&self) -> Sha256Digest {
        self.policy.digest()
    }

    /// Asks the policy about a session whose token was verified.
    pub(crate) fn to(&self, session: &Session, path: &ResourcePath) -> Result<(), BrokerError> {
        let known = session.signature().map(|signature| Sha256Digest::of(format!("{signature} {path}").as_bytes()));
        if known.is_some_and(|known| self.allowed().contains(&known)) {
            return Ok(());
        }
        let claims = serde_json::to_value(session).map_err(|_| BrokerError::Internal("a token has no JSON form"))?;
        let question = Question {
            plugin: PLUGIN,
            method: METHOD,
            path,
            claims: &claims,
            environment: self.environment,
            status: &self.status,
        };
        self.policy.release(&question).map_err(|Denied(why)| {
            Refusal::new(
                reason::ATTESTOR_DENIED,
                path.as_str(),
                "a session that the resource policy releases it to",
                why,
            )
        })?;
        if let Some(known) = known {
            let mut allowed = self.allowed();
            if allowed.len() >= MAX_ALLOWED {
                allowed.clear();
            }
            allowed.insert(known);
        }
        Ok(())
    }

    fn allowed(&self) -> std::sync::MutexGuard<'_, HashSet<Sha256Digest>> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
