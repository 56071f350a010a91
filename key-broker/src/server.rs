//! Serving: a bound on connections and on how long each may take, and a drain at the end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// Connections at one time; others wait unaccepted.
const MAX_CONNECTIONS: u32 = 1024;
/// The longest a request's head may take to come, idle time on a kept connection included.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// After this a connection serves the request in work and no more.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// The longest head of a request, in bytes: a bearer token and little else.
const MAX_HEAD: usize = 32 * 1024;
/// How long requests in work may take once their connection is to end; a peer that does not read ends here.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Serves until `stop` is done, then lets the requests in work end.
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()> + Send) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let (draining, drain) = watch::channel(());
    tokio::pin!(stop);
    loop {
        let permit = tokio::select! {
            () = &mut stop => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let stream = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: others must close first.
                    tracing::warn!("no connection accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (router, drain) = (router.clone(), drain.clone());
        tokio::spawn(async move {
            let _permit = permit;
            connection(stream, router, drain).await;
        });
    }
    drop((listener, router, draining));
    // Every permit back: every connection has ended.
    if tokio::time::timeout(DRAIN_TIME, permits.acquire_many(MAX_CONNECTIONS)).await.is_err() {
        tracing::warn!("some requests were cut off after {} s", DRAIN_TIME.as_secs());
    }
}

async fn connection(stream: TcpStream, router: Router, mut drain: watch::Receiver<()>) {
    // Small answers go out at once; a failure costs only speed.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("nodelay: {error}");
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MAX_HEAD);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = drain.changed() => None,
        () = tokio::time::sleep(CONNECTION_TIME) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN_TIME, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!("connection: {error}");
    }
}
