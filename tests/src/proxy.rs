//! A hostile network: an HTTP proxy before a service, with rules that spoil chosen answers.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use tokio::runtime::Runtime;

use crate::process::PATIENCE;

/// What happens to an answer.
#[derive(Clone)]
pub enum Action {
    /// It passes; the rule only counts and remembers.
    Pass,
    /// An empty answer with this status instead; the service is not asked.
    Status(u16),
    /// No answer, as long as the client waits; the service is not asked.
    Stall,
    /// The headers and half of the body, then nothing more.
    StallHalfway,
    /// The connection ends in the middle of the body.
    Cut,
    /// The body, changed; `content-length` fits the changed body.
    Edit(Arc<dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync>),
    /// The answer that the named rule saw last, as it was.
    Replay(&'static str),
    /// The service answers, then the answer is withheld as long as the client waits.
    Withhold,
    /// Something happens between the request and its answer.
    Meanwhile(Arc<dyn Fn() + Send + Sync>),
}

impl Action {
    /// Changes the body.
    pub fn edit(edit: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::Edit(Arc::new(edit))
    }

    /// Does something before the service is asked.
    pub fn meanwhile(act: impl Fn() + Send + Sync + 'static) -> Self {
        Self::Meanwhile(Arc::new(act))
    }
}

impl std::fmt::Debug for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Action")
    }
}

/// Which requests a rule is for: method (empty: any), a part of the path, and only while something holds.
struct Rule {
    name: &'static str,
    method: &'static str,
    path: String,
    when: Box<dyn Fn() -> bool + Send>,
    action: Action,
    hits: usize,
    last: Option<(StatusCode, HeaderMap, Bytes)>,
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[derive(Debug, Default)]
struct Shared {
    upstream: String,
    rules: Vec<Rule>,
    requests: Vec<String>,
}

/// A running proxy; gone when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// `127.0.0.1:port`.
    pub address: String,
    shared: Arc<Mutex<Shared>>,
    task: tokio::task::JoinHandle<()>,
}

/// One runtime for every proxy and stand-in of a test binary.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    })
}

impl Proxy {
    /// A proxy before `upstream` (`host:port`).
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(upstream: &str) -> Self {
        let shared = Arc::new(Mutex::new(Shared { upstream: upstream.to_owned(), ..Shared::default() }));
        let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let app = axum::Router::new()
            .fallback(pass)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state((Arc::clone(&shared), client));
        let task = runtime().spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Self { address, shared, task }
    }

    /// Spoils answers to `method` (empty: any) requests whose path with query contains `path`.
    /// The newest rule that fits counts. `name` is for [`Proxy::hits`] and [`Action::Replay`].
    ///
    /// # Panics
    /// Never, but for a poisoned lock.
    pub fn rule(&self, name: &'static str, method: &'static str, path: &str, action: Action) {
        self.rule_when(name, method, path, || true, action);
    }

    /// As [`Proxy::rule`], but only for requests that come while `when` holds.
    ///
    /// # Panics
    /// Never, but for a poisoned lock.
    pub fn rule_when(
        &self,
        name: &'static str,
        method: &'static str,
        path: &str,
        when: impl Fn() -> bool + Send + 'static,
        action: Action,
    ) {
        let rule = Rule { name, method, path: path.to_owned(), when: Box::new(when), action, hits: 0, last: None };
        self.shared.lock().unwrap().rules.push(rule);
    }

    /// Takes all rules away.
    ///
    /// # Panics
    /// Never, but for a poisoned lock.
    pub fn clear(&self) {
        self.shared.lock().unwrap().rules.clear();
    }

    /// Nobody listens any more: connections are refused.
    pub fn close(&self) {
        self.task.abort();
        // The listener goes with its task, a moment later.
        while std::net::TcpStream::connect(&self.address).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends requests to another service from now on.
    ///
    /// # Panics
    /// Never, but for a poisoned lock.
    pub fn redirect(&self, upstream: &str) {
        upstream.clone_into(&mut self.shared.lock().unwrap().upstream);
    }

    /// How often the named rule acted.
    ///
    /// # Panics
    /// Never, but for a poisoned lock.
    #[must_use]
    pub fn hits(&self, name: &str) -> usize {
        self.shared.lock().unwrap().rules.iter().filter(|rule| rule.name == name).map(|rule| rule.hits).sum()
    }

    /// Waits until the named rule acted.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`].
    pub fn wait_for_hit(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.hits(name) == 0 {
            assert!(Instant::now() < deadline, "rule {name} was never met; seen: {:#?}", self.requests());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `METHOD path` of every request so far.
    ///
    /// # Panics
    /// Never, but for a poisoned lock.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().unwrap().requests.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shell = (Arc<Mutex<Shared>>, reqwest::Client);

async fn pass(State((shared, client)): State<Shell>, request: Request) -> Response {
    let method = request.method().clone();
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let (upstream, place, action) = {
        let mut shared = shared.lock().unwrap();
        shared.requests.push(format!("{method} {path}"));
        let place = shared.rules.iter().rposition(|rule| {
            let fits = (rule.method.is_empty() || rule.method == method.as_str()) && path.contains(&rule.path);
            fits && (rule.when)()
        });
        let action = place.map_or(Action::Pass, |place| {
            shared.rules[place].hits += 1;
            shared.rules[place].action.clone()
        });
        (shared.upstream.clone(), place, action)
    };
    match &action {
        Action::Status(status) => {
            return plain(StatusCode::from_u16(*status).unwrap(), HeaderMap::new(), Body::empty());
        }
        Action::Stall => std::future::pending::<()>().await,
        Action::Replay(name) => {
            let seen = {
                let shared = shared.lock().unwrap();
                shared.rules.iter().rev().find(|rule| rule.name == *name).and_then(|rule| rule.last.clone())
            };
            let (status, headers, body) = seen.unwrap_or_else(|| panic!("rule {name} has seen no answer"));
            return plain(status, headers, Body::from(body));
        }
        Action::Meanwhile(act) => tokio::task::block_in_place(|| act()),
        _ => {}
    }
    let Some((status, headers, body)) = forward(&client, &upstream, request).await else {
        return plain(StatusCode::BAD_GATEWAY, HeaderMap::new(), Body::empty());
    };
    if let Some(place) = place {
        let mut shared = shared.lock().unwrap();
        if let Some(rule) = shared.rules.get_mut(place) {
            rule.last = Some((status, headers.clone(), body.clone()));
        }
    }
    match action {
        Action::Edit(edit) => plain(status, without_length(headers), Body::from(edit(body.to_vec()))),
        Action::Cut => halfway(status, headers, &body, false),
        Action::StallHalfway => halfway(status, headers, &body, true),
        Action::Withhold => std::future::pending().await,
        _ => plain(status, headers, Body::from(body)),
    }
}

async fn forward(client: &reqwest::Client, upstream: &str, request: Request) -> Option<(StatusCode, HeaderMap, Bytes)> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let body = axum::body::to_bytes(body, usize::MAX).await.ok()?;
    let answer = client
        .request(parts.method, format!("http://{upstream}{path}"))
        .headers(parts.headers)
        .body(body)
        .send()
        .await
        .ok()?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    Some((status, headers, answer.bytes().await.ok()?))
}

fn without_length(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::CONTENT_LENGTH);
    headers
}

fn plain(status: StatusCode, mut headers: HeaderMap, body: Body) -> Response {
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::CONNECTION);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Half of the body under the whole body's `content-length`, then an end of the connection or silence.
fn halfway(status: StatusCode, headers: HeaderMap, body: &Bytes, stall: bool) -> Response {
    use futures_util::StreamExt as _;
    let first = body.slice(..body.len() / 2);
    let head = futures_util::stream::iter([Ok::<_, std::io::Error>(first)]);
    let tail = futures_util::stream::once(async move {
        if stall {
            std::future::pending::<()>().await;
        }
        // Lets the first half reach the client before the connection ends.
        tokio::time::sleep(Duration::from_millis(50)).await;
        Err(std::io::Error::other("cut"))
    });
    let mut headers = headers;
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    plain(status, headers, Body::from_stream(head.chain(tail)))
}
