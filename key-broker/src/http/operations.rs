//! For whoever runs the attestor: whether it lives, whether it serves, and what it counted.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::answer;
use crate::broker::Broker;

/// What the listener of `[operations]` serves.
pub fn operations(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(counted))
        .fallback(answer::nowhere)
        .method_not_allowed_fallback(answer::nowhere)
        .layer(axum::middleware::from_fn(answer::in_time))
        .with_state(broker)
}

/// GET `/healthz`: 200 while it lives, 503 once it drains.
pub(super) async fn healthz(State(broker): State<Arc<Broker>>) -> Response {
    if broker.draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    } else {
        StatusCode::OK.into_response()
    }
}

/// GET `/readyz`: 200 while requests can be served, which needs the store.
pub(super) async fn readyz(State(broker): State<Arc<Broker>>) -> Response {
    if broker.draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    match broker.ready().await {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(error) => {
            tracing::error!("not ready: {error}");
            (StatusCode::SERVICE_UNAVAILABLE, "store\n").into_response()
        }
    }
}

/// GET `/metrics`, unless a listener of its own serves it.
pub(super) async fn metrics(State(broker): State<Arc<Broker>>, uri: Uri) -> Response {
    if broker.rules().settings.operations.is_some() {
        return answer::nowhere(uri).await;
    }
    counted(State(broker)).await
}

async fn counted(State(broker): State<Arc<Broker>>) -> Response {
    match broker.metrics.text() {
        Some(text) => {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
