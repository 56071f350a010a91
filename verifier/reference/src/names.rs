//! Reference values: what verified evidence is expected to have measured, by name.
//!
//! | name | bytes | compared with |
//! |---|---|---|
//! | `snp.measurement` | 48 | an SNP guest's launch measurement |
//! | `azure.measurement` | 48 | the paravisor's launch measurement of an Azure VM on SEV-SNP |
//! | `azure.tdx.mrtd`, `azure.tdx.rtmr0` to `azure.tdx.rtmr2` | 48 | MRTD and registers of an Azure VM on TDX: the paravisor's |
//! | `tdx.mrtd`, `tdx.rtmr0` to `tdx.rtmr2` | 48 | MRTD and the boot's registers |
//! | `tpm.pcr0` to `tpm.pcr23` | 32 | a TPM's or vTPM's SHA-256 PCRs |

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize};

/// An SNP guest's launch measurement.
pub const SNP: &str = "snp.measurement";
/// The measurement of an Azure VM's paravisor on SEV-SNP.
pub const AZURE: &str = "azure.measurement";
/// MRTD and RTMR0 to RTMR2.
pub const TDX: [&str; 4] = ["tdx.mrtd", "tdx.rtmr0", "tdx.rtmr1", "tdx.rtmr2"];
/// The same of an Azure VM on TDX, where the paravisor is what the hardware measures.
pub const AZURE_TDX: [&str; 4] = ["azure.tdx.mrtd", "azure.tdx.rtmr0", "azure.tdx.rtmr1", "azure.tdx.rtmr2"];
/// How many PCRs are quoted.
const PCRS: u32 = 24;

/// The name of a PCR.
#[must_use]
pub fn pcr(number: u32) -> String {
    format!("tpm.pcr{number}")
}

/// A name, and the value that evidence showed under it in lower-case hex.
pub type Measured = (String, String);

/// The digest size in bytes that values of this name have; `None`: no such name.
#[must_use]
pub fn size(name: &str) -> Option<usize> {
    if name == SNP || name == AZURE || TDX.contains(&name) || AZURE_TDX.contains(&name) {
        return Some(48);
    }
    let number: u32 = name.strip_prefix("tpm.pcr")?.parse().ok()?;
    (number < PCRS && pcr(number) == name).then_some(32)
}

/// A value that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// No evidence has a measurement of this name.
    #[error("{0}: not the name of a reference value")]
    Name(String),
    /// Not as long as values of the name are.
    #[error("{name}: a value is not {size} bytes of lower-case hex")]
    Value {
        /// The name.
        name: String,
        /// How long its values are.
        size: usize,
    },
}

/// Values by name, in lower-case hex. What is not named is expected to be nothing in particular.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct References(BTreeMap<String, BTreeSet<String>>);

impl References {
    /// Adds one value.
    ///
    /// # Errors
    /// [`ReferenceError`]; nothing was added.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), ReferenceError> {
        let shown = || name.chars().take(64).collect::<String>();
        let size = size(name).ok_or_else(|| ReferenceError::Name(shown()))?;
        let hex = value.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !hex || value.len() != size * 2 {
            return Err(ReferenceError::Value { name: shown(), size });
        }
        self.0.entry(name.to_owned()).or_default().insert(value.to_owned());
        Ok(())
    }

    /// Adds what another list has.
    pub fn extend(&mut self, more: &Self) {
        for (name, values) in &more.0 {
            self.0.entry(name.clone()).or_default().extend(values.iter().cloned());
        }
    }

    /// The values of one name, in lower-case hex.
    pub fn of(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// The values by name.
    #[must_use]
    pub const fn values(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.0
    }
}

impl<'de> Deserialize<'de> for References {
    /// Every name is one, has a value, and has values of its size.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut references = Self::default();
        for (name, values) in BTreeMap::<String, Vec<String>>::deserialize(deserializer)? {
            if values.is_empty() {
                return Err(serde::de::Error::custom("a name without a value"));
            }
            for value in values {
                references.add(&name, &value).map_err(serde::de::Error::custom)?;
            }
        }
        Ok(references)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_nothing_is_compared_with_or_a_cut_value_is_refused() {
        let mut references = References::default();
        references.add(SNP, &"ab".repeat(48)).unwrap();
        references.add("tpm.pcr23", &"ab".repeat(32)).unwrap();
        for (name, value) in [
            ("snp.measurment", "ab".repeat(48)),
            ("tpm.pcr24", "ab".repeat(32)),
            ("tpm.pcr04", "ab".repeat(32)),
            ("tpm.pcr+4", "ab".repeat(32)),
            (SNP, "ab".repeat(32)),
            (SNP, "AB".repeat(48)),
            ("tdx.mrtd", "é".repeat(48)),
        ] {
            references.add(name, &value).unwrap_err();
        }
        assert_eq!(references.values().len(), 2);
    }
}
