//! `[policy] mode`: whether policy refuses.

use serde::{Deserialize, Serialize};

/// Whether policy refuses or is only watched. Signatures, digests, nonces and evidence are checked either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// It refuses.
    #[default]
    Enforce,
    /// What it would refuse is recorded and served all the same; tokens and verdicts say so. For development.
    Observe,
}
