//! `kbs`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{PlatformArguments, TeeArgument};

#[derive(Debug, Subcommand)]
pub(crate) enum KbsCommand {
    /// Attest this machine, and write the token with its key: a passport, from which resources can be had until it ends
    Attest(KbsAttestArguments),
    /// Get a resource, as this machine or with a passport
    GetResource(KbsGetArguments),
    /// Store a resource
    PutResource(KbsPutArguments),
    /// Remove a resource
    DeleteResource(KbsDeleteArguments),
    /// Put a policy in force
    SetPolicy(KbsSetPolicyArguments),
    /// Print the policy in force, as far as the key broker tells it
    GetPolicy(KbsGetPolicyArguments),
}

/// Where the key broker is.
#[derive(Debug, Args)]
pub(crate) struct KbsServer {
    /// The key broker's address: https, or http on this machine
    #[arg(long, value_name = "URL", env = "TCL_KBS")]
    pub(crate) url: String,
    /// PEM: a TLS root beside the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// SHA-256 of the SubjectPublicKeyInfo that the server's certificate must have, beside its chain; may be repeated
    #[arg(long, value_name = "sha256:HEX")]
    pub(crate) server_key: Vec<String>,
}

/// What is shown of this machine.
#[derive(Debug, Args)]
pub(crate) struct KbsShown {
    /// The platform; it is never chosen for you
    #[arg(long)]
    pub(crate) tee: Option<TeeArgument>,
    /// Show SIMULATED sample evidence, which proves nothing
    #[arg(long, conflicts_with = "tee")]
    pub(crate) sample: bool,
    /// With --sample: show a SIMULATED device beside it
    #[arg(long, requires = "sample")]
    pub(crate) sample_device: bool,
    #[command(flatten)]
    pub(crate) platform: PlatformArguments,
    /// TOML: the initdata that this machine was started with
    #[arg(long, value_name = "FILE")]
    pub(crate) initdata: Option<PathBuf>,
    /// The session key's kind
    #[arg(long, value_name = "KIND", default_value = "p256")]
    pub(crate) key: KeyArgument,
}

/// Kinds of session keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyArgument {
    /// ECDH-ES+A256KW on P-256
    P256,
    /// ECDH-ES+A256KW on P-521
    P521,
    /// RSA-OAEP-256
    Rsa,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("shown").required(true).args(["tee", "sample"]))]
pub(crate) struct KbsAttestArguments {
    #[command(flatten)]
    pub(crate) server: KbsServer,
    #[command(flatten)]
    pub(crate) shown: KbsShown,
    /// The new file, readable by you alone: whoever has it reads what this machine may read; standard output otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("by").required(true).args(["tee", "sample", "passport"]))]
pub(crate) struct KbsGetArguments {
    #[command(flatten)]
    pub(crate) server: KbsServer,
    #[command(flatten)]
    pub(crate) shown: KbsShown,
    /// What `kbs attest` wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["initdata", "device", "vmpl", "imds", "key"])]
    pub(crate) passport: Option<PathBuf>,
    /// The resource
    #[arg(long, value_name = "REPOSITORY/TYPE/TAG")]
    pub(crate) path: String,
    /// The new file, readable by you alone; standard output otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Who administrates.
#[derive(Debug, Args)]
pub(crate) struct KbsAdministration {
    /// The key broker's address
    #[arg(long, value_name = "URL", env = "TCL_KBS")]
    pub(crate) url: String,
    /// File with the administrator's bearer token
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct KbsPutArguments {
    #[command(flatten)]
    pub(crate) administration: KbsAdministration,
    /// The resource
    #[arg(long, value_name = "REPOSITORY/TYPE/TAG")]
    pub(crate) path: String,
    /// What it is to be
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct KbsDeleteArguments {
    #[command(flatten)]
    pub(crate) administration: KbsAdministration,
    /// The resource
    #[arg(long, value_name = "REPOSITORY/TYPE/TAG")]
    pub(crate) path: String,
}

/// Which policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyArgument {
    /// Who gets which resource
    Resource,
    /// How evidence is graded
    Attestation,
}

#[derive(Debug, Args)]
pub(crate) struct KbsSetPolicyArguments {
    #[command(flatten)]
    pub(crate) administration: KbsAdministration,
    /// Which policy
    #[arg(long, value_name = "KIND", default_value = "resource")]
    pub(crate) kind: PolicyArgument,
    /// Attestation: the policy's name there
    #[arg(long, value_name = "NAME", default_value = "default_cpu")]
    pub(crate) id: String,
    /// Rego
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct KbsGetPolicyArguments {
    #[command(flatten)]
    pub(crate) administration: KbsAdministration,
}
