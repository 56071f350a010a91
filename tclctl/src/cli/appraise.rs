//! `appraise`: a launch decided from files.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::EnvironmentArgument;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["question", "measurement"]))]
pub(crate) struct AppraiseArguments {
    /// Without a socket: from files alone
    #[arg(long, required = true)]
    pub(crate) offline: bool,
    /// A recorded question: all there is to decide, in one JSON file
    #[arg(value_name = "QUESTION", conflicts_with_all = ["golden", "revocations", "signers", "process", "high_water", "at"])]
    pub(crate) question: Option<PathBuf>,
    /// What was measured: JSON of `tclctl --json measure`, or one measurement of it
    #[arg(long, value_name = "FILE")]
    pub(crate) measurement: Option<PathBuf>,
    /// Golden values as they are stored: DSSE; none when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) golden: Vec<PathBuf>,
    /// The revocation list as it is stored: DSSE; none when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) revocations: Option<PathBuf>,
    /// A TOML file with `[[signers]]`, such as the attestor's configuration
    #[arg(long, value_name = "FILE", required_unless_present = "question")]
    pub(crate) signers: Option<PathBuf>,
    /// What would run, as JSON: args, env, cwd, user, mounts; the image's own process otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// The highest golden value accepted before in the series: version and SHA-256 of its payload
    #[arg(long, value_name = "VERSION:sha256:HEX")]
    pub(crate) high_water: Option<String>,
    /// The time to judge by, RFC 3339 in UTC; now otherwise
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// The judging side's environment
    #[arg(long, value_enum, default_value = "production")]
    pub(crate) environment: EnvironmentArgument,
}
