//! What a caller asks to be executed.

use std::fmt;

use crate::container_id::ContainerId;
use crate::error::AgentError;

/// A checked process id: the same words as a container's id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(ContainerId);

impl ProcessId {
    /// Checks a caller's id.
    ///
    /// # Errors
    /// [`AgentError::ContainerId`].
    pub fn new(text: &str) -> Result<Self, AgentError> {
        ContainerId::new(text).map(Self)
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process to execute in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Entries `NAME=value`; empty: the container's own environment.
    pub env: Vec<String>,
    /// The working directory; empty: the container's own.
    pub cwd: String,
    /// Numeric ids; `None`: the container's own user.
    pub user: Option<ExecUser>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// The capabilities asked for; `None`: those of the container's own process, none for another user than its.
    pub capabilities: Option<CapabilitySets>,
    /// Whether it must not gain privileges by executing a file; never less than the container's own process.
    pub no_new_privileges: bool,
    /// How far it may differ from the container's own process.
    pub rights: Rights,
}

/// Numeric ids of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecUser {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Additional groups.
    pub additional: Vec<u32>,
}

/// Capability sets, each a list of names such as `CAP_CHOWN`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the kernel's five sets
pub struct CapabilitySets {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub permitted: Vec<String>,
    pub inheritable: Vec<String>,
    pub ambient: Vec<String>,
}

/// How far an executed process may differ from the container's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rights {
    /// Its user must be the container's own, unless that is root; of the capabilities it asks for it gets those that
    /// the container's own process has.
    #[default]
    Container,
    /// The policy in force allowed exactly this process: user and capabilities are as asked for.
    Policy,
}
