//! SNP reports signed by a simulated chip, with a register kept in software.
//!
//! State in `<state dir>/simulated-snp`, which lasts as long as the simulated boot: `report-id` (32 random
//! bytes) and `register` (48 bytes, the SHA-384 chain).

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::event_log::MR_RTMR3;
use protocols::guest::GuestId;
use protocols::kbs::{self, SnpEvidence, Tee};
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use simulated_tee::{Params, Pki};

use crate::event_log::{DirIo, LogIo as _};
use crate::{Attester, AttesterError, RegisterInfo};

const REPORT_ID: &str = "report-id";
const REGISTER: &str = "register";

/// Simulated SNP. Real formats and real cryptography under roots that production refuses.
#[derive(Debug)]
pub struct SimulatedSnpAttester {
    pki: Pki,
    initdata: Option<Sha256Digest>,
    report_id: [u8; 32],
    /// Locked while the register is read and written.
    state: Mutex<DirIo>,
}

impl SimulatedSnpAttester {
    /// Opens the simulated chip of `pki` in the boot that `state_dir` stands for.
    ///
    /// # Errors
    /// [`AttesterError::Config`] when the roots or the initdata cannot be read,
    /// [`AttesterError::RegisterUnavailable`] when the state cannot.
    pub fn open(pki: &Path, initdata: Option<&Path>, state_dir: &Path) -> Result<Self, AttesterError> {
        let pki = Pki::open(pki).map_err(|error| AttesterError::Config { detail: error.to_string() })?;
        let initdata = initdata
            .map(|path| match std::fs::read(path) {
                Ok(bytes) => Ok(Sha256Digest::of(&bytes)),
                Err(error) => Err(AttesterError::Config { detail: format!("{}: {error}", path.display()) }),
            })
            .transpose()?;
        let state = DirIo::open(&state_dir.join("simulated-snp")).map_err(unavailable)?;
        let report_id = match state.read(REPORT_ID).map_err(unavailable)? {
            Some(bytes) => bytes.try_into().map_err(|_| malformed(REPORT_ID))?,
            None => {
                let mut id = [0; 32];
                getrandom::fill(&mut id).map_err(|error| malformed(&error.to_string()))?;
                state.replace(REPORT_ID, &id).map_err(unavailable)?;
                id
            }
        };
        Ok(Self { pki, initdata, report_id, state: Mutex::new(state) })
    }
}

fn unavailable(error: std::io::Error) -> AttesterError {
    AttesterError::RegisterUnavailable { detail: format!("simulated state: {error}") }
}

fn malformed(what: &str) -> AttesterError {
    AttesterError::RegisterUnavailable { detail: format!("simulated state is malformed: {what}") }
}

fn read(state: &DirIo) -> Result<RegisterValue, AttesterError> {
    match state.read(REGISTER).map_err(unavailable)? {
        Some(bytes) => RegisterValue::from_bytes(HashAlg::Sha384, &bytes).ok_or_else(|| malformed(REGISTER)),
        None => Ok(HashAlg::Sha384.zero()),
    }
}

impl Attester for SimulatedSnpAttester {
    fn tee(&self) -> Tee {
        Tee::Snp
    }

    fn register(&self) -> RegisterInfo {
        RegisterInfo { kind: RegisterKind::Software, mr: MR_RTMR3, alg: HashAlg::Sha384, simulated: true }
    }

    fn register_start(&self) -> Result<RegisterValue, AttesterError> {
        Ok(HashAlg::Sha384.zero())
    }

    fn read_register(&self) -> Result<RegisterValue, AttesterError> {
        read(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        let refused = |detail: String| AttesterError::RegisterExtend { detail };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let after = read(&state)?
            .extend(digest)
            .ok_or_else(|| refused("the digest is not of the register's algorithm".to_owned()))?;
        state.replace(REGISTER, after.as_bytes()).map_err(|error| refused(format!("simulated state: {error}")))
    }

    fn evidence(&self, binding: &Sha384Digest) -> Result<serde_json::Value, AttesterError> {
        let refused = |detail: String| AttesterError::EvidenceUnavailable { detail };
        let host_data = self.initdata.map_or([0; 32], |digest| *digest.as_bytes());
        let params = Params::new(kbs::report_data(binding), host_data, self.report_id);
        let report = self.pki.report(&params).map_err(|error| refused(error.to_string()))?;
        let evidence = SnpEvidence { attestation_report: report.to_json(), cert_chain: Some(self.pki.certificates()) };
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
        self.initdata.map(RegisterValue::Sha256)
    }

    fn bind_initdata(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        let bound = self.initdata_bound();
        if bound == Some(*digest) { Ok(()) } else { Err(AttesterError::initdata(bound, Some(*digest))) }
    }
}
