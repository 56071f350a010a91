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
use crate::token::Session;

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
        Err(error) => handshake(&error, &format!("Auth failed{}", cause(&error))),
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
        Err(error) => handshake(&error, "Attest failed"),
    }
}

/// Every failure of the handshake is 401 to a client of the KBS protocol, unless it is ours or the body's.
fn handshake(error: &BrokerError, step: &str) -> Response {
    let status = match error {
        BrokerError::Refused { .. } => 401,
        _ => error.status(),
    };
    answer::kbs(error, "AttestationError", status, format!("Attestation error: RCAR handshake {step}"))
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
    let session = match attested(&broker, &headers) {
        Ok(session) => session,
        Err(response) => return response,
    };
    match broker.resource(&session, &path).await {
        Ok(encrypted) => answer::json(200, &encrypted),
        Err(error) => plugin(&error),
    }
}

/// A path that is no text names nothing.
fn text(path: Result<Path<String>, PathRejection>) -> String {
    path.map(|Path(path)| path).unwrap_or_default()
}

/// A cookie wins over a bearer token when it stands for an attested session.
fn attested(broker: &Broker, headers: &HeaderMap) -> Result<Session, Response> {
    if let Ok(session) = broker.session(cookie(headers)) {
        return Ok(session);
    }
    let token = bearer(headers);
    broker.session(token).map_err(|error| {
        let (variant, detail) = match token {
            None => ("TokenNotFound", "Attestation Token not found"),
            Some(_) => ("TokenVerifierError", "Token Verifier error"),
        };
        answer::kbs(&error, variant, 401, detail.to_owned())
    })
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
        Ok(()) => ([(CONTENT_TYPE, HeaderValue::from_static("text/xml"))], "").into_response(),
        Err(error) => plugin(&error),
    }
}

/// A missing resource is 404: on 401 real clients would attest again, three times.
fn plugin(error: &BrokerError) -> Response {
    let status = match error {
        BrokerError::Refused { refusal, .. } if refusal.code == reason::ATTESTOR_NOT_FOUND => 404,
        BrokerError::Refused { .. } => 401,
        _ => error.status(),
    };
    answer::kbs(error, "PluginInternalError", status, "Plugin internal error".to_owned())
}
