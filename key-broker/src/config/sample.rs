//! `[sample]`: evidence that is none, for trying out clients of the KBS protocol.

use protocols::environment::Environment;
use serde::{Deserialize, Serialize};
use verifier::SamplePolicy;

use super::{ConfigError, real};

/// `[sample]`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleConfig {
    /// Whether `sample` and `sampledevice` evidence counts, stamped simulated; refused in production.
    pub accept: bool,
}

impl SampleConfig {
    pub(super) fn policy(self, environment: Environment) -> Result<SamplePolicy, ConfigError> {
        real(self.accept, environment, "sample.accept", "sample evidence")?;
        Ok(if self.accept { SamplePolicy::Accepted } else { SamplePolicy::Refused })
    }
}
