//! What makes a guest's start impossible.

use std::path::PathBuf;

use protocols::reason::{self, Code};

/// Why a guest does not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// A parameter of the kernel's command line cannot be used.
    #[error("{name}: {what}")]
    Parameter {
        /// Which one.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A device carries something that calls itself initdata and is none.
    #[error("initdata on {}: {what}", device.display())]
    Initdata {
        /// Which device, or the file the text came from.
        device: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// More than one device carries initdata: which of them counts would be the host's choice.
    #[error("initdata on {} and on {}", first.display(), second.display())]
    InitdataTwice {
        /// One of them.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// Something a first process must do failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl BootError {
    /// A parameter that cannot be used.
    #[must_use]
    pub fn parameter(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Parameter { name: name.into(), what: what.into() }
    }

    /// Its stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Parameter { .. } => reason::BOOT_PARAMETER,
            Self::Initdata { .. } | Self::InitdataTwice { .. } => reason::BOOT_INITDATA,
            Self::Io { .. } => reason::BOOT_IO,
        }
    }
}

/// Gives an operating system's error its place.
pub(crate) fn io<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> BootError {
    let what = what.into();
    move |source| BootError::Io { what, source: source.into() }
}
