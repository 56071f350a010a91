//! Around every request: its id, its span, and what is counted of it.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use protocols::reason::Code;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::broker::Broker;
use crate::challenge::random;
use crate::error::{BodyError, BrokerError};
use crate::trace::Parent;

/// The header that names a request, in both directions.
const REQUEST_ID: &str = "x-request-id";
/// How long the id of somebody else may be.
const MAX_ID: usize = 64;

/// Why an answer is a refusal, for the count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Why {
    code: Code,
    body: Option<BodyError>,
    store: bool,
}

impl From<&BrokerError> for Why {
    fn from(error: &BrokerError) -> Self {
        Self {
            code: error.refusal().code,
            body: if let BrokerError::Body(body) = error { Some(*body) } else { None },
            store: matches!(error, BrokerError::Store(_)),
        }
    }
}

/// Names, times and counts one request.
pub(super) async fn telemetry(State(broker): State<Arc<Broker>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let method = method(request.method());
    let id = request_id(request.headers());
    let parent = request.headers().get("traceparent").and_then(|value| Parent::parse(value.to_str().ok()?));
    let span = tracing::info_span!("request", id, method, route, trace = Empty, status = Empty);
    if let Some(parent) = parent {
        parent.of(&span);
    }
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    span.record("status", status);
    let metrics = &broker.metrics;
    metrics.served(method, route, status, started.elapsed());
    if let Some(Why { code, body, store }) = response.extensions().get::<Why>() {
        metrics.refused(code.as_str());
        if let Some(body) = body {
            metrics.body_refused(body.cause());
        }
        if *store {
            metrics.store_failed();
        }
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// A method as it is counted: strangers invent no others.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// The id that the caller gave, where it can stand in a log, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(|id| well_formed(id));
    given.map_or_else(|| hex::encode(random::<16>().unwrap_or_default()), str::to_owned)
}

fn well_formed(id: &str) -> bool {
    (8..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}
