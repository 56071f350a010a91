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
use crate::refusals::Asker;
use crate::sessions::Known;

/// POST `/tcl/v1/events`.
pub(super) async fn events(State(broker): State<Arc<Broker>>, headers: HeaderMap, body: Body) -> Response {
    let request = "POST /tcl/v1/events";
    let session = match session(&broker, &headers, request).await {
        Ok(session) => session,
        Err(response) => return response,
    };
    let served = async {
        let (body, _room) = posted(&broker, body).await?;
        broker.events(&session, &body).await
    };
    written(&broker, served.await, Asker::Session(&session), request).await
}

/// POST `/tcl/v1/decide`.
pub(super) async fn decide(State(broker): State<Arc<Broker>>, headers: HeaderMap, body: Body) -> Response {
    let request = "POST /tcl/v1/decide";
    let session = match session(&broker, &headers, request).await {
        Ok(session) => session,
        Err(response) => return response,
    };
    let served = async {
        let (body, _room) = posted(&broker, body).await?;
        broker.decide(&session, &body).await
    };
    written(&broker, served.await, Asker::Session(&session), request).await
}

/// GET `/tcl/v1/receipts?after=<count>`.
pub(super) async fn receipts(State(broker): State<Arc<Broker>>, headers: HeaderMap, uri: Uri) -> Response {
    let request = "GET /tcl/v1/receipts";
    let session = match session(&broker, &headers, request).await {
        Ok(session) => session,
        Err(response) => return response,
    };
    let served = async {
        let after = uri.query().and_then(|query| query.strip_prefix("after=")).and_then(|count| count.parse().ok());
        let after = after.ok_or_else(|| {
            BrokerError::refused(reason::ATTESTOR_PROTOCOL, "query", "after=<records>", "something else")
        })?;
        broker.receipts(&session, after).await
    };
    written(&broker, served.await, Asker::Session(&session), request).await
}

/// GET `/tcl/v1/verdicts/<id>`, for administrators.
pub(super) async fn verdict(
    State(broker): State<Arc<Broker>>,
    by: Administrator<Audit>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let served = async { broker.verdict(&by, &named(id)?).await };
    written(&broker, served.await, Asker::Stranger, "GET /tcl/v1/verdicts").await
}

/// GET `/tcl/v1/refusals/<id>`, for administrators.
pub(super) async fn refusal(
    State(broker): State<Arc<Broker>>,
    by: Administrator<Audit>,
    id: Result<Path<String>, PathRejection>,
) -> Response {
    let served = async { broker.refusal(&by, &named(id)?).await };
    written(&broker, served.await, Asker::Stranger, "GET /tcl/v1/refusals").await
}

/// The name of a record, as text.
fn named(id: Result<Path<String>, PathRejection>) -> Result<String, BrokerError> {
    let Path(id) = id.map_err(|_| {
        BrokerError::refused(reason::ATTESTOR_PROTOCOL, "path", "text in percent-encoding", "something else")
    })?;
    Ok(id)
}

/// The session is checked before the body is read: strangers send us nothing.
async fn session(broker: &Broker, headers: &HeaderMap, request: &'static str) -> Result<Arc<Known>, Response> {
    match broker.session(bearer(headers)) {
        Ok(session) => Ok(session),
        Err(error) => Err(answer::tcl(broker.refused(error, Asker::Stranger, request).await)),
    }
}

/// The body of a session's request, and the room it takes.
async fn posted(broker: &Broker, body: Body) -> Result<(String, Option<OwnedSemaphorePermit>), BrokerError> {
    let Received { bytes, room } = read(body, MAX_BODY, &broker.rooms.sessions).await.map_err(BrokerError::Body)?;
    let body = String::from_utf8(bytes)
        .map_err(|_| BrokerError::refused(reason::ATTESTOR_PROTOCOL, "request", "a compact JWS", "something else"))?;
    Ok((body, room))
}

pub(super) async fn written<T: Serialize>(
    broker: &Broker,
    served: Result<T, BrokerError>,
    asker: Asker<'_>,
    request: &'static str,
) -> Response {
    match served {
        Ok(value) => answer::json(200, &value),
        Err(error) => answer::tcl(broker.refused(error, asker, request).await),
    }
}
