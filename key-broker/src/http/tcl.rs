//! Our own endpoints: deliveries, decisions, receipts, audit records. See `openapi.yaml`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use protocols::kbs::MAX_BODY;
use protocols::reason;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::{Received, answer, bearer, read};
use crate::admin::{Administrator, Audit};
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::token::Session;

/// POST `/tcl/v1/events`.
pub(super) async fn events(State(broker): State<Arc<Broker>>, headers: HeaderMap, body: Body) -> Response {
    let served = async {
        let (session, body, _room) = posted(&broker, &headers, body).await?;
        broker.events(&session, &body).await
    };
    written(served.await)
}

/// POST `/tcl/v1/decide`.
pub(super) async fn decide(State(broker): State<Arc<Broker>>, headers: HeaderMap, body: Body) -> Response {
    let served = async {
        let (session, body, _room) = posted(&broker, &headers, body).await?;
        broker.decide(&session, &body).await
    };
    written(served.await)
}

/// GET `/tcl/v1/receipts?after=<count>`.
pub(super) async fn receipts(State(broker): State<Arc<Broker>>, headers: HeaderMap, uri: Uri) -> Response {
    let served = async {
        let session = broker.session(bearer(&headers))?;
        let after = uri.query().and_then(|query| query.strip_prefix("after=")).and_then(|count| count.parse().ok());
        let after = after.ok_or_else(|| {
            BrokerError::refused(reason::ATTESTOR_PROTOCOL, "query", "after=<records>", "something else")
        })?;
        broker.receipts(&session, after).await
    };
    written(served.await)
}

/// GET `/tcl/v1/verdicts/<id>`, for administrators.
pub(super) async fn verdict(
    State(broker): State<Arc<Broker>>,
    by: Administrator<Audit>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let served = async {
        let Path(id) = id.map_err(|_| {
            BrokerError::refused(reason::ATTESTOR_PROTOCOL, "path", "text in percent-encoding", "something else")
        })?;
        broker.verdict(&by, &id).await
    };
    written(served.await)
}

/// The session is checked before the body is read: strangers send us nothing.
async fn posted(
    broker: &Broker,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Session, String, Option<OwnedSemaphorePermit>), BrokerError> {
    let session = broker.session(bearer(headers))?;
    let Received { bytes, room } = read(body, MAX_BODY, &broker.rooms.sessions).await.map_err(BrokerError::Body)?;
    let body = String::from_utf8(bytes)
        .map_err(|_| BrokerError::refused(reason::ATTESTOR_PROTOCOL, "request", "a compact JWS", "something else"))?;
    Ok((session, body, room))
}

pub(super) fn written<T: Serialize>(served: Result<T, BrokerError>) -> Response {
    match served {
        Ok(value) => answer::json(200, &value),
        Err(error) => answer::tcl(&error),
    }
}
