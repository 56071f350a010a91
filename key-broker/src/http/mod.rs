//! The routes, and what every handler needs: bodies bounded in time and size, credentials, answers.

mod answer;
mod kbs;
mod tcl;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use protocols::kbs::{MAX_BODY, SESSION_COOKIE};

use crate::broker::Broker;
use crate::error::BodyError;

/// The longest a request's body may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);
/// The longest answering may take; above the deadline for golden values.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// Every route.
pub fn router(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/healthz", get(async || StatusCode::OK))
        .route("/kbs/v0/auth", post(kbs::auth))
        .route("/kbs/v0/attest", post(kbs::attest))
        .route("/kbs/v0/resource/{*path}", get(kbs::resource).post(kbs::put_resource))
        .route("/tcl/v1/events", post(tcl::events))
        .route("/tcl/v1/decide", post(tcl::decide))
        .route("/tcl/v1/receipts", get(tcl::receipts))
        .route("/tcl/v1/verdicts/{id}", get(tcl::verdict))
        .fallback(answer::nowhere)
        .method_not_allowed_fallback(answer::nowhere)
        .layer(axum::middleware::from_fn(answer::in_time))
        .with_state(broker)
}

/// Reads a whole body of at most [`MAX_BODY`] within [`BODY_TIME`].
async fn read(body: Body) -> Result<Vec<u8>, BodyError> {
    let reading = async {
        let mut bytes = Vec::new();
        let mut stream = body.into_data_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| BodyError::Cut)?;
            if bytes.len() + chunk.len() > MAX_BODY {
                return Err(BodyError::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    tokio::time::timeout(BODY_TIME, reading).await.map_err(|_| BodyError::Timeout)?
}

/// The bearer token, where the request carries one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The session cookie's value, where the request carries one.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == SESSION_COOKIE).map(|(_, v)| v)
}
