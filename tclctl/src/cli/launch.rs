//! Launching containers and asking the agent.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::AgentArguments;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArgument {
    /// Decided in the guest
    Local,
    /// Decided by the remote attestor
    Remote,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// registry/repository:tag or @sha256:digest
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
    /// Where it is decided; the measured configuration's default otherwise
    #[arg(long)]
    pub(crate) mode: Option<ModeArgument>,
    /// Environment entry beside or instead of the image's own; may be repeated
    #[arg(long, short = 'e', value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// User, as `name`, `uid` or either with `:group`
    #[arg(long, short = 'u')]
    pub(crate) user: Option<String>,
    /// Working directory
    #[arg(long, short = 'w', value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Mount: type=bind,source=PATH,destination=PATH, then readonly or other options; may be repeated
    #[arg(long, value_name = "MOUNT")]
    pub(crate) mount: Vec<String>,
    /// The container's id; chosen by chance otherwise
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<String>,
    /// Keep standard input open
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
    /// Give the workload a terminal
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// Write a JSON file that says who produced the exit status
    #[arg(long, value_name = "FILE")]
    pub(crate) status_file: Option<PathBuf>,
    /// The command; the image's own otherwise
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArguments {
    /// The container's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Send only this signal; SIGTERM and after the grace period SIGKILL otherwise
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) signal: u32,
    /// Seconds between SIGTERM and SIGKILL
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) grace: u32,
    #[command(flatten)]
    pub(crate) agent: AgentArguments,
}
