//! `evidence detect` and `evidence collect`.

use std::path::PathBuf;

use clap::Args;

use super::TeeArgument;

#[derive(Debug, Args)]
pub(crate) struct EvidenceDetectArguments {
    /// The root of the machine's file system
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
    /// The TPM to ask, in place of the kernel's devices
    #[arg(long, value_name = "/dev/tpmrm0|unix:/PATH|tcp:HOST:PORT")]
    pub(crate) device: Option<String>,
}

/// What a platform has to be told.
#[derive(Debug, Args)]
pub(crate) struct PlatformArguments {
    /// TPM and Azure: the TPM; /dev/tpmrm0 otherwise
    #[arg(long, value_name = "/dev/tpmrm0|unix:/PATH|tcp:HOST:PORT")]
    pub(crate) device: Option<String>,
    /// SEV-SNP: the privilege level to ask at; 0 otherwise
    #[arg(long, value_name = "LEVEL")]
    pub(crate) vmpl: Option<u32>,
    /// Azure: the instance metadata service, where it is not at its usual address
    #[arg(long, value_name = "URL")]
    pub(crate) imds: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EvidenceCollectArguments {
    /// The platform; it is never chosen for you
    #[arg(long)]
    pub(crate) tee: TeeArgument,
    /// 16 to 64 bytes: the evidence is over SHA-384("tcl-evidence-v1" || challenge)
    #[arg(long, value_name = "HEX")]
    pub(crate) challenge: String,
    #[command(flatten)]
    pub(crate) platform: PlatformArguments,
    /// The file to write; standard output otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}
