//! Evidence + endorsements + reference values + time -> appraisal. No I/O, no clock, no network.
//!
//! - [`golden::authenticate`]: envelopes from untrusted storage -> one [`golden::AuthenticatedGolden`].
//! - [`appraise::appraise`]: a measured image against it -> [`appraise::Verdict`], the same in the guest
//!   (local mode) and in the attestor (remote mode).
//! - [`rehearsal::Rehearsal`]: everything that decided a launch as one value, and the same decision over it.
//! - [`evidence::verify_evidence`]: hardware or simulated evidence -> [`evidence::EvidenceClaims`]; a [`Judge`] of much
//!   evidence does the same under one policy and keeps verified chips' keys.
//! - [`log::LogState`]: the rules over an event log, record by record; [`evidence::bind_log`] ties a log
//!   to the evidence that was shown with it.
//!
//! A checked value has its own type which only its check makes; everything that does not pass ends in a
//! [`protocols::reason::Refusal`] with a stable code. Refusals made here name the guest as their source;
//! an attestor changes that with [`protocols::reason::Refusal::by`].

// A refusal ends a launch: moving its 136 bytes is not worth a box at every boundary.
#![allow(clippy::result_large_err)]

pub mod appraise;
pub mod azure;
mod certificate;
pub mod enrolment;
pub mod evidence;
pub mod golden;
mod judge;
pub mod log;
mod process;
pub mod rehearsal;
pub mod sample;
pub mod signers;
pub mod snp;
pub mod tdx;
#[cfg(test)]
mod testing;
pub mod tpm;
mod trace;

pub use appraise::{HighWater, Pass, Policy, Verdict, appraise, process_digest};
pub use azure::{
    AzureClaims, AzureHardware, AzurePolicy, AzureTdxPolicy, UserData, check_azure_tdx_vtpm, verify_azure_snp,
    verify_azure_tdx,
};
pub use evidence::{EvidenceClaims, EvidencePolicy, bind_log, guest_of, verify_evidence};
pub use golden::{AuthenticatedGolden, AuthenticatedRevocations, authenticate};
pub use judge::Judge;
pub use log::{LogState, check_log};
pub use sample::{SampleClaims, SamplePolicy, verify_sample};
pub use signers::{RevocationRule, SignerConfig, SignersError, TrustedSigners};
pub use snp::{
    AllowedChips, ExpectedMeasurement, RootError, SnpClaims, SnpPolicy, TcbVersion, TrustedArk, amd_roots, verify_snp,
};
pub use tdx::{SeptVe, TdxClaims, TdxCollateral, TdxMeasurements, TdxPolicy, TdxRoot, verify_tdx};
pub use tpm::{EnrolledAk, Enrolment, TpmClaims, TpmPolicy, verify_tpm};
pub use trace::{Check, Trace};

/// Lower-case hex for refusals.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
