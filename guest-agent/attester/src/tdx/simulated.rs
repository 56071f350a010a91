//! TDX quotes signed by a simulated platform. State in `<state dir>/simulated-tdx`, which lasts as long as the
//! simulated boot: `rtmr3` (48 bytes). RTMR0 to RTMR2 are what no firmware extended: zero.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::event_log::MR_RTMR3;
use protocols::guest::GuestId;
use protocols::kbs::{self, TdxEvidence, Tee};
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use simulated_tee::tdx::{Body, Machine, Params};

use super::unavailable;
use crate::event_log::{DirIo, LogIo as _};
use crate::{Attester, AttesterError, RegisterInfo};

const RTMR3: &str = "rtmr3";

/// Simulated TDX. Real formats and real cryptography under a root that production refuses.
#[derive(Debug)]
pub struct SimulatedTdxAttester {
    machine: Machine,
    initdata: Option<Sha384Digest>,
    /// Locked while the register is read and written or quoted.
    state: Mutex<DirIo>,
}

impl SimulatedTdxAttester {
    /// Opens the simulated platform of `pki` in the boot that `state_dir` stands for.
    ///
    /// # Errors
    /// [`AttesterError::Config`] when the platform or the initdata cannot be read,
    /// [`AttesterError::RegisterUnavailable`] when the state cannot.
    pub fn open(pki: &Path, initdata: Option<&Path>, state_dir: &Path) -> Result<Self, AttesterError> {
        let config = |detail| AttesterError::Config { detail };
        let machine = Machine::open(pki).map_err(|error| config(error.to_string()))?;
        let read = |path: &Path| std::fs::read(path).map_err(|error| config(format!("{}: {error}", path.display())));
        let initdata = initdata.map(|path| read(path).map(|bytes| Sha384Digest::of(&bytes))).transpose()?;
        let state = DirIo::open(&state_dir.join("simulated-tdx")).map_err(failed)?;
        Ok(Self { machine, initdata, state: Mutex::new(state) })
    }

    fn params(&self, report_data: [u8; 64], rtmr3: &Sha384Digest) -> Params {
        let mut params = Params::new(Body::V5Report15, report_data);
        params.report.rtmr = [[0; 48], [0; 48], [0; 48], *rtmr3.as_bytes()];
        params.report.mr_config_id = self.initdata.map_or([0; 48], |digest| *digest.as_bytes());
        params
    }
}

fn failed(error: std::io::Error) -> AttesterError {
    AttesterError::RegisterUnavailable { detail: format!("simulated state: {error}") }
}

fn read(state: &DirIo) -> Result<Sha384Digest, AttesterError> {
    let Some(bytes) = state.read(RTMR3).map_err(failed)? else { return Ok(Sha384Digest::new([0; 48])) };
    let bytes = bytes
        .try_into()
        .map_err(|_| AttesterError::RegisterUnavailable { detail: "simulated state is malformed: rtmr3".to_owned() })?;
    Ok(Sha384Digest::new(bytes))
}

impl Attester for SimulatedTdxAttester {
    fn tee(&self) -> Tee {
        Tee::Tdx
    }

    fn register(&self) -> RegisterInfo {
        RegisterInfo { kind: RegisterKind::Rtmr, mr: MR_RTMR3, alg: HashAlg::Sha384, simulated: true }
    }

    fn register_start(&self) -> Result<RegisterValue, AttesterError> {
        Ok(HashAlg::Sha384.zero())
    }

    fn read_register(&self) -> Result<RegisterValue, AttesterError> {
        read(&self.state.lock().unwrap_or_else(PoisonError::into_inner)).map(RegisterValue::Sha384)
    }

    fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        let refused = |detail: String| AttesterError::RegisterExtend { detail };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let after = RegisterValue::Sha384(read(&state)?)
            .extend(digest)
            .ok_or_else(|| refused("the digest is not of the register's algorithm".to_owned()))?;
        state.replace(RTMR3, after.as_bytes()).map_err(|error| refused(format!("simulated state: {error}")))
    }

    fn evidence(&self, binding: &Sha384Digest) -> Result<serde_json::Value, AttesterError> {
        let rtmr3 = read(&self.state.lock().unwrap_or_else(PoisonError::into_inner))?;
        let quote = self.machine.quote(&self.params(kbs::report_data(binding), &rtmr3)).encode();
        serde_json::to_value(TdxEvidence { cc_eventlog: None, quote }).map_err(|error| unavailable(error.to_string()))
    }

    fn guest(&self, boot_nonce: &[u8; 32]) -> Result<GuestId, AttesterError> {
        Ok(GuestId::of_tdx(&[[0; 48]; 3], boot_nonce))
    }

    fn boot_pcr(&self, _index: u32) -> Result<Option<Sha256Digest>, AttesterError> {
        Ok(None)
    }

    fn initdata_alg(&self) -> HashAlg {
        HashAlg::Sha384
    }

    fn initdata_bound(&self) -> Option<RegisterValue> {
        self.initdata.map(RegisterValue::Sha384)
    }

    fn bind_initdata(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        AttesterError::same_initdata(self.initdata_bound(), digest)
    }
}
