//! `ak` and `simulated`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum AkCommand {
    /// Print the public attestation key as PEM, for the attestor to enrol
    Show(AkShowArguments),
}

#[derive(Debug, Args)]
pub(crate) struct AkShowArguments {
    /// The TPM
    #[arg(long, value_name = "/dev/tpmrm0|unix:/PATH|tcp:HOST:PORT", default_value = "/dev/tpmrm0")]
    pub(crate) device: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SimulatedCommand {
    /// Make the SIMULATED roots and chip keys of one installation
    Pki(SimulatedPkiArguments),
}

#[derive(Debug, Args)]
pub(crate) struct SimulatedPkiArguments {
    /// The folder to make
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
}
