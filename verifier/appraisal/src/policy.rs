//! Appraisal policies: Rego of package `appraisal`, compiled once, that grade verified evidence.
//!
//! A policy defines `trust_vector`, an object of exactly the eight claims of [`TrustVector`], and may define `reasons`,
//! a set of texts for people. `input` is what [`Question`] says. `docs/appraisal-policy.md` tells the rest.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Mutex;
use std::time::Duration;

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::events::Init;
use protocols::kbs::Tee;
use protocols::reason::{self, Refusal};
use protocols::register::RegisterKind;
use reference_values::References;
use regorus::unstable::{Module, Rule, RuleHead};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, PolicyLengthConfig, Value};
use serde_json::json;
use verifier::EvidenceClaims;

use crate::claims;
use crate::ear::{COMPONENT, Ear, PROFILE, Submod, Tier, TrustVector, VerifierId};

/// The policy where configuration names none.
pub const BUILT_IN: &str = include_str!("built_in.rego");
/// The longest policy, in bytes.
pub const MAX_TEXT: usize = 256 * 1024;
/// The package of every policy.
const PACKAGE: &str = "data.appraisal";
/// The longest evaluation; one takes well under a millisecond.
const MAX_TIME: Duration = Duration::from_secs(1);
/// Steps of an evaluation between two looks at the clock.
const STEPS: u32 = 256;
/// The most reasons, and the most characters of each, that are told.
const MAX_REASONS: usize = 8;
const MAX_REASON: usize = 200;

/// A policy text that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than [`MAX_TEXT`].
    #[error("the appraisal policy has {bytes} bytes, more than {MAX_TEXT}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not Rego, or Rego that nothing could be evaluated in.
    #[error("the appraisal policy is not usable Rego: {0}")]
    Rego(String),
    /// Its rules would never be asked.
    #[error("the appraisal policy is of package `{0}`, not `appraisal`")]
    Package(String),
    /// It would grade nothing.
    #[error("the appraisal policy has no rule `trust_vector`")]
    NoVector,
}

/// What a policy is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The kind of evidence.
    pub tee: Tee,
    /// The evidence, verified.
    pub claims: &'a EvidenceClaims,
    /// The log's first record, where the log is held and bound to the evidence.
    pub init: Option<&'a Init>,
    /// Kinds of registers that the verifier's configuration accepts.
    pub registers: &'a [RegisterKind],
    /// What evidence is expected to have measured.
    pub references: &'a References,
    /// The verifier's environment.
    pub environment: Environment,
}

impl Question<'_> {
    fn input(&self) -> serde_json::Value {
        let measured: serde_json::Map<_, _> =
            claims::measured(self.claims).into_iter().map(|(name, value)| (name, value.into())).collect();
        json!({
            "tee": self.tee.as_str(),
            "environment": self.environment,
            "simulated": self.claims.simulated(),
            "register_kind": self.claims.register(),
            "register_told": self.claims.told(),
            "registers": self.registers,
            "claims": claims::of(self.claims),
            "init": self.init,
            "measured": measured,
            "reference": self.references.values(),
        })
    }
}

/// A graded result. Only [`AppraisalPolicy::appraise`] makes one, from verified evidence, and only of a tier that a
/// session may have:
///
/// ```compile_fail,E0451
/// let ear: appraisal::Ear = serde_json::from_str("{}").unwrap();
/// let forged = appraisal::Appraisal { ear };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appraisal {
    ear: Ear,
}

impl Appraisal {
    /// The result.
    #[must_use]
    pub const fn ear(&self) -> &Ear {
        &self.ear
    }

    /// Its status, affirming or warning: the worst of its components'.
    #[must_use]
    pub fn status(&self) -> Tier {
        self.ear.submods.values().map(|submod| submod.status).max().unwrap_or(Tier::None)
    }

    /// The same with the result for a device beside the platform, as component `name`; a component that is there keeps
    /// its own result.
    #[must_use]
    pub fn with_device(mut self, name: String, device: Self) -> Self {
        if let Some(submod) = device.ear.submods.into_values().next() {
            self.ear.submods.entry(name).or_insert(submod);
        }
        self
    }

    /// The same with one more member beside the platform's claims, which the policy was not asked about; a member that is
    /// there keeps its value.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: serde_json::Value) -> Self {
        let evidence = self.ear.submods.get_mut(COMPONENT).map(|submod| &mut submod.evidence);
        if let Some(serde_json::Value::Object(members)) = evidence {
            members.entry(name).or_insert(value);
        }
        self
    }
}

/// One policy, compiled.
pub struct AppraisalPolicy {
    digest: Sha256Digest,
    has_reasons: bool,
    engine: Mutex<Engine>,
}

impl std::fmt::Debug for AppraisalPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppraisalPolicy").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl AppraisalPolicy {
    /// Parses and prepares a policy.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn compile(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_TEXT {
            return Err(PolicyError::TooLong { bytes: text.len() });
        }
        let rego = |error: &dyn std::fmt::Display| PolicyError::Rego(error.to_string());
        let mut engine = Engine::new();
        // A built-in that fails leaves its rule undefined otherwise, and a rule that denies would deny no more.
        engine.set_strict_builtin_errors(true);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: MAX_TIME,
            check_interval: NonZeroU32::new(STEPS).unwrap_or(NonZeroU32::MIN),
        });
        engine.set_policy_length_config(PolicyLengthConfig {
            max_file_bytes: NonZeroUsize::new(MAX_TEXT).unwrap_or(NonZeroUsize::MIN),
            ..PolicyLengthConfig::default()
        });
        let package = engine.add_policy("appraisal.rego".to_owned(), text.to_owned()).map_err(|error| rego(&error))?;
        if package != PACKAGE {
            return Err(PolicyError::Package(package.trim_start_matches("data.").to_owned()));
        }
        // Scheduling finds unsafe variables and the like.
        engine.eval_query("true".to_owned(), false).map_err(|error| rego(&error))?;
        let rules = engine.get_modules().first().map(|module| rules(module)).unwrap_or_default();
        if !rules.contains("trust_vector") {
            return Err(PolicyError::NoVector);
        }
        let has_reasons = rules.contains("reasons");
        // What fails whatever it is asked fails here, not at every guest.
        engine.set_input(Value::new_object());
        for rule in ["trust_vector", "reasons"].into_iter().filter(|rule| rules.contains(*rule)) {
            engine.eval_rule(format!("{PACKAGE}.{rule}")).map_err(|error| rego(&error))?;
        }
        Ok(Self { digest: Sha256Digest::of(text.as_bytes()), has_reasons, engine: Mutex::new(engine) })
    }

    /// SHA-256 of the policy's text.
    #[must_use]
    pub const fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// Grades verified evidence.
    ///
    /// # Errors
    /// `evidence.appraisal` unless every claim of the vector is stated and its tier is affirming or warning.
    pub fn appraise(&self, question: &Question<'_>) -> Result<Appraisal, Refusal> {
        let refuse =
            |actual: String| Refusal::new(reason::EVIDENCE_APPRAISAL, "appraisal", "affirming, or warning", actual);
        let (vector, reasons) = self.evaluate(question).map_err(refuse)?;
        let status = vector.tier();
        if !matches!(status, Tier::Affirming | Tier::Warning) {
            let vector = serde_json::to_string(&vector).unwrap_or_default();
            let because = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
            return Err(refuse(format!("{}{because} {vector}", status.as_str())));
        }
        let evidence = json!({ question.tee.as_str(): claims::of(question.claims) });
        let submod = Submod { status, vector, policy: self.digest.to_string(), evidence };
        let submods = [(COMPONENT.to_owned(), submod)].into();
        Ok(Appraisal { ear: Ear { eat_profile: PROFILE.to_owned(), verifier: VerifierId::this(), submods } })
    }

    fn evaluate(&self, question: &Question<'_>) -> Result<(TrustVector, Vec<String>), String> {
        let failed = |error: &dyn std::fmt::Display| {
            let told: String = error.to_string().chars().take(MAX_REASON).collect();
            format!("the policy could not be evaluated: {told}")
        };
        let mut engine = self.engine.lock().map_err(|_| failed(&"an earlier evaluation broke off"))?;
        engine.set_input(Value::from(question.input()));
        let vector = engine.eval_rule(format!("{PACKAGE}.trust_vector"));
        let reasons = match self.has_reasons {
            true => engine.eval_rule(format!("{PACKAGE}.reasons")),
            false => Ok(Value::Undefined),
        };
        engine.set_input(Value::Undefined);
        drop(engine);
        let vector = serde_json::to_value(vector.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
        let vector = serde_json::from_value(vector)
            .map_err(|error| failed(&format!("trust_vector is not the eight claims, each -128 to 127: {error}")))?;
        Ok((vector, texts(&reasons.map_err(|error| failed(&error))?)))
    }
}

/// The names that have rules.
fn rules(module: &Module) -> BTreeSet<String> {
    let name = |rule: &Rule| {
        let (Rule::Default { refr, .. }
        | Rule::Spec {
            head: RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. },
            ..
        }) = rule;
        refr.span().text().to_owned()
    };
    module.policy.iter().map(|rule| name(rule)).collect()
}

fn texts(reasons: &Value) -> Vec<String> {
    let Value::Set(reasons) = reasons else { return Vec::new() };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.chars().take(MAX_REASON).collect()),
        _ => None,
    };
    reasons.iter().filter_map(text).take(MAX_REASONS).collect()
}

#[cfg(test)]
mod tests;
