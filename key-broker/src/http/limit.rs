//! The rate limit of strangers: who asks for challenges, or attests.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use protocols::reason;

use super::answer;
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::refusals::Told;
use crate::server::Peer;

/// Turns a request away whose source has asked too much.
pub(super) async fn limit(State(broker): State<Arc<Broker>>, request: Request, next: Next) -> Response {
    let limits = broker.rules().settings.limits.clone();
    let source = request.extensions().get::<Peer>().map(|peer| peer.address);
    let source = match &limits.forwarded {
        Some(header) => source.map(|peer| forwarded(request.headers(), header).unwrap_or(peer)),
        // Whoever comes from this machine is a front, or might as well be: it would be everybody at once.
        None => source.filter(|peer| !limits.front && !peer.is_loopback()),
    };
    let allowed = source.is_none_or(|source| broker.limiter.take(source, limits.per_second, limits.burst));
    if allowed {
        return next.run(request).await;
    }
    broker.metrics.limited();
    let expected = format!("at most {} requests in a second", limits.per_second);
    let error = BrokerError::refused(reason::ATTESTOR_RATE, "source", expected, "more");
    let status = error.status();
    // Whoever asks too often makes no record each time.
    let told = Told { error, id: None };
    let mut response = answer::kbs(told, "AttestationError", status, "Too many requests".to_owned());
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Who asked, by what the front wrote last.
fn forwarded(headers: &HeaderMap, name: &str) -> Option<IpAddr> {
    let last = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_front_wrote_last_counts_and_nothing_a_stranger_wrote_before() {
        let mut headers = HeaderMap::new();
        let mut of = |value: &str| {
            headers.append("x-forwarded-for", value.parse().unwrap());
            forwarded(&headers, "x-forwarded-for")
        };
        assert_eq!(of("192.0.2.1"), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(of("192.0.2.9, 2001:db8::1"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(of("192.0.2.9, unknown"), None);
    }
}
