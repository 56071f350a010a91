//! One entry for every kind of evidence, and the tie between evidence and event log.

use protocols::digest::Sha384Digest;
use protocols::environment::Environment;
use protocols::events::Init;
use protocols::guest::GuestId;
use protocols::kbs::{self, SnpEvidence, Tee, TpmEvidence};
use protocols::reason::{self, Refusal};
use protocols::register::{RegisterKind, RegisterValue};
use protocols::tcl::LogBinding;
use protocols::time::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;

use crate::log::LogState;
use crate::snp::{SnpClaims, SnpPolicy, verify_snp};
use crate::tpm::{TpmClaims, TpmPolicy, verify_tpm};

/// What evidence and logs are judged by.
#[derive(Debug, Clone)]
pub struct EvidencePolicy {
    /// TPM quotes.
    pub tpm: TpmPolicy,
    /// SNP reports.
    pub snp: SnpPolicy,
    /// Register kinds that count, exactly.
    pub registers: Vec<RegisterKind>,
    /// The judging side's environment.
    pub environment: Environment,
}

/// What verified evidence says. The variants' contents are made only by their checkers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvidenceClaims {
    /// A TPM quote.
    Tpm(Box<TpmClaims>),
    /// An SNP report.
    Snp(Box<SnpClaims>),
}

impl EvidenceClaims {
    /// Whether the platform is simulated.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        match self {
            Self::Tpm(claims) => claims.simulated(),
            Self::Snp(claims) => claims.simulated(),
        }
    }
}

/// Verifies `tee_evidence.primary_evidence` over `binding`, the digest of the runtime data
/// ([`protocols::kbs::RuntimeData::digest`]) or of an evidence request's challenge.
///
/// # Errors
/// `evidence.*`, `policy.environment`. Evidence of a TEE that nothing here verifies is `evidence.policy`.
pub fn verify_evidence(
    tee: Tee,
    evidence: &Value,
    binding: &Sha384Digest,
    policy: &EvidencePolicy,
    now: Timestamp,
) -> Result<EvidenceClaims, Refusal> {
    match tee {
        Tee::Tpm => {
            let evidence = TpmEvidence::deserialize(evidence).map_err(|error| malformed(tee, &error))?;
            let claims = verify_tpm(&evidence, &kbs::tpm_nonce(binding), &policy.tpm)?;
            Ok(EvidenceClaims::Tpm(Box::new(claims)))
        }
        Tee::Snp => {
            let evidence = SnpEvidence::deserialize(evidence).map_err(|error| malformed(tee, &error))?;
            let claims = verify_snp(&evidence, &kbs::report_data(binding), &policy.snp, now)?;
            Ok(EvidenceClaims::Snp(Box::new(claims)))
        }
        Tee::Tdx | Tee::AzSnpVtpm | Tee::AzTdxVtpm | Tee::Sample => {
            let expected = "evidence of a TEE that is verified here: snp, tpm";
            Err(Refusal::new(reason::EVIDENCE_POLICY, "evidence", expected, tee.as_str()))
        }
    }
}

/// The whole message may quote the evidence: its start says enough.
fn malformed(tee: Tee, error: &serde_json::Error) -> Refusal {
    let actual: String = error.to_string().chars().take(200).collect();
    Refusal::new(reason::EVIDENCE_MALFORMED, "evidence", format!("the JSON of {} evidence", tee.as_str()), actual)
}

/// Ties a log to the evidence it was shown with, and gives the guest whose log it is. `log` must have taken
/// exactly the records that `binding` counts; `binding` is what the evidence was made over.
///
/// The checks, in their fixed order:
///
/// | # | code | passes when |
/// |---|---|---|
/// | 1 | `policy.register` | `Init`'s register kind is one this evidence can stand behind, the binding's, and one that policy names |
/// | 2 | `policy.environment` | `Init` calls the platform simulated exactly when the evidence is; in production neither it nor a development guest |
/// | 3 | `log.replay` | count, algorithm and head of the binding are the log's; a TPM's quoted PCR is the head too |
/// | 4 | `evidence.guest` | the guest that follows from the evidence and `Init` is the binding's |
///
/// # Errors
/// The table's codes.
pub fn bind_log(
    claims: &EvidenceClaims,
    log: &LogState,
    binding: &LogBinding,
    policy: &EvidencePolicy,
) -> Result<GuestId, Refusal> {
    let init = log.init();
    check_kind(claims, init, binding, policy)?;
    check_environment(claims, init, policy)?;

    if (log.count(), log.alg()) != (binding.count, binding.alg) {
        let expected = format!("{} records, {:?}", binding.count, binding.alg);
        let actual = format!("{} records, {:?}", log.count(), log.alg());
        return Err(Refusal::new(reason::LOG_REPLAY, "event log", expected, actual));
    }
    log.ends_at(&binding.head)?;
    let guest = match claims {
        EvidenceClaims::Tpm(tpm) => {
            let Some(quoted) = tpm.pcr(log.mr()) else {
                let subject = format!("register {}", log.mr());
                return Err(Refusal::new(reason::LOG_REPLAY, subject, "a quoted PCR", "a register outside the quote"));
            };
            log.ends_at(&RegisterValue::Sha256(quoted))?;
            GuestId::of_tpm(tpm.ak_spki(), tpm.reset_count(), &init.boot_nonce)
        }
        EvidenceClaims::Snp(snp) => GuestId::new(*snp.report_id()),
    };
    if guest != binding.guest {
        let expected = guest.to_string();
        return Err(Refusal::new(reason::EVIDENCE_GUEST, "log binding", expected, binding.guest.to_string()));
    }
    Ok(guest)
}

fn check_kind(
    claims: &EvidenceClaims,
    init: &Init,
    binding: &LogBinding,
    policy: &EvidencePolicy,
) -> Result<(), Refusal> {
    let refuse = |expected: String, actual: RegisterKind| {
        Err(Refusal::new(reason::POLICY_REGISTER, "register kind", expected, actual.as_str()))
    };
    let supported = match claims {
        EvidenceClaims::Tpm(_) => RegisterKind::TpmListed,
        EvidenceClaims::Snp(_) => RegisterKind::Software,
    };
    if init.register_kind != supported {
        return refuse(format!("{supported}, which this evidence stands behind"), init.register_kind);
    }
    if binding.kind != init.register_kind {
        return refuse(format!("{}, as the first record says", init.register_kind), binding.kind);
    }
    if !policy.registers.contains(&supported) {
        let names: Vec<_> = policy.registers.iter().map(|kind| kind.as_str()).collect();
        return refuse(format!("one of [{}]", names.join(", ")), supported);
    }
    Ok(())
}

fn check_environment(claims: &EvidenceClaims, init: &Init, policy: &EvidencePolicy) -> Result<(), Refusal> {
    let word = |simulated| if simulated { "a SIMULATED platform" } else { "a real platform" };
    let refuse = |expected, actual| Err(Refusal::new(reason::POLICY_ENVIRONMENT, "first record", expected, actual));
    if init.simulated != claims.simulated() {
        return refuse(word(claims.simulated()), word(init.simulated));
    }
    if policy.environment == Environment::Production {
        if init.simulated {
            return refuse(word(false), word(true));
        }
        if init.environment != Environment::Production {
            return refuse("a production guest", "a development guest");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
