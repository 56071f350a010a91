//! SEV-SNP attestation reports under pinned AMD (or simulated) roots.
//!
//! The checks, in their fixed order:
//!
//! | # | code | passes when |
//! |---|---|---|
//! | 1 | `evidence.malformed` | the report is well formed, of version 2 to 5, and names ECDSA P-384 with SHA-384 |
//! | 2 | `evidence.policy` | the report says that a VCEK or a VLEK signed it |
//! | 3 | `evidence.endorsement` | the certificate shown is of that kind |
//! | 4 | `policy.environment` | in production: nothing simulated, neither by its mark nor by its root, and measurements are listed |
//! | 5 | `evidence.chain` | VCEK <- ASK or VLEK <- ASVK <- pinned ARK: names, RSA-PSS-4096 signatures, CA bits, validity at `now` |
//! | 6 | `evidence.crl` | where the root has a revocation list: it is current |
//! | 7 | `evidence.revoked` | and names no certificate of the chain |
//! | 8 | `evidence.signature` | that key signed the report's bytes as they were received |
//! | 9 | `evidence.endorsement` | a VCEK's hardware id is the chip's, a VLEK names its provider and no chip; its TCB is the reported one |
//! | 10 | `evidence.nonce` | report data is what was asked for, all 64 bytes |
//! | 11 | `evidence.vmpl` | it was asked for at the expected privilege level |
//! | 12 | `evidence.debug` | the guest policy allows no debugging |
//! | 13 | `evidence.migration` | nor a migration agent, and there is none |
//! | 14 | `evidence.tcb` | current, reported, committed and launch TCB are at least the root's minimum |
//! | 15 | `evidence.chip` | the chip is listed where policy lists chips; a VLEK's provider is listed |
//! | 16 | `evidence.measurement` | the launch measurement is listed |
//!
//! HOST_DATA is compared with the log's first record, whole, by [`crate::evidence::bind_log`].

mod chain;
mod crl;
mod policy;
mod root;

pub use chain::VerifiedVek;
pub use policy::{AllowedChips, ExpectedMeasurement, SnpPolicy};
pub use protocols::snp::TcbVersion;
pub use root::{Product, RootError, TrustedArk, amd_root, amd_roots};

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use protocols::environment::Environment;
use protocols::kbs::{SnpCertificate, SnpEvidence};
use protocols::reason::{self, Code, Refusal};
use protocols::snp::{Fields, Report, SIG_ALGO_ECDSA_P384_SHA384, SigningKey, SnpError};
use protocols::time::Timestamp;
use subtle::ConstantTimeEq as _;

use crate::hex;
use crate::trace::Trace;

/// What refusals are about.
const SUBJECT: &str = "SNP report";

/// What a verified report says. Only [`verify_snp`] and [`verify_report`] make one:
///
/// ```compile_fail,E0277
/// let forged: verifier::SnpClaims = serde_json::from_str("{}").unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpClaims {
    report: Report,
    provider: Option<String>,
    simulated: bool,
}

impl SnpClaims {
    fn fields(&self) -> &Fields {
        self.report.fields()
    }

    /// The whole report, for claims this type has no name for.
    #[must_use]
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// The report's version, 2 to 5.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.fields().version
    }

    /// REPORT_ID: the guest, for as long as it lives.
    #[must_use]
    pub fn report_id(&self) -> &[u8; 32] {
        &self.fields().report_id
    }

    /// HOST_DATA: SHA-256 of the initdata where there is one, zeros where there is none.
    #[must_use]
    pub fn host_data(&self) -> &[u8; 32] {
        &self.fields().host_data
    }

    /// The launch measurement.
    #[must_use]
    pub fn measurement(&self) -> &[u8; 48] {
        &self.fields().measurement
    }

    /// The chip; zero where the platform masks it.
    #[must_use]
    pub fn chip_id(&self) -> &[u8; 64] {
        &self.fields().chip_id
    }

    /// The guest policy's bits.
    #[must_use]
    pub fn policy(&self) -> u64 {
        self.fields().policy
    }

    /// The TCB the report was signed under.
    #[must_use]
    pub fn reported_tcb(&self) -> TcbVersion {
        self.fields().reported_tcb
    }

    /// CSP_ID of the provider whose VLEK signed; `None`: the chip's own VCEK did.
    #[must_use]
    pub fn provider(&self) -> Option<&str> {
        self.provider.as_deref()
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
/// The module's table.
pub fn verify_snp(
    evidence: &SnpEvidence,
    report_data: &[u8; 64],
    policy: &SnpPolicy,
    now: Timestamp,
    trace: &mut Trace,
) -> Result<SnpClaims, Refusal> {
    let report = read(Report::from_json(&evidence.attestation_report), trace)?;
    let certificates = evidence.cert_chain.as_deref().unwrap_or_default();
    verify_report_and_chain(report, certificates, report_data, policy, now, trace)
}

/// As [`verify_snp`], with the VEK that `vek` finds in the certificates for the kind of key that signed.
pub(crate) fn verify_snp_by(
    evidence: &SnpEvidence,
    report_data: &[u8; 64],
    policy: &SnpPolicy,
    now: Timestamp,
    vek: impl FnOnce(&[SnpCertificate], SigningKey) -> Result<Arc<VerifiedVek>, Refusal>,
) -> Result<SnpClaims, Refusal> {
    let mut unseen = Trace::off();
    let report = read(Report::from_json(&evidence.attestation_report), &mut unseen)?;
    let key = signing_key(&report, &mut unseen)?;
    let vek = vek(evidence.cert_chain.as_deref().unwrap_or_default(), key)?;
    verify_signed(report, key, &vek, report_data, policy, now, &mut unseen)
}

/// As [`verify_snp`], for the report's 1184 bytes and the certificates beside it.
///
/// # Errors
/// The module's table.
pub fn verify_snp_bytes(
    report: &[u8],
    certificates: &[SnpCertificate],
    report_data: &[u8; 64],
    policy: &SnpPolicy,
    now: Timestamp,
    trace: &mut Trace,
) -> Result<SnpClaims, Refusal> {
    let report = read(Report::parse(report), trace)?;
    verify_report_and_chain(report, certificates, report_data, policy, now, trace)
}

fn read(report: Result<Report, SnpError>, trace: &mut Trace) -> Result<Report, Refusal> {
    const EXPECTED: &str = "an SNP attestation report";
    let report = report.map_err(|error| refuse(reason::EVIDENCE_MALFORMED, EXPECTED, error.to_string()));
    trace.outcome(("report", reason::EVIDENCE_MALFORMED), report, |report| {
        (EXPECTED.to_owned(), format!("version {}", report.fields().version))
    })
}

fn verify_report_and_chain(
    report: Report,
    certificates: &[SnpCertificate],
    report_data: &[u8; 64],
    policy: &SnpPolicy,
    now: Timestamp,
    trace: &mut Trace,
) -> Result<SnpClaims, Refusal> {
    let key = signing_key(&report, trace)?;
    let vek = VerifiedVek::verify(certificates, key, policy, now, trace)?;
    verify_signed(report, key, &vek, report_data, policy, now, trace)
}

/// Checks 1 and 2: which kind of key is to have signed.
fn signing_key(report: &Report, trace: &mut Trace) -> Result<SigningKey, Refusal> {
    let fields = report.fields();
    trace.require(
        (SUBJECT, "signature algorithm", reason::EVIDENCE_MALFORMED),
        fields.sig_algo == SIG_ALGO_ECDSA_P384_SHA384,
        || format!("signature algorithm {SIG_ALGO_ECDSA_P384_SHA384}"),
        || fields.sig_algo.to_string(),
    )?;
    let key = fields.signing_key();
    trace.outcome(
        ("signing key", reason::EVIDENCE_POLICY),
        key.ok_or_else(|| refuse(reason::EVIDENCE_POLICY, "signed by VCEK or VLEK", "another or no key")),
        |key| ("VCEK or VLEK".to_owned(), key.as_str().to_owned()),
    )
}

/// Verifies a report under a VEK whose chain was verified before: checks 1, 2 and 6 to 16, with dates and revocations
/// as they are at `now`.
///
/// # Errors
/// The module's table.
pub fn verify_report(
    report: Report,
    vek: &VerifiedVek,
    report_data: &[u8; 64],
    policy: &SnpPolicy,
    now: Timestamp,
    trace: &mut Trace,
) -> Result<SnpClaims, Refusal> {
    let key = signing_key(&report, trace)?;
    verify_signed(report, key, vek, report_data, policy, now, trace)
}

/// Checks 6 to 16 of a report that says it is signed by such a key.
fn verify_signed(
    report: Report,
    key: SigningKey,
    vek: &VerifiedVek,
    report_data: &[u8; 64],
    policy: &SnpPolicy,
    now: Timestamp,
    trace: &mut Trace,
) -> Result<SnpClaims, Refusal> {
    vek.check_current(key, policy, now, trace)?;
    let fields = report.fields();
    let verifies = fields.signature.to_p384().is_some_and(|signature| {
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, vek.point());
        key.verify(report.signed_bytes(), &signature).is_ok()
    });
    trace.require(
        (SUBJECT, "signature", reason::EVIDENCE_SIGNATURE),
        verifies,
        || format!("a report signed by the {}", key.as_str()),
        || (if verifies { "its signature" } else { "a signature that does not verify" }).to_owned(),
    )?;
    vek.check_endorses(&report, trace)?;
    trace.require(
        (SUBJECT, "report data", reason::EVIDENCE_NONCE),
        fields.report_data.ct_eq(report_data).into(),
        || format!("report data {}", hex(report_data)),
        || hex(&fields.report_data),
    )?;
    policy.check(fields, vek, trace)?;
    Ok(SnpClaims { simulated: vek.simulated(), provider: vek.provider().map(str::to_owned), report })
}

/// In production nothing is simulated and every measurement is listed.
fn check_environment(simulated: bool, policy: &SnpPolicy, trace: &mut Trace) -> Result<(), Refusal> {
    let production = policy.environment == Environment::Production;
    trace.require(
        (SUBJECT, "environment", reason::POLICY_ENVIRONMENT),
        !(production && simulated),
        || format!("evidence for {}", policy.environment.as_str()),
        || (if simulated { "SIMULATED evidence" } else { "evidence of real hardware" }).to_owned(),
    )?;
    if production && policy.measurements == ExpectedMeasurement::AnyMeasurement {
        return Err(refuse(reason::POLICY_ENVIRONMENT, "listed measurements", "a policy that accepts any measurement"));
    }
    Ok(())
}

fn refuse(code: Code, expected: impl Into<String>, actual: impl Into<String>) -> Refusal {
    Refusal::new(code, SUBJECT, expected, actual)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
