//! What a report is judged by, beyond who signed it.

use protocols::environment::Environment;
use protocols::reason::{self, Refusal};
use protocols::snp::{Fields, POLICY_DEBUG, POLICY_MIGRATE_MA};

use super::{SUBJECT, TrustedArk, VerifiedVek};
use crate::hex;
use crate::trace::Trace;

/// REPORT_ID_MA of a guest without a migration agent.
const NO_MIGRATION_AGENT: [u8; 32] = [0xFF; 32];

/// Which launch measurements count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedMeasurement {
    /// Exactly these; none listed accepts none.
    Listed(Vec<[u8; 48]>),
    /// Any; in development only.
    AnyMeasurement,
}

/// Which chips count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedChips {
    /// Every chip that the pinned roots vouch for.
    AnyChip,
    /// Exactly these chip ids; a masked one is none of them.
    Listed(Vec<[u8; 64]>),
}

/// Which reports count. An empty list of roots accepts none.
#[derive(Debug, Clone)]
pub struct SnpPolicy {
    /// Trusted roots, each with its product's minimum TCB.
    pub roots: Vec<TrustedArk>,
    /// Expected launch measurements.
    pub measurements: ExpectedMeasurement,
    /// The privilege level that reports must come from; 0 where no paravisor or SVSM is beneath the guest.
    pub vmpl: u32,
    /// Chips that count.
    pub chips: AllowedChips,
    /// CSP_IDs of providers whose VLEKs count beside chips' own VCEKs; none listed accepts no VLEK.
    pub providers: Vec<String>,
    /// The judging side's environment.
    pub environment: Environment,
}

impl SnpPolicy {
    /// Checks 11 to 16 of the module's table.
    pub(super) fn check(&self, fields: &Fields, vek: &VerifiedVek, trace: &mut Trace) -> Result<(), Refusal> {
        trace.require(
            (SUBJECT, "VMPL", reason::EVIDENCE_VMPL),
            fields.vmpl == self.vmpl,
            || format!("VMPL {}", self.vmpl),
            || format!("VMPL {}", fields.vmpl),
        )?;
        let guest_policy = || format!("guest policy {:#x}", fields.policy);
        trace.require(
            (SUBJECT, "debugging", reason::EVIDENCE_DEBUG),
            fields.policy & POLICY_DEBUG == 0,
            || "a guest policy without debugging".to_owned(),
            guest_policy,
        )?;
        trace.require(
            (SUBJECT, "migration", reason::EVIDENCE_MIGRATION),
            fields.policy & POLICY_MIGRATE_MA == 0,
            || "a guest policy without migration".to_owned(),
            guest_policy,
        )?;
        trace.require(
            (SUBJECT, "migration agent", reason::EVIDENCE_MIGRATION),
            fields.report_id_ma == NO_MIGRATION_AGENT,
            || "no migration agent".to_owned(),
            || format!("REPORT_ID_MA {}", hex(&fields.report_id_ma)),
        )?;
        let minimum = vek.minimum_tcb();
        for (name, tcb) in [
            ("current TCB", fields.current_tcb),
            ("reported TCB", fields.reported_tcb),
            ("committed TCB", fields.committed_tcb),
            ("launch TCB", fields.launch_tcb),
        ] {
            trace.require(
                (SUBJECT, name, reason::EVIDENCE_TCB),
                tcb.is_at_least(&minimum),
                || format!("{name} of at least {minimum}"),
                || tcb.to_string(),
            )?;
        }
        self.check_chip(fields, vek, trace)?;
        let listed = match &self.measurements {
            ExpectedMeasurement::AnyMeasurement => None,
            ExpectedMeasurement::Listed(list) => Some(list),
        };
        trace.require(
            (SUBJECT, "measurement", reason::EVIDENCE_MEASUREMENT),
            listed.is_none_or(|list| list.contains(&fields.measurement)),
            || listed.map_or_else(|| "any measurement".to_owned(), |list| one_of(list)),
            || hex(&fields.measurement),
        )
    }

    fn check_chip(&self, fields: &Fields, vek: &VerifiedVek, trace: &mut Trace) -> Result<(), Refusal> {
        if let AllowedChips::Listed(list) = &self.chips {
            trace.require(
                (SUBJECT, "chip", reason::EVIDENCE_CHIP),
                list.contains(&fields.chip_id),
                || one_of(list),
                || hex(&fields.chip_id),
            )?;
        }
        let Some(provider) = vek.provider() else { return Ok(()) };
        trace.require(
            (SUBJECT, "provider", reason::EVIDENCE_CHIP),
            self.providers.iter().any(|listed| listed == provider),
            || format!("a VCEK, or the VLEK of one of [{}]", self.providers.join(", ")),
            || format!("a VLEK of {provider}"),
        )
    }
}

/// The value where there is one, a count where there are more.
fn one_of<const N: usize>(list: &[[u8; N]]) -> String {
    match list {
        [only] => hex(only),
        _ => format!("one of {} listed", list.len()),
    }
}
