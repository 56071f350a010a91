//! Evidence in the real formats under simulated roots, made per installation and never committed.
//!
//! The cryptography is the real one; only the roots are not AMD's. Every certificate carries
//! `O="SIMULATED"`, and production configurations refuse them.

use std::path::{Path, PathBuf};

use protocols::snp::{Report, SnpError, TcbVersion};

/// Something simulated could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum SimulatedError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file is not what [`Pki::create`] writes.
    #[error("{path} is not of a simulated installation: {what}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A key or certificate could not be made.
    #[error("simulated roots: {0}")]
    Make(String),
    /// The parameters are no report.
    #[error(transparent)]
    Report(#[from] SnpError),
}

/// Which chip is simulated; part of its VCEK certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chip {
    /// Its id: 64 bytes, of which Turin uses the first 8.
    pub id: [u8; 64],
    /// The TCB its VCEK is made for; with an FMC version on Turin.
    pub tcb: TcbVersion,
}

/// The simulated ARK, ASK and VCEK of one installation.
#[derive(Debug)]
pub struct Pki {}

impl Pki {
    /// Makes new roots in `dir`: `ark.pem`, `ask.pem`, `vcek.pem`, `vcek.key` (0600). A random Milan-like chip.
    ///
    /// # Errors
    /// [`SimulatedError`] when `dir` holds roots already or cannot be written.
    pub fn create(dir: &Path) -> Result<Self, SimulatedError> {
        let _ = dir;
        Err(SimulatedError::Make(String::new()))
    }

    /// Makes new roots for a given chip.
    ///
    /// # Errors
    /// As [`Pki::create`].
    pub fn create_for(dir: &Path, chip: &Chip) -> Result<Self, SimulatedError> {
        let _ = (dir, chip);
        Err(SimulatedError::Make(String::new()))
    }

    /// Reads the roots of `dir`.
    ///
    /// # Errors
    /// [`SimulatedError`] when a file is missing or not what [`Pki::create`] writes.
    pub fn open(dir: &Path) -> Result<Self, SimulatedError> {
        let _ = dir;
        Err(SimulatedError::Make(String::new()))
    }

    /// The ARK's certificate, DER.
    #[must_use]
    pub fn ark_der(&self) -> &[u8] {
        &[]
    }

    /// The ASK's certificate, DER.
    #[must_use]
    pub fn ask_der(&self) -> &[u8] {
        &[]
    }

    /// The VCEK's certificate, DER.
    #[must_use]
    pub fn vcek_der(&self) -> &[u8] {
        &[]
    }

    /// The chip the VCEK names.
    #[must_use]
    pub fn chip(&self) -> &Chip {
        const NONE: Chip =
            Chip { id: [0; 64], tcb: TcbVersion { fmc: None, bootloader: 0, tee: 0, snp: 0, microcode: 0 } };
        &NONE
    }

    /// A report of this chip with `params`, signed by its VCEK.
    ///
    /// # Errors
    /// [`SimulatedError::Report`] when the parameters do not fit each other.
    pub fn report(&self, params: &Params) -> Result<Report, SimulatedError> {
        let _ = params;
        Err(SimulatedError::Make(String::new()))
    }
}

/// What the simulated firmware puts into a report. [`Params::new`] gives a good one; tests change members
/// to make wrong ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Report version, 2 to 5.
    pub version: u32,
    /// What the guest asked to be signed.
    pub report_data: [u8; 64],
    /// Digest of the initdata, or zero.
    pub host_data: [u8; 32],
    /// The guest's identity.
    pub report_id: [u8; 32],
    /// Guest policy bits.
    pub policy: u64,
    /// Privilege level.
    pub vmpl: u32,
    /// Launch measurement.
    pub measurement: [u8; 48],
    /// Current, reported, committed and launch TCB; `None`: the chip's.
    pub tcb: Option<TcbVersion>,
    /// `None`: the chip's.
    pub chip_id: Option<[u8; 64]>,
}

impl Params {
    /// A guest without debugging and migration at VMPL 0, in a report of version 3.
    #[must_use]
    pub const fn new(report_data: [u8; 64], host_data: [u8; 32], report_id: [u8; 32]) -> Self {
        Self {
            version: 3,
            report_data,
            host_data,
            report_id,
            policy: 0x3_0000,
            vmpl: 0,
            measurement: [0x5A; 48],
            tcb: None,
            chip_id: None,
        }
    }
}
