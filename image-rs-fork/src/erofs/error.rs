//! Why a layer cannot be written.

use std::io;

use protocols::reason::{self, Code, Refusal};

use crate::tar::TarError;

/// A layer that is no file system, or a store that did not take it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErofsError {
    /// The archive was refused while it was read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry that cannot be placed in the tree.
    #[error("{path}: {problem}")]
    Entry {
        /// The entry, escaped, cut to 256 bytes.
        path: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// Larger than [`super::ErofsLimits`] allow.
    #[error("more than {limit} {what}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The image or the spill cannot be written or read.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// What is wrong with an entry, in either layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Something that is no directory stands in its path.
    #[error("its parent is no directory")]
    Parent,
    /// Its path goes through more than 40 symbolic links.
    #[error("too many symbolic links in its path")]
    Loop,
    /// The archive ended within its data.
    #[error("its data are not complete")]
    Incomplete,
    /// A hard link to something this layer does not have.
    #[error("a hard link to what this layer does not have")]
    LinkMissing,
    /// A hard link to a directory.
    #[error("a hard link to a directory")]
    LinkToDir,
    /// A hard link in place of its own target, or of a directory that holds it.
    #[error("a hard link that replaces its own target")]
    LinkToItself,
    /// A hard link with extended attributes that its target does not have.
    #[error("a hard link whose extended attributes differ from its target's")]
    LinkAttributes,
    /// A whiteout of nothing, `.` or `..`.
    #[error("a whiteout without a name")]
    WhiteoutName,
    /// An entry below a whiteout's own name.
    #[error("an entry below a whiteout")]
    BelowWhiteout,
    /// A file capability or an access control list that the kernel would not keep as it is.
    #[error("a capability or access control list that is malformed or belies its mode")]
    Attribute,
    /// An attribute that steers overlayfs.
    #[error("an extended attribute reserved for overlayfs")]
    ReservedAttribute,
}

impl Problem {
    /// The stable reason code.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::ReservedAttribute => reason::IMAGE_UNSAFE,
            _ => reason::IMAGE_LAYER_FORMAT,
        }
    }
}

impl ErofsError {
    pub(super) fn entry(path: &[u8], problem: Problem) -> Self {
        Self::Entry { path: format!("/{}", path.get(..256).unwrap_or(path).escape_ascii()), problem }
    }

    /// The stable reason code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Tar(error) => error.code(),
            Self::Entry { problem, .. } => problem.code(),
            Self::Limit { .. } => reason::IMAGE_LIMIT,
            Self::Io { source, .. } if is_full(source) => reason::STORE_FULL,
            Self::Io { .. } => reason::STORE_IO,
        }
    }

    /// The refusal a launch ends with; `subject` names the layer.
    #[must_use]
    pub fn refusal(&self, subject: &str) -> Refusal {
        let expected = match self {
            Self::Tar(error) => return error.refusal(subject),
            Self::Entry { .. } if self.code() == reason::IMAGE_UNSAFE => "safe entries".to_owned(),
            Self::Entry { .. } => "entries that make a file system".to_owned(),
            Self::Limit { what, limit } => format!("at most {limit} {what}"),
            Self::Io { source, .. } if is_full(source) => "room".to_owned(),
            Self::Io { doing, .. } => format!("to be able to {doing}"),
        };
        Refusal::new(self.code(), subject, expected, self.to_string())
    }
}

/// No space, over quota, or over the size a memory file may have.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Names what failed.
pub(super) trait Doing<T> {
    /// Turns an I/O error into ours.
    fn doing(self, doing: &'static str) -> Result<T, ErofsError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, ErofsError> {
        self.map_err(|source| ErofsError::Io { doing, source })
    }
}
