//! How answers and refusals are written.

use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use protocols::kbs::{ERROR_TYPE_PREFIX, ErrorBody, SESSION_COOKIE};
use protocols::reason::{self, Refusal, Source};
use protocols::tcl::TclError;
use serde::Serialize;

use super::ANSWER_TIME;
use super::telemetry::Why;
use crate::error::BrokerError;
use crate::refusals::Told;

/// A JSON answer.
pub(super) fn json<T: Serialize>(status: u16, value: &T) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match serde_json::to_vec(value) {
        Ok(bytes) => (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], bytes).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Adds the session cookie.
pub(super) fn with_cookie(mut response: Response, value: &str, seconds: u64) -> Response {
    let cookie = format!("{SESSION_COOKIE}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

/// An error in the KBS protocol's form. `variant` ends its `type`, `detail` is a fixed sentence: the code says why,
/// the whole refusal is for our own records, under the id.
pub(super) fn kbs(told: Told, variant: &str, status: u16, detail: String) -> Response {
    let Told { error, id } = told;
    let reason = Some(error.refusal().code.as_str().to_owned());
    let body = ErrorBody { error_type: format!("{ERROR_TYPE_PREFIX}{variant}"), detail, reason, id };
    counted(&error, json(status, &body))
}

/// An error of `/tcl/v1`.
pub(super) fn tcl(told: Told) -> Response {
    let Told { error, id } = told;
    counted(&error, json(error.status(), &TclError { refusal: error.refusal(), count: error.count(), id }))
}

/// Leaves beside the answer why it is one.
fn counted(error: &BrokerError, mut response: Response) -> Response {
    response.extensions_mut().insert(Why::from(error));
    response
}

/// A path or method that leads nowhere; beneath `/kbs/v0` as an unknown plugin.
pub(super) async fn nowhere(uri: Uri) -> Response {
    let refusal = Refusal::new(reason::ATTESTOR_NOT_FOUND, "path", "a path and method of this service", "another");
    match uri.path().strip_prefix("/kbs/v0/") {
        Some(rest) => {
            let plugin: String = rest.split('/').next().unwrap_or_default().chars().take(64).collect();
            let body = ErrorBody {
                error_type: format!("{ERROR_TYPE_PREFIX}PluginNotFound"),
                detail: format!("Plugin {plugin} not found"),
                reason: Some(refusal.code.as_str().to_owned()),
                id: None,
            };
            json(404, &body)
        }
        None => json(404, &TclError { refusal: refusal.by(Source::Attestor), count: None, id: None }),
    }
}

/// Ends a request that takes too long, whatever it waits for.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let error = BrokerError::Internal("an answer that took too long");
            tracing::error!("{error}");
            tcl(Told { error, id: None })
        }
    }
}
