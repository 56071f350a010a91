//! One table of cases, and the engine it is for.

use std::path::Path;

use agent_policy::{CLOSED, PolicyEngine};
use appraisal::{AppraisalPolicy, Tier};
use protocols::environment::Environment;
use protocols::resource::ResourcePath;
use release::{Denied, Question, ReleasePolicy};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::text;
use crate::outcome::Failure;

/// Which policy the cases are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// The attestor's, which grades evidence.
    Appraisal,
    /// The key broker's, which releases resources.
    Resource,
    /// The agent's, which judges the host's requests.
    Agent,
}

/// What a case expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    /// Of a resource or the agent.
    Allow,
    /// Of a resource or the agent.
    Deny,
    /// Of an appraisal, as the other three.
    Affirming,
    Warning,
    Contraindicated,
    None,
}

/// A table as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    kind: Kind,
    /// A file beside the table; absent: the built-in policy.
    policy: Option<String>,
    case: Vec<Case>,
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    expect: Expected,
    /// Part of what the policy must tell as its reason.
    reason: Option<String>,
    input: Value,
    /// Resources: repository/type/tag.
    path: Option<ResourceName>,
    /// Resources: the broker's environment; production when absent.
    #[serde(default)]
    environment: Environment,
    /// Resources: the statuses that configuration names; affirming alone when absent.
    status: Option<Vec<Tier>>,
    /// The agent: the protocol's message.
    request: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct ResourceName(ResourcePath);

impl TryFrom<String> for ResourceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text} is not repository/type/tag"))
    }
}

/// A case that was run.
#[derive(Debug, Serialize)]
pub(super) struct Ran {
    table: String,
    name: String,
    expected: Option<Expected>,
    got: Option<Expected>,
    reason: String,
    passed: bool,
}

impl Ran {
    pub(super) const fn passed(&self) -> bool {
        self.passed
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        let Self { table, name, reason, .. } = self;
        let word = |value: Option<Expected>| match value.and_then(|value| serde_json::to_value(value).ok()) {
            Some(Value::String(word)) => word,
            _ => "no answer".to_owned(),
        };
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        if self.passed {
            return format!("ok      {table}: {name}");
        }
        format!("FAILED  {table}: {name}: expected {}, got {}{because}", word(self.expected), word(self.got))
    }
}

/// An engine, ready to be asked.
enum Engine {
    Appraisal(AppraisalPolicy),
    Resource(ReleasePolicy),
    /// Its text: an agent's policy has a state, and each case begins with an empty one.
    Agent(String),
}

impl Engine {
    fn of(kind: Kind, text: Option<String>) -> Result<Self, String> {
        let or = |text: Option<String>, built_in: &str| text.unwrap_or_else(|| built_in.to_owned());
        match kind {
            Kind::Appraisal => AppraisalPolicy::compile(&or(text, appraisal::policy::BUILT_IN))
                .map(Self::Appraisal)
                .map_err(|error| error.to_string()),
            Kind::Resource => ReleasePolicy::compile(&or(text, release::BUILT_IN))
                .map(Self::Resource)
                .map_err(|error| error.to_string()),
            Kind::Agent => {
                let text = or(text, CLOSED);
                PolicyEngine::new(&text).map_err(|error| error.to_string())?;
                Ok(Self::Agent(text))
            }
        }
    }

    /// What it says of a case, and why.
    fn ask(&self, case: &Case) -> (Option<Expected>, String) {
        let judged = |judged: Result<(), String>| match judged {
            Ok(()) => (Some(Expected::Allow), String::new()),
            Err(why) => (Some(Expected::Deny), why),
        };
        match self {
            Self::Appraisal(policy) => match policy.grade(case.input.clone()) {
                Ok(grade) => {
                    let expected = match grade.tier {
                        Tier::None => Expected::None,
                        Tier::Affirming => Expected::Affirming,
                        Tier::Warning => Expected::Warning,
                        Tier::Contraindicated => Expected::Contraindicated,
                    };
                    (Some(expected), grade.reasons.join("; "))
                }
                Err(why) => (None, why),
            },
            Self::Resource(policy) => {
                let Some(ResourceName(path)) = &case.path else { return (None, "no path".to_owned()) };
                let status = case.status.as_deref().unwrap_or(&[Tier::Affirming]);
                let (claims, environment) = (&case.input, case.environment);
                let question = Question { plugin: "resource", method: "GET", path, claims, environment, status };
                judged(policy.release(&question).map_err(|Denied(why)| why))
            }
            Self::Agent(text) => {
                let Some(request) = &case.request else { return (None, "no request".to_owned()) };
                match PolicyEngine::new(text) {
                    Ok(policy) => {
                        judged(policy.check(request, case.input.clone()).map_err(|denied| denied.refusal().actual))
                    }
                    Err(error) => (None, error.to_string()),
                }
            }
        }
    }
}

impl Table {
    /// Parses a table, and checks that every case says what its kind needs, and nothing that it does not.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, String> {
        let json = path.extension().is_some_and(|kind| kind == "json");
        let table: Self = match json {
            true => serde_json::from_str(text).map_err(|error| error.to_string())?,
            false => toml::from_str(text).map_err(|error| error.to_string())?,
        };
        if table.case.is_empty() {
            return Err("no case".to_owned());
        }
        for case in &table.case {
            let graded = !matches!(case.expect, Expected::Allow | Expected::Deny);
            let fits = match table.kind {
                Kind::Appraisal => graded && case.path.is_none() && case.status.is_none() && case.request.is_none(),
                Kind::Resource => !graded && case.path.is_some() && case.request.is_none(),
                Kind::Agent => !graded && case.path.is_none() && case.status.is_none() && case.request.is_some(),
            };
            if !fits {
                return Err(format!("{}: not what a case of this kind says", case.name));
            }
        }
        Ok(Self { policy: table.policy.map(|name| beside(path, &name)), ..table })
    }

    /// Runs its cases. A policy that cannot be used fails all of them.
    pub(super) fn run(&self, table: &str) -> Result<Vec<Ran>, Failure> {
        let policy = self.policy.as_deref().map(|path| text(Path::new(path))).transpose()?;
        let engine = Engine::of(self.kind, policy);
        let run = |case: &Case| {
            let (got, reason) = match &engine {
                Ok(engine) => engine.ask(case),
                Err(error) => (None, error.clone()),
            };
            let told = case.reason.as_deref().is_none_or(|part| reason.contains(part));
            let passed = got == Some(case.expect) && told;
            Ran { table: table.to_owned(), name: case.name.clone(), expected: Some(case.expect), got, reason, passed }
        };
        Ok(self.case.iter().map(run).collect())
    }
}

/// The policy's path, relative to the table.
fn beside(table: &Path, name: &str) -> String {
    table.parent().unwrap_or(Path::new(".")).join(name).display().to_string()
}
