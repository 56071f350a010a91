//! The kernel's two ways to a report.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use crate::AttesterError;
use crate::tsm::{Ask, PROVIDER_SNP, Tsm, TsmFs};

/// What the platform gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The report's bytes.
    pub report: Vec<u8>,
    /// The host's certificate table; empty where it gave none.
    pub certificates: Vec<u8>,
}

/// Where reports come from. Blocking.
pub trait ReportSource: Debug + Send + Sync {
    /// Whether no hardware stands behind it.
    fn simulated(&self) -> bool;

    /// A report over 64 bytes at a privilege level (VMPL).
    ///
    /// # Errors
    /// [`AttesterError::EvidenceUnavailable`].
    fn report(&self, data: &[u8; 64], vmpl: u32) -> Result<Reported, AttesterError>;
}

impl<F: TsmFs> ReportSource for Tsm<F> {
    fn simulated(&self) -> bool {
        false
    }

    fn report(&self, data: &[u8; 64], vmpl: u32) -> Result<Reported, AttesterError> {
        let report = Self::report(self, PROVIDER_SNP, data, Ask { privlevel: Some(vmpl), auxblob: true })?;
        Ok(Reported { report: report.outblob, certificates: report.auxblob.unwrap_or_default() })
    }
}

/// `/dev/sev-guest`.
#[derive(Debug)]
pub struct GuestDevice {
    path: PathBuf,
}

impl GuestDevice {
    /// The device at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl ReportSource for GuestDevice {
    fn simulated(&self) -> bool {
        false
    }

    fn report(&self, data: &[u8; 64], vmpl: u32) -> Result<Reported, AttesterError> {
        let answer = sys::sev_guest::extended_report(&self.path, data, vmpl).map_err(|error| {
            AttesterError::EvidenceUnavailable { detail: format!("{}: {error}", self.path.display()) }
        })?;
        Ok(Reported { report: answer.report, certificates: answer.certificates })
    }
}
