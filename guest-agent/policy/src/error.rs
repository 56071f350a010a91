//! Why a policy cannot be used, and why a request is denied.

use std::fmt;

use protocols::reason::{self, Code, Refusal};

use crate::MAX_TEXT;

/// The most characters of what a policy printed that are kept, from the end: there it tells what failed.
const MAX_PRINTS: usize = 16 * 1024;

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
    #[error("the policy is of package `{0}`, not `agent_policy`")]
    Package(String),
    /// Another policy came into force since this one was proposed.
    #[error("another policy came into force in the meantime")]
    Stale,
}

impl PolicyError {
    /// The refusal's code.
    #[must_use]
    pub const fn code(&self) -> Code {
        reason::POLICY_INVALID
    }

    /// The refusal for this error.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        Refusal::new(self.code(), "policy", "Rego of package agent_policy", self.to_string())
    }
}

/// What in a policy denied a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Its rule is false, or says `allowed: false`.
    Rule,
    /// It has no rule for the request, or none that is defined for this input.
    Undefined,
    /// Evaluation failed or took too long.
    Evaluation(String),
    /// The rule's value is neither a truth value nor `{"allowed", "ops"}`.
    Value(String),
    /// The operations on the policy's state cannot be applied.
    State(String),
    /// The request has no JSON form a policy could judge.
    Input(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule => f.write_str("its rule says no"),
            Self::Undefined => f.write_str("no rule is defined for it"),
            Self::Evaluation(error) => write!(f, "evaluation failed: {error}"),
            Self::Value(what) => write!(f, "the rule's value is {what}"),
            Self::State(error) => write!(f, "the policy's state cannot be changed: {error}"),
            Self::Input(what) => write!(f, "the request cannot be judged: {what}"),
        }
    }
}

/// A request that the policy in force does not allow.
///
/// What the policy printed is for the guest's log and the attestor. It quotes input and policy: the host gets the
/// code alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{request} is denied: {why}")]
pub struct Denied {
    request: String,
    why: Why,
    prints: String,
}

impl Denied {
    pub(crate) fn new(request: &str, why: Why, prints: &[String]) -> Self {
        Self { request: request.to_owned(), why, prints: tail(prints) }
    }

    /// The protocol message that was asked.
    #[must_use]
    pub fn request(&self) -> &str {
        &self.request
    }

    /// What denied it.
    #[must_use]
    pub const fn why(&self) -> &Why {
        &self.why
    }

    /// The end of what the policy printed, at most 16 KiB.
    #[must_use]
    pub fn prints(&self) -> &str {
        &self.prints
    }

    /// The refusal's code.
    #[must_use]
    pub const fn code(&self) -> Code {
        reason::POLICY_GATE
    }

    /// The refusal, for the guest's side.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let actual = match self.prints.as_str() {
            "" => self.why.to_string(),
            prints => format!("{}; the policy printed: {prints}", self.why),
        };
        Refusal::new(self.code(), &*self.request, "a request that the policy allows", actual)
    }
}

fn tail(prints: &[String]) -> String {
    let mut kept = 0;
    let first = prints.iter().rposition(|line| {
        kept += line.len() + 1;
        kept > MAX_PRINTS
    });
    let kept = prints.get(first.map_or(0, |place| place + 1)..).unwrap_or_default();
    match (kept, prints.last()) {
        // One line alone is too long.
        ([], Some(line)) => line.chars().take(MAX_PRINTS / 4).collect(),
        (kept, _) => kept.join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_was_printed_is_kept() {
        let lines: Vec<String> = (0..10_000).map(|n| format!("line {n}")).collect();
        let kept = tail(&lines);
        assert!(kept.len() <= MAX_PRINTS && kept.ends_with("line 9999"));
        assert!(!kept.contains("line 1\n"));
        assert_eq!(tail(&["a".into(), "b".into()]), "a\nb");
        assert_eq!(tail(&[]), "");
        assert_eq!(tail(&["x".repeat(1 << 20)]).len(), MAX_PRINTS / 4);
        assert_eq!(tail(&["x".repeat(1 << 20), "end".into()]), "end");
    }
}
