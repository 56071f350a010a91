//! Attested session to a key broker (RCAR) and to our attestor.
//!
//! Challenge, evidence, session: each step is its own type, and only the step before makes it. Evidence is a
//! value handed in; this crate never meets the platform that gives it.
//!
//! ```text
//! Client::challenge(tee) -> Challenged          the attestor's nonce, a session key made here
//! Challenged::binding(log) -> Sha384Digest      what the evidence must be bound to
//! Challenged::attest(evidence, …) -> Session
//! Session::binding(log), Session::deliver(…) -> VerifiedReceipt     a fresh quote for every delivery
//! Session::decide(…) -> VerifiedVerdict         over the receipted head, any number at once
//! Session::resource(…), Session::cached(…)      a secret, decrypted with the session key
//! Session::into_passport() -> Passport          token and key, for whoever asks for resources later
//! ```
//!
//! Verdicts and receipts cannot be made, only verified:
//!
//! ```compile_fail,E0451
//! fn forge(claims: protocols::tcl::Verdict) -> kbs_client::VerifiedVerdict {
//!     kbs_client::VerifiedVerdict { claims, compact: String::new(), id: None }
//! }
//! ```
//!
//! A session that was only challenged decides nothing:
//!
//! ```compile_fail,E0599
//! async fn skip(c: kbs_client::Challenged, q: kbs_client::Question) {
//!     let _ = c.decide(&q, &kbs_client::ReceiptState::none()).await;
//! }
//! ```
//!
//! With the session it does (this is the same call, and it compiles):
//!
//! ```no_run
//! async fn decide(s: kbs_client::Session, q: kbs_client::Question) {
//!     let _ = s.decide(&q, &kbs_client::ReceiptState::none()).await;
//! }
//! ```

mod cache;
mod config;
mod error;
mod http;
mod messages;
mod named;
mod passport;
mod pins;
mod retry;
mod session;
mod verified;

pub use cache::Resource;
pub use config::{Attestor, AttestorConfig, ConfigError};
pub use error::ClientError;
pub use messages::Question;
pub use passport::Passport;
pub use retry::Retry;
pub use session::{Challenged, Client, Session};
pub use verified::{ReceiptState, VerifiedReceipt, VerifiedVerdict};
