//! The policy in force, and how another takes its place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use protocols::digest::Sha256Digest;
use serde_json::Value;

use crate::error::{Denied, PolicyError, Why};
use crate::evaluator::{Answer, Evaluator, Known};

/// The rule that turns denials into warnings.
const ALLOW_FAILING: &str = "AllowRequestsFailingPolicy";
/// The rule that another policy is proposed under.
const SET_POLICY: &str = "SetPolicyRequest";

/// One policy, compiled, with its state.
struct Policy {
    digest: Sha256Digest,
    rules: BTreeMap<String, Known>,
    /// `AllowRequestsFailingPolicy`: a policy for finding out what a pod asks for.
    allows_failing: bool,
    /// Requests change the state that the next one is judged by: one at a time.
    evaluator: Mutex<Evaluator>,
}

impl Policy {
    fn compile(text: &str) -> Result<Self, PolicyError> {
        let (mut evaluator, rules) = Evaluator::compile(text)?;
        let allows_failing = match rules.get(ALLOW_FAILING) {
            Some(Known::Constant(value)) => *value,
            Some(Known::Open) => {
                matches!(
                    evaluator.evaluate(ALLOW_FAILING, Value::Object(serde_json::Map::new())).0,
                    Answer::Allowed(None)
                )
            }
            Some(Known::Undefined) | None => false,
        };
        if allows_failing {
            tracing::warn!("the policy allows every request that it denies ({ALLOW_FAILING})");
        }
        Ok(Self { digest: Sha256Digest::of(text.as_bytes()), rules, allows_failing, evaluator: Mutex::new(evaluator) })
    }

    fn check(&self, request: &str, input: impl FnOnce() -> Result<Value, Denied>) -> Result<(), Denied> {
        let denied = match self.rules.get(request) {
            Some(Known::Constant(true)) => return Ok(()),
            Some(Known::Constant(false)) => Denied::new(request, Why::Rule, &[]),
            Some(Known::Undefined) | None => Denied::new(request, Why::Undefined, &[]),
            Some(Known::Open) => match self.evaluate(request, input()?) {
                Ok(()) => return Ok(()),
                Err(denied) => denied,
            },
        };
        // An evaluation that failed says nothing about the request, and neither does a state that cannot change.
        if self.allows_failing && matches!(denied.why(), Why::Rule | Why::Undefined) {
            tracing::warn!(request, why = %denied.why(), prints = denied.prints(), "denied, and allowed by {ALLOW_FAILING}");
            return Ok(());
        }
        Err(denied)
    }

    fn evaluate(&self, request: &str, input: Value) -> Result<(), Denied> {
        let denied = |why, prints: &[String]| Err(Denied::new(request, why, prints));
        let Ok(mut evaluator) = self.evaluator.lock() else {
            return denied(Why::Evaluation("an earlier evaluation broke off".to_owned()), &[]);
        };
        let (answer, prints) = evaluator.evaluate(request, input);
        match answer {
            Answer::Allowed(None) => Ok(()),
            Answer::Allowed(Some(ops)) => match evaluator.apply(&ops) {
                Ok(()) => Ok(()),
                Err(error) => denied(Why::State(error), &prints),
            },
            Answer::Denied(why) => denied(why, &prints),
        }
    }
}

/// A policy that may take the place of the one it was proposed under, see [`PolicyEngine::propose`].
pub struct Proposal {
    policy: Policy,
    under: Arc<Policy>,
}

impl Proposal {
    /// The digests of the policy in force and of the proposed one: what is recorded before it is adopted.
    #[must_use]
    pub fn digests(&self) -> Replaced {
        Replaced { old: self.under.digest, new: self.policy.digest }
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proposal").field("digests", &self.digests()).finish_non_exhaustive()
    }
}

/// SHA-256 of two policies' texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// The one that was in force.
    pub old: Sha256Digest,
    /// The one that takes its place.
    pub new: Sha256Digest,
}

/// The policy in force.
///
/// [`check`](Self::check) takes microseconds for a rule that depends on nothing and milliseconds for one that is
/// evaluated, one evaluation at a time: call it where blocking that long does no harm.
pub struct PolicyEngine {
    policy: RwLock<Arc<Policy>>,
}

impl fmt::Debug for PolicyEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyEngine").field("digest", &self.digest()).finish_non_exhaustive()
    }
}

impl PolicyEngine {
    /// Compiles the policy that is in force first.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn new(text: &str) -> Result<Self, PolicyError> {
        Ok(Self { policy: RwLock::new(Arc::new(Policy::compile(text)?)) })
    }

    /// SHA-256 of the text in force.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        self.policy().digest
    }

    /// Whether the policy in force allows what it denies (`AllowRequestsFailingPolicy`).
    #[must_use]
    pub fn allows_failing(&self) -> bool {
        self.policy().allows_failing
    }

    /// Judges a request, named as its protocol message, by its JSON. When it is allowed, the policy's state has
    /// changed as the policy asked.
    ///
    /// # Errors
    /// [`Denied`]; the state is as it was.
    pub fn check(&self, request: &str, input: Value) -> Result<(), Denied> {
        self.check_with(request, || Ok(input))
    }

    /// As [`PolicyEngine::check`], with JSON that is made only when the rule can depend on it.
    ///
    /// # Errors
    /// [`Denied`], also that of `input`.
    pub fn check_with(&self, request: &str, input: impl FnOnce() -> Result<Value, Denied>) -> Result<(), Denied> {
        self.policy().check(request, input)
    }

    /// Checks by the policy in force whether the host may set `text`, and compiles it. Nothing changes.
    ///
    /// # Errors
    /// [`Proposed::Denied`] and [`Proposed::Invalid`]: the policy in force stays, with its state.
    pub fn propose(&self, text: &str) -> Result<Proposal, Proposed> {
        let under = self.policy();
        // Nothing longer is shown to a policy either.
        if text.len() > crate::MAX_TEXT {
            return Err(PolicyError::TooLong { bytes: text.len() }.into());
        }
        under.check(SET_POLICY, || Ok(crate::input::set_policy(text)))?;
        Ok(Proposal { policy: Policy::compile(text)?, under })
    }

    /// Puts a proposed policy into force, with an empty state.
    ///
    /// # Errors
    /// [`PolicyError::Stale`] when another policy than the one that allowed it is in force by now.
    pub fn adopt(&self, proposal: Proposal) -> Result<Replaced, PolicyError> {
        let digests = proposal.digests();
        let mut policy = self.policy.write().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&policy, &proposal.under) {
            return Err(PolicyError::Stale);
        }
        *policy = Arc::new(proposal.policy);
        Ok(digests)
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why a policy cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Proposed {
    /// The policy in force does not allow it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It is not a policy.
    #[error(transparent)]
    Invalid(#[from] PolicyError),
}
