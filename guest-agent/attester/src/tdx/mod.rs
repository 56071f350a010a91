//! A TDX guest: RTMR3 as register, quotes as evidence.
//!
//! Registers come from sysfs (Linux 6.16; an older kernel has none and is refused), quotes from configfs-tsm,
//! the firmware's log from the ACPI table CCEL.

mod measurements;
mod simulated;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::encoding;
use protocols::event_log::MR_RTMR3;
use protocols::guest::GuestId;
use protocols::kbs::{self, TdxEvidence, Tee};
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use protocols::tcg_log::{MAX_LOG, TcgLog};
use protocols::tdx::{Quote, trim};

pub use measurements::{FakeMeasurements, Measurements, ROOT as MEASUREMENTS, Sysfs};
pub use simulated::SimulatedTd;

pub(crate) use measurements::RTMR3;
use measurements::{MRCONFIGID, RTMR};

use crate::tsm::{self, Ask, Configfs, PROVIDER_TDX, Tsm, TsmFs};
use crate::{Attester, AttesterError, RegisterInfo};

/// The firmware's log as the kernel hands it on.
pub const CCEL: &str = "/sys/firmware/acpi/tables/data/CCEL";

/// A TDX guest.
#[derive(Debug)]
pub struct TdxAttester<F = Configfs, M = Sysfs> {
    tsm: Tsm<F>,
    registers: M,
    ccel: PathBuf,
    /// MRCONFIGID as it was at the start; `None` where it is zero. It cannot change.
    initdata: Option<Sha384Digest>,
}

impl TdxAttester {
    /// Opens the guest's own registers and report interface.
    ///
    /// # Errors
    /// As [`TdxAttester::with`].
    pub fn open() -> Result<Self, AttesterError> {
        Self::with(Tsm::new(Path::new(tsm::ROOT)), Sysfs::new(Path::new(MEASUREMENTS)), Path::new(CCEL))
    }
}

impl<F: TsmFs, M: Measurements> TdxAttester<F, M> {
    /// A TDX guest behind given interfaces.
    ///
    /// # Errors
    /// [`AttesterError::RegisterUnavailable`] where the kernel shows no registers,
    /// [`AttesterError::EvidenceUnavailable`] where it makes no quotes.
    pub fn with(tsm: Tsm<F>, registers: M, ccel: &Path) -> Result<Self, AttesterError> {
        if !registers.is_present() {
            let detail = "this kernel shows no TDX measurement registers: Linux 6.16 or later does".to_owned();
            return Err(AttesterError::RegisterUnavailable { detail });
        }
        if !tsm.is_present() {
            let detail = "this kernel has no configfs-tsm: Linux 6.7 or later with tdx_guest does".to_owned();
            return Err(AttesterError::EvidenceUnavailable { detail });
        }
        let mut attester = Self { tsm, registers, ccel: ccel.to_owned(), initdata: None };
        attester.register_value()?;
        let config_id = attester.read(MRCONFIGID)?;
        attester.initdata = (config_id != [0; 48]).then(|| Sha384Digest::new(config_id));
        Ok(attester)
    }

    fn read(&self, name: &str) -> Result<[u8; 48], AttesterError> {
        self.registers
            .read(name)
            .map_err(|error| AttesterError::RegisterUnavailable { detail: format!("{name}: {error}") })
    }

    fn register_value(&self) -> Result<RegisterValue, AttesterError> {
        Ok(RegisterValue::Sha384(Sha384Digest::new(self.read(RTMR3)?)))
    }

    /// The firmware's log where there is one; it only explains registers, and nothing trusts it.
    fn firmware_log(&self) -> Result<Option<String>, AttesterError> {
        let failed = |error: std::io::Error| unavailable(format!("{}: {error}", self.ccel.display()));
        let file = match std::fs::File::open(&self.ccel) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let limit = u64::try_from(MAX_LOG).map_or(u64::MAX, |limit| limit + 1);
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
        match TcgLog::parse(&bytes) {
            // The table is mostly padding.
            Ok(log) => Ok(Some(encoding::b64(&log.encode()))),
            Err(error) => {
                tracing::warn!(path = %self.ccel.display(), %error, "the firmware's log is not shown");
                Ok(None)
            }
        }
    }
}

const fn unavailable(detail: String) -> AttesterError {
    AttesterError::EvidenceUnavailable { detail }
}

impl<F: TsmFs, M: Measurements> Attester for TdxAttester<F, M> {
    fn tee(&self) -> Tee {
        Tee::Tdx
    }

    fn register(&self) -> RegisterInfo {
        RegisterInfo {
            kind: RegisterKind::Rtmr,
            mr: MR_RTMR3,
            alg: HashAlg::Sha384,
            simulated: self.registers.simulated(),
        }
    }

    fn register_start(&self) -> Result<RegisterValue, AttesterError> {
        Ok(HashAlg::Sha384.zero())
    }

    fn read_register(&self) -> Result<RegisterValue, AttesterError> {
        self.register_value()
    }

    fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        let refused = |detail: String| AttesterError::RegisterExtend { detail };
        let RegisterValue::Sha384(written) = digest else {
            return Err(refused("the digest is not of the register's algorithm".to_owned()));
        };
        let before = self.register_value()?;
        self.registers.extend(RTMR3, written.as_bytes()).map_err(|error| refused(format!("{RTMR3}: {error}")))?;
        let (after, expected) = (self.register_value()?, before.extend(digest));
        if Some(after) == expected {
            return Ok(());
        }
        Err(refused(format!("RTMR3 reads {after} after the extend, which does not follow from {before}")))
    }

    fn evidence(&self, binding: &Sha384Digest) -> Result<serde_json::Value, AttesterError> {
        let report_data = kbs::report_data(binding);
        let report = self.tsm.report(PROVIDER_TDX, &report_data, Ask::default())?;
        // Hosts may hand out whole pages.
        let bytes = trim(&report.outblob).map_err(|error| unavailable(format!("the quote: {error}")))?;
        let quote = Quote::parse(bytes).map_err(|error| unavailable(format!("the quote: {error}")))?;
        if quote.report.report_data != report_data {
            return Err(unavailable("the quote is over other data than asked for".to_owned()));
        }
        let evidence = TdxEvidence { cc_eventlog: self.firmware_log()?, quote: bytes.to_vec() };
        serde_json::to_value(evidence).map_err(|error| unavailable(error.to_string()))
    }

    fn guest(&self, boot_nonce: &[u8; 32]) -> Result<GuestId, AttesterError> {
        let [firmware, loader, kernel] = RTMR;
        Ok(GuestId::of_tdx(&[self.read(firmware)?, self.read(loader)?, self.read(kernel)?], boot_nonce))
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
