//! A proxy in front of replicas: each request goes to the next of them, on a connection of its own. One that does not
//! accept is passed over; a request that breaks off is answered with 502, for the client to try again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The largest body it passes on.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// A running proxy.
pub(crate) struct RoundRobin {
    pub(crate) address: SocketAddr,
    state: Arc<Replicas>,
    task: tokio::task::JoinHandle<()>,
}

struct Replicas {
    addresses: Vec<SocketAddr>,
    next: AtomicUsize,
    requests: AtomicU64,
    broken: AtomicU64,
}

impl RoundRobin {
    pub(crate) async fn start(addresses: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Replicas {
            addresses,
            next: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            broken: AtomicU64::new(0),
        });
        let app = axum::Router::new().fallback(pass_on).with_state(Arc::clone(&state));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, state, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that came, and those of them that broke off.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.state.requests.load(Ordering::SeqCst), self.state.broken.load(Ordering::SeqCst))
    }
}

impl Drop for RoundRobin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(State(replicas): State<Arc<Replicas>>, request: Request) -> Response {
    replicas.requests.fetch_add(1, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, MAX_BODY).await.unwrap();
    let mut text = format!("{} {} HTTP/1.1\r\nhost: kbs\r\nconnection: close\r\n", head.method, head.uri);
    for name in ["cookie", "authorization", "content-type"] {
        for value in head.headers.get_all(name) {
            text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    for _ in 0..replicas.addresses.len() {
        let next = replicas.next.fetch_add(1, Ordering::SeqCst) % replicas.addresses.len();
        let Ok(stream) = TcpStream::connect(replicas.addresses[next]).await else { continue };
        return match exchange(stream, text.as_bytes(), &body).await {
            Some(response) => response,
            None => {
                replicas.broken.fetch_add(1, Ordering::SeqCst);
                StatusCode::BAD_GATEWAY.into_response()
            }
        };
    }
    replicas.broken.fetch_add(1, Ordering::SeqCst);
    StatusCode::BAD_GATEWAY.into_response()
}

/// One exchange; nothing where the answer is not whole.
async fn exchange(mut stream: TcpStream, head: &[u8], body: &[u8]) -> Option<Response> {
    stream.write_all(head).await.ok()?;
    stream.write_all(body).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = answer[end + 4..].to_vec();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse::<u16>().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        if name.eq_ignore_ascii_case("content-length") && value.parse() != Ok(body.len()) {
            return None;
        }
        if !["content-length", "connection", "transfer-encoding", "date"].contains(&name) {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
        }
    }
    Some((StatusCode::from_u16(status).ok()?, headers, Body::from(body)).into_response())
}
