//! What a verifier tells of its checks, for people who want to see each one.

use protocols::reason::{Code, Refusal};

/// One check that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked, in a few words.
    pub name: &'static str,
    /// The code it is refused with.
    pub code: Code,
    /// What passes.
    pub expected: String,
    /// What was found.
    pub actual: String,
    /// Whether it passed.
    pub passed: bool,
}

/// Takes down every check as it is made; the last one may have been refused. Switched off it costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    checks: Option<Vec<Check>>,
}

impl Trace {
    /// Takes nothing down.
    #[must_use]
    pub const fn off() -> Self {
        Self { checks: None }
    }

    /// Takes down every check.
    #[must_use]
    pub const fn on() -> Self {
        Self { checks: Some(Vec::new()) }
    }

    /// The checks in the order they were made.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        self.checks.as_deref().unwrap_or_default()
    }

    /// Compares what somebody expects with what verified evidence says, as texts.
    ///
    /// # Errors
    /// A refusal with `code` where they differ.
    pub fn compare(&mut self, (name, code): (&'static str, Code), expected: &str, actual: &str) -> Result<(), Refusal> {
        self.require(("evidence", name, code), expected == actual, || expected.to_owned(), || actual.to_owned())
    }

    /// Makes a check; the texts are written only where somebody reads them.
    pub(crate) fn require(
        &mut self,
        (subject, name, code): (&'static str, &'static str, Code),
        passed: bool,
        expected: impl FnOnce() -> String,
        actual: impl FnOnce() -> String,
    ) -> Result<(), Refusal> {
        if passed && self.checks.is_none() {
            return Ok(());
        }
        let (expected, actual) = (expected(), actual());
        if let Some(checks) = &mut self.checks {
            checks.push(Check { name, code, expected: expected.clone(), actual: actual.clone(), passed });
        }
        if passed { Ok(()) } else { Err(Refusal::new(code, subject, expected, actual)) }
    }

    /// Takes down a check that was made elsewhere and has a value.
    pub(crate) fn outcome<T>(
        &mut self,
        (name, code): (&'static str, Code),
        result: Result<T, Refusal>,
        told: impl FnOnce(&T) -> (String, String),
    ) -> Result<T, Refusal> {
        if let Some(checks) = &mut self.checks {
            let (code, (expected, actual)) = match &result {
                Ok(value) => (code, told(value)),
                Err(refusal) => (refusal.code, (refusal.expected.clone(), refusal.actual.clone())),
            };
            checks.push(Check { name, code, expected, actual, passed: result.is_ok() });
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use protocols::reason;

    use super::*;

    #[test]
    fn a_trace_that_is_on_holds_every_check_and_one_that_is_off_none() {
        for (mut trace, count) in [(Trace::on(), 3), (Trace::off(), 0)] {
            let text = |text: &'static str| move || text.to_owned();
            let check = ("report", "nonce", reason::EVIDENCE_NONCE);
            trace.require(check, true, text("a"), text("a")).unwrap();
            let code = ("report", reason::EVIDENCE_MALFORMED);
            assert_eq!(trace.outcome(code, Ok(2), |v| ("a number".to_owned(), v.to_string())), Ok(2));
            let refusal = trace.require(check, false, text("a"), text("b")).unwrap_err();
            assert_eq!((refusal.code, refusal.subject.as_str(), refusal.actual.as_str()), (check.2, "report", "b"));
            assert_eq!(trace.checks().len(), count);
            assert_eq!(trace.checks().iter().filter(|check| !check.passed).count(), count / 3);
        }
    }
}
