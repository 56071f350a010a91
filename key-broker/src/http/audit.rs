//! The audit log, for administrators who may audit.

use std::sync::Arc;

use audit_log::Plan;
use axum::extract::{Query, State};
use axum::response::Response;
use protocols::reason;
use serde::Deserialize;

use super::tcl::written;
use crate::admin::{Administrator, Audit};
use crate::broker::Broker;
use crate::error::BrokerError;
use crate::refusals::Asker;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    from: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    place: u64,
    size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sizes {
    old: u64,
    new: u64,
}

type Asked<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

fn asked<T>(query: Asked<T>, expected: &'static str) -> Result<T, BrokerError> {
    let Query(query) =
        query.map_err(|_| BrokerError::refused(reason::ATTESTOR_PROTOCOL, "query", expected, "something else"))?;
    Ok(query)
}

/// GET `/tcl/v1/audit/checkpoint`.
pub(super) async fn checkpoint(State(broker): State<Arc<Broker>>, _by: Administrator<Audit>) -> Response {
    let served = async { broker.audit.checkpoint().await };
    written(&broker, served.await, Asker::Stranger, "GET /tcl/v1/audit").await
}

/// GET `/tcl/v1/audit/entries?from=<place>`.
pub(super) async fn entries(
    State(broker): State<Arc<Broker>>,
    _by: Administrator<Audit>,
    query: Asked<From>,
) -> Response {
    let served = async { broker.audit.entries(asked(query, "from=<place>")?.from).await };
    written(&broker, served.await, Asker::Stranger, "GET /tcl/v1/audit").await
}

/// GET `/tcl/v1/audit/proof?place=<place>&size=<size>`.
pub(super) async fn proof(
    State(broker): State<Arc<Broker>>,
    _by: Administrator<Audit>,
    query: Asked<Place>,
) -> Response {
    let served = async {
        let Place { place, size } = asked(query, "place=<place>&size=<size>")?;
        broker.audit.prove(Plan::inclusion(place, size)).await
    };
    written(&broker, served.await, Asker::Stranger, "GET /tcl/v1/audit").await
}

/// GET `/tcl/v1/audit/consistency?old=<size>&new=<size>`.
pub(super) async fn consistency(
    State(broker): State<Arc<Broker>>,
    _by: Administrator<Audit>,
    query: Asked<Sizes>,
) -> Response {
    let served = async {
        let Sizes { old, new } = asked(query, "old=<size>&new=<size>")?;
        broker.audit.prove(Plan::consistency(old, new)).await
    };
    written(&broker, served.await, Asker::Stranger, "GET /tcl/v1/audit").await
}
