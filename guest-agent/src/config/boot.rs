//! The `[initdata]` and `[boot]` tables: what of the guest's owner's and of its host's words counts.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ::boot::{BootError, KernelParameters};
use protocols::register::RegisterValue;
use serde::Deserialize;

use super::file::field;
use super::{Config, ConfigError};
use crate::kata::address::Address;

/// What an initdata may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Brings {
    /// The policy of the Kata service, in place of the measured one.
    Policy,
    /// Who may sign golden values.
    Signers,
    /// The remote attestor and its key.
    Attestor,
    /// More TLS roots for registries.
    Roots,
}

impl Brings {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Signers => "signers",
            Self::Attestor => "attestor",
            Self::Roots => "roots",
        }
    }
}

/// Whether and how initdata counts in this guest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitdataRules {
    /// What it may bring; may be empty.
    pub allow: BTreeSet<Brings>,
    /// Whether the guest starts without one.
    pub required: bool,
    /// The one digest that counts.
    pub digest: Option<RegisterValue>,
    /// Where disks are looked for.
    #[serde(default = "devices")]
    pub devices: PathBuf,
    /// Where its files are written.
    #[serde(default = "folder")]
    pub folder: PathBuf,
}

fn devices() -> PathBuf {
    "/dev".into()
}

fn folder() -> PathBuf {
    "/run/confidential-containers/initdata".into()
}

impl InitdataRules {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (name, path) in [("initdata.devices", &self.devices), ("initdata.folder", &self.folder)] {
            if !path.is_absolute() {
                return Err(field(name, "must be an absolute path"));
            }
        }
        Ok(())
    }
}

/// A parameter of the kernel's command line that the agent reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Parameter {
    Log,
    ServerAddr,
    ImagePullTimeout,
    HttpsProxy,
    NoProxy,
    HotplugTimeout,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BootFile {
    parameters: BTreeSet<Parameter>,
}

impl BootFile {
    /// The parameters that count; told of those that do not.
    pub(super) fn permitted(file: Option<&Self>, given: &KernelParameters) -> KernelParameters {
        let mut kept = given.clone();
        let Some(file) = file else { return kept };
        let no = |parameter| !file.parameters.contains(&parameter);
        let mut dropped = Vec::new();
        let mut drop = |name, there: bool| dropped.extend(there.then_some(name));
        if no(Parameter::Log) {
            drop("log", kept.log_level.take().is_some());
        }
        if no(Parameter::ServerAddr) {
            drop("server_addr", kept.server_addr.take().is_some());
        }
        if no(Parameter::ImagePullTimeout) {
            drop("image_pull_timeout", kept.image_pull_timeout.take().is_some());
        }
        if no(Parameter::HttpsProxy) {
            drop("https_proxy", kept.https_proxy.take().is_some());
        }
        if no(Parameter::NoProxy) {
            drop("no_proxy", !std::mem::take(&mut kept.no_proxy).is_empty());
        }
        if no(Parameter::HotplugTimeout) {
            drop("hotplug_timeout", kept.hotplug_timeout.take().is_some());
        }
        for name in dropped {
            tracing::warn!(parameter = name, "not permitted by the measured configuration: not used");
        }
        kept
    }
}

impl Config {
    /// Applies what the host said on the kernel's command line; `server_addr` is what the environment says of it.
    ///
    /// # Errors
    /// [`BootError::Parameter`]: an address of another kind than the measured one outside development, where it would
    /// let others in.
    pub fn apply(&mut self, parameters: &KernelParameters, server_addr: Option<&str>) -> Result<(), BootError> {
        if let (Some(kata), Some(text)) = (&mut self.kata, server_addr.or(parameters.server_addr.as_deref())) {
            let wrong = |what: &str| BootError::parameter("agent.server_addr", what);
            let address: Address =
                text.parse().map_err(|error: crate::kata::address::AddressError| wrong(&error.to_string()))?;
            let vsock = |address: &Address| matches!(address, Address::Vsock(_));
            let same = vsock(&address) == vsock(&kata.listen);
            if !same && self.environment == protocols::environment::Environment::Production {
                return Err(wrong("must be of the kind that the measured configuration names: vsock or unix"));
            }
            if kata.hybrid_vsock && vsock(&address) {
                return Err(wrong("hybrid vsock is answered on unix sockets only"));
            }
            kata.listen = address;
        }
        if let (Some(kata), Some(time)) = (&mut self.kata, parameters.hotplug_timeout) {
            kata.device_time = time;
        }
        self.device_time = parameters.hotplug_timeout.unwrap_or(self.device_time);
        if let Some(proxy) = &parameters.https_proxy {
            self.registry.proxy = Some(proxy.clone());
        }
        if !parameters.no_proxy.is_empty() && self.registry.proxy.is_some() {
            self.registry.no_proxy.clone_from(&parameters.no_proxy);
        }
        self.pull_time = parameters.image_pull_timeout.or(self.pull_time);
        for name in &parameters.ignored {
            tracing::debug!(%name, "a parameter of another agent");
        }
        Ok(())
    }
}
