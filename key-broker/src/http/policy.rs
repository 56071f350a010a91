//! Policies over the KBS protocol, for administrators of that role.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use protocols::encoding::un_b64url;
use protocols::kbs::MAX_BODY;
use protocols::reason;
use serde::Deserialize;

use super::{answer, kbs, read};
use crate::admin::{Administrator, Policies};
use crate::broker::{Broker, json_of};
use crate::error::BrokerError;
use crate::posted::Kind;
use crate::refusals::Asker;

/// The names by which clients post a policy for every platform.
const WHOLE: [&str; 2] = ["default", "default_cpu"];

/// `{"policy": base64url}`; clients send `type` and `policy_id` with an attestation policy.
#[derive(Deserialize)]
struct Posted {
    policy: String,
    #[serde(default)]
    policy_id: Option<String>,
}

/// POST `/kbs/v0/resource-policy`.
pub(super) async fn put_release(
    State(broker): State<Arc<Broker>>,
    by: Administrator<Policies>,
    body: Body,
) -> Response {
    told(&broker, put(&broker, &by, Kind::Release, body).await, "POST /kbs/v0/resource-policy").await
}

/// POST `/kbs/v0/attestation-policy`.
pub(super) async fn put_appraisal(
    State(broker): State<Arc<Broker>>,
    by: Administrator<Policies>,
    body: Body,
) -> Response {
    told(&broker, put(&broker, &by, Kind::Appraisal, body).await, "POST /kbs/v0/attestation-policy").await
}

/// DELETE `/kbs/v0/resource-policy`.
pub(super) async fn delete_release(State(broker): State<Arc<Broker>>, by: Administrator<Policies>) -> Response {
    told(&broker, broker.delete_policy(&by, Kind::Release).await, "DELETE /kbs/v0/resource-policy").await
}

/// DELETE `/kbs/v0/attestation-policy`.
pub(super) async fn delete_appraisal(State(broker): State<Arc<Broker>>, by: Administrator<Policies>) -> Response {
    told(&broker, broker.delete_policy(&by, Kind::Appraisal).await, "DELETE /kbs/v0/attestation-policy").await
}

/// GET `/kbs/v0/resource-policy`: the names there are, as real servers answer; texts are not given out.
pub(super) async fn names(_: State<Arc<Broker>>, _by: Administrator<Policies>) -> Response {
    answer::json(200, &["resource-policy"])
}

async fn put(broker: &Broker, by: &Administrator<Policies>, kind: Kind, body: Body) -> Result<(), BrokerError> {
    let body = read(body, MAX_BODY, &broker.rooms.sessions).await.map_err(BrokerError::Body)?;
    let Posted { policy, policy_id } = json_of(&body.bytes, "a policy in base64url")?;
    if let Some(other) = policy_id.filter(|id| !WHOLE.contains(&id.as_str())) {
        let actual: String = other.chars().take(64).collect();
        let expected = "default or default_cpu: one policy grades every platform";
        return Err(BrokerError::refused(reason::ATTESTOR_PROTOCOL, "policy id", expected, actual));
    }
    let text = un_b64url(&policy).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let refused = || BrokerError::refused(reason::ATTESTOR_PROTOCOL, "policy", "UTF-8 in base64url", "something else");
    broker.put_policy(by, kind, text.ok_or_else(refused)?).await
}

async fn told(broker: &Broker, done: Result<(), BrokerError>, request: &'static str) -> Response {
    match done {
        Ok(()) => kbs::done(),
        Err(error) => kbs::plugin(broker.refused(error, Asker::Stranger, request).await),
    }
}
