//! What the gate asks before every method.

use std::fmt;

use serde_json::Value;

/// Decides on a request by the name of its protobuf message and its JSON.
pub trait Policy: Send + Sync + fmt::Debug {
    /// Lets the request through, or says for the log why not; `input` is called only when the rule looks at it.
    ///
    /// # Errors
    /// What the policy has printed, never for the host.
    fn check(&self, request: &'static str, input: &dyn Fn() -> Value) -> Result<(), String>;
}

/// Lets nothing through.
#[derive(Debug)]
pub(super) struct Closed;

impl Policy for Closed {
    fn check(&self, _: &'static str, _: &dyn Fn() -> Value) -> Result<(), String> {
        Err("nothing is allowed".to_owned())
    }
}
