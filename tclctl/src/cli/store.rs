//! `pull`, `mount`, `umount`, `images` and `prune`: a store of images without an agent.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use protocols::digest::Sha256Digest;
use protocols::image::Layout;

use super::{DecryptionArguments, SourceArguments};

/// How layers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LayoutArgument {
    /// One EROFS image per layer, with its dm-verity tree
    Erofs,
    /// One directory per layer, on any file system
    Tree,
}

impl From<LayoutArgument> for Layout {
    fn from(argument: LayoutArgument) -> Self {
        match argument {
            LayoutArgument::Erofs => Self::ErofsV1,
            LayoutArgument::Tree => Self::TreeV1,
        }
    }
}

/// Where images are kept.
#[derive(Debug, Clone, Args)]
pub(crate) struct StoreArguments {
    /// The store's directory; made where it does not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) store: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct PullArguments {
    #[command(flatten)]
    pub(crate) source: SourceArguments,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// How layers are kept; erofs where the kernel can mount it, else tree
    #[arg(long, value_enum)]
    pub(crate) layout: Option<LayoutArgument>,
    /// The most bytes of layers in the store: those that are not mounted give way, the longest unused first
    #[arg(long, value_name = "BYTES")]
    pub(crate) quota: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct MountArguments {
    /// A reference that was pulled, as it was written then, or with the digest it stood for
    #[arg(value_name = "REF")]
    pub(crate) reference: String,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// The directory to mount the root file system at
    #[arg(value_name = "TARGET")]
    pub(crate) target: PathBuf,
    /// The layout to mount; the one it was last pulled in otherwise
    #[arg(long, value_enum)]
    pub(crate) layout: Option<LayoutArgument>,
    #[command(flatten)]
    pub(crate) decryption: DecryptionArguments,
    /// Mount no other root file system than the one with this digest, as `pull` or `measure` has told it
    #[arg(long, value_name = "sha256:HEX")]
    pub(crate) rootfs: Option<Sha256Digest>,
    /// Allow changes; they are gone with the mount
    #[arg(long)]
    pub(crate) writable: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UmountArguments {
    /// Where `tclctl mount` has mounted an image
    #[arg(value_name = "TARGET")]
    pub(crate) target: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ImagesArguments {
    #[command(flatten)]
    pub(crate) store: StoreArguments,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    /// References to forget; those that are mounted stay
    #[arg(value_name = "REF")]
    pub(crate) references: Vec<String>,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// Forget every reference that is not mounted
    #[arg(long, conflicts_with = "references")]
    pub(crate) all: bool,
}
