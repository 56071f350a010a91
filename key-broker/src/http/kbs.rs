//! The KBS protocol: the bodies, status codes and error types that real clients know, and a reason in each error.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use protocols::kbs::{MAX_BODY, TokenResponse, VERSION};
use protocols::reason;

use super::{MAX_AUTH, answer, bearer, cookie, read};
use crate::admin::{Administrator, Resources};
use crate::broker::{Broker, VERSION_SUBJECT};
use crate::error::BrokerError;
use crate::refusals::{Asker, Told};
use crate::sessions::Known;

/// POST `/kbs/v0/auth`.
pub(super) async fn auth(State(broker): State<Arc<Broker>>, body: Body) -> Response {
    let answered = match read(body, MAX_AUTH, &broker.rooms.strangers).await {
        Ok(body) => broker.challenge(&body.bytes),
        Err(error) => Err(BrokerError::Body(error)),
    };
    match answered {
        Ok(challenged) => {
            let seconds = broker.rules().settings.challenge_seconds;
            answer::with_cookie(answer::json(200, &challenged.body), &challenged.cookie, seconds)
        }
        Err(error) => {
            let step = format!("Auth failed{}", cause(&error));
            handshake(broker.refused(error, Asker::Stranger, "POST /kbs/v0/auth").await, &step)
        }
    }
}

/// POST `/kbs/v0/attest`. The token is the session's new cookie too, so that a client of cookies needs nothing else.
pub(super) async fn attest(State(broker): State<Arc<Broker>>, headers: HeaderMap, body: Body) -> Response {
    let answered = match read(body, MAX_BODY, &broker.rooms.strangers).await {
        Ok(body) => broker.attest(cookie(&headers), &body.bytes).await,
        Err(error) => Err(BrokerError::Body(error)),
    };
    match answered {
        Ok(token) => {
            let response = answer::json(200, &TokenResponse { token: token.clone() });
            answer::with_cookie(response, &token, broker.rules().settings.token_seconds)
        }
        Err(error) => handshake(broker.refused(error, Asker::Stranger, "POST /kbs/v0/attest").await, "Attest failed"),
    }
}

/// Every failure of the handshake is 401 to a client of the KBS protocol, unless it is ours or the body's.
fn handshake(told: Told, step: &str) -> Response {
    let status = match &told.error {
        BrokerError::Refused { .. } => 401,
        other => other.status(),
    };
    answer::kbs(told, "AttestationError", status, format!("Attestation error: RCAR handshake {step}"))
}

/// Why there is no challenge, in the words of real servers, which say so for this step alone.
fn cause(error: &BrokerError) -> String {
    let BrokerError::Refused { refusal, .. } = error else { return String::new() };
    let version = |text: &str| text.split('.').count() == 3 && text.bytes().all(|b| b == b'.' || b.is_ascii_digit());
    match refusal.subject.as_str() {
        VERSION_SUBJECT if version(&refusal.actual) => {
            format!(": KBS Client Protocol Version Mismatch: expect ={VERSION} while the request is {}", refusal.actual)
        }
        VERSION_SUBJECT => ": failed to parse KBS version".to_owned(),
        "request" => ": deserialize Request".to_owned(),
        _ => ": Attestation Service generate challenge failed".to_owned(),
    }
}

/// GET `/kbs/v0/resource/…`.
pub(super) async fn resource(
    State(broker): State<Arc<Broker>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let path = text(path);
    let session = match attested(&broker, &headers).await {
        Ok(session) => session,
        Err(response) => return response,
    };
    match broker.resource(&session, &path).await {
        Ok(encrypted) => answer::json(200, &encrypted),
        Err(error) => plugin(broker.refused(error, Asker::Session(&session), "GET /kbs/v0/resource").await),
    }
}

/// A path that is no text names nothing.
fn text(path: Result<Path<String>, PathRejection>) -> String {
    path.map(|Path(path)| path).unwrap_or_default()
}

/// A cookie wins over a bearer token when it stands for an attested session.
async fn attested(broker: &Broker, headers: &HeaderMap) -> Result<Arc<Known>, Response> {
    if let Ok(session) = broker.session(cookie(headers)) {
        return Ok(session);
    }
    let token = bearer(headers);
    let error = match broker.session(token) {
        Ok(session) => return Ok(session),
        Err(error) => error,
    };
    let (variant, detail) = match token {
        None => ("TokenNotFound", "Attestation Token not found"),
        Some(_) => ("TokenVerifierError", "Token Verifier error"),
    };
    let told = broker.refused(error, Asker::Stranger, "GET /kbs/v0/resource").await;
    Err(answer::kbs(told, variant, 401, detail.to_owned()))
}

/// POST `/kbs/v0/resource/…`, for administrators.
pub(super) async fn put_resource(
    State(broker): State<Arc<Broker>>,
    by: Administrator<Resources>,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Response {
    let path = text(path);
    let stored = match read(body, MAX_BODY, &broker.rooms.sessions).await {
        Ok(body) => broker.put_resource(&by, &path, body.bytes).await,
        Err(error) => Err(BrokerError::Body(error)),
    };
    match stored {
        Ok(()) => done(),
        Err(error) => plugin(broker.refused(error, Asker::Stranger, "POST /kbs/v0/resource").await),
    }
}

/// DELETE `/kbs/v0/resource/…`, for administrators.
pub(super) async fn delete_resource(
    State(broker): State<Arc<Broker>>,
    by: Administrator<Resources>,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    match broker.delete_resource(&by, &text(path)).await {
        Ok(()) => done(),
        Err(error) => plugin(broker.refused(error, Asker::Stranger, "DELETE /kbs/v0/resource").await),
    }
}

/// As real servers answer a change.
pub(super) fn done() -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/xml"))], "").into_response()
}

/// A missing resource is 404: on 401 real clients would attest again, three times.
pub(super) fn plugin(told: Told) -> Response {
    let (status, denied) = match &told.error {
        BrokerError::Refused { refusal, .. } if refusal.code == reason::ATTESTOR_NOT_FOUND => (404, false),
        BrokerError::Refused { refusal, .. } => (401, refusal.code == reason::ATTESTOR_DENIED),
        other => (other.status(), false),
    };
    if denied {
        return answer::kbs(told, "PolicyDeny", status, "Access denied by policy".to_owned());
    }
    answer::kbs(told, "PluginInternalError", status, "Plugin internal error".to_owned())
}
