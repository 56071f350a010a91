//! Verified claims + reference values + a Rego policy -> an attestation result in EAR's words. Pure.
//!
//! - [`policy::AppraisalPolicy`]: one Rego policy, compiled once; [`policy::BUILT_IN`] where configuration names none.
//! - [`ear`]: trustworthiness vectors (AR4SI), their tiers, and the claims of an EAR.
//! - [`rego`]: what all policies of the attestor share: compiled once, bounded, strict.
//! - [`claims`]: verified evidence as the JSON that policies and tokens read, under the names of `docs/claims.md`.
//!
//! What evidence is expected to measure comes from [`reference_values`].
//!
//! A policy is asked only about evidence that [`verifier`] has passed, and its answer is one more condition: nothing it
//! says turns a refusal into a pass.

#![allow(clippy::result_large_err)] // as in `verifier`: a refusal ends what asked for it

pub mod claims;
pub mod ear;
pub mod policy;
pub mod rego;

pub use ear::{Ear, Tier, TrustVector};
pub use policy::{Appraisal, AppraisalPolicy, Question};
pub use rego::PolicyError;
