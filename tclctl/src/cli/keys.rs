//! `ak` and `simulated`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(crate) enum AkCommand {
    /// Print the public attestation key as PEM, for the attestor to enrol
    Show(AkShowArguments),
    /// Beside the TPM: what an enrolment by endorsement certificate starts from, as JSON
    Request(AkRequestArguments),
    /// The operator: check a request against manufacturers' roots, and make a challenge that only its TPM can open
    Challenge(AkChallengeArguments),
    /// Beside the TPM: let it open a challenge; the answer as JSON
    Answer(AkAnswerArguments),
    /// The operator: check an answer and print the attestor's `[[tpm.ak]]` entry of kind tpm-ek
    Enroll(AkEnrollArguments),
}

#[derive(Debug, Args)]
pub(crate) struct AkRequestArguments {
    /// The TPM
    #[arg(long, value_name = "/dev/tpmrm0|unix:/PATH|tcp:HOST:PORT", default_value = "/dev/tpmrm0")]
    pub(crate) device: String,
    /// Whose certificate
    #[arg(long, value_enum, default_value = "rsa2048")]
    pub(crate) ek: EkArgument,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EkArgument {
    /// RSA 2048, NV 0x01c00002
    Rsa2048,
    /// ECC P-256, NV 0x01c0000a
    EccP256,
}

#[derive(Debug, Args)]
pub(crate) struct AkChallengeArguments {
    /// The request
    #[arg(value_name = "FILE")]
    pub(crate) request: PathBuf,
    /// Folder of certificates, DER or PEM: manufacturers' roots, and the intermediates that lead to them
    #[arg(long, value_name = "DIR")]
    pub(crate) roots: PathBuf,
    /// The file to make for `ak enroll`, 0600: it holds the secret and stays here
    #[arg(long, value_name = "FILE")]
    pub(crate) secret: PathBuf,
    /// The roots are of software TPMs: the key is enrolled as SIMULATED
    #[arg(long)]
    pub(crate) simulated: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AkAnswerArguments {
    /// The challenge
    #[arg(value_name = "FILE")]
    pub(crate) challenge: PathBuf,
    /// The TPM
    #[arg(long, value_name = "/dev/tpmrm0|unix:/PATH|tcp:HOST:PORT", default_value = "/dev/tpmrm0")]
    pub(crate) device: String,
}

#[derive(Debug, Args)]
pub(crate) struct AkEnrollArguments {
    /// The answer
    #[arg(value_name = "FILE")]
    pub(crate) answer: PathBuf,
    /// The file that `ak challenge` made
    #[arg(long, value_name = "FILE")]
    pub(crate) secret: PathBuf,
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
