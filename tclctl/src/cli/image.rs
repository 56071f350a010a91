//! `image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::RegistryArguments;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Build an image from folders, the same bytes every time, and push it
    Push(ImagePushArguments),
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
