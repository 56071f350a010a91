//! The `[kata]` table: whether and how the guest is a sandbox of Kata Containers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use sandbox::storage::Driver;
use serde::Deserialize;

use super::ConfigError;
use super::file::{field, read_bounded};
use crate::kata::address::Address;

/// How long a hot-plugged device may take to appear where the command line says nothing.
const DEVICE_TIME: Duration = Duration::from_secs(3);
/// The largest policy, in bytes.
const MAX_POLICY: usize = agent_policy::MAX_TEXT;

/// The Kata service of this guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kata {
    /// Where it listens.
    pub listen: Address,
    /// Whether the agent itself answers the preamble of hybrid vsock on its unix socket.
    pub hybrid_vsock: bool,
    /// The policy the service starts with, as text: in force until a policy lets the host replace it.
    pub policy: String,
    /// What the sandbox container runs.
    pub pause: Pause,
    /// The sandbox's own directory, which the host names in its requests.
    pub run_dir: PathBuf,
    /// Where the sandbox's namespaces are kept.
    pub namespaces_dir: PathBuf,
    /// Where the sandbox's resolv.conf is mounted.
    pub resolv_conf: PathBuf,
    /// Storage drivers beyond those without host data.
    pub storage_drivers: BTreeSet<Driver>,
    /// Kernel modules that may be loaded.
    pub kernel_modules: BTreeSet<String>,
    /// Capabilities that a container may have beyond the default ones.
    pub capabilities: BTreeSet<String>,
    /// Devices of the guest, by path, that a container may have.
    pub devices: BTreeSet<PathBuf>,
    /// How long a hot-plugged device may take to appear.
    pub device_time: Duration,
}

/// The sandbox container's bundle, part of the guest's own image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// A directory with `config.json` and `rootfs`.
    pub bundle: PathBuf,
    /// The digest the bundle must have when it is measured.
    pub digest: Sha256Digest,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KataFile {
    listen: Address,
    #[serde(default)]
    hybrid_vsock: bool,
    policy: PathBuf,
    policy_digest: Option<Sha256Digest>,
    pause_bundle: PathBuf,
    pause_digest: Sha256Digest,
    run_dir: Option<PathBuf>,
    namespaces_dir: Option<PathBuf>,
    resolv_conf: Option<PathBuf>,
    #[serde(default)]
    storage_drivers: BTreeSet<String>,
    #[serde(default)]
    kernel_modules: BTreeSet<String>,
    #[serde(default)]
    capabilities: BTreeSet<String>,
    #[serde(default)]
    devices: BTreeSet<PathBuf>,
}

/// `policy` is the initdata's, where it brings one.
pub(super) fn check(file: KataFile, environment: Environment, policy: Option<String>) -> Result<Kata, ConfigError> {
    let run_dir = file.run_dir.unwrap_or_else(|| "/run/kata-containers".into());
    let namespaces_dir = file.namespaces_dir.unwrap_or_else(|| "/run/sandbox-ns".into());
    let resolv_conf = file.resolv_conf.unwrap_or_else(|| "/etc/resolv.conf".into());
    for (name, path) in [
        ("kata.policy", &file.policy),
        ("kata.pause_bundle", &file.pause_bundle),
        ("kata.run_dir", &run_dir),
        ("kata.namespaces_dir", &namespaces_dir),
        ("kata.resolv_conf", &resolv_conf),
    ] {
        if !path.is_absolute() {
            return Err(field(name, "must be an absolute path"));
        }
    }
    // What a file says is measured by its digest, which stands in the measured configuration.
    if environment == Environment::Production && file.policy_digest.is_none() {
        return Err(ConfigError::Production { field: "kata.policy without policy_digest" });
    }
    if file.devices.iter().any(|device| !device.starts_with("/dev/")) {
        return Err(field("kata.devices", "must be paths beneath /dev"));
    }
    if file.hybrid_vsock && matches!(file.listen, Address::Vsock(_)) {
        return Err(field("kata.hybrid_vsock", "has a meaning on unix sockets only"));
    }
    let drivers =
        file.storage_drivers.iter().map(|name| name.parse().map_err(|error| field("kata.storage_drivers", error)));
    let measured_policy = read_policy(file.policy, file.policy_digest)?;
    Ok(Kata {
        storage_drivers: drivers.collect::<Result<_, _>>()?,
        namespaces_dir,
        policy: policy.unwrap_or(measured_policy),
        listen: file.listen,
        hybrid_vsock: file.hybrid_vsock,
        pause: Pause { bundle: file.pause_bundle, digest: file.pause_digest },
        run_dir,
        resolv_conf,
        kernel_modules: file.kernel_modules,
        capabilities: file.capabilities,
        devices: file.devices,
        device_time: DEVICE_TIME,
    })
}

/// Read here and not again: what is in force does not change under a running agent.
fn read_policy(path: PathBuf, digest: Option<Sha256Digest>) -> Result<String, ConfigError> {
    let bytes = match read_bounded(&path, MAX_POLICY) {
        Ok(bytes) => bytes,
        Err(source) => return Err(ConfigError::Read { path, source }),
    };
    if bytes.len() > MAX_POLICY {
        return Err(field("kata.policy", "larger than 8 MiB"));
    }
    let actual = Sha256Digest::of(&bytes);
    if digest.is_some_and(|expected| expected != actual) {
        return Err(field("kata.policy_digest", format!("the file's is {actual}")));
    }
    String::from_utf8(bytes).map_err(|_| field("kata.policy", "not UTF-8"))
}
