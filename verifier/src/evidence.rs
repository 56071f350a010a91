//! One entry for every kind of evidence, and the tie between evidence and event log.

use protocols::azure::{AzureSnpEvidence, AzureTdxEvidence};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::environment::Environment;
use protocols::events::Init;
use protocols::guest::GuestId;
use protocols::kbs::{self, SampleEvidence, SnpEvidence, TdxEvidence, Tee, TpmEvidence};
use protocols::reason::{self, Refusal};
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use protocols::tcl::LogBinding;
use protocols::time::Timestamp;
use protocols::tpm::{INITDATA_PCR, initdata_pcr};
use serde::Deserialize as _;
use serde_json::Value;

use crate::azure::{AzureClaims, AzurePolicy, AzureTdxPolicy, verify_azure_snp, verify_azure_tdx};
use crate::log::LogState;
use crate::sample::{SampleClaims, SamplePolicy, verify_sample};
use crate::snp::{SnpClaims, SnpPolicy, verify_snp};
use crate::tdx::{TdxClaims, TdxPolicy, verify_tdx};
use crate::tpm::{TpmClaims, TpmPolicy, verify_tpm};
use crate::trace::Trace;

/// What evidence and logs are judged by.
#[derive(Debug, Clone)]
pub struct EvidencePolicy {
    /// TPM quotes.
    pub tpm: TpmPolicy,
    /// SNP reports.
    pub snp: SnpPolicy,
    /// Azure's VMs on SEV-SNP.
    pub azure: AzurePolicy,
    /// Azure's VMs on TDX.
    pub azure_tdx: AzureTdxPolicy,
    /// TDX quotes.
    pub tdx: TdxPolicy,
    /// Sample evidence.
    pub sample: SamplePolicy,
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
    /// The quote of an Azure VM's vTPM, and the hardware report that vouches for it.
    Azure(Box<AzureClaims>),
    /// A TDX quote.
    Tdx(Box<TdxClaims>),
    /// Sample evidence: nobody's word.
    Sample(Box<SampleClaims>),
}

impl EvidenceClaims {
    /// Whether the platform is simulated.
    #[must_use]
    pub const fn simulated(&self) -> bool {
        match self {
            Self::Tpm(claims) => claims.simulated(),
            Self::Snp(claims) => claims.simulated(),
            Self::Azure(claims) => claims.simulated(),
            Self::Tdx(claims) => claims.simulated(),
            Self::Sample(_) => true,
        }
    }

    /// The kind of register that this evidence can stand behind: of a TPM's, what its key was enrolled as; `None` where
    /// it stands behind nothing.
    #[must_use]
    pub const fn register(&self) -> Option<RegisterKind> {
        Some(match self {
            Self::Tpm(claims) => claims.enrolment().register(),
            Self::Snp(_) => RegisterKind::Software,
            Self::Azure(_) => RegisterKind::VtpmHcl,
            Self::Tdx(_) => RegisterKind::Rtmr,
            Self::Sample(_) => return None,
        })
    }

    /// What a guest calls this register. It cannot know how its key was enrolled: a TPM is always a listed one there.
    #[must_use]
    pub const fn told(&self) -> Option<RegisterKind> {
        match self {
            Self::Tpm(_) => Some(RegisterKind::TpmListed),
            _ => self.register(),
        }
    }

    /// The quote, where a TPM's or vTPM's register holds the log.
    const fn quoted(&self) -> Option<&TpmClaims> {
        match self {
            Self::Tpm(claims) => Some(claims),
            Self::Azure(claims) => Some(claims.tpm()),
            Self::Snp(_) | Self::Tdx(_) | Self::Sample(_) => None,
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
            let claims = verify_tpm(&evidence, &kbs::tpm_nonce(binding), &policy.tpm, &mut Trace::off())?;
            Ok(EvidenceClaims::Tpm(Box::new(claims)))
        }
        Tee::Snp => {
            let evidence = SnpEvidence::deserialize(evidence).map_err(|error| malformed(tee, &error))?;
            let report_data = kbs::report_data(binding);
            let claims = verify_snp(&evidence, &report_data, &policy.snp, now, &mut Trace::off())?;
            Ok(EvidenceClaims::Snp(Box::new(claims)))
        }
        Tee::AzSnpVtpm => {
            let evidence = AzureSnpEvidence::from_json(evidence).map_err(|error| malformed(tee, &error))?;
            let claims = verify_azure_snp(&evidence, binding.as_bytes(), &policy.azure, now, &mut Trace::off())?;
            Ok(EvidenceClaims::Azure(Box::new(claims)))
        }
        Tee::Tdx => {
            let evidence = TdxEvidence::deserialize(evidence).map_err(|error| malformed(tee, &error))?;
            let claims = verify_tdx(&evidence, &kbs::report_data(binding), &policy.tdx, now, &mut Trace::off())?;
            Ok(EvidenceClaims::Tdx(Box::new(claims)))
        }
        Tee::AzTdxVtpm => {
            let evidence = AzureTdxEvidence::from_json(evidence).map_err(|error| malformed(tee, &error))?;
            let claims = verify_azure_tdx(&evidence, binding.as_bytes(), &policy.azure_tdx, now, &mut Trace::off())?;
            Ok(EvidenceClaims::Azure(Box::new(claims)))
        }
        Tee::Sample | Tee::SampleDevice => {
            if policy.sample == SamplePolicy::Refused {
                return Err(unverified(tee));
            }
            let evidence = SampleEvidence::deserialize(evidence).map_err(|error| malformed(tee, &error))?;
            let claims = verify_sample(tee, &evidence, binding, policy.sample, policy.environment)?;
            Ok(EvidenceClaims::Sample(Box::new(claims)))
        }
        Tee::Sgx | Tee::Cca | Tee::Csv | Tee::Se | Tee::Nvidia | Tee::Hygondcu | Tee::NvidiaDpu => Err(unverified(tee)),
    }
}

/// Nothing here verifies evidence of this kind, or policy does not let it count.
pub(crate) fn unverified(tee: Tee) -> Refusal {
    let expected = "evidence of a TEE that is verified here: snp, tdx, tpm, az-snp-vtpm, az-tdx-vtpm";
    Refusal::new(reason::EVIDENCE_POLICY, "evidence", expected, tee.as_str())
}

/// The whole message may quote the evidence: its start says enough.
pub(crate) fn malformed(tee: Tee, error: &dyn std::fmt::Display) -> Refusal {
    let actual: String = error.to_string().chars().take(200).collect();
    Refusal::new(reason::EVIDENCE_MALFORMED, "evidence", format!("the JSON of {} evidence", tee.as_str()), actual)
}

/// The guest that evidence and its log's first record stand for. It says nothing of the log's other records:
/// [`bind_log`] does.
#[must_use]
pub fn guest_of(claims: &EvidenceClaims, init: &Init) -> GuestId {
    match claims {
        EvidenceClaims::Tpm(tpm) => GuestId::of_tpm(tpm.ak_spki(), tpm.reset_count(), &init.boot_nonce),
        // The log's register is the vTPM's: it begins anew with the vTPM, not with the VM.
        EvidenceClaims::Azure(azure) => {
            let tpm = azure.tpm();
            GuestId::of_tpm(tpm.ak_spki(), tpm.reset_count(), &init.boot_nonce)
        }
        EvidenceClaims::Snp(snp) => GuestId::new(*snp.report_id()),
        EvidenceClaims::Tdx(tdx) => GuestId::of_tdx(&tdx.boot_rtmrs(), &init.boot_nonce),
        // Whoever can write sample evidence can write this name too: `bind_log` refuses its logs.
        EvidenceClaims::Sample(_) => {
            GuestId::new(*Sha256Digest::of_parts(&[b"tcl-guest-sample-v1", &init.boot_nonce]).as_bytes())
        }
    }
}

/// Ties a log to the evidence it was shown with, and gives the guest whose log it is. `log` must have taken
/// exactly the records that `binding` counts; `binding` is what the evidence was made over.
///
/// The checks, in their fixed order:
///
/// | # | code | passes when |
/// |---|---|---|
/// | 1 | `policy.register` | `Init`'s register kind is what guests with this evidence say, and the binding's; policy names the kind that the evidence stands behind, for a TPM the one its key was enrolled as; a TPM's log is in the one PCR that policy names |
/// | 2 | `policy.environment` | `Init` calls the platform simulated exactly when the evidence is; in production neither it nor a development guest |
/// | 3 | `evidence.initdata` | `Init` names the initdata that the evidence is bound to, and none where HOST_DATA or MRCONFIGID is zero |
/// | 4 | `evidence.guest` | the guest that follows from the evidence and `Init` is the binding's |
/// | 5 | `log.replay` | count, algorithm and head of the binding are the log's; a TPM's quoted PCR or a TD's RTMR3 is the head too |
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
    check_kind(claims, log, binding, policy)?;
    check_environment(claims, init, policy)?;
    check_initdata(claims, init)?;

    let guest = guest_of(claims, init);
    if guest != binding.guest {
        let expected = guest.to_string();
        return Err(Refusal::new(reason::EVIDENCE_GUEST, "log binding", expected, binding.guest.to_string()));
    }
    if (log.count(), log.alg()) != (binding.count, binding.alg) {
        let expected = format!("{} records, {:?}", binding.count, binding.alg);
        let actual = format!("{} records, {:?}", log.count(), log.alg());
        return Err(Refusal::new(reason::LOG_REPLAY, "event log", expected, actual));
    }
    log.ends_at(&binding.head)?;
    if let EvidenceClaims::Tdx(tdx) = claims {
        log.ends_at(&RegisterValue::Sha384(Sha384Digest::new(*tdx.rtmr3())))?;
    }
    if let Some(tpm) = claims.quoted() {
        let Some(quoted) = tpm.pcr(log.mr()) else {
            let subject = format!("register {}", log.mr());
            return Err(Refusal::new(reason::LOG_REPLAY, subject, "a quoted PCR", "a register outside the quote"));
        };
        log.ends_at(&RegisterValue::Sha256(quoted))?;
    }
    Ok(guest)
}

fn check_kind(
    claims: &EvidenceClaims,
    log: &LogState,
    binding: &LogBinding,
    policy: &EvidencePolicy,
) -> Result<(), Refusal> {
    let refuse = |expected: String, actual: RegisterKind| {
        Err(Refusal::new(reason::POLICY_REGISTER, "register kind", expected, actual.as_str()))
    };
    let (Some(told), Some(supported)) = (claims.told(), claims.register()) else {
        let expected = "evidence that a register stands behind";
        return Err(Refusal::new(reason::POLICY_REGISTER, "register kind", expected, "sample evidence"));
    };
    let kind = log.init().register_kind;
    if kind != told {
        return refuse(format!("{told}, as guests with this evidence say"), kind);
    }
    if binding.kind != kind {
        return refuse(format!("{kind}, as the first record says"), binding.kind);
    }
    if !policy.registers.contains(&supported) {
        let names: Vec<_> = policy.registers.iter().map(|kind| kind.as_str()).collect();
        return refuse(format!("one of [{}]", names.join(", ")), supported);
    }
    // Another PCR, not extended yet, would give one boot a second history under a second name.
    if claims.quoted().is_some() && log.mr() != policy.tpm.pcr {
        let expected = format!("PCR {}", policy.tpm.pcr);
        return Err(Refusal::new(reason::POLICY_REGISTER, "register", expected, format!("PCR {}", log.mr())));
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

/// What the log says of the initdata must not differ from what the platform says. A TPM without initdata has
/// no place of its own for "none": PCR 8 may hold other things.
fn check_initdata(claims: &EvidenceClaims, init: &Init) -> Result<(), Refusal> {
    let (expected, bound) = match (claims, claims.quoted(), init.initdata) {
        (EvidenceClaims::Snp(snp), _, initdata) => {
            let bound = RegisterValue::Sha256(Sha256Digest::new(*snp.host_data()));
            (initdata.unwrap_or(HashAlg::Sha256.zero()), Some(bound))
        }
        (EvidenceClaims::Tdx(tdx), _, initdata) => {
            let bound = RegisterValue::Sha384(Sha384Digest::new(*tdx.mr_config_id()));
            (initdata.unwrap_or(HashAlg::Sha384.zero()), Some(bound))
        }
        (_, _, None) => return Ok(()),
        (_, Some(tpm), Some(RegisterValue::Sha256(initdata))) => {
            let bound = tpm.pcr(INITDATA_PCR).map(RegisterValue::Sha256);
            (RegisterValue::Sha256(initdata_pcr(&initdata)), bound)
        }
        // A TPM's bank takes SHA-256 digests only: none of its PCRs can hold another.
        (_, _, Some(initdata)) => (initdata, None),
    };
    if bound == Some(expected) {
        return Ok(());
    }
    let actual = bound.map_or_else(|| "nothing".to_owned(), |bound| bound.to_string());
    Err(Refusal::new(reason::EVIDENCE_INITDATA, "first record", expected.to_string(), actual))
}

#[cfg(test)]
mod tests;
