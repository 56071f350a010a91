//! One Rego policy, compiled once and asked many times: bounded in length and time, strict where a built-in fails.

use std::collections::BTreeSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocols::digest::Sha256Digest;
use regorus::unstable::{Module, Rule, RuleHead};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, PolicyLengthConfig, Value};

/// The longest policy, in bytes.
pub const MAX_TEXT: usize = 256 * 1024;
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
    #[error("the policy has {bytes} bytes, more than {MAX_TEXT}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not Rego, or Rego that nothing could be evaluated in.
    #[error("the policy is not usable Rego: {0}")]
    Rego(String),
    /// Its rules would never be asked.
    #[error("the policy is of package `{found}`, not `{expected}`")]
    Package {
        /// Its package.
        found: String,
        /// The one that is asked.
        expected: String,
    },
    /// It would answer nothing.
    #[error("the policy has no rule `{0}`")]
    NoRule(String),
}

/// What a policy must be to be asked.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// Its package, without `data.`.
    pub package: &'a str,
    /// The rule it must have.
    pub needs: &'a str,
    /// A module of ours that is compiled beside it.
    pub beside: Option<&'a str>,
}

/// One policy, compiled.
pub struct Rego {
    digest: Sha256Digest,
    rules: BTreeSet<String>,
    /// Engines that nobody evaluates with, never none: the last one is copied, not taken.
    idle: Mutex<Vec<Engine>>,
}

impl std::fmt::Debug for Rego {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rego").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Rego {
    /// Parses and prepares a policy.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn compile(text: &str, form: &Form<'_>) -> Result<Self, PolicyError> {
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
        let package = engine.add_policy("policy.rego".to_owned(), text.to_owned()).map_err(|error| rego(&error))?;
        let found = package.trim_start_matches("data.");
        if found != form.package {
            return Err(PolicyError::Package { found: found.to_owned(), expected: form.package.to_owned() });
        }
        let rules = engine.get_modules().first().map(|module| rules(module)).unwrap_or_default();
        if let Some(beside) = form.beside {
            engine.add_policy("beside.rego".to_owned(), beside.to_owned()).map_err(|error| rego(&error))?;
        }
        // Scheduling finds unsafe variables and the like.
        engine.eval_query("true".to_owned(), false).map_err(|error| rego(&error))?;
        if !rules.contains(form.needs) {
            return Err(PolicyError::NoRule(form.needs.to_owned()));
        }
        Ok(Self { digest: Sha256Digest::of(text.as_bytes()), rules, idle: Mutex::new(vec![engine]) })
    }

    /// SHA-256 of the policy's text.
    #[must_use]
    pub const fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// Whether the policy has a rule of this name.
    #[must_use]
    pub fn has(&self, rule: &str) -> bool {
        self.rules.contains(rule)
    }

    /// The values of rules, each named from `data.` on, under one input. Blocks for tens of microseconds, and never longer
    /// than a second.
    ///
    /// # Errors
    /// Why a rule could not be evaluated.
    pub fn ask(&self, input: impl Into<Value>, rules: &[&str]) -> Result<Vec<Value>, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string().chars().take(MAX_REASON).collect::<String>();
        let mut engine = self.take().ok_or("there is no engine")?;
        engine.set_input(input.into());
        let values = rules.iter().map(|rule| engine.eval_rule((*rule).to_owned()).map_err(|error| told(&error)));
        let values = values.collect();
        // Inputs can be long, and are not kept.
        engine.set_input(Value::Undefined);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(engine);
        values
    }

    fn take(&self) -> Option<Engine> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() > 1 { idle.pop() } else { idle.last().cloned() }
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

/// A policy's reasons: a set of texts, cut to what people read.
#[must_use]
pub fn texts(reasons: &Value) -> Vec<String> {
    let Value::Set(reasons) = reasons else { return Vec::new() };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.chars().take(MAX_REASON).collect()),
        _ => None,
    };
    reasons.iter().filter_map(text).take(MAX_REASONS).collect()
}
