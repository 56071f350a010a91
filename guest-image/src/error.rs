//! What keeps a guest image from being built.

use std::path::Path;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file cannot be read or written.
    #[error("{what}: {source}")]
    Io {
        /// Which one.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program failed, or cannot be run.
    #[error("`{command}`: {told}")]
    Program {
        /// What was run.
        command: String,
        /// What it said.
        told: String,
    },
    /// Debian serves the pinned version no longer.
    #[error(
        "Debian does not serve {name} {version}, which the lock names ({told}): `cargo xtask guest-image lock` names what it serves now"
    )]
    Gone {
        /// The package.
        name: String,
        /// Its version.
        version: String,
        /// What apt said.
        told: String,
    },
    /// A package is not the one that the lock names.
    #[error("{name} {version} has SHA-256 {actual}, the lock names {expected}")]
    Altered {
        /// The package.
        name: String,
        /// Its version.
        version: String,
        /// As pinned.
        expected: String,
        /// As it is.
        actual: String,
    },
    /// Something that an image is made of is not as it must be.
    #[error("{what}: {wrong}")]
    Input {
        /// What.
        what: String,
        /// How it is wrong.
        wrong: String,
    },
}

impl ImageError {
    pub(crate) fn input(what: impl Into<String>, wrong: impl Into<String>) -> Self {
        Self::Input { what: what.into(), wrong: wrong.into() }
    }
}

/// Gives an operating system's error its file.
pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ImageError {
    let what = path.display().to_string();
    move |source| ImageError::Io { what, source }
}
