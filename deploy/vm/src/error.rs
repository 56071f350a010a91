//! What keeps a guest from running.

use std::path::PathBuf;
use std::process::ExitStatus;

/// Why a guest was not started, or not reached.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A program cannot be started.
    #[error("{}: {source}", program.display())]
    Program {
        /// Which.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the guest's folder cannot be made or read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A path that QEMU or a socket cannot take.
    #[error("{}: {what}", path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// A program ended, or did not get ready; its last words.
    #[error("{name} {what}: {words}")]
    Ended {
        /// Which.
        name: &'static str,
        /// What happened.
        what: String,
        /// The end of its log.
        words: String,
    },
    /// Nobody in the guest answers on a vsock port.
    #[error("vsock port {port} of the guest: {what}")]
    Connect {
        /// The port.
        port: u32,
        /// What happened.
        what: String,
    },
}

impl VmError {
    pub(crate) fn ended(name: &'static str, status: ExitStatus, words: String) -> Self {
        Self::Ended { name, what: format!("ended with {status}"), words }
    }
}
