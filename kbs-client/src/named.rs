//! The name of one request: the attestor's log has it too, and its spans hang beneath it.

use reqwest::RequestBuilder;

/// A request's id, 32 hex digits; it is its trace's too.
#[derive(Debug)]
pub(crate) struct Named(String);

impl Named {
    /// A new one, and the request that carries it as `x-request-id` and `traceparent` (W3C Trace Context).
    pub(crate) fn name(request: RequestBuilder) -> (Self, RequestBuilder) {
        let mut random = [0; 24];
        if getrandom::fill(&mut random).is_err() || random.first_chunk::<16>() == Some(&[0; 16]) {
            // It is for people's eyes alone: without one the attestor makes its own.
            return (Self("none".to_owned()), request);
        }
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (id, span) = hex.split_at(32);
        let request = request.header("x-request-id", id).header("traceparent", format!("00-{id}-{span}-00"));
        (Self(id.to_owned()), request)
    }

    /// As it is logged.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}
