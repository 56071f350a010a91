//! A simulated chip as a source of reports. Real formats and real cryptography under roots that production refuses.
//!
//! State in `<state dir>/simulated-snp`, which lasts as long as the simulated boot: `report-id` (32 random bytes),
//! beside the register that every SNP guest keeps in software.

use std::path::Path;

use protocols::digest::Sha256Digest;
use protocols::snp::write_certificates;
use simulated_tee::{Params, Pki};

use super::{ReportSource, Reported, SevAttester, refused};
use crate::AttesterError;
use crate::event_log::{DirIo, LogIo as _};

/// Where the simulated boot's state lies.
pub(super) const STATE: &str = "simulated-snp";
const REPORT_ID: &str = "report-id";

/// The simulated chip, with one guest on it.
#[derive(Debug)]
pub(super) struct SimulatedChip {
    pki: Pki,
    host_data: [u8; 32],
    report_id: [u8; 32],
}

impl SimulatedChip {
    fn open(pki: &Path, initdata: Option<&Path>, state_dir: &Path) -> Result<Self, AttesterError> {
        let pki = Pki::open(pki).map_err(|error| AttesterError::Config { detail: error.to_string() })?;
        let host_data = match initdata {
            Some(path) => *Sha256Digest::of(&AttesterError::configured(path)?).as_bytes(),
            None => [0; 32],
        };
        Ok(Self { pki, host_data, report_id: drawn_once(&state_dir.join(STATE))? })
    }
}

impl ReportSource for SimulatedChip {
    fn simulated(&self) -> bool {
        true
    }

    fn report(&self, data: &[u8; 64], vmpl: u32) -> Result<Reported, AttesterError> {
        let params = Params { vmpl, ..Params::new(*data, self.host_data, self.report_id) };
        let report = self.pki.report(&params).map_err(|error| refused(error.to_string()))?;
        Ok(Reported { report: report.to_bytes().to_vec(), certificates: write_certificates(&self.pki.certificates()) })
    }
}

impl SevAttester {
    /// A guest on the simulated chip of `pki`, in the boot that `state_dir` stands for, launched with the digest of
    /// the file `initdata` as HOST_DATA. Stamped in the register's facts.
    ///
    /// # Errors
    /// [`AttesterError::Config`] when the roots or the initdata cannot be read,
    /// [`AttesterError::RegisterUnavailable`] when the state cannot.
    pub fn simulated(pki: &Path, initdata: Option<&Path>, state_dir: &Path) -> Result<Self, AttesterError> {
        Self::open(Box::new(SimulatedChip::open(pki, initdata, state_dir)?), 0, state_dir)
    }
}

/// 32 bytes that are drawn once per boot.
fn drawn_once(directory: &Path) -> Result<[u8; 32], AttesterError> {
    let failed = |detail: String| AttesterError::RegisterUnavailable { detail: format!("{REPORT_ID}: {detail}") };
    let state = DirIo::open(directory).map_err(|error| failed(error.to_string()))?;
    if let Some(bytes) = state.read(REPORT_ID).map_err(|error| failed(error.to_string()))? {
        return bytes.try_into().map_err(|_| failed("not 32 bytes".to_owned()));
    }
    let mut drawn = [0; 32];
    getrandom::fill(&mut drawn).map_err(|error| failed(error.to_string()))?;
    state.replace(REPORT_ID, &drawn).map_err(|error| failed(error.to_string()))?;
    Ok(drawn)
}
