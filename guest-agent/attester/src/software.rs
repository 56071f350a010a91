//! A register kept by the agent itself, for platforms that have none: a SHA-384 chain in a file that lasts as
//! long as the guest's boot.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use protocols::event_log::MR_RTMR3;
use protocols::register::{HashAlg, RegisterKind, RegisterValue};

use crate::event_log::{DirIo, LogIo as _};
use crate::{AttesterError, RegisterInfo};

const REGISTER: &str = "register";

/// The chain. Extended by one process, whose threads queue here.
#[derive(Debug)]
pub(crate) struct SoftwareRegister {
    state: Mutex<DirIo>,
}

impl SoftwareRegister {
    /// Opens the register that `directory` holds, or begins one at zero.
    pub(crate) fn open(directory: &Path) -> Result<Self, AttesterError> {
        Ok(Self { state: Mutex::new(DirIo::open(directory).map_err(|error| unavailable(&error))?) })
    }

    pub(crate) const fn info(simulated: bool) -> RegisterInfo {
        RegisterInfo { kind: RegisterKind::Software, mr: MR_RTMR3, alg: HashAlg::Sha384, simulated }
    }

    pub(crate) fn read(&self) -> Result<RegisterValue, AttesterError> {
        read(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        let refused = |detail: String| AttesterError::RegisterExtend { detail };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let after = read(&state)?
            .extend(digest)
            .ok_or_else(|| refused("the digest is not of the register's algorithm".to_owned()))?;
        state.replace(REGISTER, after.as_bytes()).map_err(|error| refused(format!("software register: {error}")))
    }
}

fn read(state: &DirIo) -> Result<RegisterValue, AttesterError> {
    match state.read(REGISTER).map_err(|error| unavailable(&error))? {
        Some(bytes) => RegisterValue::from_bytes(HashAlg::Sha384, &bytes).ok_or_else(|| malformed(REGISTER)),
        None => Ok(HashAlg::Sha384.zero()),
    }
}

fn unavailable(error: &std::io::Error) -> AttesterError {
    AttesterError::RegisterUnavailable { detail: format!("software register: {error}") }
}

fn malformed(what: &str) -> AttesterError {
    AttesterError::RegisterUnavailable { detail: format!("software register is malformed: {what}") }
}
