//! `[release]`: which resources are released to whom.

use std::path::PathBuf;

use appraisal::Tier;
use protocols::environment::Environment;
use release::{BUILT_IN, ReleasePolicy};
use serde::{Deserialize, Serialize};

use super::{ConfigError, read, real, value};
use crate::release::Release;

/// `[release]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseConfig {
    /// Rego of package `policy`; absent: the built-in policy, which is closed.
    pub policy: Option<PathBuf>,
    /// Statuses of sessions that the built-in policy releases to; absent: `affirming` alone. `warning` beside it is for
    /// development.
    pub status: Option<Vec<Tier>>,
}

impl ReleaseConfig {
    pub(super) fn release(&self, environment: Environment) -> Result<Release, ConfigError> {
        if self.policy.is_some() && self.status.is_some() {
            return Err(value("release.status", "is for the built-in policy: one of your own decides about statuses"));
        }
        let status = self.status.clone().unwrap_or_else(|| vec![Tier::Affirming]);
        if let Some(tier) = status.iter().find(|tier| !matches!(tier, Tier::Affirming | Tier::Warning)) {
            return Err(value("release.status", format!("no session has the status {}", tier.as_str())));
        }
        real(status.contains(&Tier::Warning), environment, "release.status", Tier::Warning.as_str())?;
        let text = self.policy.as_deref().map_or_else(|| Ok(BUILT_IN.to_owned()), read)?;
        let policy = ReleasePolicy::compile(&text).map_err(|error| value("release.policy", error))?;
        Ok(Release::new(policy, status, environment))
    }
}
