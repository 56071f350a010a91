//! The one stand-in of these tests: a small OCI 1.1 registry in memory, with the referrers API that
//! Debian's docker-registry does not have.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::Response;
use protocols::digest::Sha256Digest;
use serde_json::{Value, json};

use crate::proxy::runtime;

#[derive(Debug, Default)]
struct Store {
    blobs: HashMap<String, Bytes>,
    manifests: BTreeMap<(String, String), (String, Bytes)>,
    tags: HashMap<(String, String), String>,
}

/// A running registry; gone when dropped.
#[derive(Debug)]
pub struct Oci11 {
    /// `127.0.0.1:port`.
    pub address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Oci11 {
    /// Starts an empty registry.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start() -> Self {
        let listener = runtime().block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let app = axum::Router::new()
            .fallback(serve)
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(Arc::new(Mutex::new(Store::default())));
        let task = runtime().spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Self { address, task }
    }
}

impl Drop for Oci11 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    State(store): State<Arc<Mutex<Store>>>,
    method: Method,
    uri: Uri,
    headers: axum::http::HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path().trim_start_matches("/v2/").to_owned();
    let query = uri.query().unwrap_or_default().to_owned();
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut store = store.lock().unwrap();
    if path.is_empty() {
        return answer(StatusCode::OK, &[], Bytes::new());
    }
    if let Some((name, reference)) = path.split_once("/manifests/") {
        return manifests(&mut store, &method, name, reference, kind, body);
    }
    if let Some((name, digest)) = path.split_once("/referrers/") {
        return referrers(&store, name, digest, &query);
    }
    if let Some((name, rest)) = path.split_once("/blobs/uploads/") {
        return uploads(&mut store, &method, name, rest, &query, body);
    }
    if let Some((_, digest)) = path.split_once("/blobs/") {
        return match store.blobs.get(digest) {
            Some(blob) => answer(StatusCode::OK, &[("content-type", "application/octet-stream")], blob.clone()),
            None => answer(StatusCode::NOT_FOUND, &[], Bytes::new()),
        };
    }
    answer(StatusCode::NOT_FOUND, &[], Bytes::new())
}

fn manifests(store: &mut Store, method: &Method, name: &str, reference: &str, kind: String, body: Bytes) -> Response {
    if *method == Method::PUT {
        let digest = Sha256Digest::of(&body).to_string();
        if reference.contains(':') && reference != digest {
            return answer(StatusCode::BAD_REQUEST, &[], Bytes::new());
        }
        let subject = serde_json::from_slice::<Value>(&body)
            .ok()
            .and_then(|m| m["subject"]["digest"].as_str().map(str::to_owned));
        store.manifests.insert((name.to_owned(), digest.clone()), (kind, body));
        if !reference.contains(':') {
            store.tags.insert((name.to_owned(), reference.to_owned()), digest.clone());
        }
        let mut headers = vec![("docker-content-digest", digest.as_str())];
        if let Some(subject) = &subject {
            headers.push(("oci-subject", subject));
        }
        return answer(StatusCode::CREATED, &headers, Bytes::new());
    }
    let digest = if reference.contains(':') {
        Some(reference.to_owned())
    } else {
        store.tags.get(&(name.to_owned(), reference.to_owned())).cloned()
    };
    match digest.and_then(|digest| Some((store.manifests.get(&(name.to_owned(), digest.clone()))?, digest))) {
        Some(((kind, bytes), digest)) => {
            answer(StatusCode::OK, &[("content-type", kind), ("docker-content-digest", &digest)], bytes.clone())
        }
        None => answer(StatusCode::NOT_FOUND, &[], Bytes::new()),
    }
}

fn referrers(store: &Store, name: &str, digest: &str, query: &str) -> Response {
    let wanted = parameter(query, "artifactType");
    let mut found = Vec::new();
    for ((repository, manifest), (kind, bytes)) in &store.manifests {
        let Ok(content) = serde_json::from_slice::<Value>(bytes) else { continue };
        if repository != name || content["subject"]["digest"] != digest {
            continue;
        }
        let artifact = content["artifactType"].clone();
        if wanted.as_ref().is_none_or(|wanted| artifact == wanted.as_str()) {
            found.push(json!({"mediaType": kind, "digest": manifest, "size": bytes.len(), "artifactType": artifact}));
        }
    }
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": found});
    let mut headers = vec![("content-type", "application/vnd.oci.image.index.v1+json")];
    if wanted.is_some() {
        headers.push(("oci-filters-applied", "artifactType"));
    }
    answer(StatusCode::OK, &headers, Bytes::from(index.to_string()))
}

fn uploads(store: &mut Store, method: &Method, name: &str, session: &str, query: &str, body: Bytes) -> Response {
    let digest = parameter(query, "digest");
    let key = format!("upload {name} {session}");
    let mut content = store.blobs.remove(&key).unwrap_or_default().to_vec();
    content.extend_from_slice(&body);
    let location = |session: &str| format!("/v2/{name}/blobs/uploads/{session}");
    match digest {
        Some(digest) if Sha256Digest::of(&content).to_string() == digest => {
            store.blobs.insert(digest.clone(), content.into());
            answer(StatusCode::CREATED, &[("location", &format!("/v2/{name}/blobs/{digest}"))], Bytes::new())
        }
        Some(_) => answer(StatusCode::BAD_REQUEST, &[], Bytes::new()),
        None if *method == Method::POST => {
            let session = format!("s{}", store.blobs.len());
            store.blobs.insert(format!("upload {name} {session}"), Bytes::new());
            answer(StatusCode::ACCEPTED, &[("location", &location(&session))], Bytes::new())
        }
        None => {
            store.blobs.insert(key, content.into());
            answer(StatusCode::ACCEPTED, &[("location", &location(session))], Bytes::new())
        }
    }
}

/// One parameter of a query, percent-decoded.
fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    let mut parts = value.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        decoded.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        decoded.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(decoded).ok()
}

fn answer(status: StatusCode, headers: &[(&str, &str)], body: Bytes) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(body)).unwrap()
}
