//! Platform reference values: what evidence is expected to have measured, by name, and the signed documents it comes in.
//!
//! - [`names`]: the names, and how long values of each are.
//! - [`document`]: the document, canonical JSON in a DSSE envelope.
//! - [`corim`]: the subset of CoRIM that carries them, in COSE_Sign1.
//! - [`signers`]: who may sign one, as configuration says.
//! - [`read`]: bytes of a file -> [`CheckedReferences`]; [`CheckedReferences::accept`] holds them against what was accepted before.
//!
//! Pure: bytes, signers, time and earlier versions are arguments. A refusal here names the attestor's side.

#![allow(clippy::result_large_err)] // as in `verifier`: a refusal ends what asked for it

mod check;
pub mod corim;
pub mod document;
pub mod names;
pub mod signers;

pub use check::{AcceptedReferences, CheckedReferences, Trust, highest, read};
pub use document::{Document, DocumentError};
pub use names::{ReferenceError, References};
pub use signers::{Signer, SignerConfig, SignerKey, Signers};
