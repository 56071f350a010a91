//! The configuration file, read whole and checked whole before anything starts. Its bytes are measured.

mod boot;
mod file;
mod image_service;
mod kata;
mod measured;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use attester::AttesterConfig;
use image_disk::ImageDiskSettings;
use image_rs_fork::registry::RegistryConfig;
use image_rs_fork::{Limits, SignaturePolicy};
use kbs_client::Attestor;
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::image::Layout;
use protocols::tcl::Mode;
use verifier::TrustedSigners;

pub use boot::{Brings, InitdataRules};
pub use image_service::ImageService;
pub use kata::{Kata, Pause};
pub use measured::Measured;

use crate::initdata::BoundInitdata;

/// What is wrong with a configuration file. The agent does not start with it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML of the documented form.
    #[error("{0}")]
    Form(String),
    /// A field's value cannot be used.
    #[error("{field}: {what}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// Allowed in development only.
    #[error("{field} is refused unless environment = \"development\" (policy.environment)")]
    Production {
        /// Which field.
        field: &'static str,
    },
}

/// Where the service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// The unix socket of the guest's root.
    pub unix: PathBuf,
    /// The vsock port of the host, where there is one.
    pub vsock: Option<Vsock>,
}

/// The host's way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vsock {
    /// The port, on any context id.
    pub port: u32,
    /// The methods the host may call.
    pub allow: BTreeSet<String>,
}

/// Where a launch may be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modes {
    /// At least one.
    pub permitted: BTreeSet<Mode>,
    /// One of those permitted.
    pub default: Mode,
}

/// The boot state that local mode trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootState {
    /// None was measured. Development only.
    Unmeasured,
    /// SHA-256 PCRs by number.
    Pcrs(BTreeMap<u32, Sha256Digest>),
    /// The platform binds the digest of the initdata into its evidence.
    Initdata,
}

/// Whether a local launch waits for the attestor's receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipts {
    /// Nothing runs before the receipt for its `Launch` record.
    Wait,
    /// Records wait in the log, at most this many, and are delivered in order later.
    Queue(u64),
}

/// Where local mode takes golden values from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GoldenFrom {
    /// Referrers in the image's repository.
    Registry,
    /// Resources of the key broker.
    Kbs,
}

/// What local mode needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The boot state it trusts.
    pub boot_state: BootState,
    /// Whether launches wait for receipts.
    pub receipts: Receipts,
    /// Where golden values come from.
    pub golden_from: GoldenFrom,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// SHA-256 of the file's bytes: what `Init` says of it, and the policy in force for local launches.
    pub digest: Sha256Digest,
    /// Production unless the file says otherwise.
    pub environment: Environment,
    /// Event log and container state.
    pub state_dir: PathBuf,
    /// The image store.
    pub image_dir: PathBuf,
    /// Where the service listens.
    pub listen: Listen,
    /// The platform.
    pub attester: AttesterConfig,
    /// The initdata in force, where there is one.
    pub initdata: Option<BoundInitdata>,
    /// The remote attestor.
    pub attestor: Attestor,
    /// Where launches are decided.
    pub modes: Modes,
    /// Local mode's own part; there exactly when local mode is permitted.
    pub local: Option<Local>,
    /// Who may sign golden values.
    pub signers: TrustedSigners,
    /// How registries are reached.
    pub registry: RegistryConfig,
    /// Whose images are taken, asked on every launch.
    pub signatures: SignaturePolicy,
    /// How large images may be.
    pub limits: Limits,
    /// How layers lie in the store; none: `erofs-v1` where the kernel mounts it, else `tree-v1`.
    pub image_layout: Option<Layout>,
    /// What the image store may take, in bytes; none: whatever its file system has.
    pub image_quota: Option<u64>,
    /// The disk that the image store lies on; none: `image_dir` is where it lies.
    pub image_disk: Option<ImageDiskSettings>,
    /// How long a disk may take to appear.
    pub device_time: Duration,
    /// The OCI runtime's executable.
    pub runtime: PathBuf,
    /// The Kata service, where the guest is a sandbox.
    pub kata: Option<Kata>,
    /// The image service for a stock Kata agent, where one runs in the guest.
    pub image_service: Option<ImageService>,
    /// How long one pull may take; none: as long as it goes on.
    pub pull_time: Option<Duration>,
}

impl Config {
    /// Reads and checks the file at `path`, for a guest without initdata.
    ///
    /// # Errors
    /// [`ConfigError`] names the field.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Measured::read(path)?.config()
    }

    /// Checks a file's bytes, for a guest without initdata. Reads the files they name (roots, policies and keys) and
    /// nothing else.
    ///
    /// # Errors
    /// [`ConfigError`] names the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        Measured::parse(bytes)?.config()
    }
}
