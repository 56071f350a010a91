//! The policy gate's engine: Rego in the dialect that Kata's `genpolicy` writes.
//!
//! A policy is one module of package `agent_policy`. A request of the host is a rule of the name of its protocol
//! message (`CreateContainerRequest`), evaluated with the message's JSON as `input`. The rule is true or false, or
//! an object `{"allowed": bool, "ops": [JSON patch]}` whose operations change `data.pstate`, the policy's own state.
//! A rule that is not there, or not defined for this input, denies. `docs/policy.md` tells the rest.
//!
//! The engine knows no protocol: [`input`] makes the JSON of what is not judged by its message alone.

mod constant;
mod engine;
mod error;
mod evaluator;
pub mod input;
mod state;

pub use engine::{PolicyEngine, Proposal, Proposed, Replaced};
pub use error::{Denied, PolicyError, Why};

/// The longest policy, in bytes. Policies that `genpolicy` writes have some hundred KiB.
pub const MAX_TEXT: usize = 8 * 1024 * 1024;

/// The policy of a guest whose configuration names none: nothing but what neither shows nor changes anything.
pub const CLOSED: &str = include_str!("closed.rego");
