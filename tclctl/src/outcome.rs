//! How a command ends: exit statuses, and the one line that says why.

use std::fmt;
use std::path::Path;

use protocols::reason::{Class, Refusal, Source};
use serde_json::{Value, json};

/// Exit status of a wrong command line.
pub(crate) const USAGE: u8 = 64;
const UNAVAILABLE: u8 = 69;
const FAULT: u8 = 70;
const IO: u8 = 74;

/// A command that did what it was asked.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Done.
    Done,
    /// The workload ran and ended with this status.
    Workload(u8),
}

/// A command that did not.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Refused, unavailable or failed with a stable code.
    #[error("{refusal}")]
    Coded {
        /// Why.
        refusal: Box<Refusal>,
        /// The attestor's name of its decision, where it made one.
        decision: Option<String>,
    },
    /// Arguments that cannot be meant.
    #[error("{0}")]
    Usage(String),
    /// A service that gives no code.
    #[error("{0}")]
    Unavailable(String),
    /// Reading or writing failed.
    #[error("{0}")]
    Io(String),
    /// A fault of ours.
    #[error("{0}")]
    Fault(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Coded { refusal: Box::new(refusal), decision: None }
    }
}

impl Failure {
    /// A refusal made by this command, not in a launch.
    pub(crate) fn by_command(refusal: Refusal) -> Self {
        refusal.by(Source::Command).into()
    }

    /// With the name under which the attestor recorded its decision; an empty one is none.
    pub(crate) fn decided(mut self, id: &str) -> Self {
        if let Self::Coded { decision, .. } = &mut self {
            *decision = (!id.is_empty()).then(|| id.to_owned());
        }
        self
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path, error: impl fmt::Display) -> Self {
        Self::Io(format!("{}: {error}", path.display()))
    }

    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Coded { refusal, .. } => refusal.code.class().exit_status(),
            Self::Usage(_) => USAGE,
            Self::Unavailable(_) => UNAVAILABLE,
            Self::Fault(_) => FAULT,
            Self::Io(_) => IO,
        }
    }

    /// Who produced the exit status, in one word.
    pub(crate) fn producer(&self) -> &'static str {
        match self {
            Self::Coded { refusal, .. } => match refusal.code.class() {
                Class::Refused => "refused",
                Class::Unavailable => "unavailable",
                Class::Io => "io",
                Class::Fault => "fault",
            },
            Self::Usage(_) => "usage",
            Self::Unavailable(_) => "unavailable",
            Self::Io(_) => "io",
            Self::Fault(_) => "fault",
        }
    }

    /// One line for people, without control characters.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Coded { refusal, decision: None } => refusal.to_string(),
            Self::Coded { refusal, decision: Some(id) } => format!("{refusal} (tclctl explain {})", one_line(id)),
            other => format!("tclctl: {}", one_line(&other.to_string())),
        }
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> Value {
        let mut object = json!({"status": self.status(), "producer": self.producer(), "message": self.line()});
        if let (Self::Coded { refusal, decision }, Some(members)) = (self, object.as_object_mut()) {
            members.insert("refusal".to_owned(), json!(refusal));
            members.insert("decision".to_owned(), json!(decision));
        }
        object
    }
}

/// Control characters escaped: what a registry or an agent sends must not steer a terminal.
pub(crate) fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocols::reason;

    #[test]
    fn every_class_of_code_has_its_exit_status() {
        for entry in reason::ALL {
            let code = reason::Code::parse(entry.code).unwrap();
            let failure = Failure::from(Refusal::new(code, "s", "e", "a"));
            let (status, producer, lead) = match entry.class {
                Class::Refused => (77, "refused", "NOT verified: "),
                Class::Unavailable => (69, "unavailable", "failed: "),
                Class::Io => (74, "io", "failed: "),
                Class::Fault => (70, "fault", "failed: "),
            };
            assert_eq!((failure.status(), failure.producer()), (status, producer), "{}", entry.code);
            assert!(failure.line().starts_with(&format!("{lead}{} ", entry.code)), "{}", failure.line());
        }
    }

    #[test]
    fn a_failure_is_one_line_whatever_it_quotes() {
        let failure = Failure::Io("a\nb\u{1b}[31mc".to_owned());
        assert_eq!(failure.line(), "tclctl: a\\nb\\u{1b}[31mc");
        assert_eq!((failure.status(), Failure::Usage(String::new()).status()), (74, 64));
    }
}
