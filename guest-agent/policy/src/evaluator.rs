//! One compiled policy with its state.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use json_patch::Patch;
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, PolicyLengthConfig, Value};
use serde::Deserialize;

use crate::MAX_TEXT;
use crate::constant::Rules;
use crate::error::{PolicyError, Why};
use crate::state::State;

/// The package of every policy.
const PACKAGE: &str = "data.agent_policy";
/// The longest line, in columns: environment variables of images stand on one line each.
const MAX_COLUMNS: u32 = 1024 * 1024;
/// The most lines.
const MAX_LINES: usize = 1024 * 1024;
/// The longest evaluation. No shim waits longer than 30 s; an evaluation takes milliseconds.
const MAX_TIME: Duration = Duration::from_secs(5);
/// Steps of an evaluation between two looks at the clock.
const STEPS: u32 = 1024;

/// What a rule is known to be without evaluating it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is a truth value that depends on nothing.
    Constant(bool),
    /// It is never defined.
    Undefined,
    /// It must be evaluated.
    Open,
}

/// What evaluating a rule gave, before anything is changed.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Allowed, with the operations on the state.
    Allowed(Option<Patch>),
    /// Not allowed.
    Denied(Why),
}

/// `{"allowed", "ops"}`.
#[derive(Debug, Deserialize)]
struct Response {
    allowed: bool,
    #[serde(default)]
    ops: Option<Patch>,
}

/// The engine, kept with what it has parsed and scheduled.
pub(crate) struct Evaluator {
    engine: Engine,
    state: State,
}

impl Evaluator {
    /// Parses and prepares a policy, and tells what is known of its rules.
    pub(crate) fn compile(text: &str) -> Result<(Self, BTreeMap<String, Known>), PolicyError> {
        if text.len() > MAX_TEXT {
            return Err(PolicyError::TooLong { bytes: text.len() });
        }
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(false);
        engine.set_gather_prints(true);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: MAX_TIME,
            check_interval: NonZeroU32::new(STEPS).unwrap_or(NonZeroU32::MIN),
        });
        engine.set_policy_length_config(PolicyLengthConfig {
            max_col: NonZeroU32::new(MAX_COLUMNS).unwrap_or(NonZeroU32::MIN),
            max_file_bytes: NonZeroUsize::new(MAX_TEXT).unwrap_or(NonZeroUsize::MIN),
            max_lines: NonZeroUsize::new(MAX_LINES).unwrap_or(NonZeroUsize::MIN),
        });
        let state = State::empty();
        let rego = |error: &dyn std::fmt::Display| PolicyError::Rego(error.to_string());
        engine.add_data(Value::from(state.document().clone())).map_err(|error| rego(&error))?;
        let package = engine.add_policy("policy.rego".to_owned(), text.to_owned()).map_err(|error| rego(&error))?;
        if package != PACKAGE {
            return Err(PolicyError::Package(package.trim_start_matches("data.").to_owned()));
        }
        let Some(rules) = engine.get_modules().first().map(|module| Rules::of(module)) else {
            return Err(PolicyError::Rego("it has no module".to_owned()));
        };
        let mut evaluator = Self { engine, state };
        // Scheduling finds unsafe variables and the like, and what is constant is evaluated here, once.
        evaluator.engine.eval_query("true".to_owned(), false).map_err(|error| rego(&error))?;
        let known = |name: &String| match rules.constant.contains(name).then(|| evaluator.value(name)) {
            Some(Ok(Value::Bool(value))) => Known::Constant(value),
            Some(Ok(Value::Undefined)) => Known::Undefined,
            // Whatever it is, asking for it will tell.
            Some(Ok(_) | Err(_)) | None => Known::Open,
        };
        let known = rules.defined.iter().map(known).zip(&rules.defined).map(|(known, name)| (name.clone(), known));
        let known = known.collect();
        Ok((evaluator, known))
    }

    /// Evaluates a rule that the policy has. Gives the answer and what was printed.
    pub(crate) fn evaluate(&mut self, rule: &str, input: serde_json::Value) -> (Answer, Vec<String>) {
        self.engine.set_input(Value::from(input));
        let value = self.value(rule);
        // The input is not kept: it can have megabytes.
        self.engine.set_input(Value::Undefined);
        let prints = self.engine.take_prints().unwrap_or_default();
        let answer = match value {
            Ok(value) => answer(&value),
            Err(error) => Answer::Denied(Why::Evaluation(error)),
        };
        (answer, prints)
    }

    /// Changes the state, all or nothing.
    pub(crate) fn apply(&mut self, ops: &Patch) -> Result<(), String> {
        if ops.0.is_empty() {
            return Ok(());
        }
        let next = self.state.after(ops)?;
        self.engine.clear_data();
        self.engine.add_data(Value::from(next.document().clone())).map_err(|error| error.to_string())?;
        self.state = next;
        Ok(())
    }

    fn value(&mut self, rule: &str) -> Result<Value, String> {
        self.engine.eval_rule(format!("{PACKAGE}.{rule}")).map_err(|error| error.to_string())
    }
}

fn answer(value: &Value) -> Answer {
    match value {
        Value::Bool(true) => Answer::Allowed(None),
        Value::Bool(false) => Answer::Denied(Why::Rule),
        Value::Undefined => Answer::Denied(Why::Undefined),
        Value::Object(_) => {
            let response = serde_json::to_value(value).and_then(serde_json::from_value);
            match response {
                Ok(Response { allowed: true, ops }) => Answer::Allowed(ops),
                Ok(Response { allowed: false, .. }) => Answer::Denied(Why::Rule),
                Err(error) => Answer::Denied(Why::Value(format!("an object, but not of `allowed` and `ops`: {error}"))),
            }
        }
        _ => Answer::Denied(Why::Value("no truth value".to_owned())),
    }
}
