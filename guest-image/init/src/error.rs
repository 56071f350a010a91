//! What keeps a guest from its agent.

use protocols::reason::{self, Code};

/// Why the agent was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitError {
    /// A step of the start failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The command line's words for this program cannot be used.
    #[error("{name}: {what}")]
    Parameter {
        /// Which word.
        name: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No disk holds the root, or the one that does was altered.
    #[error("{0}")]
    Root(String),
}

impl InitError {
    pub(crate) const fn code(&self) -> Code {
        match self {
            Self::Io { .. } => reason::BOOT_IO,
            Self::Parameter { .. } => reason::BOOT_PARAMETER,
            Self::Root(_) => reason::BOOT_ROOT,
        }
    }
}

/// Gives an operating system's error its place.
pub(crate) fn io<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> InitError {
    let what = what.into();
    move |source| InitError::Io { what, source: source.into() }
}
