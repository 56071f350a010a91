//! `policy`: policies of attestor, key broker and agent, tried before they count.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Run the cases of a directory with the engines that attestor and agent use
    Test(PolicyTestArguments),
}

#[derive(Debug, Args)]
pub(crate) struct PolicyTestArguments {
    /// The directory: every *.toml and *.json in it is a table of cases, see docs/policy-tests.md
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
