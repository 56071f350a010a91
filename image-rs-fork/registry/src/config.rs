//! The `[registry]` table of a configuration.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocols::digest::Sha256Digest;
use serde::Deserialize;

use crate::error::RegistryError;
use crate::registries_conf::RegistriesConf;
use crate::registries_d::RegistriesD;

/// The largest file that is read, in bytes: a bundle of all public roots has 256 KiB.
const MAX_FILE: u64 = 1 << 20;

/// How registries are reached. Every member has a safe default: TLS everywhere, no credentials, no proxy,
/// nothing from the environment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Hosts, `host[:port]` exactly as in references, that are asked over plain HTTP.
    pub plain_http: Vec<String>,
    /// The text of a `registries.conf`: mirrors, remapping, blocking. The text and not a path, so that it is
    /// measured with the configuration it stands in.
    pub registries_conf: RegistriesConf,
    /// The text of a `registries.d` file in JSON: where OpenPGP signatures lie. Default nowhere.
    pub registries_d_json: RegistriesD,
    /// A docker-style auth file (`{"auths": {…}}`).
    pub auth_file: Option<PathBuf>,
    /// Absolute directories in which credential helpers are looked for. Default none.
    pub credential_helper_dirs: Vec<PathBuf>,
    /// PEM files with roots trusted beside the system's.
    pub roots: Vec<PathBuf>,
    /// What `auth_file` and `roots` must hold, by path: a file with another digest is refused. So what they say is
    /// measured with the configuration that names them.
    pub file_digests: BTreeMap<PathBuf, Sha256Digest>,
    /// `http[s]://[user:password@]host:port` of a proxy for every request.
    pub proxy: Option<String>,
    /// Hosts (with all below them), addresses and CIDR blocks that are reached without the proxy.
    pub no_proxy: Vec<String>,
    /// Seconds without a byte after which an answer counts as stalled. Default 30.
    pub stall_seconds: u64,
    /// Seconds in which a connection must stand, TLS included. Default 10.
    pub connect_seconds: u64,
    /// Seconds in which a manifest, token, list of referrers or push must be done. Default 60.
    pub request_seconds: u64,
    /// How often a request that failed for a reason that may pass is sent again. Default 3.
    pub retries: u32,
    /// Seconds within which a request is sent again at all, and for which a blob that broke off may stay
    /// without progress. Default 30.
    pub retry_seconds: u64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            plain_http: Vec::new(),
            registries_conf: RegistriesConf::default(),
            registries_d_json: RegistriesD::default(),
            auth_file: None,
            credential_helper_dirs: Vec::new(),
            roots: Vec::new(),
            file_digests: BTreeMap::new(),
            proxy: None,
            no_proxy: Vec::new(),
            stall_seconds: 30,
            connect_seconds: 10,
            request_seconds: 60,
            retries: 3,
            retry_seconds: 30,
        }
    }
}

impl RegistryConfig {
    /// Whether `host` (with its port, as in the reference) may be asked over plain HTTP.
    #[must_use]
    pub fn allows_plain_http(&self, host: &str) -> bool {
        self.plain_hosts().any(|listed| listed == host)
    }

    /// Whether any host at all may be asked over plain HTTP.
    #[must_use]
    pub fn uses_plain_http(&self) -> bool {
        self.plain_hosts().next().is_some()
    }

    fn plain_hosts(&self) -> impl Iterator<Item = &str> {
        self.plain_http.iter().map(String::as_str).chain(self.registries_conf.plain_http())
    }

    /// The first file that is named and whose digest is not.
    #[must_use]
    pub fn undigested_file(&self) -> Option<&Path> {
        let named = self.auth_file.iter().chain(&self.roots);
        named.map(PathBuf::as_path).find(|path| !self.file_digests.contains_key(*path))
    }

    /// The content of a named file, which has the digest that is said of it.
    ///
    /// # Errors
    /// [`RegistryError::Config`].
    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>, RegistryError> {
        let refused = |what: String| RegistryError::Config { reason: format!("{}: {what}", path.display()) };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| refused(e.to_string()))?;
        file.take(MAX_FILE.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| refused(e.to_string()))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(refused(format!("more than {MAX_FILE} bytes")));
        }
        let actual = Sha256Digest::of(&bytes);
        match self.file_digests.get(path) {
            Some(expected) if *expected != actual => {
                Err(refused(format!("its digest is {actual}, file_digests says {expected}")))
            }
            _ => Ok(bytes),
        }
    }

    /// Checks what can be checked without reading a file.
    ///
    /// # Errors
    /// [`RegistryError::Config`].
    pub(crate) fn check(&self) -> Result<(), RegistryError> {
        let refused = |reason: String| Err(RegistryError::Config { reason });
        if let Some(dir) = self.credential_helper_dirs.iter().find(|dir| !dir.is_absolute()) {
            return refused(format!("credential_helper_dirs: {} is not absolute", dir.display()));
        }
        let is_named = |path: &PathBuf| self.auth_file.as_ref() == Some(path) || self.roots.contains(path);
        if let Some(path) = self.file_digests.keys().find(|path| !is_named(path)) {
            return refused(format!("file_digests: {} is neither auth_file nor one of roots", path.display()));
        }
        if self.proxy.is_none() && !self.no_proxy.is_empty() {
            return refused("no_proxy without proxy".to_owned());
        }
        if let Some(host) = self.registries_d_json.plain_http().find(|host| !self.allows_plain_http(host)) {
            return refused(format!("the lookaside at {host} needs plain HTTP, for which the host is not listed"));
        }
        Ok(())
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

    /// [`RegistryConfig::retry_seconds`].
    #[must_use]
    pub fn retry(&self) -> Duration {
        Duration::from_secs(self.retry_seconds)
    }
}
