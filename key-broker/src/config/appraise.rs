//! `[appraisal]` and `[reference]`: how verified evidence is graded, and what it is expected to have measured.

use std::collections::BTreeMap;
use std::path::PathBuf;

use appraisal::policy::BUILT_IN;
use appraisal::{AppraisalPolicy, References, reference};
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, read, value};

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

/// `[reference]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceConfig {
    /// `[reference.values]`: expected values in hex by name, such as `"tpm.pcr4" = ["…"]`.
    #[serde(default)]
    pub values: BTreeMap<String, Vec<String>>,
}

impl Config {
    /// What is listed by name, and what is listed per platform.
    pub(super) fn references(&self) -> Result<References, ConfigError> {
        let mut references = References::default();
        let mut add = |name: &str, values: &[String]| {
            values.iter().try_for_each(|text| {
                references.add(name, &text.to_ascii_lowercase()).map_err(|error| value("reference.values", error))
            })
        };
        for (name, values) in &self.reference.values {
            add(name, values)?;
        }
        let demands = &self.tdx.require;
        let azure = self.azure.as_ref().and_then(|azure| azure.measurements.as_ref());
        let listed = [(reference::SNP, self.snp.measurements.as_ref()), (reference::AZURE, azure)];
        let registers = [&demands.mrtd, &demands.rtmr0, &demands.rtmr1, &demands.rtmr2].map(Option::as_ref);
        for (name, values) in listed.into_iter().chain(reference::TDX.into_iter().zip(registers)) {
            add(name, values.map(Vec::as_slice).unwrap_or_default())?;
        }
        Ok(references)
    }
}
