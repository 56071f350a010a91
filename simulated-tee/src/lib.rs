//! Evidence in the real formats under simulated roots, made per installation and never committed.
//!
//! The cryptography is the real one; only the roots are neither AMD's nor Intel's. Every certificate carries
//! `O=SIMULATED`, and production configurations refuse them.
//!
//! A directory holds one installation: `ark.pem`, `ask.pem`, `vcek.pem` (X.509) and `vcek.key`
//! (PKCS#8 PEM, mode 0600). The ARK's and ASK's private keys are used once and dropped.

mod azure;
mod certificates;
mod files;
pub mod tdx;

use std::path::{Path, PathBuf};

pub use azure::{AzureVm, VtpmQuote, claims_data, claims_for, paravisor_report, paravisor_td_report};

use p384::ecdsa::SigningKey;
use p384::ecdsa::signature::Signer as _;
use protocols::kbs::SnpCertificate;
use protocols::snp::{
    Fields, FirmwareVersion, Generation, Report, SIG_ALGO_ECDSA_P384_SHA384, Signature, SigningKey as VekKind,
    SnpError, TcbVersion,
};

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
    /// The chip's id and TCB do not fit one generation.
    #[error("the simulated chip: {0}")]
    Chip(&'static str),
    /// A key or certificate could not be made.
    #[error("the simulated roots could not be made: {0}")]
    Make(String),
    /// The parameters are no report.
    #[error(transparent)]
    Report(#[from] SnpError),
}

/// Which chip is simulated; stated by its VCEK's or VLEK's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chip {
    /// Its id: 64 bytes, of which Turin uses the first 8; zero, as masked, with a provider.
    pub id: [u8; 64],
    /// The TCB its VCEK or VLEK is made for; with an FMC version on Turin, without on Milan.
    pub tcb: TcbVersion,
    /// CSP_ID of a provider: its VLEK signs, not the chip's VCEK.
    pub provider: Option<String>,
}

impl Chip {
    /// A Milan chip with a random id.
    ///
    /// # Errors
    /// [`SimulatedError::Make`] when the system gives no randomness.
    pub fn random() -> Result<Self, SimulatedError> {
        let mut id = [0; 64];
        files::random(&mut id)?;
        let tcb = TcbVersion { fmc: None, bootloader: 4, tee: 0, snp: 24, microcode: 219 };
        Ok(Self { id, tcb, provider: None })
    }

    /// A Turin chip with a random id.
    ///
    /// # Errors
    /// As [`Chip::random`].
    pub fn random_turin() -> Result<Self, SimulatedError> {
        let mut id = [0; 64];
        if let Some(used) = id.first_chunk_mut::<8>() {
            files::random(used)?;
        }
        let tcb = TcbVersion { fmc: Some(1), bootloader: 1, tee: 1, snp: 4, microcode: 75 };
        Ok(Self { id, tcb, provider: None })
    }

    /// The same kind of chip at a provider, whose VLEK signs; the chip's id is masked.
    #[must_use]
    pub fn of_provider(self, csp_id: &str) -> Self {
        Self { id: [0; 64], tcb: self.tcb, provider: Some(csp_id.to_owned()) }
    }

    fn generation(&self) -> Result<Generation, SimulatedError> {
        if let Some(provider) = &self.provider {
            if self.id != [0; 64] || provider.is_empty() || !provider.is_ascii() {
                return Err(SimulatedError::Chip("a provider has a name in ASCII and masks the chip's id"));
            }
            return Ok(if self.tcb.fmc.is_some() { Generation::Turin } else { Generation::Legacy });
        }
        match (Generation::of_chip_id(&self.id), self.tcb.fmc) {
            (Some(Generation::Legacy), None) => Ok(Generation::Legacy),
            (Some(Generation::Turin), Some(_)) => Ok(Generation::Turin),
            (None, _) => Err(SimulatedError::Chip("its id is zero")),
            _ => Err(SimulatedError::Chip("only Turin has an id of 8 bytes and an FMC version")),
        }
    }
}

/// The simulated ARK, ASK and VCEK of one installation.
pub struct Pki {
    ark: Vec<u8>,
    ask: Vec<u8>,
    vcek: Vec<u8>,
    key: SigningKey,
    chip: Chip,
    generation: Generation,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pki").field("chip", &self.chip).finish_non_exhaustive()
    }
}

impl Pki {
    /// Makes new roots in `dir` for [`Chip::random`]. Takes seconds: two RSA-4096 keys are made.
    ///
    /// # Errors
    /// [`SimulatedError`] when `dir` holds roots already or cannot be written.
    pub fn create(dir: &Path) -> Result<Self, SimulatedError> {
        Self::create_for(dir, &Chip::random()?)
    }

    /// Makes new roots for a given chip.
    ///
    /// # Errors
    /// As [`Pki::create`]; [`SimulatedError::Chip`] when the chip fits no generation.
    pub fn create_for(dir: &Path, chip: &Chip) -> Result<Self, SimulatedError> {
        let generation = chip.generation()?;
        files::refuse_existing(dir)?;
        let made = certificates::make(chip, generation)?;
        files::write(dir, &made)?;
        Ok(Self { ark: made.ark, ask: made.ask, vcek: made.vcek, key: made.key, chip: chip.clone(), generation })
    }

    /// Reads the roots of `dir`.
    ///
    /// # Errors
    /// [`SimulatedError`] when a file is missing or not what [`Pki::create`] writes.
    pub fn open(dir: &Path) -> Result<Self, SimulatedError> {
        let (made, chip) = files::read(dir)?;
        let generation = chip.generation()?;
        Ok(Self { ark: made.ark, ask: made.ask, vcek: made.vcek, key: made.key, chip, generation })
    }

    /// The ARK's certificate, DER: RSA-4096, signed by itself.
    #[must_use]
    pub fn ark_der(&self) -> &[u8] {
        &self.ark
    }

    /// The ASK's certificate (the ASVK's with a provider), DER: RSA-4096, signed by the ARK.
    #[must_use]
    pub fn ask_der(&self) -> &[u8] {
        &self.ask
    }

    /// The VCEK's certificate (the VLEK's with a provider), DER: ECDSA P-384, signed by the ASK (ASVK).
    #[must_use]
    pub fn vcek_der(&self) -> &[u8] {
        &self.vcek
    }

    /// What the VEK is: `VCEK`, or `VLEK` with a provider.
    #[must_use]
    pub const fn vek_kind(&self) -> VekKind {
        if self.chip.provider.is_some() { VekKind::Vlek } else { VekKind::Vcek }
    }

    /// The certificate table that goes with a report: the VEK and its issuer.
    #[must_use]
    pub fn certificates(&self) -> Vec<SnpCertificate> {
        let entry = |kind: &str, der: &[u8]| SnpCertificate { cert_type: kind.to_owned(), data: der.to_vec() };
        vec![entry(self.vek_kind().as_str(), &self.vcek), entry("ASK", &self.ask)]
    }

    /// The chip the VCEK names.
    #[must_use]
    pub const fn chip(&self) -> &Chip {
        &self.chip
    }

    /// A report of this chip with `params`, signed by its VCEK.
    ///
    /// # Errors
    /// [`SimulatedError::Report`] when the parameters do not fit each other.
    pub fn report(&self, params: &Params) -> Result<Report, SimulatedError> {
        self.sign(self.fields(params))
    }

    /// The fields of the report that [`Pki::report`] signs.
    #[must_use]
    pub fn fields(&self, params: &Params) -> Fields {
        let tcb = params.tcb.unwrap_or(self.chip.tcb);
        let firmware = FirmwareVersion { major: 1, minor: 55, build: 21 };
        let (family, model) = match self.generation {
            Generation::Legacy => (0x19, 0x01),
            Generation::Turin => (0x1A, 0x02),
        };
        let from_3 = params.version >= 3;
        let from_5 = params.version >= 5;
        Fields {
            version: params.version,
            guest_svn: 0,
            policy: params.policy,
            family_id: [0; 16],
            image_id: [0; 16],
            vmpl: params.vmpl,
            sig_algo: SIG_ALGO_ECDSA_P384_SHA384,
            current_tcb: tcb,
            plat_info: 1,
            key_info: match self.vek_kind() {
                VekKind::Vcek => 0,
                VekKind::Vlek => 1 << 2,
            },
            report_data: params.report_data,
            measurement: params.measurement,
            host_data: params.host_data,
            id_key_digest: [0; 48],
            author_key_digest: [0; 48],
            report_id: params.report_id,
            report_id_ma: [0xFF; 32],
            reported_tcb: tcb,
            cpuid_fam_id: from_3.then_some(family),
            cpuid_mod_id: from_3.then_some(model),
            cpuid_step: from_3.then_some(1),
            chip_id: params.chip_id.unwrap_or(self.chip.id),
            committed_tcb: tcb,
            current: firmware,
            committed: firmware,
            launch_tcb: tcb,
            launch_mit_vector: from_5.then_some(0),
            current_mit_vector: from_5.then_some(0),
            signature: Signature::ZERO,
        }
    }

    /// Signs any fields with the VCEK; for reports that no chip would make.
    ///
    /// # Errors
    /// [`SimulatedError::Report`] when the fields do not fit each other.
    pub fn sign(&self, mut fields: Fields) -> Result<Report, SimulatedError> {
        let unsigned = Report::new(fields.clone())?;
        let signature: p384::ecdsa::Signature = self.key.sign(unsigned.signed_bytes());
        let (r, s) = signature.split_bytes();
        fields.signature = Signature::from_p384(&r.into(), &s.into());
        Ok(Report::new(fields)?)
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
            // SMT allowed, and the bit that must be one.
            policy: 0x3_0000,
            vmpl: 0,
            measurement: [0x5A; 48],
            tcb: None,
            chip_id: None,
        }
    }
}
