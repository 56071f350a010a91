//! A TPM 2.0 behind a kernel device or swtpm's socket.

use crate::{Attester, AttesterError, RegisterInfo, TpmAddress};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::kbs::Tee;
use protocols::register::{HashAlg, RegisterKind, RegisterValue};

/// A TPM 2.0 behind a kernel device or swtpm's socket.
#[derive(Debug)]
pub struct TpmAttester {}

impl TpmAttester {
    /// Opens it.
    ///
    /// # Errors
    /// [`AttesterError::RegisterUnavailable`], [`AttesterError::Config`].
    pub fn open(address: TpmAddress, pcr: u32) -> Result<Self, AttesterError> {
        let _ = (address, pcr);
        Ok(Self {})
    }
}

impl Attester for TpmAttester {
    fn tee(&self) -> Tee {
        Tee::Tpm
    }

    fn register(&self) -> RegisterInfo {
        RegisterInfo { kind: RegisterKind::TpmListed, mr: 4, alg: HashAlg::Sha256, simulated: true }
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
