//! `[snp]`: whose hardware reports count, and what they must say.

use std::path::PathBuf;

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use serde::{Deserialize, Serialize};
use verifier::snp::{Product, TcbVersion, amd_root};
use verifier::{AllowedChips, ExpectedMeasurement, SnpPolicy, TrustedArk};

use super::{ConfigError, read, read_bytes, real, value};

/// `[snp]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpConfig {
    /// AMD's own products that count, each with the lowest firmware versions; none named trusts none.
    #[serde(default)]
    pub amd: AmdConfig,
    /// Other trusted roots.
    #[serde(default)]
    pub root: Vec<ArkConfig>,
    /// Launch measurements that count, 96 hex digits each; absent: any in development, none in production.
    pub measurements: Option<Vec<String>>,
    /// The lowest firmware versions that count under `root`.
    pub minimum_tcb: Option<TcbConfig>,
    /// The privilege level that reports must come from.
    #[serde(default)]
    pub vmpl: u32,
    /// Chips that count, 128 hex digits each; absent: every chip that the roots vouch for.
    pub chips: Option<Vec<String>>,
    /// CSP_IDs of providers whose VLEKs count; only chips' own VCEKs otherwise.
    #[serde(default)]
    pub providers: Vec<String>,
}

/// `[snp.amd.milan]`, `[snp.amd.genoa]`, `[snp.amd.turin]`: AMD's roots, which are built in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmdConfig {
    /// EPYC 7003.
    pub milan: Option<ProductConfig>,
    /// EPYC 9004.
    pub genoa: Option<ProductConfig>,
    /// EPYC 9005.
    pub turin: Option<ProductConfig>,
}

/// One product of AMD's.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductConfig {
    /// The lowest firmware versions that count.
    pub minimum_tcb: TcbConfig,
    /// The product's revocation list as AMD serves it, DER; with it every report needs it to be current.
    pub crl: Option<PathBuf>,
}

/// `[[snp.root]]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArkConfig {
    /// PEM: one ARK and the ASKs or ASVKs under it.
    pub path: PathBuf,
    /// A simulated root; refused in production.
    #[serde(default)]
    pub simulated: bool,
    /// The root's revocation list, DER; with it every report needs it to be current.
    pub crl: Option<PathBuf>,
}

/// `[snp.minimum_tcb]`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbConfig {
    /// Turin's FMC.
    pub fmc: Option<u8>,
    /// Boot loader.
    pub bootloader: u8,
    /// PSP operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl From<TcbConfig> for TcbVersion {
    fn from(TcbConfig { fmc, bootloader, tee, snp, microcode }: TcbConfig) -> Self {
        Self { fmc, bootloader, tee, snp, microcode }
    }
}

impl SnpConfig {
    /// The policy, and the digest of every file it was read from.
    pub(super) fn policy(&self, environment: Environment) -> Result<(SnpPolicy, Vec<Sha256Digest>), ConfigError> {
        let mut anchors = Vec::new();
        let mut roots = Vec::new();
        let amd =
            [(Product::Milan, &self.amd.milan), (Product::Genoa, &self.amd.genoa), (Product::Turin, &self.amd.turin)];
        for (product, config) in amd {
            let Some(config) = config else { continue };
            let root = amd_root(product, config.minimum_tcb.into()).map_err(|error| value("snp.amd", error))?;
            roots.push(with_crl(root, config.crl.as_ref(), &mut anchors)?);
        }
        let minimum = self.minimum_tcb.map_or_else(TcbVersion::default, Into::into);
        for config in &self.root {
            let pem = read(&config.path)?;
            anchors.push(Sha256Digest::of(pem.as_bytes()));
            let root =
                TrustedArk::from_pem(&pem, config.simulated, minimum).map_err(|error| value("snp.root", error))?;
            real(root.simulated(), environment, "snp.root", "a simulated root")?;
            roots.push(with_crl(root, config.crl.as_ref(), &mut anchors)?);
        }
        let chips = match &self.chips {
            None => AllowedChips::AnyChip,
            Some(listed) => {
                AllowedChips::Listed(listed.iter().map(|text| bytes(text, "snp.chips")).collect::<Result<_, _>>()?)
            }
        };
        let policy = SnpPolicy {
            roots,
            measurements: measurements(self.measurements.as_deref(), environment, "snp.measurements")?,
            vmpl: self.vmpl,
            chips,
            providers: self.providers.clone(),
            environment,
        };
        Ok((policy, anchors))
    }
}

fn with_crl(
    root: TrustedArk,
    crl: Option<&PathBuf>,
    anchors: &mut Vec<Sha256Digest>,
) -> Result<TrustedArk, ConfigError> {
    let Some(path) = crl else { return Ok(root) };
    let der = read_bytes(path)?;
    anchors.push(Sha256Digest::of(&der));
    root.with_crl(&der).map_err(|error| value("snp crl", format!("{}: {error}", path.display())))
}

pub(super) fn measurements(
    listed: Option<&[String]>,
    environment: Environment,
    field: &'static str,
) -> Result<ExpectedMeasurement, ConfigError> {
    match (listed, environment) {
        (None, Environment::Development) => Ok(ExpectedMeasurement::AnyMeasurement),
        (None, Environment::Production) => Ok(ExpectedMeasurement::Listed(Vec::new())),
        (Some(listed), _) => {
            Ok(ExpectedMeasurement::Listed(listed.iter().map(|text| bytes(text, field)).collect::<Result<_, _>>()?))
        }
    }
}

fn bytes<const N: usize>(text: &str, field: &'static str) -> Result<[u8; N], ConfigError> {
    let mut out = [0u8; N];
    hex::decode_to_slice(text, &mut out).map_err(|_| value(field, format!("not {} hex digits", N * 2)))?;
    Ok(out)
}
