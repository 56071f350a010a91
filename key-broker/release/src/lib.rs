//! A session's claims + a resource's path + a Rego policy -> whether the resource is released. Pure.
//!
//! A policy is Rego of package `policy` whose rule `allow` is true or not, as resource policies of stock key brokers are:
//! `input` is the session token's claims, `data` names what is asked for. `docs/resource-policy.md` tells the rest.
//!
//! Anything but `true` denies: a rule that is false, undefined, of another type, or that cannot be evaluated.

use appraisal::rego::{Form, Rego, texts};
use appraisal::{PolicyError, Tier};
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::resource::ResourcePath;
use regorus::Value;
use serde_json::json;

/// The policy where configuration names none.
pub const BUILT_IN: &str = include_str!("built_in.rego");
/// Puts what is asked for into `data`, which otherwise a policy would have to be prepared anew for.
const QUESTION: &str = include_str!("question.rego");
/// What every policy must be.
const FORM: Form<'_> = Form { package: "policy", needs: "allow", beside: Some(QUESTION) };
const ALLOW: &str = "data.release_question.allow";
const REASONS: &str = "data.release_question.reasons";

/// What a policy is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The plugin that serves it: `resource`.
    pub plugin: &'a str,
    /// The HTTP method: `GET`.
    pub method: &'a str,
    /// The resource.
    pub path: &'a ResourcePath,
    /// The claims of the session's token, whose signature was verified.
    pub claims: &'a serde_json::Value,
    /// The broker's environment.
    pub environment: Environment,
    /// The statuses that configuration names for the built-in policy.
    pub status: &'a [Tier],
}

impl Question<'_> {
    fn input(&self) -> serde_json::Value {
        json!({
            "claims": self.claims,
            "plugin": self.plugin,
            "method": self.method,
            "resource-path": self.path.as_str().split('/').collect::<Vec<_>>(),
            "query": {},
            "release": { "environment": self.environment, "status": self.status },
        })
    }
}

/// Why a resource is not released: for the broker's own records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied(pub String);

/// One policy, compiled.
#[derive(Debug)]
pub struct ReleasePolicy {
    rego: Rego,
}

impl ReleasePolicy {
    /// Parses and prepares a policy.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn compile(text: &str) -> Result<Self, PolicyError> {
        let rego = Rego::compile(text, &FORM)?;
        // What fails whatever it is asked fails here, not at every guest.
        let rules = ["allow", "reasons"].into_iter().filter(|rule| rego.has(rule));
        let rules: Vec<_> = rules.map(|rule| format!("data.policy.{rule}")).collect();
        rego.ask(json!({}), &rules.iter().map(String::as_str).collect::<Vec<_>>()).map_err(PolicyError::Rego)?;
        Ok(Self { rego })
    }

    /// SHA-256 of the policy's text.
    #[must_use]
    pub const fn digest(&self) -> Sha256Digest {
        self.rego.digest()
    }

    /// Asks whether a resource is released.
    ///
    /// # Errors
    /// [`Denied`] unless `allow` is true.
    pub fn release(&self, question: &Question<'_>) -> Result<(), Denied> {
        let failed = |error| Denied(format!("the policy could not be evaluated: {error}"));
        let input = Value::from(question.input());
        let allow = self.rego.ask(input.clone(), &[ALLOW]).map_err(failed)?;
        match allow.as_slice() {
            [Value::Bool(true)] => return Ok(()),
            [Value::Bool(false)] => {}
            [Value::Undefined] => return Err(Denied("`allow` is undefined for it".to_owned())),
            _ => return Err(Denied("`allow` is neither true nor false".to_owned())),
        }
        let reasons = self.rego.ask(input, &[REASONS]).map_err(failed)?;
        let reasons = reasons.first().map(texts).unwrap_or_default();
        Err(Denied(if reasons.is_empty() { "`allow` is false".to_owned() } else { reasons.join("; ") }))
    }
}

#[cfg(test)]
mod tests;
