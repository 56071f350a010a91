//! Conversations captured between a real client and a real server, byte for byte (`data/kbs`): every request of theirs
//! is sent to our server, with the nonce and the cookie that it gave, and is answered as theirs answered it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

mod support;

use protocols::encoding::{b64, un_b64url};
use protocols::jwe::{self, SecretKey};
use protocols::kbs::{Attestation, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use support::{ADMIN, World};

macro_rules! conversations {
    ($($name:literal)*) => {
        &[$(($name, include_str!(concat!("data/kbs/", $name, ".c2s")), include_str!(concat!("data/kbs/", $name, ".s2c")))),*]
    };
}

/// What was sent and what was answered, by name.
const CAPTURED: &[(&str, &str, &str)] = conversations! {
    "resource" "p521" "rsa" "device" "initdata" "missing" "attest-only" "put-resource" "reference-value"
};

/// Head lines and body.
#[derive(Debug, Clone)]
struct Message {
    start: String,
    headers: Vec<(String, String)>,
    body: String,
}

impl Message {
    /// Every message of one direction.
    fn all(mut stream: &str) -> Vec<Self> {
        let mut found = Vec::new();
        while let Some((head, rest)) = stream.split_once("\r\n\r\n") {
            let mut lines = head.split("\r\n");
            let start = lines.next().unwrap().to_owned();
            let headers: Vec<_> = lines.map(|line| line.split_once(": ").unwrap()).collect();
            let length =
                headers.iter().find(|(name, _)| *name == "content-length").map_or(0, |(_, n)| n.parse().unwrap());
            let (body, rest) = rest.split_at(length);
            let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            found.push(Self { start, headers, body: body.to_owned() });
            stream = rest;
        }
        assert!(stream.is_empty(), "{stream}");
        found
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn status(&self) -> u16 {
        self.start.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn cookie(&self) -> Option<String> {
        let value = self.header("set-cookie")?.strip_prefix("kbs-session-id=")?;
        Some(value.split(';').next().unwrap().to_owned())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    fn is(&self, method: &str, path: &str) -> bool {
        self.start.starts_with(&format!("{method} /kbs/v0/{path}"))
    }
}

/// A kept connection.
struct Connection(TcpStream);

impl Connection {
    async fn open(world: &World) -> Self {
        Self(TcpStream::connect(world.address).await.unwrap())
    }

    async fn exchange(&mut self, request: &Message) -> Message {
        let mut text = format!("{}\r\n", request.start);
        for (name, value) in &request.headers {
            let value = if name == "content-length" { &request.body.len().to_string() } else { value };
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        self.0.write_all(format!("{text}\r\n{}", request.body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        loop {
            let mut chunk = vec![0; 64 * 1024];
            let count = self.0.read(&mut chunk).await.unwrap();
            assert!(count > 0, "closed after {answer}");
            answer.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
            let Some((head, body)) = answer.split_once("\r\n\r\n") else { continue };
            let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return Message::all(&answer).remove(0);
            }
        }
    }
}

/// An attestor that takes sample evidence, and keeps what the captured server kept.
async fn world() -> World {
    let edit = |text: String| format!("{text}\n[sample]\naccept = true\n");
    let world = World::edited(tempfile::tempdir().unwrap(), "development", edit).await;
    let admin = format!("Bearer {ADMIN}");
    let (status, body) = world
        .raw("POST", "/kbs/v0/resource/default/key/one", &[("authorization", &admin)], b"hello-secret".to_vec())
        .await;
    assert_eq!((status, body.as_str()), (200, ""));
    world
}

/// The captured attestation as its client would make it over this nonce, with the captured key or another.
fn attestation(captured: &str, nonce: &str, key: Option<&SecretKey>) -> String {
    let mut body: Attestation = serde_json::from_str(captured).unwrap();
    nonce.clone_into(&mut body.runtime_data.nonce);
    if let Some(key) = key {
        body.runtime_data.tee_pubkey = key.public_key().jwk();
    }
    let additional = &mut body.tee_evidence.additional_evidence;
    if !additional.is_empty() {
        let mut devices: Value = serde_json::from_str(additional).unwrap();
        devices["sampledevice"]["report_data"] = b64(body.runtime_data.device_digest().unwrap().as_bytes()).into();
        *additional = devices.to_string();
    }
    let digest = body.runtime_data.digest(additional).unwrap();
    body.tee_evidence.primary_evidence["report_data"] = b64(digest.as_bytes()).into();
    serde_json::to_string(&body).unwrap()
}

/// A key of the kind that the captured client used.
fn own_key(name: &str) -> SecretKey {
    match name {
        "p521" => SecretKey::from_pem(include_str!("../../protocols/tests/data/jwe/p521-1.pem")).unwrap(),
        "rsa" => SecretKey::from_pem(include_str!("../../protocols/tests/data/jwe/rsa-2.pem")).unwrap(),
        _ => SecretKey::P256(jwe::generate().unwrap()),
    }
}

#[test]
fn the_captured_evidence_is_over_what_we_hash() {
    let mut attestations = 0;
    for (name, sent, _) in CAPTURED {
        for request in Message::all(sent).iter().filter(|request| request.is("POST", "attest")) {
            let body: Attestation = serde_json::from_str(&request.body).unwrap();
            assert_eq!(attestation(&request.body, &body.runtime_data.nonce, None), request.body, "{name}");
            attestations += 1;
        }
    }
    assert_eq!(attestations, 9);
}

#[tokio::test]
async fn every_captured_request_is_answered_as_the_captured_server_did() {
    let world = world().await;
    for (name, sent, answered) in CAPTURED {
        for key in [None, Some(own_key(name))] {
            Box::pin(replay(&world, name, &Message::all(sent), &Message::all(answered), key.as_ref())).await;
        }
    }
}

async fn replay(world: &World, name: &str, sent: &[Message], answered: &[Message], key: Option<&SecretKey>) {
    let mut connection = Connection::open(world).await;
    let (mut nonce, mut cookie) = (String::new(), String::new());
    let mut answers = answered.iter();
    for captured in sent {
        let mut request = captured.clone();
        if request.is("POST", "attest") {
            request.body = attestation(&captured.body, &nonce, key);
        }
        // The captured server let everybody administrate; ours asks who it is.
        if request.is("POST", "resource") || request.is("POST", "reference-value") {
            request.headers.push(("authorization".to_owned(), format!("Bearer {ADMIN}")));
        }
        for (_, value) in request.headers.iter_mut().filter(|(name, _)| name == "cookie") {
            *value = format!("kbs-session-id={cookie}");
        }
        let ours = connection.exchange(&request).await;
        // What was still under way when the capture ended has no answer there.
        let Some(theirs) = answers.next() else { continue };
        let shown = format!("{name}: {} -> {} {}", captured.start, ours.start, ours.body);
        let expected = deviation(captured).unwrap_or_else(|| (theirs.status(), theirs.json()["type"].clone()));
        assert_eq!((ours.status(), ours.json()["type"].clone()), expected, "{shown}");
        assert_eq!(ours.cookie().is_some(), theirs.cookie().is_some(), "{shown}");
        if ours.status() == 200 {
            assert_eq!(ours.header("content-type"), theirs.header("content-type"), "{shown}");
            assert_eq!(shape(&ours.json()), shape(&theirs.json()), "{shown}");
        } else {
            assert!(ours.json()["reason"].is_string(), "{shown}");
        }
        cookie = ours.cookie().unwrap_or(cookie);
        let (ours, theirs) = (ours.json(), theirs.json());
        if let Some(given) = ours["nonce"].as_str() {
            given.clone_into(&mut nonce);
            assert_eq!(ours["extra-params"], theirs["extra-params"]);
        }
        if let Some(token) = ours["token"].as_str() {
            same_result(name, token, theirs["token"].as_str().unwrap());
        }
        if ours["protected"].is_string() {
            same_resource(&ours, &theirs, key);
        }
    }
    assert!(answers.next().is_none(), "{name}");
}

/// Where we answer otherwise, and why: on 401 for what is not there real clients attest again, three times; reference
/// values are signed or they are none.
fn deviation(request: &Message) -> Option<(u16, Value)> {
    let error = |variant: &str| json!(format!("https://github.com/confidential-containers/kbs/errors/{variant}"));
    if request.is("GET", "resource/default/key/missing") && request.header("cookie").is_some() {
        return Some((404, error("PluginInternalError")));
    }
    request.is("POST", "reference-value").then(|| (401, error("RvpsError")))
}

/// The names of an object's members.
fn shape(value: &Value) -> Vec<String> {
    value.as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&un_b64url(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// The same components with the same members; of ours none is affirmed that nobody vouches for.
fn same_result(name: &str, ours: &str, theirs: &str) {
    let (ours, theirs) = (claims(ours), claims(theirs));
    assert_eq!(ours["simulated"], true, "{name}");
    assert_eq!(shape(&ours["submods"]), shape(&theirs["submods"]), "{name}");
    for (component, theirs) in theirs["submods"].as_object().unwrap() {
        let ours = &ours["submods"][component];
        assert_eq!(ours["ear.status"], "warning", "{name} {component}");
        let (vector, evidence) = ("ear.trustworthiness-vector", "ear.veraison.annotated-evidence");
        let sorted = |value: &Value| {
            let mut names = shape(value);
            names.sort_unstable();
            names
        };
        assert_eq!(sorted(&ours[vector]), sorted(&theirs[vector]), "{name} {component}");
        for kind in ["sample", "sampledevice"] {
            assert_eq!(ours[evidence][kind]["svn"], theirs[evidence][kind]["svn"], "{name} {component}");
        }
        for told in ["init_data", "init_data_claims"] {
            assert_eq!(ours[evidence][told], theirs[evidence][told], "{name} {component}");
        }
    }
}

/// The same header but for the ephemeral key, parts of the same lengths, and to a key that we have the same content.
fn same_resource(ours: &Value, theirs: &Value, key: Option<&SecretKey>) {
    let header = |response: &Value| -> Value {
        let mut header: Value =
            serde_json::from_slice(&un_b64url(response["protected"].as_str().unwrap()).unwrap()).unwrap();
        for name in ["x", "y"] {
            if let Some(coordinate) = header.pointer_mut(&format!("/epk/{name}")) {
                *coordinate = coordinate.as_str().unwrap().len().into();
            }
        }
        header
    };
    assert_eq!(header(ours), header(theirs));
    for part in ["encrypted_key", "iv", "ciphertext", "tag"] {
        assert_eq!(ours[part].as_str().unwrap().len(), theirs[part].as_str().unwrap().len(), "{part}");
    }
    if let Some(key) = key {
        let response: Response = serde_json::from_value(ours.clone()).unwrap();
        assert_eq!(jwe::decrypt(key, &response).unwrap().as_slice(), b"hello-secret");
    }
}

/// Devices are judged each by its own verifier, over the runtime data alone; what is wrong with one refuses all.
#[tokio::test]
async fn composite_evidence_is_bound_whole_and_in_each_part() {
    let world = world().await;
    let (_, sent, _) = CAPTURED.iter().find(|(name, ..)| *name == "device").unwrap();
    let captured = Message::all(sent);
    let (auth, attest) = (&captured[1], &captured[2]);
    let run = async |edit: &dyn Fn(&mut Value, &str)| {
        let mut connection = Connection::open(&world).await;
        let challenge = connection.exchange(auth).await;
        let nonce = challenge.json()["nonce"].as_str().unwrap().to_owned();
        let mut body: Value = serde_json::from_str(&attestation(&attest.body, &nonce, None)).unwrap();
        edit(&mut body, &nonce);
        let mut request = Message { body: body.to_string(), ..attest.clone() };
        for (_, value) in request.headers.iter_mut().filter(|(name, _)| name == "cookie") {
            *value = format!("kbs-session-id={}", challenge.cookie().unwrap());
        }
        let answer = connection.exchange(&request).await.json();
        answer["reason"].as_str().map_or("pass".to_owned(), str::to_owned)
    };
    /// Another text beside the platform's evidence, which is made over it anew.
    fn bound(body: &mut Value, text: &str) {
        body["tee-evidence"]["additional_evidence"] = text.into();
        let attestation: Attestation = serde_json::from_value(body.clone()).unwrap();
        let digest = attestation.runtime_data.digest(text).unwrap();
        body["tee-evidence"]["primary_evidence"]["report_data"] = b64(digest.as_bytes()).into();
    }
    fn device(body: &Value, edit: impl Fn(&mut Value)) -> String {
        let text = body["tee-evidence"]["additional_evidence"].as_str().unwrap();
        let mut devices: Value = serde_json::from_str(text).unwrap();
        edit(&mut devices);
        devices.to_string()
    }
    assert_eq!(run(&|_, _| {}).await, "pass");
    // Taken away, put in, exchanged: the platform's evidence says what stood beside it.
    assert_eq!(run(&|body, _| body["tee-evidence"]["additional_evidence"] = "".into()).await, "evidence.nonce");
    assert_eq!(run(&|body, _| bound(body, "")).await, "pass");
    let other = |body: &mut Value, _: &str| {
        let text = device(body, |devices| devices["sampledevice"]["report_data"] = b64(&[7; 48]).into());
        bound(body, &text);
    };
    assert_eq!(run(&other).await, "evidence.nonce");
    // The platform's own binding, which names the devices, is no device's.
    let swapped = |body: &mut Value, _: &str| {
        let primary = body["tee-evidence"]["primary_evidence"]["report_data"].clone();
        let text = device(body, |devices| devices["sampledevice"]["report_data"] = primary.clone());
        bound(body, &text);
    };
    assert_eq!(run(&swapped).await, "evidence.nonce");
    for (text, code) in [
        (r#"{"nvidia":{}}"#, "evidence.policy"),
        (r#"{"abacus":{}}"#, "evidence.malformed"),
        (r#"{"sampledevice":{}}"#, "evidence.malformed"),
        (r#"{"sampledevice":{},"sampledevice":{}}"#, "evidence.malformed"),
        ("[]", "evidence.malformed"),
        (" ", "evidence.malformed"),
        ("x", "evidence.malformed"),
    ] {
        assert_eq!(run(&|body, _| bound(body, text)).await, code, "{text}");
    }
}

/// A guest that shows initdata which its platform does not bind is told so; what no evidence binds is only claimed.
#[tokio::test]
async fn initdata_of_another_form_is_refused() {
    let world = world().await;
    let (_, sent, _) = CAPTURED.iter().find(|(name, ..)| *name == "initdata").unwrap();
    let captured = Message::all(sent);
    let (auth, attest) = (&captured[1], &captured[2]);
    for (format, body, code) in [
        ("json", "{}", "evidence.initdata"),
        ("toml", "not = toml = at all", "evidence.initdata"),
        ("toml", "version = \"0.1.0\"", "evidence.initdata"),
        ("toml", "algorithm = \"md5\"", "evidence.initdata_algorithm"),
        ("toml", "algorithm = \"sha256\"\n[data]\nx = 7", "evidence.initdata"),
        ("toml", "algorithm = \"sha512\"", "pass"),
    ] {
        let mut connection = Connection::open(&world).await;
        let challenge = connection.exchange(auth).await;
        let nonce = challenge.json()["nonce"].as_str().unwrap().to_owned();
        let mut sent: Value = serde_json::from_str(&attestation(&attest.body, &nonce, None)).unwrap();
        sent["init-data"] = json!({ "format": format, "body": body });
        let mut request = Message { body: sent.to_string(), ..attest.clone() };
        for (_, value) in request.headers.iter_mut().filter(|(name, _)| name == "cookie") {
            *value = format!("kbs-session-id={}", challenge.cookie().unwrap());
        }
        let answer = connection.exchange(&request).await;
        assert_eq!(answer.json()["reason"].as_str().unwrap_or("pass"), code, "{body}");
    }
}

/// Who takes sample evidence says so, and never in production.
#[tokio::test]
async fn production_does_not_start_with_sample_evidence() {
    let world = World::of("production").await;
    world.edit(|text| format!("{text}\n[sample]\naccept = true\n"));
    let refused = world.reload().await.unwrap_err();
    assert!(refused.contains("sample.accept") && refused.contains("policy.environment"), "{refused}");
}
