//! What can go wrong, each with its stable reason code.

use std::io;

use protocols::reason::{self, Code, Refusal};

/// A sandbox request was refused, or the kernel did not do what it needs.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A copied file's path cannot be.
    #[error("copied file `{}`: {why}", path.escape_debug())]
    CopyPath {
        /// As the host wrote it, cut to 256 characters.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A copied file's kind, mode, owner, size or order cannot be, or is beyond a limit.
    #[error("copied file `{}`: {why}", path.escape_debug())]
    CopyFile {
        /// As the host wrote it, cut to 256 characters.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// A storage is not permitted.
    #[error("storage at `{}`: {why}", mount_point.escape_debug())]
    Storage {
        /// Where it was to be mounted, cut to 256 characters.
        mount_point: String,
        /// What is not permitted.
        why: String,
    },
    /// A path that the host names leaves its directory or meets a link.
    #[error("path `{}`: {why}", path.escape_debug())]
    Path {
        /// As the host wrote it, cut to 256 characters.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A device did not appear.
    #[error("no device {device} within {waited_ms} ms")]
    Device {
        /// What was waited for.
        device: String,
        /// How long.
        waited_ms: u64,
    },
    /// A value of the request cannot be, or is not permitted.
    #[error("{what}: {why}")]
    Request {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel, or a program that speaks to it, refused.
    #[error("{step}: {source}")]
    System {
        /// What was being done.
        step: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl SandboxError {
    /// The stable reason code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::CopyPath { .. } => reason::SANDBOX_COPY_PATH,
            Self::CopyFile { .. } => reason::SANDBOX_COPY_FILE,
            Self::Storage { .. } => reason::SANDBOX_STORAGE,
            Self::Path { .. } => reason::SANDBOX_PATH,
            Self::Device { .. } => reason::SANDBOX_DEVICE,
            Self::Request { .. } => reason::SANDBOX_REQUEST,
            Self::System { .. } => reason::SANDBOX_SYSTEM,
        }
    }

    /// The explained refusal.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let subject = match self {
            Self::CopyPath { path, .. } | Self::CopyFile { path, .. } | Self::Path { path, .. } => path.as_str(),
            Self::Storage { mount_point, .. } => mount_point.as_str(),
            Self::Device { device, .. } => device.as_str(),
            Self::Request { what, .. } => what,
            Self::System { step, .. } => step.as_str(),
        };
        Refusal::new(self.code(), subject, self.code().check(), self.to_string())
    }

    pub(crate) fn system<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| Self::System { step: step.into(), source: error.into() }
    }

    pub(crate) fn request(what: &'static str, why: impl Into<String>) -> Self {
        Self::Request { what, why: why.into() }
    }

    pub(crate) fn path(path: &str, why: impl Into<String>) -> Self {
        Self::Path { path: cut(path), why: why.into() }
    }
}

/// Enough of a foreign text to recognise it.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(256).collect()
}
