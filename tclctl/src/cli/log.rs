//! `log`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::AgentArguments;

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Print the records, one line each
    Show(LogShowArguments),
    /// Write a log to a file: header, records and end mark, or as CEL-JSON
    Export(LogExportArguments),
    /// Replay the log and compare with the register
    Verify(LogVerifyArguments),
}

#[derive(Debug, Args)]
pub(crate) struct LogShowArguments {
    /// An exported log; the agent's own otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
}

/// Forms of a log in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// The bytes as they are, a TCG crypto-agile log
    Tcg,
    /// TCG Canonical Event Log in JSON
    CelJson,
}

#[derive(Debug, Args)]
pub(crate) struct LogExportArguments {
    /// The file to write
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The form; in cel-json every digest that can be compared with its event is, or nothing is written
    #[arg(long, value_enum, default_value_t = LogFormat::Tcg)]
    pub(crate) format: LogFormat,
    /// An exported log, or a firmware's (CCEL, binary_bios_measurements); the agent's own otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
}

#[derive(Debug, Args)]
pub(crate) struct LogVerifyArguments {
    /// An exported log; the agent's own otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Read the register from this TPM instead of asking the agent
    #[arg(long, value_name = "/dev/tpmrm0|unix:/PATH|tcp:HOST:PORT", conflicts_with = "register")]
    pub(crate) pcr_device: Option<String>,
    /// The PCR to read; the one the log names otherwise
    #[arg(long, requires = "pcr_device")]
    pub(crate) pcr: Option<u32>,
    /// Compare with this value, which you have read or had attested yourself
    #[arg(long, value_name = "sha256:HEX|sha384:HEX")]
    pub(crate) register: Option<String>,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
}
