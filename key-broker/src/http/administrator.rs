//! The one way a handler comes to an [`Administrator`]: from the request's own credentials, before its body is read.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;

use super::{answer, bearer};
use crate::admin::{Administrator, Needed, Shown};
use crate::broker::Broker;
use crate::refusals::Asker;
use crate::server::Peer;

impl<R: Needed> FromRequestParts<Arc<Broker>> for Administrator<R> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, broker: &Arc<Broker>) -> Result<Self, Response> {
        let peer = parts.extensions.get::<Peer>();
        let certificates = peer.map_or(&[][..], |peer| &peer.certificates);
        let shown = Shown { bearer: bearer(&parts.headers), certificates };
        let error = match broker.administrator(shown) {
            Ok(administrator) => return Ok(administrator),
            Err(error) => error,
        };
        let from = peer.map(|peer| peer.address.to_string());
        tracing::warn!(from, code = error.refusal().code.as_str(), "no administration");
        let told = broker.refused(error, Asker::Stranger, "administration").await;
        if parts.uri.path().starts_with("/kbs/v0/") {
            return Err(answer::kbs(told, "AdminAuthError", 401, "Admin auth error".to_owned()));
        }
        Err(answer::tcl(told))
    }
}
