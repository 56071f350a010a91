use std::io;
use std::path::{Path, PathBuf};

/// Why a package could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PackagingError {
    /// A file or folder cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A program of the machine is missing or failed.
    #[error("{program}: {what}")]
    Tool {
        /// Its name.
        program: String,
        /// Its last words, or why it did not start.
        what: String,
    },
    /// A description of a package cannot be used.
    #[error("{}: {what}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// An archive could not be written.
    #[error("archive: {0}")]
    Archive(io::Error),
}

pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> PackagingError + '_ {
    move |error| PackagingError::File { path: path.to_path_buf(), error }
}
