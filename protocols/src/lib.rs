//! Every byte that crosses a boundary, and the RATS vocabulary. No I/O.
//!
//! Types here say what was written, not that it was checked: a checked value has its own type in the
//! crate that makes the check. Parsers are strict, use no indexing and never panic.

pub mod azure;
pub mod cel;
pub mod digest;
pub mod dsse;
pub mod encoding;
pub mod enrolment;
pub mod environment;
pub mod event_log;
pub mod events;
pub mod golden;
pub mod guest;
pub mod hcl;
pub mod image;
pub mod jcs;
pub mod jwe;
pub mod jws;
pub mod kbs;
pub mod keys;
pub mod pause;
pub mod reason;
pub mod register;
pub mod resource;
#[cfg(feature = "rpc")]
pub mod rpc;
pub mod snp;
pub mod tcg_log;
pub mod tcl;
pub mod tdx;
pub mod time;
pub mod tpm;
