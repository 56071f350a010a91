//! SNP reports signed by a simulated chip, with a register kept in software.
//!
//! State in `<state dir>/simulated-snp`, which lasts as long as the simulated boot: `report-id` (32 random
//! bytes) and `register` (48 bytes, the SHA-384 chain).

use std::path::Path;

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::kbs::{self, SnpEvidence, Tee};
use protocols::register::{HashAlg, RegisterValue};
use simulated_tee::{Params, Pki};

use crate::software::SoftwareRegister;
use crate::{Attester, AttesterError, RegisterInfo};

const REPORT_ID: &str = "report-id";

/// Simulated SNP. Real formats and real cryptography under roots that production refuses.
#[derive(Debug)]
pub struct SimulatedSnpAttester {
    pki: Pki,
    initdata: Option<Sha256Digest>,
    report_id: [u8; 32],
    register: SoftwareRegister,
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
        let register = SoftwareRegister::open(&state_dir.join("simulated-snp"))?;
        let report_id = register.drawn_once(REPORT_ID)?;
        Ok(Self { pki, initdata, report_id, register })
    }
}

impl Attester for SimulatedSnpAttester {
    fn tee(&self) -> Tee {
        Tee::Snp
    }

    fn register(&self) -> RegisterInfo {
        SoftwareRegister::info(true)
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
        AttesterError::same_initdata(self.initdata_bound(), digest)
    }
}
