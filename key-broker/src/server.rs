//! Serving: a bound on connections and on how long each may take, and a drain at the end.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::metrics::Metrics;
use crate::tls::Tls;

/// Connections at one time; others wait unaccepted.
const MAX_CONNECTIONS: u32 = 1024;
/// The longest a TLS handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// The longest a request's head may take to come, idle time on a kept connection included.
const HEAD_TIME: Duration = Duration::from_secs(15);
/// After this a connection serves the request in work and no more.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// The longest head of a request, in bytes: a bearer token and little else.
const MAX_HEAD: usize = 32 * 1024;
/// How long requests in work may take once their connection is to end; a peer that does not read ends here.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// A socket that listens, and what its connections speak.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Tls>>,
    metrics: Option<Arc<Metrics>>,
}

impl From<TcpListener> for Listener {
    /// Plain HTTP.
    fn from(socket: TcpListener) -> Self {
        Self { socket, tls: None, metrics: None }
    }
}

impl Listener {
    /// TLS, where there is an identity.
    #[must_use]
    pub fn tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }

    /// Counts its connections.
    #[must_use]
    pub fn counted(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics: Some(metrics), ..self }
    }
}

/// Who is at the other end of a connection; each of its requests carries this.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Where it connects from.
    pub(crate) address: IpAddr,
    /// Its certificate and those it sent with it, verified in the handshake; empty without.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
}

/// Serves until `stop` is done, then lets the requests in work end.
pub async fn serve(listener: impl Into<Listener> + Send, router: Router, stop: impl Future<Output = ()> + Send) {
    let Listener { socket: listener, tls, metrics } = listener.into();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let (draining, drain) = watch::channel(());
    tokio::pin!(stop);
    loop {
        let permit = tokio::select! {
            () = &mut stop => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let (stream, from) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: others must close first.
                    tracing::warn!("no connection accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (router, drain, tls) = (router.clone(), drain.clone(), tls.clone());
        let connected = metrics.as_ref().map(Metrics::connected);
        tokio::spawn(async move {
            let _counted = (permit, connected);
            connection(stream, from.ip(), tls, router, drain).await;
        });
    }
    drop((listener, router, draining));
    // Every permit back: every connection has ended.
    if tokio::time::timeout(DRAIN_TIME, permits.acquire_many(MAX_CONNECTIONS)).await.is_err() {
        tracing::warn!("some requests were cut off after {} s", DRAIN_TIME.as_secs());
    }
}

async fn connection(
    stream: TcpStream,
    address: IpAddr,
    tls: Option<Arc<Tls>>,
    router: Router,
    mut drain: watch::Receiver<()>,
) {
    // Small answers go out at once; a failure costs only speed.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("nodelay: {error}");
    }
    let Some(tls) = tls else {
        return spoken(TokioIo::new(stream), Peer { address, certificates: Arc::default() }, router, drain).await;
    };
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HANDSHAKE_TIME, handshake) => accepted,
        _ = drain.changed() => return,
    };
    match accepted {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().into();
            spoken(TokioIo::new(stream), Peer { address, certificates }, router, drain).await;
        }
        Ok(Err(error)) => tracing::debug!("handshake: {error}"),
        Err(_) => tracing::debug!("handshake: not done within {} s", HANDSHAKE_TIME.as_secs()),
    }
}

/// Serves the requests of one connection.
async fn spoken<I>(io: I, peer: Peer, router: Router, mut drain: watch::Receiver<()>)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(MAX_HEAD);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(
        io,
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            service.call(request)
        }),
    );
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
