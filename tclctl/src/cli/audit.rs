//! `audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that every entry is what the attestor signed, and that nothing it signed before is gone
    Verify(AuditVerifyArguments),
    /// Write the log to a file, for `audit verify --file`
    Export(AuditExportArguments),
    /// Print the entries, one line each
    Show(AuditShowArguments),
    /// Check that one entry is in the log, without fetching the rest
    Prove(AuditProveArguments),
}

/// Which attestor, and who asks.
#[derive(Debug, Args)]
pub(crate) struct AuditedArguments {
    /// The attestor's address
    #[arg(long, value_name = "URL", env = "TCL_ATTESTOR")]
    pub(crate) attestor: String,
    /// File with a token of administration that may audit
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyArguments {
    /// The attestor's address
    #[arg(long, value_name = "URL", env = "TCL_ATTESTOR", required_unless_present = "file", conflicts_with = "file")]
    pub(crate) attestor: Option<String>,
    /// File with a token of administration that may audit
    #[arg(long, value_name = "FILE", required_unless_present = "file")]
    pub(crate) admin_token: Option<PathBuf>,
    /// An exported log, instead of an attestor's
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The attestor's public key in PEM, which agents pin
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// Another replica, whose checkpoint must be of the same log; may be repeated
    #[arg(long, value_name = "URL", conflicts_with = "file")]
    pub(crate) replica: Vec<String>,
    /// Remembers the last checkpoint between runs: a log rolled back or rewritten since is found even where the attestor
    /// itself has forgotten
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditExportArguments {
    /// The file to write: the checkpoint, then the entries, one JSON object on each line
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) audited: AuditedArguments,
}

#[derive(Debug, Args)]
pub(crate) struct AuditShowArguments {
    /// The first entry, from 0
    #[arg(long, value_name = "PLACE", default_value_t = 0)]
    pub(crate) from: u64,
    #[command(flatten)]
    pub(crate) audited: AuditedArguments,
}

#[derive(Debug, Args)]
pub(crate) struct AuditProveArguments {
    /// The entry, from 0
    #[arg(value_name = "PLACE")]
    pub(crate) place: u64,
    /// The attestor's public key in PEM, which agents pin
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    #[command(flatten)]
    pub(crate) audited: AuditedArguments,
}
