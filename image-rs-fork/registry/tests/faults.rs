//! What a hostile or broken registry can answer, by a scripted server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

#[path = "../../tests/support/scripted.rs"]
mod scripted;

use std::time::{Duration, Instant};

use protocols::digest::Sha256Digest;
use protocols::reason;
use registry::{HttpRegistry, Registry as _, RegistryConfig, RegistryError, Repository, Target, golden};
use scripted::{Answer, Request, Scripted, http};

fn config(servers: &[&Scripted]) -> RegistryConfig {
    let plain_http = servers.iter().map(|server| server.host().to_owned()).collect();
    RegistryConfig {
        plain_http,
        stall_seconds: 1,
        request_seconds: 2,
        connect_seconds: 2,
        retries: 1,
        retry_seconds: 2,
        ..RegistryConfig::default()
    }
}

fn repository(server: &Scripted) -> Repository {
    format!("{}/app", server.host()).parse().unwrap()
}

fn tag() -> Target {
    Target::Tag("v1".to_owned())
}

/// A client with user `u` and password `p` for each server.
fn with_password(servers: &[&Scripted], dir: &std::path::Path) -> HttpRegistry {
    let entries: Vec<String> =
        servers.iter().map(|server| format!(r#""{}":{{"auth":"dTpw"}}"#, server.host())).collect();
    let path = dir.join("auth.json");
    std::fs::write(&path, format!(r#"{{"auths":{{{}}}}}"#, entries.join(","))).unwrap();
    HttpRegistry::new(RegistryConfig { auth_file: Some(path), ..config(servers) }).unwrap()
}

async fn manifest_error(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> RegistryError {
    let server = Scripted::start(answer);
    HttpRegistry::new(config(&[&server])).unwrap().manifest(&repository(&server), &tag()).await.unwrap_err()
}

#[tokio::test]
async fn a_server_error_means_unavailable() {
    for status in ["500 x", "503 x", "429 x"] {
        let error = manifest_error(move |_| http(status, &[], b"")).await;
        assert_eq!(error.code(), reason::IMAGE_REGISTRY, "{error}");
    }
    let denied = manifest_error(|_| http("403 x", &[], b"")).await;
    assert_eq!(denied.code(), reason::IMAGE_DENIED);
}

#[tokio::test]
async fn a_registry_that_never_answers_is_given_up() {
    let start = Instant::now();
    let error = manifest_error(|_| Answer::Stall(Vec::new())).await;
    assert_eq!(error.code(), reason::IMAGE_REGISTRY);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_manifest_that_stalls_or_trickles_is_given_up() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec();
    let error = manifest_error(move |_| Answer::Stall(head.clone())).await;
    assert!(error.to_string().contains("stalled"), "{error}");
}

#[tokio::test]
async fn a_blob_that_stalls_or_breaks_off_is_an_outage_not_a_short_blob() {
    for stall in [true, false] {
        let server = Scripted::start(move |_| {
            let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_vec();
            if stall { Answer::Stall(bytes) } else { Answer::Bytes(bytes) }
        });
        let client = HttpRegistry::new(config(&[&server])).unwrap();
        let mut blob = client.blob(&repository(&server), &Sha256Digest::of(b""), 10).await.unwrap();
        let error = loop {
            match blob.next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a blob that broke off must not end well"),
                Err(e) => break e,
            }
        };
        assert_eq!(error.code(), reason::IMAGE_REGISTRY, "{error}");
    }
}

#[tokio::test]
async fn a_blob_that_trickles_is_given_up() {
    let server =
        Scripted::start(|_| Answer::Drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n".to_vec(), vec![b'x'; 100]));
    let client = HttpRegistry::new(config(&[&server])).unwrap();
    let mut blob = client.blob(&repository(&server), &Sha256Digest::of(b""), 100).await.unwrap();
    let start = Instant::now();
    let error = loop {
        if let Err(e) = blob.next().await {
            break e;
        }
    };
    assert!(error.to_string().contains("slower"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_registry_that_indexes_subjects_itself_gets_no_fallback_index() {
    let server = Scripted::start(|request| match request.line.split(' ').next() {
        Some("HEAD") => http("404 x", &[], b""),
        Some("POST") => http("202 x", &["Location: /upload?state=1"], b""),
        Some("PUT") if request.line.contains("/manifests/") => http("201 x", &["OCI-Subject: sha256:00"], b""),
        _ => http("201 x", &[], b""),
    });
    let client = HttpRegistry::new(config(&[&server])).unwrap();
    let subject = registry::Descriptor::of(registry::oci::MANIFEST, b"subject");
    let pushed = golden::push(&client, &repository(&server), &subject, b"envelope").await.unwrap();
    let lines: Vec<_> = server.requests().into_iter().map(|request| request.line).collect();
    assert!(lines.iter().all(|line| !line.contains("/manifests/sha256-")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("PUT /upload?state=1&digest=sha256")), "{lines:?}");
    assert!(lines.last().unwrap().contains(&pushed.digest.to_string()), "{lines:?}");
}

#[tokio::test]
async fn a_manifest_above_the_limit_is_not_read() {
    let announced = manifest_error(|_| Answer::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 4194305\r\n\r\n".to_vec()));
    assert!(matches!(announced.await, RegistryError::TooLarge { .. }));
    let endless = manifest_error(|_| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..65 {
            bytes.extend_from_slice(b"10000\r\n");
            bytes.resize(bytes.len() + 0x10000, b' ');
            bytes.extend_from_slice(b"\r\n");
        }
        Answer::Stall(bytes)
    });
    assert!(matches!(endless.await, RegistryError::TooLarge { .. }));
}

#[tokio::test]
async fn a_blob_announced_with_another_size_is_refused_at_once() {
    let server = Scripted::start(|_| http("200 OK", &[], b"four"));
    let client = HttpRegistry::new(config(&[&server])).unwrap();
    let error = client.blob(&repository(&server), &Sha256Digest::of(b"four"), 3).await.err().unwrap();
    assert_eq!(error.code(), reason::IMAGE_BLOB_SIZE);
    let encoded = Scripted::start(|_| http("200 OK", &["Content-Encoding: gzip"], b"four"));
    let client = HttpRegistry::new(config(&[&encoded])).unwrap();
    assert!(client.blob(&repository(&encoded), &Sha256Digest::of(b"four"), 4).await.is_err());
}

#[tokio::test]
async fn credentials_stay_at_their_registry_when_a_blob_is_redirected() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Scripted::start(|_| http("200 OK", &[], b"blob"));
    let location = format!("Location: http://{}/elsewhere", storage.host());
    let server = Scripted::start(move |request| match request.header("authorization") {
        Some("Basic dTpw") => http("307 x", &[&location], b""),
        _ => http("401 x", &["WWW-Authenticate: Basic realm=\"r\""], b""),
    });
    // The other host has credentials of its own; they must not be sent unasked either.
    let client = with_password(&[&server, &storage], dir.path());
    let mut blob = client.blob(&repository(&server), &Sha256Digest::of(b"blob"), 4).await.unwrap();
    assert_eq!(blob.next().await.unwrap().as_deref(), Some(&b"blob"[..]));
    assert_eq!(storage.requests().len(), 1);
    assert_eq!(storage.requests()[0].header("authorization"), None);
}

#[tokio::test]
async fn a_redirect_to_plain_http_of_an_unlisted_host_is_not_followed() {
    let storage = Scripted::start(|_| http("200 OK", &[], b"blob"));
    let location = format!("Location: http://{}/elsewhere", storage.host());
    let server = Scripted::start(move |_| http("307 x", &[&location], b""));
    let client = HttpRegistry::new(config(&[&server])).unwrap();
    let error = client.blob(&repository(&server), &Sha256Digest::of(b"blob"), 4).await.err().unwrap();
    assert_eq!(error.code(), reason::IMAGE_PLAIN_HTTP, "{error}");
    assert!(storage.requests().is_empty());
}

#[tokio::test]
async fn redirects_end() {
    let error = manifest_error(|_| http("307 x", &["Location: /v2/app/manifests/again"], b"")).await;
    assert!(error.to_string().contains("redirects"), "{error}");
}

/// A token server and a registry that takes its token.
fn bearer_pair() -> (Scripted, Scripted) {
    let tokens = Scripted::start(|_| http("200 OK", &[], br#"{"access_token":"T","expires_in":300}"#));
    let challenge = format!(
        r#"WWW-Authenticate: Bearer realm="http://{}/token",service="s",scope="repository:other:*""#,
        tokens.host()
    );
    let server = Scripted::start(move |request| match request.header("authorization") {
        Some("Bearer T") => http("200 OK", &[], b"{}"),
        _ => http("401 x", &[&challenge], b""),
    });
    (server, tokens)
}

#[tokio::test]
async fn a_bearer_token_is_fetched_once_for_our_own_scope() {
    let dir = tempfile::tempdir().unwrap();
    let (server, tokens) = bearer_pair();
    let client = HttpRegistry::new(RegistryConfig {
        auth_file: with_password_file(dir.path(), server.host()),
        ..config(&[&server, &tokens])
    })
    .unwrap();
    client.manifest(&repository(&server), &tag()).await.unwrap();
    client.manifest(&repository(&server), &tag()).await.unwrap();
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1, "the token is kept");
    assert_eq!(asked[0].line, "GET /token?service=s&scope=repository%3Aapp%3Apull HTTP/1.1");
    assert_eq!(asked[0].header("authorization"), Some("Basic dTpw"));
    assert!(server.requests().iter().all(|r| r.header("authorization") != Some("Basic dTpw")), "not to the registry");
}

fn with_password_file(dir: &std::path::Path, host: &str) -> Option<std::path::PathBuf> {
    let path = dir.join("auth.json");
    std::fs::write(&path, format!(r#"{{"auths":{{"{host}":{{"auth":"dTpw"}}}}}}"#)).unwrap();
    Some(path)
}

#[tokio::test]
async fn a_token_server_without_tls_is_not_asked_unless_listed() {
    let dir = tempfile::tempdir().unwrap();
    let (server, tokens) = bearer_pair();
    let auth_file = with_password_file(dir.path(), server.host());
    let client = HttpRegistry::new(RegistryConfig { auth_file, ..config(&[&server]) }).unwrap();
    let error = client.manifest(&repository(&server), &tag()).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_PLAIN_HTTP, "{error}");
    assert!(tokens.requests().is_empty());
}

#[tokio::test]
async fn an_identity_token_is_posted_to_the_token_server() {
    let dir = tempfile::tempdir().unwrap();
    let (server, tokens) = bearer_pair();
    let path = dir.path().join("auth.json");
    std::fs::write(&path, format!(r#"{{"auths":{{"{}":{{"identitytoken":"a b"}}}}}}"#, server.host())).unwrap();
    let client = HttpRegistry::new(RegistryConfig { auth_file: Some(path), ..config(&[&server, &tokens]) }).unwrap();
    client.manifest(&repository(&server), &tag()).await.unwrap();
    let asked = tokens.requests();
    assert_eq!(asked[0].line, "POST /token HTTP/1.1");
    let body = String::from_utf8(asked[0].body.clone()).unwrap();
    assert!(body.starts_with("grant_type=refresh_token&refresh_token=a+b&service=s"), "{body}");
}

#[tokio::test]
async fn a_registry_that_refuses_its_own_token_is_not_asked_for_ever() {
    let tokens = Scripted::start(|_| http("200 OK", &[], br#"{"token":"T"}"#));
    let challenge = format!(r#"WWW-Authenticate: Bearer realm="http://{}/token""#, tokens.host());
    let server = Scripted::start(move |_| http("401 x", &[&challenge], b""));
    let client = HttpRegistry::new(config(&[&server, &tokens])).unwrap();
    let error = client.manifest(&repository(&server), &tag()).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_DENIED);
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn the_referrers_api_is_filtered_and_paged() {
    let subject = Sha256Digest::of(b"subject");
    let entry = |name: &str, kind: &str| {
        format!(
            r#"{{"mediaType":"m","digest":"{}","size":1,"artifactType":"{kind}"}}"#,
            Sha256Digest::of(name.as_bytes())
        )
    };
    let first = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, entry("a", "ours"), entry("b", "other"));
    let second = format!(r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#, entry("c", "ours"), entry("a", "ours"));
    let server = Scripted::start(move |request| {
        if request.line.contains("page=2") {
            return http("200 OK", &[], second.as_bytes());
        }
        let path = request.line.split(' ').nth(1).unwrap();
        http("200 OK", &[&format!("Link: <{path}&page=2>; rel=\"next\"")], first.as_bytes())
    });
    let client = HttpRegistry::new(config(&[&server])).unwrap();
    let found = client.referrers(&repository(&server), &subject, "ours").await.unwrap();
    let digests: Vec<_> = found.iter().map(|d| d.digest).collect();
    assert_eq!(digests, [Sha256Digest::of(b"a"), Sha256Digest::of(b"c")]);
    assert!(server.requests()[0].line.starts_with(&format!("GET /v2/app/referrers/{subject}?artifactType=ours")));
}

#[tokio::test]
async fn a_failing_referrers_api_is_not_taken_for_no_api() {
    let server = Scripted::start(|_| http("500 x", &[], b""));
    let client = HttpRegistry::new(config(&[&server])).unwrap();
    let error = client.referrers(&repository(&server), &Sha256Digest::of(b"s"), "ours").await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_REGISTRY);
    let asked = server.requests();
    assert_eq!(asked.len(), 2, "it is tried again");
    assert!(asked.iter().all(|request| request.line.contains("/referrers/")), "the fallback tag was not asked");
}

#[tokio::test]
async fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let config = RegistryConfig { plain_http: vec![host.clone()], ..RegistryConfig::default() };
    let client = HttpRegistry::new(config).unwrap();
    let error = client.manifest(&format!("{host}/app").parse().unwrap(), &tag()).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_REGISTRY);
}
