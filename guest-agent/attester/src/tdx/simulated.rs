//! A simulated platform behind the two interfaces that a kernel has: configfs-tsm and the measurement registers.
//! Real formats and real cryptography under a root that production refuses.
//!
//! State in `<state dir>/simulated-tdx`, which lasts as long as the simulated boot: `rtmr3` (48 bytes). RTMR0 to
//! RTMR2 are what no firmware extended: zero.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use protocols::digest::Sha384Digest;
use simulated_tee::tdx::{Body, Machine, Params};

use super::measurements::{MRCONFIGID, Measurements, RTMR, RTMR3};
use super::{TdxAttester, TsmFs};
use crate::AttesterError;
use crate::event_log::{DirIo, LogIo as _};
use crate::tsm::{PROVIDER_TDX, Tsm};

const STATE: &str = "simulated-tdx";
const KEPT: &str = "rtmr3";

/// The simulated platform, with one trust domain on it.
#[derive(Debug, Clone)]
pub struct SimulatedTd {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    machine: Machine,
    mr_config_id: [u8; 48],
    /// Locked while the register is read and written.
    state: Mutex<DirIo>,
    /// Reports that were begun, by name: how often each was written to, and its quote.
    reports: Mutex<HashMap<String, (u64, Vec<u8>)>>,
}

impl TdxAttester<SimulatedTd, SimulatedTd> {
    /// A trust domain on the simulated platform of `pki`, in the boot that `state_dir` stands for, launched with the
    /// digest of the file `initdata` as MRCONFIGID. Stamped in the register's facts.
    ///
    /// # Errors
    /// [`AttesterError::Config`] when the platform or the initdata cannot be read,
    /// [`AttesterError::RegisterUnavailable`] when the state cannot.
    pub fn simulated(pki: &Path, initdata: Option<&Path>, state_dir: &Path) -> Result<Self, AttesterError> {
        let machine = Machine::open(pki).map_err(|error| AttesterError::Config { detail: error.to_string() })?;
        let mr_config_id = match initdata {
            Some(path) => *Sha384Digest::of(&AttesterError::configured(path)?).as_bytes(),
            None => [0; 48],
        };
        let state_dir = state_dir.join(STATE);
        let state = DirIo::open(&state_dir)
            .map_err(|error| AttesterError::RegisterUnavailable { detail: format!("simulated state: {error}") })?;
        let inner = Inner { machine, mr_config_id, state: Mutex::new(state), reports: Mutex::default() };
        let td = SimulatedTd { inner: Arc::new(inner) };
        Self::with(Tsm::with(td.clone(), Duration::ZERO), td, &state_dir.join("CCEL"))
    }
}

fn kept(state: &DirIo) -> io::Result<[u8; 48]> {
    let Some(bytes) = state.read(KEPT)? else { return Ok([0; 48]) };
    bytes.try_into().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not 48 bytes"))
}

impl Measurements for SimulatedTd {
    fn simulated(&self) -> bool {
        true
    }

    fn is_present(&self) -> bool {
        true
    }

    fn read(&self, name: &str) -> io::Result<[u8; 48]> {
        match name {
            RTMR3 => kept(&self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)),
            MRCONFIGID => Ok(self.inner.mr_config_id),
            name if RTMR.contains(&name) => Ok([0; 48]),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn extend(&self, name: &str, digest: &[u8; 48]) -> io::Result<()> {
        if name != RTMR3 {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.replace(KEPT, Sha384Digest::of_parts(&[&kept(&state)?, digest]).as_bytes())
    }
}

impl SimulatedTd {
    fn quote(&self, report_data: [u8; 64]) -> io::Result<Vec<u8>> {
        let mut params = Params::new(Body::V5Report15, report_data);
        params.report.rtmr = [[0; 48], [0; 48], [0; 48], self.read_register()?];
        params.report.mr_config_id = self.inner.mr_config_id;
        Ok(self.inner.machine.quote(&params).encode())
    }

    fn read_register(&self) -> io::Result<[u8; 48]> {
        Measurements::read(self, RTMR3)
    }
}

impl TsmFs for SimulatedTd {
    fn is_present(&self) -> bool {
        true
    }

    fn create(&self, name: &str) -> io::Result<()> {
        let mut reports = self.inner.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.insert(name.to_owned(), (0, Vec::new()));
        Ok(())
    }

    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        let report_data = match (attribute, bytes.try_into()) {
            ("inblob", Ok(report_data)) => report_data,
            ("inblob", Err(_)) => return Err(io::ErrorKind::InvalidInput.into()),
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        let quote = self.quote(report_data)?;
        let mut reports = self.inner.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let report = reports.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        *report = (report.0 + 1, quote);
        Ok(())
    }

    fn read(&self, name: &str, attribute: &str) -> io::Result<Vec<u8>> {
        let reports = self.inner.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let (generation, quote) = reports.get(name).ok_or(io::ErrorKind::NotFound)?;
        match attribute {
            "provider" => Ok(format!("{PROVIDER_TDX}\n").into_bytes()),
            "generation" => Ok(format!("{generation}\n").into_bytes()),
            "outblob" => Ok(quote.clone()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut reports = self.inner.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
