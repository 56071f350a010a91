//! One layer as a table of what it finally holds, and the digest over that table (`docs/measurement.md`).
//!
//! The table decides everything (what replaces what, where a path leads, which directory is implied); a
//! [`sink::Sink`] only carries it out. So a layer that is stored and one that is only measured agree.

pub(crate) mod attributes;
mod listing;
pub(crate) mod path;
mod records;
pub(crate) mod sink;
pub(crate) mod table;
pub(crate) mod unpack;
pub(crate) mod whiteout;
pub(crate) mod xattrs;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use protocols::reason;

use crate::erofs::Problem;
use crate::error::ImageError;
use crate::limits::Limits;
use crate::tar::{PathProblem, TarError};

/// Why a layer's archive was not unpacked; [`LayerError::into_image`] names the layer.
#[derive(Debug)]
pub(crate) enum LayerError {
    /// It is no archive that can be unpacked exactly.
    Format(String),
    /// It reaches outside its directory or sets reserved attributes.
    Unsafe(String),
    /// It is beyond a limit.
    Limit { what: &'static str, limit: u64 },
    /// Its bytes could not be had.
    Input(std::io::Error),
    /// It could not be stored.
    Store(ImageError),
}

impl From<TarError> for LayerError {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Limit { what, limit, .. } => Self::Limit { what, limit },
            TarError::Path { problem: PathProblem::Long { limit, .. }, .. } => {
                Self::Limit { what: "bytes of a path", limit: limit.into() }
            }
            TarError::Path { problem: PathProblem::ComponentLong { limit, .. }, .. } => {
                Self::Limit { what: "bytes of a name in a path", limit: limit.into() }
            }
            TarError::Path { problem: PathProblem::Deep { limit }, .. } => {
                Self::Limit { what: "names in a path", limit: limit.into() }
            }
            error if error.code() == reason::IMAGE_UNSAFE => Self::Unsafe(error.to_string()),
            error => Self::Format(error.to_string()),
        }
    }
}

impl LayerError {
    /// What is wrong with the entry at `path`.
    pub(crate) fn entry(path: &[u8], problem: Problem) -> Self {
        let text = format!("/{}: {problem}", path.get(..256).unwrap_or(path).escape_ascii());
        if problem.code() == reason::IMAGE_UNSAFE { Self::Unsafe(text) } else { Self::Format(text) }
    }
}

impl From<ImageError> for LayerError {
    fn from(error: ImageError) -> Self {
        Self::Store(error)
    }
}

impl LayerError {
    /// Names the layer.
    pub(crate) fn into_image(self, subject: &str) -> ImageError {
        let subject = subject.to_owned();
        match self {
            Self::Format(problem) => ImageError::LayerFormat { subject, problem },
            Self::Unsafe(problem) => ImageError::Unsafe { subject, problem },
            Self::Limit { what, limit } => ImageError::Limit { subject, what, limit },
            Self::Store(error) => error,
            Self::Input(error) => ImageError::LayerFormat { subject, problem: error.to_string() },
        }
    }
}

/// What is left of an image's limits, shared by its layers.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    bytes: AtomicU64,
    entries: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let (bytes, entries) = (AtomicU64::new(limits.image_bytes), AtomicU64::new(limits.entries));
        Arc::new(Self { limits: limits.clone(), bytes, entries })
    }

    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes `bytes` of unpacked archives; `false` when they are not left.
    pub(crate) fn take_bytes(&self, bytes: u64) -> bool {
        take(&self.bytes, bytes)
    }

    pub(crate) fn take_entry(&self) -> Result<(), LayerError> {
        let limit = self.limits.entries;
        if take(&self.entries, 1) { Ok(()) } else { Err(LayerError::Limit { what: "entries", limit }) }
    }

    /// Takes unpacked bytes that no archive holds: the holes of sparse files.
    pub(crate) fn take_unpacked(&self, bytes: u64) -> Result<(), LayerError> {
        let limit = self.limits.image_bytes;
        let what = "unpacked bytes in the image";
        if self.take_bytes(bytes) { Ok(()) } else { Err(LayerError::Limit { what, limit }) }
    }
}

fn take(left: &AtomicU64, amount: u64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount)).is_ok()
}

#[cfg(test)]
mod build;
#[cfg(test)]
mod tests;
