//! The routes, and what every handler needs: bodies bounded in time and size, credentials, answers.

mod administrator;
mod answer;
mod audit;
mod kbs;
mod limit;
mod operations;
mod policy;
mod reference;
mod routes;
mod tcl;
mod telemetry;

use std::sync::Arc;
use std::time::Duration;

use audit_log::{CHECKPOINT_PATH, CONSISTENCY_PATH, ENTRIES_PATH, PROOF_PATH};
use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::middleware::{from_fn, from_fn_with_state};
use futures_util::StreamExt as _;
use protocols::kbs::SESSION_COOKIE;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::operations::operations;
use self::routes::Routes;
use crate::broker::Broker;
use crate::error::BodyError;

/// The longest a request's body may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);
/// The largest request for a challenge, in bytes.
const MAX_AUTH: usize = 16 * 1024;
/// Room for bodies of callers who have shown nothing yet, in KiB.
const STRANGERS_KIB: usize = 64 * 1024;
/// Room for bodies of attested sessions and administrators, in KiB: strangers cannot take it from them.
const SESSIONS_KIB: usize = 256 * 1024;
/// The longest answering may take; above the deadline for golden values.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// What strangers may ask, as often as `[limits]` says.
fn strangers() -> Routes {
    Routes::default().post("/kbs/v0/auth", kbs::auth).post("/kbs/v0/attest", kbs::attest)
}

/// Every other route; each is in `openapi.yaml` too, and a test compares the two. What is for administrators takes an
/// `Administrator` of the role it needs.
fn routes() -> Routes {
    Routes::default()
        .get("/healthz", operations::healthz)
        .get("/readyz", operations::readyz)
        .get("/metrics", operations::metrics)
        .get("/kbs/v0/resource/{*path}", kbs::resource)
        .post("/kbs/v0/resource/{*path}", kbs::put_resource)
        .delete("/kbs/v0/resource/{*path}", kbs::delete_resource)
        .get("/kbs/v0/resource-policy", policy::names)
        .post("/kbs/v0/resource-policy", policy::put_release)
        .delete("/kbs/v0/resource-policy", policy::delete_release)
        .post("/kbs/v0/attestation-policy", policy::put_appraisal)
        .delete("/kbs/v0/attestation-policy", policy::delete_appraisal)
        .get("/kbs/v0/reference-value", reference::all)
        .post("/kbs/v0/reference-value", reference::post)
        .get("/kbs/v0/reference-value/{name}", reference::one)
        .post("/tcl/v1/events", tcl::events)
        .post("/tcl/v1/decide", tcl::decide)
        .get("/tcl/v1/receipts", tcl::receipts)
        .get("/tcl/v1/verdicts/{id}", tcl::verdict)
        .get("/tcl/v1/refusals/{id}", tcl::refusal)
        .get(CHECKPOINT_PATH, audit::checkpoint)
        .get(ENTRIES_PATH, audit::entries)
        .get(PROOF_PATH, audit::proof)
        .get(CONSISTENCY_PATH, audit::consistency)
}

/// Method and path of every route.
#[must_use]
pub fn served() -> Vec<(&'static str, &'static str)> {
    let mut served = strangers().served();
    served.extend(routes().served());
    served
}

/// All of it as one service.
pub fn router(broker: Arc<Broker>) -> Router {
    strangers()
        .router()
        .layer(from_fn_with_state(Arc::clone(&broker), limit::limit))
        .merge(routes().router())
        .fallback(answer::nowhere)
        .method_not_allowed_fallback(answer::nowhere)
        .layer(from_fn(answer::in_time))
        .layer(from_fn_with_state(Arc::clone(&broker), telemetry::telemetry))
        .with_state(broker)
}

/// Memory for bodies, from their first byte to their answer. A body that finds no room waits for it, and not longer
/// than for its own bytes.
#[derive(Debug)]
pub(crate) struct Rooms {
    strangers: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
}

impl Rooms {
    pub(crate) fn new() -> Self {
        let room = |kib| Arc::new(Semaphore::new(kib));
        Self { strangers: room(STRANGERS_KIB), sessions: room(SESSIONS_KIB) }
    }
}

/// A body, and the room it takes.
#[derive(Debug)]
struct Received {
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

/// Reads a whole body of at most `limit` bytes within [`BODY_TIME`].
async fn read(body: Body, limit: usize, room: &Arc<Semaphore>) -> Result<Received, BodyError> {
    let reading = async {
        let mut received = Received { bytes: Vec::new(), room: None };
        let mut stream = body.into_data_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| BodyError::Cut)?;
            if received.bytes.len() + chunk.len() > limit {
                return Err(BodyError::TooLarge);
            }
            let held = received.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let needed = (received.bytes.len() + chunk.len()).div_ceil(1024);
            let kib = u32::try_from(needed.saturating_sub(held)).map_err(|_| BodyError::TooLarge)?;
            let more = Arc::clone(room).acquire_many_owned(kib).await.map_err(|_| BodyError::Timeout)?;
            match &mut received.room {
                Some(room) => room.merge(more),
                none => *none = Some(more),
            }
            received.bytes.extend_from_slice(&chunk);
        }
        Ok(received)
    };
    tokio::time::timeout(BODY_TIME, reading).await.map_err(|_| BodyError::Timeout)?
}

/// The bearer token, where the request carries one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The session cookie's value, where the request carries one.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == SESSION_COOKIE).map(|(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: usize) -> Body {
        // Byte by byte: what counts is their sum.
        let chunks = (0..bytes).map(|_| Ok::<_, std::io::Error>(vec![0u8]));
        Body::from_stream(futures_util::stream::iter(chunks))
    }

    /// The clock jumps whenever everything waits, so that waiting costs no time.
    #[tokio::test(start_paused = true)]
    async fn bodies_take_no_more_memory_than_there_is_room() {
        let room = Arc::new(Semaphore::new(4));
        let first = read(body(3 * 1024), 4096, &room).await.unwrap();
        assert_eq!((first.bytes.len(), room.available_permits()), (3072, 1));
        assert_eq!(read(body(1025), 4096, &room).await.unwrap_err(), BodyError::Timeout);
        assert_eq!(room.available_permits(), 1, "what did not come in gives its room back");
        assert_eq!(read(body(1024), 4096, &room).await.unwrap().bytes.len(), 1024);
        let waits = read(body(4096), 4096, &room);
        let (second, ()) = tokio::join!(waits, async {
            tokio::time::sleep(BODY_TIME / 2).await;
            drop(first);
        });
        assert_eq!(second.unwrap().bytes.len(), 4096);
        assert_eq!(read(body(4097), 4096, &room).await.unwrap_err(), BodyError::TooLarge);
    }
}
