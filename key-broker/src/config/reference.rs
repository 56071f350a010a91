//! `[reference]`: what verified evidence is expected to have measured, listed here or in signed documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use protocols::environment::Environment;
use reference_values::{CheckedReferences, References, SignerConfig, Signers, Trust, highest, names};
use serde::Deserialize;

use super::{AzureTdxConfig, Config, ConfigError, read_bytes, real, value};

/// The most files of signed documents.
const MAX_FILES: usize = 256;

/// `[reference]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReferenceConfig {
    /// `[reference.values]`: expected values in hex by name, such as `"tpm.pcr4" = ["…"]`.
    pub values: BTreeMap<String, Vec<String>>,
    /// Files of signed documents.
    pub files: Vec<PathBuf>,
    /// A directory of them: every file in it whose name does not begin with a dot.
    pub dir: Option<PathBuf>,
    /// Files that may be unsigned; refused in production.
    pub unsigned: Vec<PathBuf>,
    /// `[[reference.signer]]`: who may sign the rest.
    pub signer: Vec<SignerConfig>,
}

impl ReferenceConfig {
    /// Reads every file, and gives the highest version of every series.
    pub(super) fn documents(&self, environment: Environment) -> Result<Vec<CheckedReferences>, ConfigError> {
        let signers = Signers::new(&self.signer).map_err(|error| value("reference.signer", error))?;
        let named = self.unsigned.first();
        real(named.is_some(), environment, "reference.unsigned", named.map_or("", |_| "an unsigned file"))?;
        let mut paths: BTreeSet<PathBuf> = self.files.iter().chain(&self.unsigned).cloned().collect();
        if let Some(dir) = &self.dir {
            paths.extend(listed(dir)?);
        }
        if paths.len() > MAX_FILES {
            return Err(value("reference", format!("{} files, at most {MAX_FILES}", paths.len())));
        }
        let mut checked = Vec::with_capacity(paths.len());
        for path in &paths {
            let trust = Trust { signers: &signers, environment, unsigned: self.unsigned.contains(path) };
            let name = path.display().to_string();
            checked.extend(reference_values::read(&name, &read_bytes(path)?, &trust).map_err(refused)?);
        }
        highest(checked).map_err(refused)
    }
}

fn refused(refusal: protocols::reason::Refusal) -> ConfigError {
    ConfigError::Refused(Box::new(refusal.by(protocols::reason::Source::Attestor)))
}

/// Files of a directory; links are followed, since mounted configuration consists of them.
fn listed(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |error| ConfigError::File { path: dir.to_owned(), error };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() {
            paths.push(path);
        }
        if paths.len() > MAX_FILES {
            return Err(value("reference.dir", format!("more than {MAX_FILES} files")));
        }
    }
    Ok(paths)
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
        let listed = [(names::SNP, self.snp.measurements.as_ref()), (names::AZURE, azure)];
        let registers = [&demands.mrtd, &demands.rtmr0, &demands.rtmr1, &demands.rtmr2].map(Option::as_ref);
        let azure_tdx = self.azure.as_ref().and_then(|azure| azure.tdx.as_ref());
        let azure_tdx = azure_tdx.map_or([None; 4], AzureTdxConfig::lists);
        let tds = names::TDX.into_iter().zip(registers).chain(names::AZURE_TDX.into_iter().zip(azure_tdx));
        for (name, values) in listed.into_iter().chain(tds) {
            add(name, values.map(Vec::as_slice).unwrap_or_default())?;
        }
        Ok(references)
    }
}
