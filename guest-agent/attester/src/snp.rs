//! SNP reports signed by a simulated chip, with a register kept in software.

use std::path::Path;

use crate::{Attester, AttesterError, RegisterInfo};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::kbs::Tee;
use protocols::register::{HashAlg, RegisterKind, RegisterValue};

/// SNP reports signed by a simulated chip, with a register kept in software.
#[derive(Debug)]
pub struct SimulatedSnpAttester {}

impl SimulatedSnpAttester {
    /// Opens it.
    ///
    /// # Errors
    /// [`AttesterError::RegisterUnavailable`], [`AttesterError::Config`].
    pub fn open(pki: &Path, initdata: Option<&Path>, state_dir: &Path) -> Result<Self, AttesterError> {
        let _ = (pki, initdata, state_dir);
        Ok(Self {})
    }
}

impl Attester for SimulatedSnpAttester {
    fn tee(&self) -> Tee {
        Tee::Snp
    }

    fn register(&self) -> RegisterInfo {
        RegisterInfo { kind: RegisterKind::Software, mr: 4, alg: HashAlg::Sha384, simulated: true }
    }

    fn register_start(&self) -> Result<RegisterValue, AttesterError> {
        Err(AttesterError::Full)
    }

    fn read_register(&self) -> Result<RegisterValue, AttesterError> {
        Err(AttesterError::Full)
    }

    fn extend(&self, _: &RegisterValue) -> Result<(), AttesterError> {
        Err(AttesterError::Full)
    }

    fn evidence(&self, _: &Sha384Digest) -> Result<serde_json::Value, AttesterError> {
        Err(AttesterError::Full)
    }

    fn guest(&self, _: &[u8; 32]) -> Result<GuestId, AttesterError> {
        Err(AttesterError::Full)
    }

    fn boot_pcr(&self, _: u32) -> Result<Option<Sha256Digest>, AttesterError> {
        Ok(None)
    }

    fn initdata_bound(&self) -> Option<Sha256Digest> {
        None
    }
}
