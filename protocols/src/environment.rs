//! Production or development: stated in every configuration, log and token; absent means production.

use serde::{Deserialize, Serialize};

/// Where something may be used. Simulated roots count in development only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Real hardware and real keys. The default everywhere.
    #[default]
    Production,
    /// Simulated roots may be configured; everything made here says so.
    Development,
}

impl Environment {
    /// `production` or `development`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Development => "development",
        }
    }
}

impl std::fmt::Display for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
