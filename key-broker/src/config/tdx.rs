//! `[tdx]`: closed unless something is named.

use std::path::PathBuf;

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use serde::{Deserialize, Serialize};
use verifier::tdx::{TcbStatus, TdxCollateral, TdxRoot};
use verifier::{TdxMeasurements, TdxPolicy};

use super::{ConfigError, read, real, value};

/// The most collateral files.
const MAX_COLLATERAL: usize = 256;

/// `[tdx]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TdxConfig {
    /// Whether Intel's own root counts.
    pub intel_root: bool,
    /// Trusted roots beside it.
    pub root: Vec<RootConfig>,
    /// Directory of collateral, one JSON file per kind of platform (`*.json`); read at the start.
    pub collateral: Option<PathBuf>,
    /// What is demanded of platform and guest.
    pub require: Demands,
}

/// `[[tdx.root]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootConfig {
    /// PEM: one self-signed certificate.
    pub path: PathBuf,
    /// A simulated root; refused in production.
    #[serde(default)]
    pub simulated: bool,
}

/// `[tdx.require]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Demands {
    /// TCB statuses that count; absent: `UpToDate` alone.
    pub tcb_status: Option<Vec<TcbStatus>>,
    /// Advisories that may be open.
    pub advisories: Vec<String>,
    /// The lowest evaluation data number that counts; required where a root is named.
    pub minimum_evaluation: Option<u32>,
    /// MRTD values that count, 96 hex digits each; absent: any in development, none in production.
    pub mrtd: Option<Vec<String>>,
    /// RTMR0 values, likewise.
    pub rtmr0: Option<Vec<String>>,
    /// RTMR1 values, likewise.
    pub rtmr1: Option<Vec<String>>,
    /// RTMR2 values, likewise.
    pub rtmr2: Option<Vec<String>>,
}

impl TdxConfig {
    /// The policy, and the digests of the roots' certificates. Which collateral there is does not decide: all of it is
    /// signed.
    pub(super) fn policy(&self, environment: Environment) -> Result<(TdxPolicy, Vec<Sha256Digest>), ConfigError> {
        let mut roots = Vec::new();
        if self.intel_root {
            roots.push(TdxRoot::intel().map_err(|error| value("tdx.intel_root", error))?);
        }
        for config in &self.root {
            let pem = read(&config.path)?;
            let root = TdxRoot::from_pem(&pem, config.simulated).map_err(|error| value("tdx.root", error))?;
            real(root.simulated(), environment, "tdx.root", "a simulated root")?;
            roots.push(root);
        }
        let demands = &self.require;
        if !roots.is_empty() && demands.minimum_evaluation.is_none() {
            return Err(value("tdx.require.minimum_evaluation", "must be stated where a root is trusted"));
        }
        let digests = roots.iter().map(|root| Sha256Digest::of(root.der())).collect();
        let expected =
            |field, listed: &Option<Vec<String>>| super::hardware::measurements(listed.as_deref(), environment, field);
        let policy = TdxPolicy {
            roots,
            collateral: self.collateral(environment)?,
            statuses: demands.tcb_status.clone().unwrap_or_else(|| vec![TcbStatus::UpToDate]),
            advisories: demands.advisories.clone(),
            minimum_evaluation: demands.minimum_evaluation.unwrap_or(u32::MAX),
            measurements: TdxMeasurements {
                mr_td: expected("tdx.require.mrtd", &demands.mrtd)?,
                rtmr: [
                    expected("tdx.require.rtmr0", &demands.rtmr0)?,
                    expected("tdx.require.rtmr1", &demands.rtmr1)?,
                    expected("tdx.require.rtmr2", &demands.rtmr2)?,
                ],
            },
            environment,
        };
        Ok((policy, digests))
    }

    fn collateral(&self, environment: Environment) -> Result<Vec<TdxCollateral>, ConfigError> {
        let Some(directory) = &self.collateral else { return Ok(Vec::new()) };
        let named = |error| ConfigError::File { path: directory.clone(), error };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(named)? {
            let path = entry.map_err(named)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            if found.len() == MAX_COLLATERAL {
                return Err(value("tdx.collateral", format!("more than {MAX_COLLATERAL} files")));
            }
            let collateral = TdxCollateral::parse(read(&path)?.as_bytes())
                .map_err(|error| value("tdx.collateral", format!("{}: {error}", path.display())))?;
            let named = || format!("simulated collateral, {},", path.display());
            real(collateral.simulated(), environment, "tdx.collateral", named())?;
            found.push(collateral);
        }
        Ok(found)
    }
}
