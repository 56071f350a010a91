//! `image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::RegistryArguments;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build an image from folders, the same bytes every time, and push it
    Push(ImagePushArguments),
    /// Encrypt the layers of an image for recipients, and push the result; config and diffIDs stay
    Encrypt(ImageEncryptArguments),
}

/// Keys of encrypted layers.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DecryptionArguments {
    /// Private key of encrypted layers (PEM), or what the key broker holds (32 bytes); may be repeated
    #[arg(long, value_name = "FILE|kbs:///REPOSITORY/TYPE/TAG=FILE")]
    pub(crate) decryption_key: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageEncryptArguments {
    /// The image, or an index of images
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Where the encrypted image goes, registry/repository:tag
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: String,
    /// Public key (PEM) of somebody who can decrypt it; may be repeated
    #[arg(long, value_name = "jwe:FILE")]
    pub(crate) recipient: Vec<String>,
    /// The key broker's key that guests ask for
    #[arg(long, value_name = "attestation-agent:kbs:///REPOSITORY/TYPE/TAG", requires = "key")]
    pub(crate) provider: Option<String>,
    /// File with that key, 32 random bytes
    #[arg(long, value_name = "FILE", requires = "provider")]
    pub(crate) key: Option<PathBuf>,
    /// Store that key with this attestor
    #[arg(long, value_name = "URL", requires = "admin_token", requires = "key")]
    pub(crate) attestor: Option<String>,
    /// File with the attestor's administration token
    #[arg(long, value_name = "FILE", requires = "attestor")]
    pub(crate) admin_token: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ImagePushArguments {
    /// registry/repository:tag
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    /// Folder of the lowest layer
    #[arg(long, value_name = "DIR")]
    pub(crate) rootfs: PathBuf,
    /// Folder of a further layer; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) layer: Vec<PathBuf>,
    /// One argument of the entrypoint; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) entrypoint: Vec<String>,
    /// One argument of the command; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) cmd: Vec<String>,
    /// Environment entry; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// User
    #[arg(long, default_value = "")]
    pub(crate) user: String,
    /// Working directory
    #[arg(long, default_value = "/")]
    pub(crate) workdir: String,
    /// os/architecture
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// The image's creation, RFC 3339 in UTC
    #[arg(long, value_name = "TIME", default_value = "1970-01-01T00:00:00Z")]
    pub(crate) created: String,
    #[command(flatten)]
    pub(crate) registry: RegistryArguments,
}
