//! Reference values over the KBS protocol, for administrators: which ones count, and none that nobody has signed.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use protocols::reason;
use reference_values::References;
use serde::Deserialize;

use super::{MAX_AUTH, answer, read};
use crate::admin::{Administrator, Policies};
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::refusals::Asker;

/// What a reference value provider service is sent.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "version")]
    _version: String,
    #[serde(rename = "payload")]
    _payload: String,
}

/// GET `/kbs/v0/reference-value`: every name that has values, with its values.
pub(super) async fn all(State(broker): State<Arc<Broker>>, _by: Administrator<Policies>) -> Response {
    answer::json(200, broker.rules().references.values())
}

/// GET `/kbs/v0/reference-value/<name>`: the values of one name.
pub(super) async fn one(
    State(broker): State<Arc<Broker>>,
    _by: Administrator<Policies>,
    name: Result<Path<String>, PathRejection>,
) -> Response {
    let name = name.map(|Path(name)| name).unwrap_or_default();
    let values = values(&broker.rules().references, &name);
    if values.is_empty() {
        let error = BrokerError::refused(reason::ATTESTOR_NOT_FOUND, "reference value", "it has values", "none");
        return rvps(&broker, error, 404).await;
    }
    answer::json(200, &values)
}

fn values(references: &References, name: &str) -> Vec<String> {
    references.of(name).map(str::to_owned).collect()
}

/// POST `/kbs/v0/reference-value`. Whoever administrates does not sign: documents with signers are read from files.
pub(super) async fn post(State(broker): State<Arc<Broker>>, _by: Administrator<Policies>, body: Body) -> Response {
    let body = match read(body, MAX_AUTH, &broker.rooms.sessions).await {
        Ok(body) => body,
        Err(error) => {
            let error = BrokerError::Body(error);
            let status = error.status();
            return rvps(&broker, error, status).await;
        }
    };
    let Ok(Message { kind, .. }) = serde_json::from_slice(&body.bytes) else {
        let expected = "a message of a reference value provider";
        let error = BrokerError::refused(reason::ATTESTOR_PROTOCOL, "request", expected, "something else");
        return rvps(&broker, error, 401).await;
    };
    let kind: String = kind.chars().take(32).collect();
    let expected = "a signed document in a file of [reference]";
    let error = BrokerError::refused(reason::REFERENCE_UNSIGNED, "reference values", expected, kind);
    rvps(&broker, error, 401).await
}

async fn rvps(broker: &Broker, error: BrokerError, status: u16) -> Response {
    let told = broker.refused(error, Asker::Stranger, "/kbs/v0/reference-value").await;
    answer::kbs(told, "RvpsError", status, "RVPS configuration failed".to_owned())
}
