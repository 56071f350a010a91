//! `[endorsements]`: where certificates of chips and collateral of platforms come from that evidence does not bring.

use std::path::PathBuf;

use endorsements::{Directory, Limits, Service};
use serde::Deserialize;

use super::{ConfigError, value};
use crate::endorse::Endorser;

/// `[endorsements]`. Which of them there are decides nothing: all of it is signed under the roots of `[snp]` and `[tdx]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndorsementsConfig {
    /// The directory they are looked for in first; what the verifier accepted is kept there.
    pub directory: PathBuf,
    /// Address of a service with AMD's paths (KDS); absent: none is asked.
    pub amd: Option<String>,
    /// Address of a service with Intel's paths (PCCS); absent: none is asked.
    pub intel: Option<String>,
}

impl EndorsementsConfig {
    pub(super) fn endorser(&self) -> Result<Endorser, ConfigError> {
        let service = |field, address: &Option<String>| {
            let made = address.as_deref().map(|address| Service::new(address, Limits::default())).transpose();
            made.map_err(|error| value(field, error))
        };
        let directory = Directory::new(&self.directory);
        Ok(Endorser::new(
            directory,
            service("endorsements.amd", &self.amd)?,
            service("endorsements.intel", &self.intel)?,
        ))
    }
}
