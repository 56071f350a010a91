//! `[appraisal]`: how verified evidence is graded.

use std::path::PathBuf;

use appraisal::AppraisalPolicy;
use appraisal::policy::BUILT_IN;
use serde::{Deserialize, Serialize};

use super::{ConfigError, read, value};

/// `[appraisal]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppraisalConfig {
    /// Rego of package `appraisal`; absent: the built-in policy, which is closed.
    pub policy: Option<PathBuf>,
}

impl AppraisalConfig {
    pub(super) fn policy(&self) -> Result<AppraisalPolicy, ConfigError> {
        let text = self.policy.as_deref().map_or_else(|| Ok(BUILT_IN.to_owned()), read)?;
        AppraisalPolicy::compile(&text).map_err(|error| value("appraisal.policy", error))
    }
}
