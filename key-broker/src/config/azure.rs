//! `[azure]`: confidential VMs on Azure, under the roots of `[snp]` and `[tdx]`.

use protocols::environment::Environment;
use serde::{Deserialize, Serialize};
use verifier::{
    AzurePolicy, AzureTdxPolicy, ExpectedMeasurement, SeptVe, SnpPolicy, TdxMeasurements, TdxPolicy, UserData,
};

use super::ConfigError;
use super::hardware::measurements;

/// `[azure]`: VMs on SEV-SNP under the roots of `[snp]`, and, where `tdx` is there, on TDX.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureConfig {
    /// The paravisor's measurements on SEV-SNP that count, 96 hex digits each; absent: any in development, none in
    /// production.
    pub measurements: Option<Vec<String>>,
    /// VMs on TDX; absent: none counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tdx: Option<AzureTdxConfig>,
}

/// `[azure.tdx]`: VMs on TDX under the roots of `[tdx]`, with its collateral and the statuses, advisories and evaluation
/// data number of `[tdx.require]`. The measurements are the paravisor's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AzureTdxConfig {
    /// Whether the TD must have been started with `SEPT_VE_DISABLE`. Azure starts its TDs without: `true` accepts none of
    /// them, `false` trusts the paravisor with pages that the host takes away. There is no default.
    pub sept_ve_disable: bool,
    /// MRTD values that count, 96 hex digits each; absent: any in development, none in production.
    pub mrtd: Option<Vec<String>>,
    /// RTMR0 values, likewise.
    pub rtmr0: Option<Vec<String>>,
    /// RTMR1 values, likewise.
    pub rtmr1: Option<Vec<String>>,
    /// RTMR2 values, likewise.
    pub rtmr2: Option<Vec<String>>,
}

impl AzureTdxConfig {
    /// MRTD and RTMR0 to RTMR2.
    pub(super) const fn lists(&self) -> [Option<&Vec<String>>; 4] {
        [self.mrtd.as_ref(), self.rtmr0.as_ref(), self.rtmr1.as_ref(), self.rtmr2.as_ref()]
    }
}

/// On SEV-SNP. Without `[azure]` nobody vouches for anything.
pub(super) fn snp_policy(
    config: Option<&AzureConfig>,
    snp: &SnpPolicy,
    environment: Environment,
) -> Result<AzurePolicy, ConfigError> {
    let (roots, listed) = match config {
        None => (Vec::new(), Some([].as_slice())),
        Some(config) => (snp.roots.clone(), config.measurements.as_deref()),
    };
    let measurements = measurements(listed, environment, "azure.measurements")?;
    Ok(AzurePolicy { snp: SnpPolicy { roots, measurements, vmpl: 0, ..snp.clone() }, user_data: UserData::Nonce })
}

/// On TDX. Without `[azure.tdx]` nobody vouches for anything.
pub(super) fn tdx_policy(
    config: Option<&AzureConfig>,
    tdx: &TdxPolicy,
    environment: Environment,
) -> Result<AzureTdxPolicy, ConfigError> {
    let Some(config) = config.and_then(|config| config.tdx.as_ref()) else {
        let none = || ExpectedMeasurement::Listed(Vec::new());
        let nobody = TdxPolicy {
            roots: Vec::new(),
            collateral: Vec::new(),
            measurements: TdxMeasurements { mr_td: none(), rtmr: [none(), none(), none()] },
            ..tdx.clone()
        };
        return Ok(AzureTdxPolicy { tdx: nobody, sept_ve: SeptVe::Required, user_data: UserData::Nonce });
    };
    let [mrtd, rtmr0, rtmr1, rtmr2] = config.lists();
    let expected = |field, listed: Option<&Vec<String>>| measurements(listed.map(Vec::as_slice), environment, field);
    let measurements = TdxMeasurements {
        mr_td: expected("azure.tdx.mrtd", mrtd)?,
        rtmr: [
            expected("azure.tdx.rtmr0", rtmr0)?,
            expected("azure.tdx.rtmr1", rtmr1)?,
            expected("azure.tdx.rtmr2", rtmr2)?,
        ],
    };
    let sept_ve = if config.sept_ve_disable { SeptVe::Required } else { SeptVe::NotRequired };
    Ok(AzureTdxPolicy { tdx: TdxPolicy { measurements, ..tdx.clone() }, sept_ve, user_data: UserData::Nonce })
}
