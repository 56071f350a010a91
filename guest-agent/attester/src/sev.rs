//! An SEV-SNP guest: reports through configfs-tsm or, on older kernels, `/dev/sev-guest`; a register kept in
//! software, because the hardware has none.

mod simulated;
mod source;

use std::path::{Path, PathBuf};

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::kbs::{self, SnpCertificate, SnpEvidence, Tee};
use protocols::register::{HashAlg, RegisterValue};
use protocols::snp::{Report, read_certificates};

use crate::software::SoftwareRegister;
use crate::tsm::{self, Tsm};
use crate::{Attester, AttesterError, RegisterInfo};
pub use source::{GuestDevice, ReportSource, Reported};

/// The guest driver's device.
pub const DEVICE: &str = "/dev/sev-guest";

/// Where a kernel offers reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SevPaths {
    /// configfs-tsm, [`tsm::ROOT`].
    pub tsm: PathBuf,
    /// [`DEVICE`].
    pub device: PathBuf,
}

impl Default for SevPaths {
    fn default() -> Self {
        Self { tsm: tsm::ROOT.into(), device: DEVICE.into() }
    }
}

impl SevPaths {
    /// The one that is there, the newer interface first: both lead to the same firmware.
    ///
    /// # Errors
    /// [`AttesterError::EvidenceUnavailable`] names both where neither is there.
    pub fn source(&self) -> Result<Box<dyn ReportSource>, AttesterError> {
        let tsm = Tsm::new(&self.tsm);
        if tsm.is_present() {
            return Ok(Box::new(tsm));
        }
        if self.device.exists() {
            return Ok(Box::new(GuestDevice::new(&self.device)));
        }
        let (tsm, device) = (self.tsm.display(), self.device.display());
        let detail = format!("neither {tsm} (Linux 6.7) nor {device} is there: not an SNP guest, or no guest driver");
        Err(AttesterError::EvidenceUnavailable { detail })
    }
}

/// An SNP guest. What its first report says of it holds for as long as it lives.
#[derive(Debug)]
pub struct SevAttester {
    source: Box<dyn ReportSource>,
    vmpl: u32,
    report_id: [u8; 32],
    host_data: [u8; 32],
    register: SoftwareRegister,
}

impl SevAttester {
    /// Asks for a first report, at `vmpl`, to learn the guest's identity and HOST_DATA. The register lies in
    /// `<state dir>/snp` (`simulated-snp` where the source is), which lasts as long as the boot.
    ///
    /// # Errors
    /// [`AttesterError::EvidenceUnavailable`] where the platform gives no report,
    /// [`AttesterError::RegisterUnavailable`] where the state cannot be read.
    pub fn open(source: Box<dyn ReportSource>, vmpl: u32, state_dir: &Path) -> Result<Self, AttesterError> {
        let state = if source.simulated() { simulated::STATE } else { "snp" };
        let register = SoftwareRegister::open(&state_dir.join(state))?;
        // Of no use to anybody else: nothing here is secret, and no binding is of this form.
        let (report, _) = ask(source.as_ref(), &[0; 64], vmpl)?;
        let fields = report.fields();
        let (report_id, host_data) = (fields.report_id, fields.host_data);
        Ok(Self { source, vmpl, report_id, host_data, register })
    }

    fn initdata(&self) -> Option<Sha256Digest> {
        (self.host_data != [0; 32]).then_some(Sha256Digest::new(self.host_data))
    }
}

fn refused(detail: String) -> AttesterError {
    AttesterError::EvidenceUnavailable { detail }
}

/// A report over exactly these bytes at exactly this level, and the host's certificates.
fn ask(source: &dyn ReportSource, data: &[u8; 64], vmpl: u32) -> Result<(Report, Vec<SnpCertificate>), AttesterError> {
    let Reported { report, certificates } = source.report(data, vmpl)?;
    let report = Report::parse(&report).map_err(|error| refused(format!("the platform's report: {error}")))?;
    let fields = report.fields();
    if fields.report_data != *data || fields.vmpl != vmpl {
        return Err(refused("the platform's report is over other data, or from another privilege level".to_owned()));
    }
    let certificates =
        read_certificates(&certificates).map_err(|error| refused(format!("the host's certificates: {error}")))?;
    Ok((report, certificates))
}

impl Attester for SevAttester {
    fn tee(&self) -> Tee {
        Tee::Snp
    }

    fn register(&self) -> RegisterInfo {
        SoftwareRegister::info(self.source.simulated())
    }

    fn register_start(&self) -> Result<RegisterValue, AttesterError> {
        Ok(HashAlg::Sha384.zero())
    }

    fn read_register(&self) -> Result<RegisterValue, AttesterError> {
        self.register.read()
    }

    fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        self.register.extend(digest)
    }

    fn evidence(&self, binding: &Sha384Digest) -> Result<serde_json::Value, AttesterError> {
        let (report, certificates) = ask(self.source.as_ref(), &kbs::report_data(binding), self.vmpl)?;
        let fields = report.fields();
        if (fields.report_id, fields.host_data) != (self.report_id, self.host_data) {
            return Err(refused("the platform's report is of another guest than the first one".to_owned()));
        }
        let cert_chain = (!certificates.is_empty()).then_some(certificates);
        let evidence = SnpEvidence { attestation_report: report.to_json(), cert_chain };
        serde_json::to_value(evidence).map_err(|error| refused(error.to_string()))
    }

    fn guest(&self, _boot_nonce: &[u8; 32]) -> Result<GuestId, AttesterError> {
        Ok(GuestId::new(self.report_id))
    }

    fn boot_pcr(&self, _index: u32) -> Result<Option<Sha256Digest>, AttesterError> {
        Ok(None)
    }

    fn initdata_alg(&self) -> HashAlg {
        HashAlg::Sha256
    }

    fn initdata_bound(&self) -> Option<RegisterValue> {
        self.initdata().map(RegisterValue::Sha256)
    }

    fn bind_initdata(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        AttesterError::same_initdata(self.initdata_bound(), digest)
    }
}
