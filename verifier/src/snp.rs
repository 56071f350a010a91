//! SEV-SNP attestation reports under pinned AMD (or simulated) roots.
//!
//! The checks, in their fixed order:
//!
//! | # | code | passes when |
//! |---|---|---|
//! | 1 | `evidence.malformed` | the report is well formed, of version 2 to 5, and names ECDSA P-384 with SHA-384 |
//! | 2 | `policy.environment` | in production: nothing simulated, neither by its mark nor by its root, and measurements are listed |
//! | 3 | `evidence.chain` | VCEK <- ASK <- pinned ARK: names, RSA-PSS-4096 signatures, CA bits, validity at `now` |
//! | 4 | `evidence.signature` | the VCEK signed the report's bytes |
//! | 5 | `evidence.chain` | the VCEK's hardware id and TCB are the report's |
//! | 6 | `evidence.nonce` | report data is what was asked for, all 64 bytes |
//! | 7 | `evidence.policy` | signed by the VCEK, VMPL 0, no debugging, no migration agent, every TCB at least the root's minimum, an expected measurement |

mod chain;
mod root;

pub use protocols::snp::TcbVersion;
pub use root::{RootError, TrustedArk, amd_roots};

use protocols::environment::Environment;
use protocols::kbs::SnpEvidence;
use protocols::reason::{self, Code, Refusal};
use protocols::snp::{Fields, POLICY_DEBUG, POLICY_MIGRATE_MA, Report, SIG_ALGO_ECDSA_P384_SHA384};
use protocols::time::Timestamp;
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use subtle::ConstantTimeEq as _;

use crate::hex;
use chain::Chain;

/// What refusals are about.
const SUBJECT: &str = "SNP report";

/// Which launch measurements count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedMeasurement {
    /// Exactly these; none listed accepts none.
    Listed(Vec<[u8; 48]>),
    /// Any; in development only.
    AnyMeasurement,
}

/// Which reports count. An empty list of roots accepts none.
#[derive(Debug, Clone)]
pub struct SnpPolicy {
    /// Trusted roots, each with its product's minimum TCB.
    pub roots: Vec<TrustedArk>,
    /// Expected launch measurements.
    pub measurements: ExpectedMeasurement,
    /// The judging side's environment.
    pub environment: Environment,
}

/// What a verified report says. Only [`verify_snp`] makes one:
///
/// ```compile_fail,E0277
/// let forged: verifier::SnpClaims = serde_json::from_str("{}").unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpClaims {
    report: Report,
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

    /// The chip.
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

    /// Whether the root is a simulated one.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        self.simulated
    }
}

/// Verifies a report over `report_data` ([`protocols::kbs::report_data`]) at time `now`.
///
/// # Errors
/// `evidence.malformed`, `.chain`, `.signature`, `.nonce`, `.policy`, `policy.environment`; see the module's table.
pub fn verify_snp(
    evidence: &SnpEvidence,
    report_data: &[u8; 64],
    policy: &SnpPolicy,
    now: Timestamp,
) -> Result<SnpClaims, Refusal> {
    let report = Report::from_json(&evidence.attestation_report)
        .map_err(|error| refuse(reason::EVIDENCE_MALFORMED, "an SNP attestation report", error.to_string()))?;
    let fields = report.fields();
    if fields.sig_algo != SIG_ALGO_ECDSA_P384_SHA384 {
        let expected = format!("signature algorithm {SIG_ALGO_ECDSA_P384_SHA384}");
        return Err(refuse(reason::EVIDENCE_MALFORMED, expected, fields.sig_algo.to_string()));
    }
    let chain = Chain::of(evidence.cert_chain.as_deref().unwrap_or_default(), &policy.roots)?;
    let production = policy.environment == Environment::Production;
    if production && chain.is_simulated() {
        return Err(refuse(reason::POLICY_ENVIRONMENT, "evidence of real hardware", "SIMULATED evidence"));
    }
    if production && policy.measurements == ExpectedMeasurement::AnyMeasurement {
        return Err(refuse(reason::POLICY_ENVIRONMENT, "listed measurements", "a policy that accepts any measurement"));
    }
    let root = chain.verify(now)?;
    let signature = fields.signature.to_p384();
    let signed = signature.is_some_and(|signature| {
        let key = UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, chain.vcek_point());
        key.verify(report.signed_bytes(), &signature).is_ok()
    });
    if !signed {
        let actual = "a signature that does not verify";
        return Err(refuse(reason::EVIDENCE_SIGNATURE, "a report signed by the VCEK", actual));
    }
    chain.check_chip(&report)?;
    if !bool::from(fields.report_data.ct_eq(report_data)) {
        let actual = hex(&fields.report_data);
        return Err(refuse(reason::EVIDENCE_NONCE, format!("report data {}", hex(report_data)), actual));
    }
    check_policy(fields, policy, &root.minimum_tcb())?;
    Ok(SnpClaims { simulated: chain.is_simulated(), report })
}

/// Check 7.
fn check_policy(fields: &Fields, policy: &SnpPolicy, minimum: &TcbVersion) -> Result<(), Refusal> {
    let refuse = |expected: String, actual: String| Err(refuse(reason::EVIDENCE_POLICY, expected, actual));
    // Bits 2 to 4: 0 stands for the VCEK.
    let signing_key = fields.key_info >> 2 & 0b111;
    if signing_key != 0 {
        return refuse("signing key 0 (VCEK)".to_owned(), format!("signing key {signing_key}"));
    }
    if fields.vmpl != 0 {
        return refuse("VMPL 0".to_owned(), format!("VMPL {}", fields.vmpl));
    }
    if fields.policy & POLICY_DEBUG != 0 {
        return refuse("a guest policy without debugging".to_owned(), format!("{:#x}", fields.policy));
    }
    if fields.policy & POLICY_MIGRATE_MA != 0 || fields.report_id_ma != [0xFF; 32] {
        let actual = format!("guest policy {:#x}, REPORT_ID_MA {}", fields.policy, hex(&fields.report_id_ma));
        return refuse("no migration agent".to_owned(), actual);
    }
    let tcbs = [
        ("current", fields.current_tcb),
        ("reported", fields.reported_tcb),
        ("committed", fields.committed_tcb),
        ("launch", fields.launch_tcb),
    ];
    if let Some((name, tcb)) = tcbs.iter().find(|(_, tcb)| !tcb.is_at_least(minimum)) {
        return refuse(format!("{name} TCB of at least {minimum:?}"), format!("{tcb:?}"));
    }
    match &policy.measurements {
        ExpectedMeasurement::AnyMeasurement => Ok(()),
        ExpectedMeasurement::Listed(list) if list.contains(&fields.measurement) => Ok(()),
        ExpectedMeasurement::Listed(list) => {
            refuse(format!("one of {} listed measurements", list.len()), hex(&fields.measurement))
        }
    }
}

fn refuse(code: Code, expected: impl Into<String>, actual: impl Into<String>) -> Refusal {
    Refusal::new(code, SUBJECT, expected, actual)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
