//! What is measured of an image, and what a launch asks to run in it.

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;

/// Operating system and architecture, in OCI's words (`linux`, `amd64`, variant `v8`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// The CPU variant where the manifest names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// How layers are laid out on disk; each layout has its own rootfs digest.
///
/// A layout's name carries its version: other packing, other digest, other name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Layout {
    /// Directories; the digest is over a canonical listing (`docs/measurement.md`).
    #[serde(rename = "tree-v1")]
    TreeV1,
    /// One EROFS image per layer; the digest is over the layers' dm-verity root hashes.
    #[serde(rename = "erofs-v1")]
    ErofsV1,
}

impl Layout {
    /// Every layout there is.
    pub const ALL: [Self; 2] = [Self::TreeV1, Self::ErofsV1];

    /// The name in golden values and in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TreeV1 => "tree-v1",
            Self::ErofsV1 => "erofs-v1",
        }
    }
}

/// The root file system as it was measured: one layout and its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootfsMeasurement {
    /// Which layout was enforced.
    pub layout: Layout,
    /// The layout's digest over all layers in order.
    pub digest: Sha256Digest,
}

/// What the image's own config says to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageProcess {
    /// `Entrypoint` followed by `Cmd`.
    pub args: Vec<String>,
    /// `NAME=value` entries in the config's order.
    pub env: Vec<String>,
    /// `User` as written: empty, name, uid, with an optional `:group`.
    pub user: String,
    /// `WorkingDir`; `/` when the config names none.
    pub cwd: String,
}

/// Everything measured of one pulled image; made by `image-rs-fork`, judged by `verifier`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageMeasurement {
    /// Digest of the platform manifest (never of an index).
    pub manifest: Sha256Digest,
    /// Digest of the image's config blob.
    pub config: Sha256Digest,
    /// DiffIDs of the layers, lowest first, verified against the unpacked bytes.
    pub layers: Vec<Sha256Digest>,
    /// The measured root file system.
    pub rootfs: RootfsMeasurement,
    /// The platform the manifest was chosen for.
    pub platform: Platform,
    /// The process of the verified config.
    pub process: ImageProcess,
}

/// A mount the caller asks for beyond the runtime's fixed ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountRequest {
    /// Absolute path in the container.
    pub destination: String,
    /// File system type (`bind`, `tmpfs`).
    #[serde(rename = "type")]
    pub kind: String,
    /// Source path or name in the guest.
    pub source: String,
    /// Mount options.
    pub options: Vec<String>,
}

/// The process a launch will run: the image's own, changed by what the caller asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessRequest {
    /// The full argument vector.
    pub args: Vec<String>,
    /// The full environment.
    pub env: Vec<String>,
    /// The user as written, before it is looked up in the image.
    pub user: String,
    /// Absolute working directory.
    pub cwd: String,
    /// Mounts beyond the fixed ones.
    pub mounts: Vec<MountRequest>,
}

impl From<&ImageProcess> for ProcessRequest {
    fn from(image: &ImageProcess) -> Self {
        Self {
            args: image.args.clone(),
            env: image.env.clone(),
            user: image.user.clone(),
            cwd: image.cwd.clone(),
            mounts: Vec::new(),
        }
    }
}
