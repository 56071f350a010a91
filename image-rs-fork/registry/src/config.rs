//! The `[registry]` table of a configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// How registries are reached. Every member has a safe default: TLS everywhere, no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Hosts, `host[:port]` exactly as in references, that are asked over plain HTTP.
    pub plain_http: Vec<String>,
    /// A docker-style auth file (`{"auths": {…}}`).
    pub auth_file: Option<PathBuf>,
    /// PEM file with roots trusted beside the system's.
    pub root: Option<PathBuf>,
    /// Seconds without a byte after which an answer counts as stalled. Default 30.
    pub stall_seconds: u64,
    /// Seconds in which a connection must stand, TLS included. Default 10.
    pub connect_seconds: u64,
    /// Seconds in which a manifest, token, list of referrers or push must be done. Default 60.
    pub request_seconds: u64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            plain_http: Vec::new(),
            auth_file: None,
            root: None,
            stall_seconds: 30,
            connect_seconds: 10,
            request_seconds: 60,
        }
    }
}

impl RegistryConfig {
    /// Whether `host` (with its port, as in the reference) may be asked over plain HTTP.
    #[must_use]
    pub fn allows_plain_http(&self, host: &str) -> bool {
        self.plain_http.iter().any(|listed| listed == host)
    }

    /// [`RegistryConfig::stall_seconds`], at least one second.
    #[must_use]
    pub fn stall(&self) -> Duration {
        Duration::from_secs(self.stall_seconds.max(1))
    }

    /// [`RegistryConfig::connect_seconds`], at least one second.
    #[must_use]
    pub fn connect(&self) -> Duration {
        Duration::from_secs(self.connect_seconds.max(1))
    }

    /// [`RegistryConfig::request_seconds`], at least one second.
    #[must_use]
    pub fn request(&self) -> Duration {
        Duration::from_secs(self.request_seconds.max(1))
    }
}
