//! The policy gate: which caller may call which method. It stands before every handler, once.

use std::collections::BTreeSet;
use std::fmt;

use protocols::reason::{self, Refusal};

/// Every method of the launch service.
pub const METHODS: [&str; 12] = [
    "Launch",
    "Progress",
    "Wait",
    "ReadStdout",
    "ReadStderr",
    "WriteStdin",
    "Stop",
    "Remove",
    "List",
    "EventLog",
    "Evidence",
    "Status",
];

/// Who calls. A listener has one kind of caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The guest's root, by the unix socket's peer credentials.
    Root,
    /// The untrusted host, by the vsock peer's context id; whoever it lets through.
    Host,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "the guest's root",
            Self::Host => "the host",
        })
    }
}

/// Decides on a call before its handler sees it.
pub trait Gate: Send + Sync + fmt::Debug {
    /// Lets `caller` call `method`, or says why not.
    ///
    /// # Errors
    /// `policy.gate`.
    #[allow(clippy::result_large_err)] // a refusal ends the call
    fn allow(&self, caller: Caller, method: &str) -> Result<(), Refusal>;
}

/// The gate of the measured configuration: the guest's root may call everything, the host what is named.
#[derive(Debug, Clone, Default)]
pub struct ConfiguredGate {
    host: BTreeSet<String>,
}

impl ConfiguredGate {
    /// Lets the host call exactly `host`.
    #[must_use]
    pub const fn new(host: BTreeSet<String>) -> Self {
        Self { host }
    }
}

impl Gate for ConfiguredGate {
    fn allow(&self, caller: Caller, method: &str) -> Result<(), Refusal> {
        let allowed = METHODS.contains(&method)
            && match caller {
                Caller::Root => true,
                Caller::Host => self.host.contains(method),
            };
        if allowed {
            return Ok(());
        }
        Err(Refusal::new(reason::POLICY_GATE, method, "a method allowed for this caller", caller.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_may_call_everything_and_the_host_only_what_is_named() {
        let gate = ConfiguredGate::new(["Launch".to_owned(), "Wait".to_owned(), "NoSuch".to_owned()].into());
        for method in METHODS {
            assert!(gate.allow(Caller::Root, method).is_ok(), "{method}");
            let named = matches!(method, "Launch" | "Wait");
            assert_eq!(gate.allow(Caller::Host, method).is_ok(), named, "{method}");
        }
        for unknown in ["NoSuch", "launch", ""] {
            assert!(gate.allow(Caller::Root, unknown).is_err());
            let refusal = gate.allow(Caller::Host, unknown).unwrap_err();
            assert_eq!(refusal.code, reason::POLICY_GATE);
        }
    }

    #[test]
    fn without_configuration_the_host_may_call_nothing() {
        for method in METHODS {
            assert!(ConfiguredGate::default().allow(Caller::Host, method).is_err());
        }
    }
}
