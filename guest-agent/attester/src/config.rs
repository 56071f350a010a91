//! The `[attester]` table and the one place where a backend is chosen.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use protocols::environment::Environment;
use serde::Deserialize;

use crate::azure::{AzureLimits, AzureTee, IMDS};
use crate::detect::Detector;
use crate::sev::SevPaths;
use crate::{Attester, AttesterError, AzureAttester, SevAttester, TdxAttester, TpmAttester};

/// The PCR extended by default; it resets only with the platform.
pub const DEFAULT_PCR: u32 = 14;

/// Where a TPM is reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum TpmAddress {
    /// A kernel device: `/dev/tpmrm0` or `/dev/tpm0`.
    Device(PathBuf),
    /// `unix:/path`: swtpm's socket. Simulated.
    Unix(PathBuf),
    /// `tcp:host:port`: swtpm's port. Simulated.
    Tcp(String),
}

impl TpmAddress {
    /// Sockets lead to a simulated TPM.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        !matches!(self, Self::Device(_))
    }
}

impl std::fmt::Display for TpmAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(path) => write!(f, "{}", path.display()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl FromStr for TpmAddress {
    type Err = AttesterError;

    fn from_str(text: &str) -> Result<Self, AttesterError> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.starts_with('/') {
                return Ok(Self::Unix(PathBuf::from(path)));
            }
        } else if let Some(address) = text.strip_prefix("tcp:") {
            let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port != 0)) {
                return Ok(Self::Tcp(address.to_owned()));
            }
        } else if text.starts_with("/dev/") {
            return Ok(Self::Device(PathBuf::from(text)));
        }
        Err(AttesterError::Config { detail: format!("`{text}` is not /dev/…, unix:/path or tcp:host:port") })
    }
}

impl TryFrom<String> for TpmAddress {
    type Error = AttesterError;

    fn try_from(text: String) -> Result<Self, AttesterError> {
        text.parse()
    }
}

/// The `[attester]` table. Strict: an unknown key is refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AttesterConfig {
    /// A TPM 2.0.
    Tpm {
        /// Where it is reached.
        device: TpmAddress,
        /// The PCR that is extended: 0 to 15.
        #[serde(default = "default_pcr")]
        pcr: u32,
    },
    /// A confidential VM on Azure with SEV-SNP: its vTPM, whose key the paravisor's report binds to the hardware.
    AzSnpVtpm {
        /// Where the vTPM is reached.
        device: TpmAddress,
        /// The PCR that is extended: 0 to 15.
        #[serde(default = "default_pcr")]
        pcr: u32,
        /// The instance metadata service, which gives the chip's certificate. Nothing it says is believed.
        #[serde(default = "default_imds")]
        imds: String,
    },
    /// A confidential VM on Azure with TDX, likewise: the metadata service gives the TD quote.
    AzTdxVtpm {
        /// Where the vTPM is reached.
        device: TpmAddress,
        /// The PCR that is extended: 0 to 15.
        #[serde(default = "default_pcr")]
        pcr: u32,
        /// The instance metadata service. Nothing it says is believed.
        #[serde(default = "default_imds")]
        imds: String,
    },
    /// A TDX guest: RTMR3 and configfs-tsm. Linux 6.16 or later.
    Tdx {},
    /// An SNP guest: configfs-tsm (Linux 6.7) or /dev/sev-guest, and a register in software.
    Snp {
        /// The privilege level that reports are asked for at; 0 where no paravisor or SVSM is beneath the guest.
        #[serde(default)]
        vmpl: u32,
    },
    /// SNP reports signed by a simulated chip. Development only.
    SimulatedSnp {
        /// Directory of the installation's simulated roots.
        pki: PathBuf,
        /// A file whose SHA-256 becomes HOST_DATA; absent: HOST_DATA is zero.
        initdata: Option<PathBuf>,
    },
    /// TDX quotes signed by a simulated platform. Development only.
    SimulatedTdx {
        /// Directory of the installation's simulated platform.
        pki: PathBuf,
        /// A file whose SHA-384 becomes MRCONFIGID; absent: MRCONFIGID is zero.
        initdata: Option<PathBuf>,
    },
}

const fn default_pcr() -> u32 {
    DEFAULT_PCR
}

fn default_imds() -> String {
    IMDS.to_owned()
}

impl AttesterConfig {
    /// Whether this names a simulated platform.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        match self {
            Self::Tpm { device, .. } | Self::AzSnpVtpm { device, .. } | Self::AzTdxVtpm { device, .. } => {
                device.simulated()
            }
            Self::Snp { .. } | Self::Tdx {} => false,
            Self::SimulatedSnp { .. } | Self::SimulatedTdx { .. } => true,
        }
    }
}

/// Opens exactly the configured backend. `state_dir` lasts as long as the guest's boot (a tmpfs).
///
/// # Errors
/// [`AttesterError::Environment`] for a simulated platform in production, [`AttesterError::Config`] for a
/// PCR that may not be used, [`AttesterError::RegisterUnavailable`] when the device cannot be reached.
pub fn open(
    config: &AttesterConfig,
    environment: Environment,
    state_dir: &Path,
) -> Result<Arc<dyn Attester>, AttesterError> {
    if config.simulated() && environment == Environment::Production {
        return Err(AttesterError::Environment { what: "a simulated attester in a production configuration" });
    }
    backend(config, state_dir).map_err(|error| error.with_missing(&Detector::missing(config)))
}

fn backend(config: &AttesterConfig, state_dir: &Path) -> Result<Arc<dyn Attester>, AttesterError> {
    Ok(match config {
        AttesterConfig::Tpm { device, pcr } => Arc::new(TpmAttester::open(device.clone(), *pcr)?),
        AttesterConfig::AzSnpVtpm { device, pcr, imds } => {
            Arc::new(AzureAttester::open(AzureTee::Snp, device.clone(), *pcr, imds, AzureLimits::default())?)
        }
        AttesterConfig::AzTdxVtpm { device, pcr, imds } => {
            Arc::new(AzureAttester::open(AzureTee::Tdx, device.clone(), *pcr, imds, AzureLimits::default())?)
        }
        AttesterConfig::Tdx {} => Arc::new(TdxAttester::open()?),
        AttesterConfig::Snp { vmpl } => Arc::new(SevAttester::open(SevPaths::default().source()?, *vmpl, state_dir)?),
        AttesterConfig::SimulatedSnp { pki, initdata } => {
            Arc::new(SevAttester::simulated(pki, initdata.as_deref(), state_dir)?)
        }
        AttesterConfig::SimulatedTdx { pki, initdata } => {
            Arc::new(TdxAttester::simulated(pki, initdata.as_deref(), state_dir)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AttesterConfig, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn the_documented_tables_are_read() {
        let tpm = parse("kind = \"tpm\"\ndevice = \"/dev/tpmrm0\"\npcr = 11").unwrap();
        assert_eq!(tpm, AttesterConfig::Tpm { device: TpmAddress::Device("/dev/tpmrm0".into()), pcr: 11 });
        assert!(!tpm.simulated());
        let socket = parse("kind = \"tpm\"\ndevice = \"unix:/run/swtpm.sock\"").unwrap();
        assert_eq!(socket, AttesterConfig::Tpm { device: TpmAddress::Unix("/run/swtpm.sock".into()), pcr: 14 });
        assert!(socket.simulated());
        let tcp = parse("kind = \"tpm\"\ndevice = \"tcp:127.0.0.1:2321\"").unwrap();
        assert_eq!(tcp, AttesterConfig::Tpm { device: TpmAddress::Tcp("127.0.0.1:2321".to_owned()), pcr: 14 });
        assert!(tcp.simulated());
        let azure = parse("kind = \"az-snp-vtpm\"\ndevice = \"/dev/tpmrm0\"").unwrap();
        let expected =
            AttesterConfig::AzSnpVtpm { device: "/dev/tpmrm0".parse().unwrap(), pcr: 14, imds: IMDS.to_owned() };
        assert_eq!((azure.simulated(), azure), (false, expected));
        let socket = "kind = \"az-snp-vtpm\"\ndevice = \"unix:/run/s\"\npcr = 11\nimds = \"http://127.0.0.1:1/\"";
        assert!(parse(socket).unwrap().simulated());
        let azure = parse("kind = \"az-tdx-vtpm\"\ndevice = \"/dev/tpmrm0\"").unwrap();
        let expected =
            AttesterConfig::AzTdxVtpm { device: "/dev/tpmrm0".parse().unwrap(), pcr: 14, imds: IMDS.to_owned() };
        assert_eq!((azure.simulated(), azure), (false, expected));
        assert!(parse("kind = \"az-tdx-vtpm\"\ndevice = \"unix:/run/s\"").unwrap().simulated());
        let tdx = parse("kind = \"tdx\"").unwrap();
        assert_eq!(tdx, AttesterConfig::Tdx {});
        assert!(!tdx.simulated());
        let simulated = parse("kind = \"simulated-tdx\"\npki = \"/pki\"").unwrap();
        assert_eq!(simulated, AttesterConfig::SimulatedTdx { pki: "/pki".into(), initdata: None });
        assert!(simulated.simulated());
        let real = parse("kind = \"snp\"").unwrap();
        assert_eq!((real.simulated(), real), (false, AttesterConfig::Snp { vmpl: 0 }));
        assert_eq!(parse("kind = \"snp\"\nvmpl = 2").unwrap(), AttesterConfig::Snp { vmpl: 2 });
        let snp = parse("kind = \"simulated-snp\"\npki = \"/pki\"\ninitdata = \"/i.toml\"").unwrap();
        let expected = AttesterConfig::SimulatedSnp { pki: "/pki".into(), initdata: Some("/i.toml".into()) };
        assert_eq!(snp, expected);
        assert!(snp.simulated());
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "kind = \"snp\"\npcr = 14",
            "kind = \"snp\"\nvmpl = -1",
            "kind = \"tpm\"",
            "kind = \"az-snp-vtpm\"",
            "kind = \"az-snp-vtpm\"\ndevice = \"/dev/tpm0\"\nvmpl = 0",
            "kind = \"az-tdx-vtpm\"",
            "device = \"/dev/tpm0\"",
            "kind = \"tpm\"\ndevice = \"/dev/tpm0\"\npki = \"/pki\"",
            "kind = \"tpm\"\ndevice = \"/dev/tpm0\"\npcr = -1",
            "kind = \"tpm\"\ndevice = \"/dev/tpm0\"\npcr = \"14\"",
            "kind = \"tdx\"\npcr = 14",
            "kind = \"simulated-snp\"",
            "kind = \"simulated-snp\"\npki = \"/pki\"\npcr = 14",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_absolute_and_complete() {
        for text in
            ["tpm0", "/tmp/tpm", "unix:", "unix:swtpm.sock", "tcp:2321", "tcp::2321", "tcp:host:0", "tcp:host:x", ""]
        {
            assert!(text.parse::<TpmAddress>().is_err(), "{text}");
        }
        for text in ["/dev/tpm0", "unix:/run/a b", "tcp:[::1]:2321"] {
            assert_eq!(text.parse::<TpmAddress>().unwrap().to_string(), text);
        }
    }
}
