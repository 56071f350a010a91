//! `measure` and `golden`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use protocols::environment::Environment;

use super::{AccessArguments, RegistryArguments, SourceArguments};

/// What goes into a golden value beside the image.
#[derive(Debug, Args)]
pub(crate) struct IssueArguments {
    /// When it ends, RFC 3339 in UTC; one year after it was issued otherwise
    #[arg(long, value_name = "TIME", conflicts_with = "days")]
    pub(crate) expires: Option<String>,
    /// Ends that many days from now, at the end of the day (UTC)
    #[arg(long)]
    pub(crate) days: Option<u64>,
    /// When it was issued, RFC 3339 in UTC; the image's creation otherwise
    #[arg(long, value_name = "TIME")]
    pub(crate) issued_at: Option<String>,
    /// Versions only go up within a series; `repository platform tag` otherwise
    #[arg(long)]
    pub(crate) series: Option<String>,
    /// JSON file with the process policy; only the image's own process otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Allows what Kubernetes adds to every container: KUBERNETES_* and the service account's mount
    #[arg(long)]
    pub(crate) kubernetes: bool,
    /// Where it may be used
    #[arg(long, value_enum, default_value = "production")]
    pub(crate) environment: EnvironmentArgument,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EnvironmentArgument {
    /// Real hardware, real keys
    Production,
    /// Simulated roots count
    Development,
}

impl From<EnvironmentArgument> for Environment {
    fn from(argument: EnvironmentArgument) -> Self {
        match argument {
            EnvironmentArgument::Production => Self::Production,
            EnvironmentArgument::Development => Self::Development,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct MeasureArguments {
    #[command(flatten)]
    pub(crate) source: SourceArguments,
    /// The signer's name in the measured configuration
    #[arg(long, default_value = "unnamed")]
    pub(crate) issuer: String,
    /// The golden value's version
    #[arg(long, default_value_t = 1)]
    pub(crate) version: u64,
    #[command(flatten)]
    pub(crate) issue: IssueArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GoldenCommand {
    /// Make a signing key: FILE (private, 0600) and FILE.pub
    Keygen(KeygenArguments),
    /// Measure an image, sign its golden value and store it beside the image
    Push(GoldenPushArguments),
    /// Print what is stored for an image, unverified
    Show(GoldenShowArguments),
    /// Check the golden value of an image against one signer
    Verify(GoldenVerifyArguments),
    /// Put an image's golden values on the repository's revocation list
    Revoke(GoldenRevokeArguments),
    /// Copy what is stored for an image to the attestor, for guests that take golden values from there
    Publish(GoldenPublishArguments),
}

#[derive(Debug, Args)]
pub(crate) struct KeygenArguments {
    /// The private key's file; never overwritten
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Ed25519 instead of ECDSA P-256
    #[arg(long)]
    pub(crate) ed25519: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GoldenPushArguments {
    /// The image; an index gets one golden value per platform
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The private key, PKCS#8 PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The signer's name in the measured configuration
    #[arg(long)]
    pub(crate) issuer: String,
    /// The golden value's version: only goes up within its series
    #[arg(long)]
    pub(crate) version: u64,
    #[command(flatten)]
    pub(crate) issue: IssueArguments,
    #[command(flatten)]
    pub(crate) access: AccessArguments,
}

#[derive(Debug, Args)]
pub(crate) struct GoldenShowArguments {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Args)]
pub(crate) struct GoldenVerifyArguments {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The signer's public key, SPKI PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) signer: PathBuf,
    /// The signer's name
    #[arg(long)]
    pub(crate) issuer: String,
    /// Refuse versions below this one
    #[arg(long, default_value_t = 1)]
    pub(crate) min_version: u64,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Args)]
pub(crate) struct GoldenRevokeArguments {
    /// The image whose golden values by this issuer are revoked
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The private key, PKCS#8 PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// The signer's name in the measured configuration
    #[arg(long)]
    pub(crate) issuer: String,
    /// The list goes stale that many days from now
    #[arg(long, default_value_t = 365)]
    pub(crate) days: u64,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Args)]
pub(crate) struct GoldenPublishArguments {
    /// The image
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// The attestor's address
    #[arg(long, value_name = "URL", env = "TCL_ATTESTOR")]
    pub(crate) attestor: String,
    /// File with the attestor's administration token
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_token: PathBuf,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}
