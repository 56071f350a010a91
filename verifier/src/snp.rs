//! SEV-SNP attestation reports under pinned AMD (or simulated) roots.

use protocols::environment::Environment;
use protocols::kbs::SnpEvidence;
use protocols::reason::{self, Refusal};
use protocols::time::Timestamp;

/// Component versions of a platform's trusted computing base; each only goes up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcbVersion {
    /// Turin's FMC; `None` on other products.
    pub fmc: Option<u8>,
    /// Boot loader.
    pub bootloader: u8,
    /// PSP operating system.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

/// A certificate of a trusted root could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Not a certificate of the expected form.
    #[error("{certificate}: {what}")]
    Certificate {
        /// `ARK` or `ASK`.
        certificate: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// A trusted AMD Root Key and the signing keys it endorsed.
#[derive(Debug, Clone)]
pub struct TrustedArk {
    _der: Vec<u8>,
}

impl TrustedArk {
    /// Reads PEM: one self-signed ARK, any number of ASKs under it (others are refused), checked here once.
    /// A root whose certificate says `O=SIMULATED` is simulated whatever `simulated` says.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn from_pem(pem: &str, simulated: bool, minimum_tcb: TcbVersion) -> Result<Self, RootError> {
        let _ = (pem, simulated, minimum_tcb);
        Err(RootError::Certificate { certificate: "ARK", what: "unread".to_owned() })
    }
}

/// AMD's own roots: Milan, Genoa, Turin.
///
/// # Errors
/// [`RootError`] never happens for the files built in.
pub fn amd_roots(minimum_tcb: TcbVersion) -> Result<Vec<TrustedArk>, RootError> {
    let _ = minimum_tcb;
    Ok(Vec::new())
}

/// Which launch measurements count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedMeasurement {
    /// Exactly these.
    Listed(Vec<[u8; 48]>),
    /// Any; in development only.
    AnyMeasurement,
}

/// Which reports count. An empty list of roots accepts none.
#[derive(Debug, Clone)]
pub struct SnpPolicy {
    /// Trusted roots.
    pub roots: Vec<TrustedArk>,
    /// Expected launch measurements.
    pub measurements: ExpectedMeasurement,
    /// The judging side's environment.
    pub environment: Environment,
}

/// What a verified report says. Only [`verify_snp`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpClaims {
    version: u32,
    report_id: [u8; 32],
    host_data: [u8; 32],
    measurement: [u8; 48],
    chip_id: [u8; 64],
    policy: u64,
    reported_tcb: TcbVersion,
    simulated: bool,
}

impl SnpClaims {
    /// The report's version, 2 to 5.
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// REPORT_ID: the guest, for as long as it lives.
    #[must_use]
    pub const fn report_id(&self) -> &[u8; 32] {
        &self.report_id
    }

    /// HOST_DATA: SHA-256 of the initdata where there is one, zeros where there is none.
    #[must_use]
    pub const fn host_data(&self) -> &[u8; 32] {
        &self.host_data
    }

    /// The launch measurement.
    #[must_use]
    pub const fn measurement(&self) -> &[u8; 48] {
        &self.measurement
    }

    /// The chip.
    #[must_use]
    pub const fn chip_id(&self) -> &[u8; 64] {
        &self.chip_id
    }

    /// The guest policy's bits.
    #[must_use]
    pub const fn policy(&self) -> u64 {
        self.policy
    }

    /// The TCB the report was signed under.
    #[must_use]
    pub const fn reported_tcb(&self) -> TcbVersion {
        self.reported_tcb
    }

    /// Whether the root is a simulated one.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        self.simulated
    }
}

/// Verifies a report over `report_data` ([`protocols::kbs::report_data`]) at time `now`.
///
/// # Errors
/// `evidence.malformed`, `.chain`, `.signature`, `.nonce`, `.policy`, `policy.environment`.
pub fn verify_snp(
    evidence: &SnpEvidence,
    report_data: &[u8; 64],
    policy: &SnpPolicy,
    now: Timestamp,
) -> Result<SnpClaims, Refusal> {
    let _ = (evidence, report_data, policy, now);
    Err(Refusal::new(reason::EVIDENCE_MALFORMED, "snp evidence", "", ""))
}
