//! Azure's confidential VMs: a vTPM's quote, whose key the paravisor's hardware report vouches for.
//!
//! The checks, in their fixed order:
//!
//! | # | code | passes when |
//! |---|---|---|
//! | 1 | `evidence.malformed` | the HCL report, the quote and its values are strictly well formed; on TDX the TD report and the TD quote too |
//! | 2 | `evidence.policy` | the hardware report is of the kind that the evidence is called by |
//! | 3 | `evidence.binding` | its report data is SHA-256 of the runtime claims (`var_data`), the rest zero; on TDX the TD quote is of the same TD report |
//! | 4 | as [`crate::snp`] or [`crate::tdx`] | the SNP report passes, at the paravisor's VMPL; the TD quote passes, `SEPT_VE_DISABLE` as policy says |
//! | 5 | `evidence.signature` | the quote is signed by the key that the runtime claims name `HCLAkPub` |
//! | 6 | `evidence.nonce` | extraData is what was asked for |
//! | 7 | `evidence.pcr` | exactly one selection, SHA-256 PCRs 0 to 23, whose digest is that of the values presented |
//! | 8 | `evidence.nonce` | where policy asks for it: the VM's user data is the nonce too, right-padded with zeros |
//!
//! What is trusted beside the hardware is the paravisor, which holds the vTPM: its measurement is the report's.

use protocols::azure::{AzureQuote, AzureSnpEvidence, AzureTdxEvidence};
use protocols::digest::Sha256Digest;
use protocols::hcl::{Hardware, HclError, HclReport, USER_DATA_SIZE};
use protocols::kbs::{SnpCertificate, TdxEvidence};
use protocols::reason::{self, Code, Refusal};
use protocols::snp::Report;
use protocols::tdx::{self, TdReport, TdxError};
use protocols::time::Timestamp;
use protocols::tpm::{PCR_COUNT, Public, Signature};
use subtle::ConstantTimeEq as _;

use crate::hex;
use crate::snp::{SnpClaims, SnpPolicy, verify_snp_bytes};
use crate::tdx::{SeptVe, TdxClaims, TdxPolicy, verify_td};
use crate::tpm::{Quote, TpmClaims};
use crate::trace::Trace;

/// What refusals are about.
const SUBJECT: &str = "Azure vTPM evidence";

/// Whether the hardware report must have been made for the nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserData {
    /// The nonce, right-padded with zeros to 64 bytes, is the VM's user data: the report is as fresh as the quote.
    Nonce,
    /// The report may have been made at any time since the VM started (evidence of versions 0 and 1).
    AnyUserData,
}

/// Which evidence of Azure's VMs on SEV-SNP counts. Without roots none does.
#[derive(Debug, Clone)]
pub struct AzurePolicy {
    /// The hardware reports, whose measurements are the paravisor's.
    pub snp: SnpPolicy,
    /// How fresh they are to be.
    pub user_data: UserData,
}

/// Which evidence of Azure's VMs on TDX counts. Without roots none does.
#[derive(Debug, Clone)]
pub struct AzureTdxPolicy {
    /// The TD quotes, whose MRTD is the paravisor's.
    pub tdx: TdxPolicy,
    /// Azure starts its TDs without `SEPT_VE_DISABLE`: whoever asks for it accepts none of them.
    pub sept_ve: SeptVe,
    /// How fresh they are to be.
    pub user_data: UserData,
}

/// The hardware that vouches for the vTPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AzureHardware {
    /// An SNP report.
    Snp(Box<SnpClaims>),
    /// A TD quote.
    Tdx(Box<TdxClaims>),
}

/// What verified evidence of an Azure VM says. Only this module makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureClaims {
    tpm: TpmClaims,
    hardware: AzureHardware,
    configuration: serde_json::Value,
}

impl AzureClaims {
    /// The vTPM's quote.
    #[must_use]
    pub const fn tpm(&self) -> &TpmClaims {
        &self.tpm
    }

    /// The hardware report.
    #[must_use]
    pub const fn hardware(&self) -> &AzureHardware {
        &self.hardware
    }

    /// What the paravisor says of the VM, such as `secure-boot`.
    #[must_use]
    pub const fn configuration(&self) -> &serde_json::Value {
        &self.configuration
    }

    /// Whether a simulated root vouches for it.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        match &self.hardware {
            AzureHardware::Snp(snp) => snp.simulated(),
            AzureHardware::Tdx(tdx) => tdx.simulated(),
        }
    }
}

/// Verifies evidence of an Azure VM on SEV-SNP over `nonce`, at most 64 bytes: in the KBS protocol all 48 of the
/// runtime data's digest.
///
/// # Errors
/// The module's table.
pub fn verify_azure_snp(
    evidence: &AzureSnpEvidence,
    nonce: &[u8],
    policy: &AzurePolicy,
    now: Timestamp,
    trace: &mut Trace,
) -> Result<AzureClaims, Refusal> {
    let vtpm = Vtpm::read(&evidence.hcl_report, &evidence.quote, trace)?;
    let Hardware::Snp(report) = vtpm.hcl.hardware() else {
        return Err(refuse(reason::EVIDENCE_POLICY, "an SNP report inside", "a TD report"));
    };
    // Before the report is believed, so that what was put in another place is told apart from an old report.
    if let Ok(parsed) = Report::parse(report) {
        vtpm.check_binding(&parsed.fields().report_data, trace)?;
    }
    let vcek = [SnpCertificate { cert_type: "VCEK".to_owned(), data: evidence.vcek.clone() }];
    let snp = verify_snp_bytes(report, &vcek, &vtpm.hcl.report_data(), &policy.snp, now, trace)?;
    let configuration = vtpm.hcl.configuration().clone();
    let tpm = vtpm.verify(nonce, policy.user_data, snp.simulated(), trace)?;
    Ok(AzureClaims { tpm, hardware: AzureHardware::Snp(Box::new(snp)), configuration })
}

/// Verifies evidence of an Azure VM on TDX over `nonce`, as [`verify_azure_snp`].
///
/// # Errors
/// The module's table.
pub fn verify_azure_tdx(
    evidence: &AzureTdxEvidence,
    nonce: &[u8],
    policy: &AzureTdxPolicy,
    now: Timestamp,
    trace: &mut Trace,
) -> Result<AzureClaims, Refusal> {
    let vtpm = Vtpm::of_td(evidence, trace)?;
    let quote = TdxEvidence { cc_eventlog: None, quote: evidence.td_quote.clone() };
    let tdx = verify_td(&quote, &vtpm.hcl.report_data(), &policy.tdx, policy.sept_ve, now, trace)?;
    let configuration = vtpm.hcl.configuration().clone();
    let tpm = vtpm.verify(nonce, policy.user_data, tdx.simulated(), trace)?;
    Ok(AzureClaims { tpm, hardware: AzureHardware::Tdx(Box::new(tdx)), configuration })
}

/// Verifies the parts of evidence of an Azure VM on TDX that need no collateral: the quote under the key that the
/// TD report's data vouches for, and that the TD quote is of the same report. The TD quote's own signature is not
/// looked at, so nothing is believed because of this alone: it gives the quoted PCRs for people to read.
///
/// # Errors
/// The module's table, without its check 4.
pub fn check_azure_tdx_vtpm(
    evidence: &AzureTdxEvidence,
    nonce: &[u8],
    user_data: UserData,
    trace: &mut Trace,
) -> Result<[Sha256Digest; PCR_COUNT], Refusal> {
    let claims = Vtpm::of_td(evidence, trace)?.verify(nonce, user_data, false, trace)?;
    Ok(*claims.pcrs())
}

/// The vTPM's part, the same on either hardware.
struct Vtpm<'e> {
    hcl: HclReport<'e>,
    quote: Quote<'e>,
    ak_spki: Vec<u8>,
}

impl<'e> Vtpm<'e> {
    fn read(hcl_report: &'e [u8], quote: &'e AzureQuote, trace: &mut Trace) -> Result<Self, Refusal> {
        let malformed = |error: HclError| refuse(reason::EVIDENCE_MALFORMED, "an HCL report", error.to_string());
        let read = || {
            let hcl = HclReport::parse(hcl_report).map_err(malformed)?;
            let key = hcl.attestation_key().map_err(malformed)?;
            Ok((hcl, spki(key)?))
        };
        let told = |(hcl, _): &(HclReport<'_>, Vec<u8>)| {
            ("an HCL report".to_owned(), format!("runtime claims of {} bytes", hcl.var_data().len()))
        };
        let (hcl, ak_spki) = trace.outcome(("HCL report", reason::EVIDENCE_MALFORMED), read(), told)?;
        let signature = Ok(Signature::Rsassa(quote.signature.clone()));
        let quote = Quote::read(&quote.message, signature, &quote.pcrs, trace)?;
        Ok(Self { hcl, quote, ak_spki })
    }

    /// Checks 1 to 3 on TDX.
    fn of_td(evidence: &'e AzureTdxEvidence, trace: &mut Trace) -> Result<Self, Refusal> {
        let vtpm = Self::read(&evidence.hcl_report, &evidence.quote, trace)?;
        let Hardware::Tdx(bytes) = vtpm.hcl.hardware() else {
            return Err(refuse(reason::EVIDENCE_POLICY, "a TD report inside", "an SNP report"));
        };
        let malformed =
            |error: TdxError| refuse(reason::EVIDENCE_MALFORMED, "a TD report and its quote", error.to_string());
        let read = || {
            let report = tdx::parse_local(bytes).map_err(malformed)?;
            Ok((report, tdx::Quote::parse(&evidence.td_quote).map_err(malformed)?.report))
        };
        let told = |_: &(TdReport, TdReport)| ("a TD report and its quote".to_owned(), "both".to_owned());
        let (report, quoted) = trace.outcome(("TD report", reason::EVIDENCE_MALFORMED), read(), told)?;
        vtpm.check_binding(&report.report_data, trace)?;
        // A quote over report 1.0 says nothing of what only 1.5 has.
        let report = if quoted.v15.is_none() { TdReport { v15: None, ..report } } else { report };
        trace.require(
            (SUBJECT, "TD quote", reason::EVIDENCE_BINDING),
            report == quoted,
            || format!("a quote of the TD report with MRTD {}", hex(&report.mr_td)),
            || format!("one with MRTD {}, report data {}", hex(&quoted.mr_td), hex(&quoted.report_data)),
        )?;
        Ok(vtpm)
    }

    fn check_binding(&self, report_data: &[u8; 64], trace: &mut Trace) -> Result<(), Refusal> {
        let expected = self.hcl.report_data();
        trace.require(
            (SUBJECT, "runtime claims", reason::EVIDENCE_BINDING),
            report_data.ct_eq(&expected).into(),
            || format!("report data {}", hex(&expected)),
            || hex(report_data),
        )
    }

    /// Verifies the quote under the key that the hardware report vouches for: it must have been verified.
    fn verify(
        self,
        nonce: &[u8],
        user_data: UserData,
        simulated: bool,
        trace: &mut Trace,
    ) -> Result<TpmClaims, Refusal> {
        self.quote.verify(&self.ak_spki, nonce, trace)?;
        if user_data == UserData::Nonce {
            let actual = self.hcl.user_data();
            let actual = actual.map_err(|error| refuse(reason::EVIDENCE_MALFORMED, "user data", error.to_string()))?;
            let mut expected = [0; USER_DATA_SIZE];
            for (to, from) in expected.iter_mut().zip(nonce) {
                *to = *from;
            }
            trace.require(
                (SUBJECT, "user data", reason::EVIDENCE_NONCE),
                nonce.len() <= USER_DATA_SIZE && bool::from(actual.ct_eq(&expected)),
                || format!("user data {}", hex(&expected)),
                || hex(&actual),
            )?;
        }
        Ok(TpmClaims::new(self.quote, self.ak_spki, simulated))
    }
}

/// SPKI DER of the key that the runtime claims name.
fn spki((modulus, exponent): (Vec<u8>, Vec<u8>)) -> Result<Vec<u8>, Refusal> {
    let wrong = |actual: String| refuse(reason::EVIDENCE_MALFORMED, "an RSA-2048 attestation key", actual);
    if modulus.len() != 256 || modulus.first() == Some(&0) {
        return Err(wrong(format!("a modulus of {} bytes", modulus.len())));
    }
    let exponent = match exponent.as_slice() {
        [1, 0, 1] => 0x0001_0001,
        other => return Err(wrong(format!("exponent {}", hex(other)))),
    };
    Public::Rsassa { modulus, exponent }.to_spki_der().map_err(|error| wrong(error.to_string()))
}

fn refuse(code: Code, expected: impl Into<String>, actual: impl Into<String>) -> Refusal {
    Refusal::new(code, SUBJECT, expected, actual)
}

#[cfg(test)]
mod tests;
