//! What this client is to any KBS: keys of every kind, evidence of devices, another try after trouble, resources from
//! memory, a session that is carried on elsewhere, a server whose key is pinned.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kbs_client::{Attestor, AttestorConfig, Client, ClientError, Passport, Retry, Session};
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::jwe::{self, KeyAlgorithm};
use protocols::kbs::{Attestation, Tee, TeeEvidence};
use protocols::time::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Answers what a path is asked for; gives status, headers and body.
type Serve = dyn Fn(&str, &str) -> (u16, String, String) + Send + Sync;

/// A KBS as stock ones answer, one request for each connection, which remembers every request.
struct Kbs {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Kbs {
    fn start(serve: Box<Serve>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                match &tls {
                    None => talk(stream, &*serve, &seen),
                    Some(tls) => {
                        let session = rustls::ServerConnection::new(Arc::clone(tls)).unwrap();
                        talk(rustls::StreamOwned::new(session, stream), &*serve, &seen);
                    }
                }
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn client(&self) -> Client {
        let url = format!("http://{}", self.address);
        let config = AttestorConfig::Trustee { url, timeout_seconds: Some(5), root: None, server_keys: None };
        Client::new(Attestor::new(&config, Environment::Development).unwrap()).unwrap()
    }
}

fn talk<S: std::io::Read + std::io::Write>(mut stream: S, serve: &Serve, seen: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        // Whoever does not like our certificate hangs up.
        let Ok(count) = stream.read(&mut chunk) else { return };
        request.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return;
            }
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() < length.map_or(0, |length| length.parse().unwrap()) {
            continue;
        }
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        seen.lock().unwrap().push(line.clone());
        let (status, headers, body) = serve(&line, body);
        let answer = format!(
            "HTTP/1.1 {status} X\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.flush();
        return;
    }
}

const NONCE: &str = "nyPHQrcFJaEtIg76hzfbl0owXtuYkVkRCJVI5KWbE9k=";
const RESOURCE: &str = "default/key/one";

/// What a stock KBS does: a cookie, a token that runs out at second 1000, a resource for the key that attested.
fn stock() -> Box<Serve> {
    let key = Mutex::new(None);
    Box::new(move |line, body| match line {
        "POST /kbs/v0/auth" => {
            let body = format!(r#"{{"nonce":"{NONCE}","extra-params":""}}"#);
            (200, "set-cookie: kbs-session-id=c00kie; Expires=x\r\n".into(), body)
        }
        "POST /kbs/v0/attest" => {
            let attestation: Attestation = serde_json::from_str(body).unwrap();
            *key.lock().unwrap() = Some(attestation.runtime_data.tee_pubkey);
            let claims = protocols::encoding::b64url(br#"{"exp":1000}"#);
            (200, String::new(), format!(r#"{{"token":"e30.{claims}.c2ln"}}"#))
        }
        "GET /kbs/v0/resource/default/key/one" => {
            let key = key.lock().unwrap().clone().unwrap();
            (200, String::new(), serde_json::to_string(&jwe::encrypt(&key, b"hello-secret").unwrap()).unwrap())
        }
        path => {
            let variant = if path.ends_with("denied") { "PolicyDeny" } else { "PluginInternalError" };
            let variant = if path.ends_with("ended") { "TokenVerifierError" } else { variant };
            let prefix = protocols::kbs::ERROR_TYPE_PREFIX;
            (401, String::new(), format!(r#"{{"type":"{prefix}{variant}","detail":"x"}}"#))
        }
    })
}

fn evidence(additional: &str) -> TeeEvidence {
    TeeEvidence { primary_evidence: serde_json::Value::Null, additional_evidence: additional.into() }
}

async fn attested(client: &Client, algorithm: KeyAlgorithm) -> Session {
    client.challenge_with(Tee::Sample, algorithm).await.unwrap().attest(evidence(""), None, None).await.unwrap()
}

#[tokio::test]
async fn a_session_has_a_key_of_any_kind_and_a_passport_carries_it_on() {
    for algorithm in [KeyAlgorithm::P256, KeyAlgorithm::P521, KeyAlgorithm::Rsa] {
        let kbs = Kbs::start(stock(), None);
        let session = attested(&kbs.client(), algorithm).await;
        assert_eq!(session.resource(RESOURCE).await.unwrap().as_slice(), b"hello-secret", "{algorithm:?}");
        let written = session.into_passport().to_json().unwrap();
        // Another process: nothing is left but what was written.
        let passport = Passport::from_json(written.as_bytes()).unwrap();
        let later = kbs.client().session_of(passport).unwrap();
        assert_eq!(later.resource(RESOURCE).await.unwrap().as_slice(), b"hello-secret", "{algorithm:?}");
        assert_eq!(kbs.requests().len(), 4);
    }
}

#[tokio::test]
async fn an_attestor_of_ours_gets_p256_keys_and_no_passports() {
    let kbs = Kbs::start(stock(), None);
    let passport = attested(&kbs.client(), KeyAlgorithm::P256).await.into_passport();
    let key = protocols::keys::SigningKey::generate(protocols::keys::KeyKind::EcdsaP256).unwrap();
    let config = AttestorConfig::Tcl {
        url: format!("http://{}", kbs.address),
        key: key.verifying_key().to_pem().unwrap(),
        timeout_seconds: None,
        root: None,
        root_digest: None,
        server_keys: None,
    };
    let ours = Client::new(Attestor::new(&config, Environment::Development).unwrap()).unwrap();
    for algorithm in [KeyAlgorithm::P521, KeyAlgorithm::Rsa] {
        let refused = ours.challenge_with(Tee::Tpm, algorithm).await.unwrap_err();
        assert!(matches!(refused, ClientError::Request { .. }), "{refused}");
    }
    assert!(matches!(ours.session_of(passport).unwrap_err(), ClientError::Request { .. }));
    assert_eq!(kbs.requests().len(), 2);
}

#[tokio::test]
async fn evidence_of_devices_is_bound_by_the_platforms() {
    let kbs = Kbs::start(stock(), None);
    let challenged = kbs.client().challenge(Tee::Sample).await.unwrap();
    let data = challenged.runtime_data(None);
    let additional = r#"{"sampledevice":{"svn":"2"}}"#;
    assert_eq!(challenged.composite_binding(additional).unwrap(), data.digest(additional).unwrap());
    assert_ne!(challenged.composite_binding(additional).unwrap(), challenged.binding(None).unwrap());
    assert_eq!(challenged.device_binding().unwrap(), data.device_digest().unwrap());
    assert_ne!(challenged.device_binding().unwrap(), challenged.binding(None).unwrap());
    challenged.attest(evidence(additional), None, None).await.unwrap();
}

#[tokio::test]
async fn a_stock_server_says_by_its_errors_type_why_it_gives_nothing() {
    let kbs = Kbs::start(stock(), None);
    let session = attested(&kbs.client(), KeyAlgorithm::P256).await;
    for (path, code) in [
        ("default/key/denied", "attestor.denied"),
        ("default/key/missing", "attestor.not_found"),
        ("default/key/ended", "attestor.session"),
    ] {
        assert_eq!(session.resource(path).await.unwrap_err().code().as_str(), code);
    }
}

#[tokio::test]
async fn a_cached_resource_is_fetched_once_until_the_session_ends() {
    let kbs = Kbs::start(stock(), None);
    let session = attested(&kbs.client(), KeyAlgorithm::P256).await;
    let (before, after) = (Timestamp(999), Timestamp(1000));
    let first = session.cached(RESOURCE, before).await.unwrap();
    assert_eq!(first.as_slice(), b"hello-secret");
    assert!(Arc::ptr_eq(&first, &session.cached(RESOURCE, before).await.unwrap()));
    assert_eq!(kbs.requests().len(), 3);
    // Expired: nothing is left, and the server is asked, which decides.
    assert!(!Arc::ptr_eq(&first, &session.cached(RESOURCE, after).await.unwrap()));
    assert_eq!(kbs.requests().len(), 4);
    // What the server ends, ends here too.
    session.cached(RESOURCE, before).await.unwrap();
    assert_eq!(kbs.requests().len(), 4);
    session.cached("default/key/ended", before).await.unwrap_err();
    session.cached(RESOURCE, before).await.unwrap();
    assert_eq!(kbs.requests().len(), 6);
}

/// Fails so often, then serves.
fn failing(times: usize, status: u16, headers: &'static str) -> Box<Serve> {
    let (left, serve) = (Mutex::new(times), stock());
    Box::new(move |line, body| {
        let mut left = left.lock().unwrap();
        if *left == 0 {
            return serve(line, body);
        }
        *left -= 1;
        (status, headers.to_owned(), String::new())
    })
}

const QUICK: Retry = Retry { attempts: 3, base: Duration::from_millis(2), cap: Duration::from_millis(5) };

#[tokio::test]
async fn trouble_is_tried_again_and_a_refusal_is_not() {
    for (times, status, asked, code) in [
        (2, 503, 3, "pass"),
        (2, 429, 3, "pass"),
        (2, 408, 3, "pass"),
        (3, 500, 3, "attestor.unavailable"),
        (1, 401, 1, "attestor.protocol"),
        (1, 404, 1, "attestor.protocol"),
    ] {
        // The pause that it asks for is far above the cap.
        let kbs = Kbs::start(failing(times, status, "retry-after: 86400\r\n"), None);
        let client = kbs.client().retrying(QUICK).unwrap();
        let challenged = client.challenge(Tee::Sample).await;
        let got = challenged.map_or_else(|error| error.code().as_str(), |_| "pass");
        assert_eq!((got, kbs.requests().len()), (code, asked), "{times} times {status}");
    }
    // Nobody who did not ask for it waits.
    let kbs = Kbs::start(failing(1, 503, ""), None);
    assert_eq!(kbs.client().challenge(Tee::Sample).await.unwrap_err().code().as_str(), "attestor.unavailable");
    assert_eq!(kbs.requests().len(), 1);
}

/// A root, a server's certificate under it, and SHA-256 of the server's public key.
fn certificates(folder: &Path) -> (Arc<rustls::ServerConfig>, Sha256Digest) {
    let openssl = |line: &str| {
        let output = Command::new("openssl").args(line.split(' ')).current_dir(folder).output();
        // openssl must be installed.
        let output = output.unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 -subj /CN=root -days 2 -keyout root.key -out root.pem {new}"));
    openssl(&format!("req -subj /CN=kbs -keyout server.key -out server.csr {new}"));
    std::fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl(
        "x509 -req -in server.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile ext -out server.pem",
    );
    let spki = openssl("pkey -in server.key -pubout -outform DER");
    let chain = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (Arc::new(config), Sha256Digest::of(&spki))
}

#[tokio::test]
async fn a_server_of_another_key_than_the_pinned_is_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, pin) = certificates(folder.path());
    let kbs = Kbs::start(stock(), Some(tls));
    let client = |root: bool, server_keys: Option<Vec<Sha256Digest>>| {
        let root = root.then(|| folder.path().join("root.pem"));
        let url = format!("https://{}", kbs.address);
        let config = AttestorConfig::Trustee { url, timeout_seconds: Some(5), root, server_keys };
        Client::new(Attestor::new(&config, Environment::Production).unwrap()).unwrap()
    };
    let other = Sha256Digest::of(b"another");
    for (root, pins, reached) in [
        (true, None, true),
        (true, Some(vec![pin]), true),
        (true, Some(vec![other, pin]), true),
        (true, Some(vec![other]), false),
        // A pin stands beside the chain, not in its place.
        (false, Some(vec![pin]), false),
    ] {
        let challenged = client(root, pins.clone()).challenge(Tee::Sample).await;
        let code = challenged.map_or_else(|error| error.code().as_str(), |_| "pass");
        assert_eq!(code, if reached { "pass" } else { "attestor.unavailable" }, "{root} {pins:?}");
    }
    assert_eq!(kbs.requests().len(), 3, "nothing was sent to whom nobody trusts");
}
