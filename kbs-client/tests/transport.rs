//! An attestor that is down, stalls, breaks off, fails, redirects or floods: each ends in its code, in time.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kbs_client::{Attestor, AttestorConfig, Client, ClientError};
use protocols::environment::Environment;
use protocols::kbs::{Tee, TeeEvidence};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const CHALLENGE: &str =
    r#"{"nonce":"nyPHQrcFJaEtIg76hzfbl0owXtuYkVkRCJVI5KWbE9k=","extra-params":{"tcl":{"version":1}}}"#;

/// A server that answers each connection with the next script, and remembers what it was sent.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
enum Script {
    /// Sends this and closes.
    Say(String),
    /// Sends this and stays silent.
    Stall(String),
}

fn answer(status: &str, headers: &str, body: &str) -> Script {
    Script::Say(format!(
        "HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn challenge() -> Script {
    answer("200 OK", "set-cookie: other=1\r\nset-cookie: kbs-session-id=c00kie; Expires=x\r\n", CHALLENGE)
}

impl Server {
    async fn start(scripts: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                seen.lock().unwrap().push(String::new());
                tokio::spawn(talk(stream, script, Arc::clone(&seen)));
            }
            // Whoever still connects waits for ever.
            let _kept = listener.accept().await;
            std::future::pending::<()>().await;
        });
        Self { address, requests }
    }

    fn client(&self) -> Client {
        client(self.address)
    }

    fn request(&self, number: usize) -> String {
        self.requests.lock().unwrap()[number].clone()
    }
}

async fn talk(mut stream: TcpStream, script: Script, seen: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let got = stream.read(&mut buffer).await.unwrap_or(0);
        request.extend_from_slice(&buffer[..got]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            length.is_none_or(|length| body.len() >= length.parse().unwrap())
        });
        *seen.lock().unwrap().last_mut().unwrap() = text;
        if whole || got == 0 {
            break;
        }
    }
    let (Script::Say(text) | Script::Stall(text)) = &script;
    let _ = stream.write_all(text.as_bytes()).await;
    if matches!(script, Script::Stall(_)) {
        std::future::pending::<()>().await;
    }
}

fn client(address: SocketAddr) -> Client {
    let key = protocols::keys::SigningKey::generate(protocols::keys::KeyKind::EcdsaP256).unwrap();
    let config = AttestorConfig::Tcl {
        url: format!("http://{address}"),
        key: key.verifying_key().to_pem().unwrap(),
        timeout_seconds: Some(1),
        root: None,
        root_digest: None,
        server_keys: None,
    };
    Client::new(Attestor::new(&config, Environment::Development).unwrap()).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> &'static str {
    result.unwrap_err().code().as_str()
}

fn evidence() -> TeeEvidence {
    TeeEvidence { primary_evidence: serde_json::Value::Null, additional_evidence: String::new() }
}

fn log() -> protocols::tcl::LogBinding {
    serde_json::from_value(serde_json::json!({
        "alg": "sha256", "count": 1, "guest": "00".repeat(32),
        "head": format!("sha256:{}", "00".repeat(32)), "kind": "tpm-listed",
    }))
    .unwrap()
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(code(client(address).challenge(Tee::Tpm).await), "attestor.unavailable");
}

#[tokio::test]
async fn a_stalled_attestor_is_given_up_in_time_wherever_it_stalls() {
    let body = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{";
    for said in ["", "HTTP/1.1 200", body] {
        let server = Server::start(vec![Script::Stall(said.into())]).await;
        let started = Instant::now();
        assert_eq!(code(server.client().challenge(Tee::Tpm).await), "attestor.unavailable", "{said}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_broken_failing_or_foreign_answer_has_its_code() {
    for (expected, script) in [
        ("attestor.unavailable", Script::Say(String::new())),
        ("attestor.unavailable", Script::Say("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".into())),
        ("attestor.unavailable", answer("500 No", "", "")),
        ("attestor.unavailable", answer("503 No", "", "<html>")),
        ("attestor.protocol", answer("200 OK", "", "<html>")),
        ("attestor.protocol", answer("200 OK", "", CHALLENGE)), // no cookie
        ("attestor.protocol", answer("200 OK", "set-cookie: kbs-session-id=a\r\n", &CHALLENGE.replace("tcl", "x"))),
        ("attestor.protocol", answer("200 OK", "", &" ".repeat(5 * 1024 * 1024))),
        ("attestor.protocol", answer("404 No", "", "")),
    ] {
        let server = Server::start(vec![script]).await;
        assert_eq!(code(server.client().challenge(Tee::Tpm).await), expected);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Server::start(vec![challenge()]).await;
    let location = format!("location: http://{}/kbs/v0/auth\r\n", elsewhere.address);
    let server = Server::start(vec![answer("307 Elsewhere", &location, "")]).await;
    assert_eq!(code(server.client().challenge(Tee::Tpm).await), "attestor.protocol");
    assert!(elsewhere.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_handshake_sends_cookie_runtime_data_and_evidence() {
    let token = answer("200 OK", "", r#"{"token":"a.e30.c"}"#);
    let gone = answer("401 No", "", "");
    let server = Server::start(vec![challenge(), token, gone]).await;
    let challenged = server.client().challenge(Tee::Tpm).await.unwrap();
    let data = challenged.runtime_data(Some(&log()));
    assert_eq!(challenged.binding(Some(&log())).unwrap(), data.digest("").unwrap());
    assert_ne!(challenged.binding(None).unwrap(), data.digest("").unwrap());
    let session = challenged.attest(evidence(), Some(log()), None).await.unwrap();
    assert_eq!(session.binding(&log()).unwrap(), data.digest("").unwrap());

    let auth = server.request(0);
    assert!(auth.starts_with("POST /kbs/v0/auth HTTP/1.1\r\n"), "{auth}");
    assert!(auth.ends_with(r#"{"version":"0.4.0","tee":"tpm","extra-params":{"tcl":{"version":1}}}"#), "{auth}");
    let attest = server.request(1);
    assert!(attest.contains("cookie: kbs-session-id=c00kie\r\n"), "{attest}");
    let body: serde_json::Value = serde_json::from_str(attest.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["runtime-data"], serde_json::to_value(&data).unwrap());
    assert_eq!(body["init-data"], serde_json::Value::Null);
    assert_eq!(body["tee-evidence"]["additional_evidence"], "");

    let ended = session.resource("default/key/one").await.unwrap_err();
    assert!(ended.session_ended());
    let get = server.request(2);
    assert!(get.starts_with("GET /kbs/v0/resource/default/key/one HTTP/1.1\r\n"), "{get}");
    assert!(get.contains("authorization: Bearer a.e30.c\r\n"), "{get}");
    assert!(!get.contains("cookie"), "{get}");
}

#[tokio::test]
async fn a_path_that_climbs_is_never_sent() {
    let server = Server::start(vec![challenge(), answer("200 OK", "", r#"{"token":"a.e30.c"}"#)]).await;
    let challenged = server.client().challenge(Tee::Tpm).await.unwrap();
    let session = challenged.attest(evidence(), Some(log()), None).await.unwrap();
    for path in ["../../tcl/v1", "a/b", "a/b/c?x", "/a/b/c"] {
        assert_eq!(code(session.resource(path).await), "attestor.not_found");
    }
    assert_eq!(server.requests.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn evidence_beside_the_bound_one_and_a_missing_log_are_not_sent() {
    let server = Server::start(vec![challenge(), challenge()]).await;
    let beside = TeeEvidence { additional_evidence: "{}".into(), ..evidence() };
    let challenged = server.client().challenge(Tee::Tpm).await.unwrap();
    assert_eq!(code(challenged.attest(beside, Some(log()), None).await), "evidence.unavailable");
    let challenged = server.client().challenge(Tee::Tpm).await.unwrap();
    assert_eq!(code(challenged.attest(evidence(), None, None).await), "evidence.unavailable");
    assert_eq!(server.requests.lock().unwrap().len(), 2);
}

/// Nothing that is shown holds a key, a cookie or a token.
#[tokio::test]
async fn debug_output_shows_no_secret() {
    let server = Server::start(vec![challenge(), answer("200 OK", "", r#"{"token":"a.e30.c"}"#)]).await;
    let challenged = server.client().challenge(Tee::Tpm).await.unwrap();
    assert_eq!(format!("{challenged:?}"), "Challenged { tee: Tpm, .. }");
    let session = challenged.attest(evidence(), Some(log()), None).await.unwrap();
    assert_eq!(format!("{session:?}"), "Session { expires: None, .. }");
}
