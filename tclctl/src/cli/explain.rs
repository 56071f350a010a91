//! `explain` and the table of reason codes.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// A reason code such as golden.rollback, or the id of a decision or refusal that the attestor has recorded
    #[arg(value_name = "CODE|ID")]
    pub(crate) what: String,
    /// The attestor's address, for an id
    #[arg(long, value_name = "URL", env = "TCL_ATTESTOR")]
    pub(crate) attestor: Option<String>,
    /// File with the attestor's administration token, for an id
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ReasonCodesArguments {
    /// As the page docs/reason-codes.md
    #[arg(long)]
    pub(crate) markdown: bool,
}
