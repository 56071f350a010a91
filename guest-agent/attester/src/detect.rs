//! What of each platform is there, and why one can be used or not. It only looks: a backend is still the one that the
//! configuration names, and nothing here chooses one.

use std::io;
use std::path::{Path, PathBuf};

use protocols::hcl::{self, Hardware, HclReport};
use protocols::kbs::Tee;
use protocols::tpm::{self, EkKind, NvReader};
use serde::Serialize;

use crate::azure::{AK, NV_REPORT};
use crate::sev;
use crate::tdx::{CCEL, MEASUREMENTS, Measurements as _, RTMR3, Sysfs};
use crate::tpm::{DEVICES, Session, TransportError};
use crate::tsm::{self, Configfs, PROVIDER_SNP, PROVIDER_TDX, Tsm, TsmFs};
use crate::{AttesterConfig, DEFAULT_PCR, TpmAddress};

/// The kernel's release.
const OSRELEASE: &str = "/proc/sys/kernel/osrelease";

/// One thing that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub what: &'static str,
    /// Where it was looked for: a path, an NV index, a handle.
    pub place: String,
    /// What was found there, or why nothing.
    pub found: String,
    /// Whether it is as the platform needs it; `None` where the platform can do without.
    pub fits: Option<bool>,
}

/// What was found of one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Platform {
    /// Its name in configurations.
    pub kind: &'static str,
    /// Whether everything that it needs is there.
    pub usable: bool,
    /// Everything that was looked for, in order.
    pub findings: Vec<Finding>,
}

impl Platform {
    fn new(tee: Tee, findings: Vec<Finding>) -> Self {
        let usable = findings.iter().all(|finding| finding.fits != Some(false));
        Self { kind: tee.as_str(), usable, findings }
    }

    /// What is missing, in one line; empty where nothing is.
    #[must_use]
    pub fn missing(&self) -> String {
        let missing = self.findings.iter().filter(|finding| finding.fits == Some(false));
        let told: Vec<String> =
            missing.map(|finding| format!("{} ({}): {}", finding.what, finding.place, finding.found)).collect();
        told.join("; ")
    }
}

/// Looks at one machine.
#[derive(Debug)]
pub struct Detector<F = Configfs> {
    root: PathBuf,
    tsm: Tsm<F>,
    tpm: Option<TpmAddress>,
    ask: bool,
}

impl Detector {
    /// The machine whose file system is beneath `root`, which is `/` but in tests; `tpm` in place of the kernel's devices.
    #[must_use]
    pub fn new(root: &Path, tpm: Option<TpmAddress>) -> Self {
        let tsm = Tsm::new(&beneath(root, tsm::ROOT));
        Self::with(root, tsm, tpm)
    }

    /// What of the platform that a configuration names is missing, without asking a TPM: it may be the one that hangs.
    pub(crate) fn missing(config: &AttesterConfig) -> String {
        let mut detector = Self::new(Path::new("/"), None);
        detector.ask = false;
        let platform = match config {
            AttesterConfig::Tpm { device, .. }
            | AttesterConfig::AzSnpVtpm { device, .. }
            | AttesterConfig::AzTdxVtpm { device, .. } => {
                detector.tpm = Some(device.clone());
                detector.tpm()
            }
            AttesterConfig::Tdx {} => detector.tdx(),
            AttesterConfig::Snp { .. } => detector.snp(),
            AttesterConfig::SimulatedSnp { .. } | AttesterConfig::SimulatedTdx { .. } => return String::new(),
        };
        platform.missing()
    }
}

impl<F: TsmFs> Detector<F> {
    /// With other file operations on configfs.
    #[must_use]
    pub fn with(root: &Path, tsm: Tsm<F>, tpm: Option<TpmAddress>) -> Self {
        Self { root: root.to_owned(), tsm, tpm, ask: true }
    }

    /// Every platform that has a kind of its own.
    #[must_use]
    pub fn all(&self) -> Vec<Platform> {
        let azure = |tee| self.azure(tee);
        vec![self.tpm(), self.snp(), self.tdx(), azure(Tee::AzSnpVtpm), azure(Tee::AzTdxVtpm)]
    }

    fn path(&self, path: &str) -> PathBuf {
        beneath(&self.root, path)
    }

    fn kernel(&self) -> Finding {
        let path = self.path(OSRELEASE);
        told("kernel", &path, read_text(&path))
    }

    /// Where the TPM is: the one named, or the kernel's first device.
    fn address(&self) -> (TpmAddress, Finding) {
        let look = |address: TpmAddress, path: PathBuf| {
            let found = std::fs::metadata(&path).map(|_| "there".to_owned());
            let finding =
                needed("TPM", path.display(), found.map_err(|error| no_such(&error, "no TPM driver or no TPM")));
            (address, finding)
        };
        match &self.tpm {
            Some(TpmAddress::Tcp(address)) => {
                (TpmAddress::Tcp(address.clone()), needed("TPM", address, Ok("named".to_owned())))
            }
            Some(address @ (TpmAddress::Unix(path) | TpmAddress::Device(path))) => look(address.clone(), path.clone()),
            None => {
                let paths = DEVICES.map(|device| self.path(device));
                let [first, _] = &paths;
                let path = paths.iter().find(|path| path.exists()).unwrap_or(first).clone();
                look(TpmAddress::Device(path.clone()), path)
            }
        }
    }

    /// What the TPM answers to `ask`, after where it is.
    fn asked(
        &self,
        findings: &mut Vec<Finding>,
        ask: impl FnOnce(&mut Session, &mut Vec<Finding>) -> Result<(), TransportError>,
    ) {
        let (address, finding) = self.address();
        let there = finding.fits == Some(true);
        findings.push(finding);
        if !there || !self.ask {
            return;
        }
        let answered =
            Session::open(&address).map_err(TransportError::from).and_then(|mut tpm| ask(&mut tpm, findings));
        if let Err(error) = answered {
            findings.push(needed("TPM's answer", address, Err(error.to_string())));
        }
    }

    fn tpm(&self) -> Platform {
        let mut findings = Vec::new();
        self.asked(&mut findings, |tpm, findings| {
            findings.push(register(tpm)?);
            for kind in EkKind::ALL {
                let index = kind.certificate_index();
                let found = tpm.run(&tpm::nv_read_public(index)).map(|public| format!("{} bytes", public.size));
                let found = found.map_err(|error| format!("none, so no enrolment by it: {error}"));
                findings.push(Finding {
                    fits: None,
                    ..needed("endorsement certificate", format!("NV {index:#010x}"), found)
                });
            }
            Ok(())
        });
        Platform::new(Tee::Tpm, findings)
    }

    /// configfs-tsm with the driver `provider`.
    fn reports(&self, provider: &'static str) -> Finding {
        let place = self.path(tsm::ROOT);
        let found = if self.tsm.is_present() {
            match self.tsm.provider() {
                Ok(found) if found == provider => Ok(format!("reports by {found}")),
                Ok(found) => Err(format!("reports by {found}, not by {provider}")),
                Err(error) => Err(error.to_string()),
            }
        } else {
            Err(format!("not there: it needs Linux 6.7 with the guest driver {provider}"))
        };
        needed("configfs-tsm", place.display(), found)
    }

    fn snp(&self) -> Platform {
        let reports = self.reports(PROVIDER_SNP);
        let path = self.path(sev::DEVICE);
        let device = std::fs::metadata(&path).map(|_| "there".to_owned());
        let device = needed(
            "guest device",
            path.display(),
            device.map_err(|error| no_such(&error, "not an SNP guest, or no guest driver")),
        );
        // Where configfs-tsm is there, the device is not looked at; where it is not, the device alone decides.
        let findings = if self.tsm.is_present() {
            vec![self.kernel(), reports, Finding { fits: None, ..device }]
        } else {
            vec![self.kernel(), Finding { fits: None, ..reports }, device]
        };
        Platform::new(Tee::Snp, findings)
    }

    fn tdx(&self) -> Platform {
        let place = self.path(MEASUREMENTS);
        let registers = Sysfs::new(&place);
        let found = if registers.is_present() {
            registers.read(RTMR3).map(|_| "RTMR3 of 48 bytes".to_owned()).map_err(|error| error.to_string())
        } else {
            Err("not there: it needs Linux 6.16 in a TDX guest".to_owned())
        };
        let ccel = self.path(CCEL);
        let size =
            std::fs::metadata(&ccel).map(|table| format!("{} bytes", table.len())).map_err(|error| error.to_string());
        let findings = vec![
            self.kernel(),
            needed("measurement registers", place.display(), found),
            self.reports(PROVIDER_TDX),
            told("firmware's log", &ccel, size),
        ];
        Platform::new(Tee::Tdx, findings)
    }

    fn azure(&self, tee: Tee) -> Platform {
        let mut findings = Vec::new();
        self.asked(&mut findings, |tpm, findings| {
            findings.push(register(tpm)?);
            let report = tpm.nv(NvReader::Owner, NV_REPORT, hcl::MAX_SIZE);
            findings.push(needed("paravisor's report", format!("NV {NV_REPORT:#010x}"), paravisor(report, tee)));
            let key = tpm.run(&tpm::read_public(AK)).map(|_| "there".to_owned());
            findings.push(needed(
                "vTPM's attestation key",
                format!("{AK:#010x}"),
                key.map_err(|error| error.to_string()),
            ));
            Ok(())
        });
        Platform::new(tee, findings)
    }
}

/// The SHA-256 PCR that logs are kept in.
fn register(tpm: &mut Session) -> Result<Finding, TransportError> {
    let value = tpm.pcr(DEFAULT_PCR)?;
    Ok(needed("register", format!("PCR {DEFAULT_PCR}"), Ok(format!("sha256 {}", value.hex()))))
}

/// Whose report it is.
fn paravisor(report: Result<Vec<u8>, TransportError>, tee: Tee) -> Result<String, String> {
    let bytes = report.map_err(|error| format!("none, so not such a VM: {error}"))?;
    let report = HclReport::parse(&bytes).map_err(|error| error.to_string())?;
    let (found, name) = match report.hardware() {
        Hardware::Snp(_) => (Tee::AzSnpVtpm, "an SNP report"),
        Hardware::Tdx(_) => (Tee::AzTdxVtpm, "a TD report"),
    };
    if found == tee { Ok(format!("with {name}")) } else { Err(format!("with {name}: {}", found.as_str())) }
}

fn needed(what: &'static str, place: impl ToString, found: Result<String, String>) -> Finding {
    let fits = Some(found.is_ok());
    Finding { what, place: place.to_string(), found: found.unwrap_or_else(|why| why), fits }
}

fn told(what: &'static str, path: &Path, found: Result<String, String>) -> Finding {
    Finding { fits: None, ..needed(what, path.display(), found) }
}

fn no_such(error: &io::Error, hint: &str) -> String {
    if error.kind() == io::ErrorKind::NotFound { format!("not there: {hint}") } else { error.to_string() }
}

fn read_text(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    Ok(text.trim_end().chars().take(100).collect())
}

/// A path of the machine whose root is `root`.
fn beneath(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests;
