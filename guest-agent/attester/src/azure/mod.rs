//! A confidential VM on Azure, on SEV-SNP or TDX: the paravisor's vTPM holds the log's register, and its report binds the
//! vTPM's key to the hardware.
//!
//! | what | where |
//! |---|---|
//! | the paravisor's report ([`protocols::hcl`]) | NV index 0x01400001 |
//! | the user data it is made over: our binding, right-padded with zeros | NV index 0x01400002, 64 bytes, made where it is not there |
//! | the attestation key, RSA-2048 | persistent handle 0x81000003 |
//! | the chip's certificate, or the TD quote of the TD report in the paravisor's report | the host's instance metadata service, by HTTP |
//!
//! The paravisor makes a new report some time after the user data was written: it is read again until it shows them.

mod codec;
mod imds;
#[cfg(feature = "azure")]
mod library;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use protocols::azure::{AzureQuote, AzureSnpEvidence, AzureTdxEvidence};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::hcl::{self, Hardware, HclError, HclReport};
use protocols::kbs::Tee;
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use protocols::snp::{REPORT_SIZE, Report, TcbVersion};
use protocols::tdx::{LOCAL_REPORT_SIZE, Quote, parse_local};
use protocols::tpm::{Attest, Public};

use crate::{Attester, AttesterError, RegisterInfo, TpmAddress, TpmAttester};
use codec::Codec;
use imds::Imds;

pub(crate) const NV_REPORT: u32 = 0x0140_0001;
const NV_USER_DATA: u32 = 0x0140_0002;
pub(crate) const AK: u32 = 0x8100_0003;
/// How often the report is looked at while the paravisor renews it.
const RENEWAL_PAUSE: Duration = Duration::from_millis(100);
/// What the quote that tells the guest's identity is over: a value of ours, and of no evidence.
const IDENTITY: &[u8] = b"tcl-azure-identity-v1";

/// The instance metadata service of every Azure VM: link-local, plain HTTP, the host's.
pub const IMDS: &str = "http://169.254.169.254/";

/// How long the platform may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AzureLimits {
    /// From writing the user data to the report that shows them.
    pub renewal: Duration,
    /// One request to the instance metadata service, to its answer's last byte.
    pub service: Duration,
}

impl Default for AzureLimits {
    fn default() -> Self {
        Self { renewal: Duration::from_secs(15), service: Duration::from_secs(10) }
    }
}

/// What is beneath the paravisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AzureTee {
    /// SEV-SNP.
    Snp,
    /// TDX.
    Tdx,
}

/// What is asked of the vTPM.
trait Vtpm: std::fmt::Debug + Send + Sync {
    /// The paravisor's report as it is now.
    fn report(&self) -> Result<Vec<u8>, AttesterError>;
    /// Asks for a report over other user data, which comes some time later.
    fn ask_for(&self, user_data: &[u8; hcl::USER_DATA_SIZE]) -> Result<(), AttesterError>;
    /// A quote of SHA-256 PCRs 0 to 23 by the attestation key.
    fn quote(&self, nonce: &[u8]) -> Result<AzureQuote, AttesterError>;
}

/// A chip at a TCB, and the certificate of its key.
#[derive(Debug)]
struct Vcek {
    chip: ([u8; 64], TcbVersion),
    der: Vec<u8>,
}

/// A confidential VM on Azure.
#[derive(Debug)]
pub struct AzureAttester {
    tee: AzureTee,
    tpm: Arc<TpmAttester>,
    vtpm: Box<dyn Vtpm>,
    imds: Imds,
    limits: AzureLimits,
    // The user data have one place: evidence is made one at a time.
    turn: Mutex<()>,
    // The service limits requests: a certificate is asked for again when the VM has moved or its TCB has.
    vcek: Mutex<Option<Vcek>>,
}

impl AzureAttester {
    /// Reaches the vTPM and checks that the paravisor's report is of `tee` and names its attestation key. `imds` is the address of the
    /// instance metadata service, [`IMDS`] on every real VM; nothing is asked of it yet.
    ///
    /// # Errors
    /// As [`TpmAttester::open`]; [`AttesterError::Config`] for an address that is not plain HTTP;
    /// [`AttesterError::EvidenceUnavailable`] where there is no report, or it is of other hardware or names another key.
    pub fn open(
        tee: AzureTee,
        address: TpmAddress,
        pcr: u32,
        imds: &str,
        limits: AzureLimits,
    ) -> Result<Self, AttesterError> {
        let tpm = Arc::new(TpmAttester::open_persistent(address, AK, pcr)?);
        let vtpm = Box::new(Codec(Arc::clone(&tpm)));
        Self::with(tee, tpm, vtpm, imds, limits)
    }

    /// As [`AzureAttester::open`], with reports and quotes by the TPM library, which opens `/dev/tpm0`. It waits 3 seconds
    /// for every report.
    ///
    /// # Errors
    /// As [`AzureAttester::open`]; [`AttesterError::EvidenceUnavailable`] where the library sees another key than we do.
    #[cfg(feature = "azure")]
    pub fn open_by_library(tee: AzureTee, pcr: u32, imds: &str, limits: AzureLimits) -> Result<Self, AttesterError> {
        let tpm = Arc::new(TpmAttester::open_persistent(library::DEVICE.parse()?, AK, pcr)?);
        let vtpm = Box::new(library::Library::open(Arc::clone(&tpm))?);
        Self::with(tee, tpm, vtpm, imds, limits)
    }

    fn with(
        tee: AzureTee,
        tpm: Arc<TpmAttester>,
        vtpm: Box<dyn Vtpm>,
        imds: &str,
        limits: AzureLimits,
    ) -> Result<Self, AttesterError> {
        let imds = Imds::new(imds, limits.service)?;
        let attester = Self { tee, tpm, vtpm, imds, limits, turn: Mutex::new(()), vcek: Mutex::new(None) };
        let bytes = attester.vtpm.report()?;
        attester.read(&bytes)?;
        Ok(attester)
    }

    /// A well-formed report of the expected hardware that names the vTPM's key.
    fn read<'b>(&self, bytes: &'b [u8]) -> Result<HclReport<'b>, AttesterError> {
        let report = HclReport::parse(bytes).map_err(|error| malformed(&error))?;
        let (modulus, exponent) = report.attestation_key().map_err(|error| malformed(&error))?;
        if !is_key(&self.tpm, modulus, &exponent) {
            return Err(refused(format!("the paravisor's report names another key than the vTPM's at {AK:#x}")));
        }
        let wrong = match (self.tee, report.hardware()) {
            (AzureTee::Snp, Hardware::Snp(_)) | (AzureTee::Tdx, Hardware::Tdx(_)) => return Ok(report),
            (AzureTee::Snp, Hardware::Tdx(_)) => "a TD report: this is not an SNP guest",
            (AzureTee::Tdx, Hardware::Snp(_)) => "an SNP report: this is not a TDX guest",
        };
        Err(refused(format!("the paravisor's report holds {wrong}")))
    }

    /// Writes the user data and waits for the report that shows them.
    fn renewed_report(&self, user_data: &[u8; hcl::USER_DATA_SIZE]) -> Result<Vec<u8>, AttesterError> {
        self.vtpm.ask_for(user_data)?;
        let deadline = Instant::now() + self.limits.renewal;
        loop {
            let bytes = self.vtpm.report()?;
            let shown = HclReport::parse(&bytes).and_then(|report| Ok((report.user_data()?, whole(&report))));
            if shown == Ok((*user_data, true)) {
                return Ok(bytes);
            }
            if Instant::now() >= deadline {
                let waited = self.limits.renewal.as_millis();
                let found = shown.map_or_else(|error| error.to_string(), |_| "other user data".to_owned());
                return Err(refused(format!("the paravisor's report was not renewed within {waited} ms: {found}")));
            }
            sleep(RENEWAL_PAUSE);
        }
    }

    fn vcek(&self, hardware: &[u8; REPORT_SIZE]) -> Result<Vec<u8>, AttesterError> {
        let hardware = Report::parse(hardware).map_err(|error| refused(format!("the paravisor's report: {error}")))?;
        let chip = (hardware.fields().chip_id, hardware.fields().reported_tcb);
        let mut kept = self.vcek.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vcek) = kept.as_ref().filter(|vcek| vcek.chip == chip) {
            return Ok(vcek.der.clone());
        }
        let der = self.imds.vcek()?;
        *kept = Some(Vcek { chip, der: der.clone() });
        Ok(der)
    }

    /// The quote of a TD report, by the machine's quoting enclave.
    fn td_quote(&self, report: &[u8; LOCAL_REPORT_SIZE]) -> Result<Vec<u8>, AttesterError> {
        let told = |error| refused(format!("the paravisor's report: {error}"));
        let local = parse_local(report).map_err(told)?;
        let bytes = self.imds.td_quote(report)?;
        let quote = Quote::parse(&bytes).map_err(|error| refused(format!("the TD quote: {error}")))?;
        if quote.report.report_data != local.report_data {
            return Err(refused("the instance metadata service gave a quote of another TD report".to_owned()));
        }
        Ok(bytes)
    }
}

/// Whether the claims are those under the hardware report: a report that is just being written may be read half.
fn whole(report: &HclReport<'_>) -> bool {
    let expected = report.report_data();
    match report.hardware() {
        Hardware::Snp(bytes) => Report::parse(bytes).is_ok_and(|hardware| hardware.fields().report_data == expected),
        Hardware::Tdx(bytes) => parse_local(bytes).is_ok_and(|hardware| hardware.report_data == expected),
    }
}

/// Whether an RSA key is the vTPM's.
fn is_key(tpm: &TpmAttester, modulus: Vec<u8>, exponent: &[u8]) -> bool {
    let key = Public::Rsassa { modulus, exponent: 0x0001_0001 };
    exponent == [1, 0, 1] && key.to_spki_der().ok().as_deref() == Some(tpm.ak_spki_der())
}

fn refused(detail: String) -> AttesterError {
    AttesterError::EvidenceUnavailable { detail }
}

fn malformed(error: &HclError) -> AttesterError {
    refused(format!("the paravisor's report: {error}"))
}

impl Attester for AzureAttester {
    fn tee(&self) -> Tee {
        match self.tee {
            AzureTee::Snp => Tee::AzSnpVtpm,
            AzureTee::Tdx => Tee::AzTdxVtpm,
        }
    }

    fn register(&self) -> RegisterInfo {
        RegisterInfo { kind: RegisterKind::VtpmHcl, ..self.tpm.register() }
    }

    fn register_start(&self) -> Result<RegisterValue, AttesterError> {
        self.tpm.register_start()
    }

    fn read_register(&self) -> Result<RegisterValue, AttesterError> {
        self.tpm.read_register()
    }

    fn extend(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        self.tpm.extend(digest)
    }

    fn evidence(&self, binding: &Sha384Digest) -> Result<serde_json::Value, AttesterError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut user_data = [0; hcl::USER_DATA_SIZE];
        for (to, from) in user_data.iter_mut().zip(binding.as_bytes()) {
            *to = *from;
        }
        let hcl_report = self.renewed_report(&user_data)?;
        // The quote is last, so that the quoted registers are as new as they can be.
        let quote = || self.vtpm.quote(binding.as_bytes());
        match self.read(&hcl_report)?.hardware() {
            Hardware::Snp(report) => {
                let vcek = self.vcek(report)?;
                Ok(AzureSnpEvidence { version: 2, quote: quote()?, hcl_report, vcek }.to_json())
            }
            Hardware::Tdx(report) => {
                let td_quote = self.td_quote(report)?;
                Ok(AzureTdxEvidence { version: 2, quote: quote()?, hcl_report, td_quote }.to_json())
            }
        }
    }

    /// By a quote, not by the clock: a TPM may obfuscate the reset count in quotes of some keys, and quotes are what is verified.
    fn guest(&self, boot_nonce: &[u8; 32]) -> Result<GuestId, AttesterError> {
        let evidence = self.tpm.quote(Sha256Digest::of(IDENTITY).as_bytes())?;
        let quoted = Attest::parse(&evidence.tpm_quote.message).map_err(|error| refused(error.to_string()))?;
        Ok(GuestId::of_tpm(self.tpm.ak_spki_der(), quoted.clock_info.reset_count, boot_nonce))
    }

    fn boot_pcr(&self, index: u32) -> Result<Option<Sha256Digest>, AttesterError> {
        self.tpm.boot_pcr(index)
    }

    fn initdata_alg(&self) -> HashAlg {
        self.tpm.initdata_alg()
    }

    fn initdata_bound(&self) -> Option<RegisterValue> {
        self.tpm.initdata_bound()
    }

    fn bind_initdata(&self, digest: &RegisterValue) -> Result<(), AttesterError> {
        self.tpm.bind_initdata(digest)
    }
}
