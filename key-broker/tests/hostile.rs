//! Requests that no client sends who means well, over raw sockets against the KBS protocol's surface: each has its status
//! and its code, none costs another caller anything.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

mod support;

use std::time::Duration;

use protocols::encoding::{b64, b64url};
use protocols::jwe::{self, KeyAlgorithm, SecretKey};
use protocols::kbs::{Attestation, RuntimeData, TeeEvidence};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use support::{ADMIN, World};

const AUTH: &str = r#"{"version":"0.4.0","tee":"sample","extra-params":""}"#;
const RESOURCE: &str = "/kbs/v0/resource/default/key/one";

/// What is expected: a status (0: the connection ends without an answer) and a reason (`-`: there is none to tell).
type Expected = (u16, &'static str);

/// One hostile request.
struct Case {
    name: &'static str,
    request: Vec<u8>,
    expected: Expected,
    /// It ends before it is whole.
    cut: bool,
}

fn http(method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: kbs\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = body.as_ref();
    [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

async fn send(world: &World, request: &[u8]) -> (u16, Vec<(String, String)>, String) {
    send_and(world, request, false).await
}

/// As [`send`]; `cut` ends the connection's one side after it.
async fn send_and(world: &World, request: &[u8], cut: bool) -> (u16, Vec<(String, String)>, String) {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    // A server that refuses early may close before everything is written.
    let _ = stream.write_all(request).await;
    if cut {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(30), read).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (0, Vec::new(), answer) };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    (status, headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), body.to_owned())
}

/// A fresh challenge: nonce and cookie.
async fn challenge(world: &World) -> (String, String) {
    let (status, headers, body) = send(world, &http("POST", "/kbs/v0/auth", &[], AUTH)).await;
    assert_eq!(status, 200, "{body}");
    let (_, cookie) = headers.iter().find(|(name, _)| name == "set-cookie").unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    (body["nonce"].as_str().unwrap().to_owned(), cookie.split(';').next().unwrap().to_owned())
}

fn attestation(nonce: &str, key: &SecretKey) -> Value {
    let data = RuntimeData { nonce: nonce.to_owned(), tee_pubkey: key.public_key().jwk(), log: None };
    let report_data = b64(data.digest("").unwrap().as_bytes());
    let primary_evidence = json!({ "svn": "1", "report_data": report_data });
    let tee_evidence = TeeEvidence { primary_evidence, additional_evidence: String::new() };
    serde_json::to_value(Attestation { init_data: None, runtime_data: data, tee_evidence }).unwrap()
}

async fn world() -> World {
    let edit = |text: String| format!("{text}\n[sample]\naccept = true\n");
    let world = World::edited(tempfile::tempdir().unwrap(), "development", edit).await;
    let admin = format!("Bearer {ADMIN}");
    send(&world, &http("POST", RESOURCE, &[("authorization", &admin)], "hello-secret")).await;
    world
}

/// A whole good conversation, whatever came before it; gives the token.
async fn served(world: &World) -> String {
    let (nonce, cookie) = challenge(world).await;
    let key = SecretKey::generate(KeyAlgorithm::P256).unwrap();
    let body = attestation(&nonce, &key).to_string();
    let (status, _, body) = send(world, &http("POST", "/kbs/v0/attest", &[("cookie", &cookie)], body)).await;
    assert_eq!(status, 200, "{body}");
    let token = serde_json::from_str::<Value>(&body).unwrap()["token"].as_str().unwrap().to_owned();
    let bearer = format!("Bearer {token}");
    let (status, _, body) = send(world, &http("GET", RESOURCE, &[("authorization", &bearer)], "")).await;
    assert_eq!(status, 200, "{body}");
    let secret = jwe::decrypt(&key, &serde_json::from_str(&body).unwrap()).unwrap();
    assert_eq!(secret.as_slice(), b"hello-secret");
    token
}

fn judge(status: u16, body: &str) -> (u16, String) {
    let told: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let code = told["reason"].as_str().or_else(|| told["refusal"]["code"].as_str()).unwrap_or("-");
    (status, code.to_owned())
}

/// Runs every case, each followed by a good request, and tells all that are not as expected.
async fn run(world: &World, cases: Vec<Case>) -> usize {
    let mut wrong = Vec::new();
    let count = cases.len();
    for Case { name, request, expected, cut } in cases {
        let (status, _, body) = send_and(world, &request, cut).await;
        let got = judge(status, &body);
        // Who closes while the rest is still coming, or has nobody to answer, may not be heard.
        let unheard = got.0 == 0 && (cut || [413, 431].contains(&expected.0));
        if !unheard && (got.0, got.1.as_str()) != expected {
            let shown: String = body.chars().take(200).collect();
            wrong.push(format!("{name}: expected {expected:?}, got {got:?} {shown}"));
        }
        challenge(world).await;
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    served(world).await;
    count
}

fn case(name: &'static str, request: Vec<u8>, status: u16, code: &'static str) -> Case {
    Case { name, request, expected: (status, code), cut: false }
}

#[tokio::test]
async fn requests_for_a_challenge() {
    let world = world().await;
    let auth = |name, body: Vec<u8>, code| case(name, http("POST", "/kbs/v0/auth", &[], body), 401, code);
    let text = |name, body: &str| auth(name, body.as_bytes().to_vec(), "attestor.protocol");
    let with = |name, from: &str, to: &str| text(name, &AUTH.replace(from, to));
    let nested = format!(r#"{{"version":"0.4.0","tee":"tpm","extra-params":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    let method = |name, method| case(name, http(method, "/kbs/v0/auth", &[], AUTH), 404, "attestor.not_found");
    let mut cases = vec![
        text("empty body", ""),
        text("not json", "hello"),
        text("no extra-params", r#"{"version":"0.4.0","tee":"tpm"}"#),
        with("version 0.1.1", "0.4.0", "0.1.1"),
        with("version 0.4.1", "0.4.0", "0.4.1"),
        with("version garbage", "0.4.0", "zero"),
        with("a version with a newline", "0.4.0", "0.4.0\\n"),
        with("a version as a number", "\"0.4.0\"", "0.4"),
        with("unknown tee", "sample", "abacus"),
        with("a tee in capitals", "sample", "SAMPLE"),
        with("a tee that is a number", "\"sample\"", "7"),
        with("se, which nothing here challenges", "sample", "se"),
        with("one member twice", "{", "{\"tee\":\"tpm\","),
        with("text behind it", "}", "} {}"),
        with("a lone surrogate", "sample", "\\ud800"),
        with("a number without end", "\"\"", "1e999"),
        with("a later version of ours", "\"\"", r#"{"tcl":{"version":2}}"#),
        with("our member of another form", "\"\"", r#"{"tcl":"yes"}"#),
        text("a list", "[]"),
        text("null", "null"),
        text("nested too deep", &nested),
        text("only opening brackets", &"[".repeat(10_000)),
        auth("a byte order mark", [b"\xEF\xBB\xBF", AUTH.as_bytes()].concat(), "attestor.protocol"),
        auth(
            "no UTF-8",
            AUTH.replace("0.4.0", "\u{80}").into_bytes().into_iter().filter(|b| *b != 0xC2).collect(),
            "attestor.protocol",
        ),
        auth("zero bytes", vec![0; 100], "attestor.protocol"),
        case("deep nesting, 200k", http("POST", "/kbs/v0/auth", &[], "[".repeat(200_000)), 413, "attestor.protocol"),
        method("auth by GET", "GET"),
        method("auth by PUT", "PUT"),
        method("auth by DELETE", "DELETE"),
        method("auth by OPTIONS", "OPTIONS"),
        method("auth by a word", "ABRACADABRA"),
    ];
    cases.push(case(
        "the path with a slash behind",
        http("POST", "/kbs/v0/auth/", &[], AUTH),
        404,
        "attestor.not_found",
    ));
    cases.push(case("two slashes before", http("POST", "//kbs/v0/auth", &[], AUTH), 404, "attestor.not_found"));
    assert_eq!(run(&world, cases).await, 33);
}

/// The first cause, in the captured server's words.
#[tokio::test]
async fn a_request_for_a_challenge_is_told_why_it_gets_none() {
    let world = world().await;
    for (body, detail) in [
        (String::new(), ": deserialize Request"),
        (AUTH.replace("sample", "abacus"), ": deserialize Request"),
        (
            AUTH.replace("0.4.0", "0.1.1"),
            ": KBS Client Protocol Version Mismatch: expect =0.4.0 while the request is 0.1.1",
        ),
        (AUTH.replace("0.4.0", "x<b>"), ": failed to parse KBS version"),
        (AUTH.replace("sample", "se"), ": Attestation Service generate challenge failed"),
    ] {
        let (_, _, answer) = send(&world, &http("POST", "/kbs/v0/auth", &[], &body)).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["detail"], format!("Attestation error: RCAR handshake Auth failed{detail}"), "{body}");
    }
}

#[tokio::test]
async fn attestations() {
    let world = world().await;
    let (nonce, cookie) = challenge(&world).await;
    let key = SecretKey::generate(KeyAlgorithm::P256).unwrap();
    let good = attestation(&nonce, &key);
    let post = |cookie: Option<&str>, body: &str| {
        let headers: Vec<_> = cookie.map(|cookie| ("cookie", cookie)).into_iter().collect();
        http("POST", "/kbs/v0/attest", &headers, body)
    };
    let refused = |name, body: &str, code| case(name, post(Some(&cookie), body), 401, code);
    let with = |name, pointer: &str, value: Value, code| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        refused(name, &body.to_string(), code)
    };
    let key_of = |name, key: Value, code| with(name, "/runtime-data/tee-pubkey", key, code);
    let by = |name, cookie: Option<&str>| case(name, post(cookie, &good.to_string()), 401, "attestor.session");
    let (body, tag) = cookie.strip_prefix("kbs-session-id=").unwrap().split_once('.').unwrap();
    let mut altered = cookie.clone().into_bytes();
    altered[40] ^= 1;
    let ec = |crv: &str, x: &str, y: &str| json!({ "kty": "EC", "crv": crv, "alg": "ECDH-ES+A256KW", "x": x, "y": y });
    let rsa = |alg: &str, n: &[u8], e: &str| json!({ "kty": "RSA", "alg": alg, "n": b64url(n), "e": e });
    let zero = b64url(&[0; 32]);
    let (report, primary, beside) = (
        "/tee-evidence/primary_evidence/report_data",
        "/tee-evidence/primary_evidence",
        "/tee-evidence/additional_evidence",
    );
    let deep = |value: &str| good.to_string().replace("\"svn\":\"1\"", &format!("\"svn\":{value}"));
    let initdata = |format: &str, body: &str| json!({ "format": format, "body": body });
    let cases = vec![
        by("no cookie", None),
        by("bogus cookie", Some("kbs-session-id=0123456789abcdef")),
        by("an empty cookie", Some("kbs-session-id=")),
        by("a cookie of 5000 bytes", Some(&format!("kbs-session-id={}", "a".repeat(5000)))),
        by("a cookie's halves exchanged", Some(&format!("kbs-session-id={tag}.{body}"))),
        by("a cookie without its seal", Some(&format!("kbs-session-id={body}."))),
        by("a cookie with one bit changed", Some(std::str::from_utf8(&altered).unwrap())),
        by("a cookie of another name", Some(&cookie.replace("kbs-session-id", "kbs-session"))),
        by("a bogus cookie before the good one", Some(&format!("kbs-session-id=x; {cookie}"))),
        refused("an empty object", "{}", "attestor.protocol"),
        refused("an empty body", "", "attestor.protocol"),
        refused("a list", "[]", "attestor.protocol"),
        refused("cut short", &good.to_string()[..200], "attestor.protocol"),
        refused("text behind it", &format!("{good}x"), "attestor.protocol"),
        with("another nonce", "/runtime-data/nonce", b64(&[0; 32]).into(), "evidence.nonce"),
        with("a nonce that is a list", "/runtime-data/nonce", json!([]), "attestor.protocol"),
        with("no runtime data", "/runtime-data", Value::Null, "attestor.protocol"),
        key_of("a key on P-384", ec("P-384", &zero, &zero), "evidence.malformed"),
        key_of("a key off the curve", ec("P-256", &zero, &zero), "evidence.malformed"),
        key_of("a key of no length", ec("P-256", "", ""), "evidence.malformed"),
        key_of("a key that is no base64", ec("P-521", "?", "!"), "evidence.malformed"),
        key_of("a key of a kind that nobody knows", json!({ "kty": "oct", "k": "AAAA" }), "attestor.protocol"),
        key_of("a key without its members", json!({ "kty": "EC" }), "attestor.protocol"),
        key_of("an RSA key of one bit", rsa("RSA-OAEP-256", &[1], "AQAB"), "evidence.malformed"),
        key_of("an RSA key of 512 bits", rsa("RSA-OAEP-256", &[0xFF; 64], "AQAB"), "evidence.malformed"),
        key_of("an RSA key of 80,000 bits", rsa("RSA-OAEP-256", &[0xFF; 10_000], "AQAB"), "evidence.malformed"),
        key_of("an even RSA key", rsa("RSA-OAEP-256", &[0xFE; 256], "AQAB"), "evidence.malformed"),
        key_of("an RSA exponent of zero", rsa("RSA-OAEP-256", &[0xFF; 256], "AA"), "evidence.malformed"),
        key_of("RSA of the old padding", rsa("RSA1_5", &[0xFF; 256], "AQAB"), "evidence.malformed"),
        with("other report data", report, b64(&[0; 48]).into(), "evidence.nonce"),
        with("report data padded as hardware has it", report, b64(&[0; 64]).into(), "evidence.nonce"),
        with("report data that is no base64", report, "?".into(), "evidence.malformed"),
        with("evidence of no shape", primary, json!(7), "evidence.malformed"),
        with("evidence of another platform", primary, json!({ "quote": "AAAA" }), "evidence.malformed"),
        refused("evidence nested too deep", &deep(&("[".repeat(300) + &"]".repeat(300))), "attestor.protocol"),
        refused("evidence of a million brackets", &deep(&"[".repeat(1_000_000)), "attestor.protocol"),
        with("junk beside", beside, "x".into(), "evidence.malformed"),
        with("a list beside", beside, "[]".into(), "evidence.malformed"),
        with("nothing beside, in an object", beside, "{}".into(), "evidence.nonce"),
        with("a number beside", beside, 7.into(), "attestor.protocol"),
        with("initdata as JSON", "/init-data", initdata("json", "{}"), "evidence.initdata"),
        with("initdata that is no TOML", "/init-data", initdata("toml", "= ="), "evidence.initdata"),
        with("initdata without an algorithm", "/init-data", initdata("toml", ""), "evidence.initdata"),
        with(
            "initdata of a weak hash",
            "/init-data",
            initdata("toml", "algorithm = \"md5\""),
            "evidence.initdata_algorithm",
        ),
        with("initdata as text", "/init-data", "x".into(), "attestor.protocol"),
        refused(
            "a log where none was asked for",
            &good.to_string().replace("\"runtime-data\":{", &format!("\"runtime-data\":{{\"log\":{},", log())),
            "evidence.malformed",
        ),
        case("3 MiB", post(Some(&cookie), &" ".repeat(3 << 20)), 413, "attestor.protocol"),
        case("attest by GET", http("GET", "/kbs/v0/attest", &[], ""), 404, "attestor.not_found"),
    ];
    assert_eq!(run(&world, cases).await, 48);
    // Those whose evidence held, and what stood beside it did not, have used that challenge up. Another is used once.
    let (nonce, cookie) = challenge(&world).await;
    let good = attestation(&nonce, &key);
    let request = post(Some(&cookie), &good.to_string());
    assert_eq!(send(&world, &request).await.0, 200);
    let (status, _, body) = send(&world, &request).await;
    assert_eq!(judge(status, &body), (401, "attestor.session".to_owned()));
    // And in its time.
    let (nonce, cookie) = challenge(&world).await;
    world.pass(121);
    let (status, _, body) = send(&world, &post(Some(&cookie), &attestation(&nonce, &key).to_string())).await;
    assert_eq!(judge(status, &body), (401, "attestor.session".to_owned()));
}

fn log() -> String {
    json!({
        "alg": "sha256", "count": 1, "guest": "00".repeat(32), "head": format!("sha256:{}", "00".repeat(32)),
        "kind": "tpm-listed",
    })
    .to_string()
}

#[tokio::test]
async fn resources_and_what_administrates_them() {
    let world = world().await;
    let token = served(&world).await;
    let bearer = format!("Bearer {token}");
    let admin = format!("Bearer {ADMIN}");
    let (_, challenged) = challenge(&world).await;
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
    let unsigned = b64url(br#"{"alg":"none","typ":"JWT"}"#);
    let other = p256::ecdsa::SigningKey::from_slice(&[3; 32]).unwrap();
    let raised = protocols::encoding::un_b64url(claims).unwrap();
    let raised: Value = serde_json::from_slice(&raised).unwrap();
    let forged = protocols::jws::sign("JWT", None, &raised, &other).unwrap();
    let typed = protocols::jws::sign("tcl-verdict+jwt", None, &raised, &other).unwrap();
    let get = |name, header: Option<(&str, &str)>, code| {
        case(name, http("GET", RESOURCE, &header.into_iter().collect::<Vec<_>>(), ""), 401, code)
    };
    let by = |name, text: String| get(name, Some(("authorization", text.as_str())), "attestor.session");
    let path = |name, path: &str, status, code| {
        case(name, http("GET", &format!("/kbs/v0/resource/{path}"), &[("authorization", &bearer)], ""), status, code)
    };
    let missing = |name, text: &str| path(name, text, 404, "attestor.not_found");
    let put = |name, path: &str, authorization: Option<&str>, body: Vec<u8>, status, code| {
        let headers: Vec<_> = authorization.map(|text| ("authorization", text)).into_iter().collect();
        case(name, http("POST", path, &headers, body), status, code)
    };
    let secret = || b"x".to_vec();
    let cases = vec![
        get("no session", None, "attestor.session"),
        by("junk for a token", "Bearer junk".into()),
        by("a token of three empty parts", "Bearer ..".into()),
        by("a token without a signature", format!("Bearer {header}.{claims}.")),
        by("a token of no algorithm", format!("Bearer {unsigned}.{claims}.")),
        by("a token of no algorithm with a signature", format!("Bearer {unsigned}.{claims}.{signature}")),
        by("a token with other claims", format!("Bearer {header}.{}.{signature}", b64url(b"{}"))),
        by("a token of another key", format!("Bearer {forged}")),
        by("another signed thing for a token", format!("Bearer {typed}")),
        by("the token's first half", format!("Bearer {}", &token[..token.len() / 2])),
        by("the administrator for a guest", admin.clone()),
        by("another scheme", format!("Basic {token}")),
        by("no scheme", token.clone()),
        get("a challenge for a session", Some(("cookie", challenged.as_str())), "attestor.session"),
        missing("what is not there", "default/key/missing"),
        missing("upwards", "../../tcl/v1/receipts"),
        missing("upwards in disguise", "default/%2e%2e/one"),
        missing("a path of four", "default/key/one/more"),
        missing("a path of two", "default/key"),
        missing("a slash in disguise", "default%2Fkey%2Fone%2Fmore"),
        missing("a zero byte", "default/key/one%00"),
        missing("a line's end", "default/key/one%0D%0Ax"),
        missing("no UTF-8", "default/key/%FF"),
        missing("a path of 10,000 bytes", &format!("default/key/{}", "a".repeat(10_000))),
        missing("an empty path", ""),
        case(
            "resource by PATCH",
            http("PATCH", RESOURCE, &[("authorization", &bearer)], ""),
            404,
            "attestor.not_found",
        ),
        put("a secret from nobody", RESOURCE, None, secret(), 401, "attestor.denied"),
        put("a secret from a guest", RESOURCE, Some(&bearer), secret(), 401, "attestor.denied"),
        put(
            "a secret by another token",
            RESOURCE,
            Some("Bearer another-administrators-token"),
            secret(),
            401,
            "attestor.denied",
        ),
        put("a secret upwards", "/kbs/v0/resource/../x/y", Some(&admin), secret(), 404, "attestor.not_found"),
        put("a secret on a bad path", "/kbs/v0/resource/one", Some(&admin), secret(), 404, "attestor.not_found"),
        put(
            "a secret on a path that is no UTF-8",
            "/kbs/v0/resource/a/b/%FF",
            Some(&admin),
            secret(),
            404,
            "attestor.not_found",
        ),
        put(
            "junk for golden values",
            &format!("/kbs/v0/resource/golden/dsse/{}", "0".repeat(64)),
            Some(&admin),
            secret(),
            401,
            "attestor.protocol",
        ),
        put("a secret of 3 MiB", RESOURCE, Some(&admin), vec![0; 3 << 20], 413, "attestor.protocol"),
        case("an unknown plugin", http("GET", "/kbs/v0/nope/a", &[], ""), 404, "attestor.not_found"),
        case("the prefix alone", http("GET", "/kbs/v0/", &[], ""), 404, "attestor.not_found"),
        case(
            "a plugin with a long name",
            http("GET", &format!("/kbs/v0/{}", "p".repeat(5000)), &[], ""),
            404,
            "attestor.not_found",
        ),
    ];
    assert_eq!(run(&world, cases).await, 37);
    // A token that has run out.
    world.pass(301);
    let (status, _, body) = send(&world, &http("GET", RESOURCE, &[("authorization", &bearer)], "")).await;
    assert_eq!(judge(status, &body), (401, "attestor.session".to_owned()));
}

/// Reference values are told to the administrator, and taken from nobody over the network.
#[tokio::test]
async fn reference_values() {
    let world = world().await;
    let admin = format!("Bearer {ADMIN}");
    let path = "/kbs/v0/reference-value";
    let get = |name, path: &str, authorization: Option<&str>, status, code| {
        let headers: Vec<_> = authorization.map(|text| ("authorization", text)).into_iter().collect();
        case(name, http("GET", path, &headers, ""), status, code)
    };
    let post = |name, body: &str, authorization: &str, code| {
        case(name, http("POST", path, &[("authorization", authorization)], body), 401, code)
    };
    let sample = r#"{"payload":"eyJzdm4iOlsiMSJdfQ==","type":"sample","version":"0.1.0"}"#;
    let cases = vec![
        get("the list, for nobody", path, None, 401, "attestor.denied"),
        get("one, for nobody", &format!("{path}/tpm.pcr4"), None, 401, "attestor.denied"),
        get("one that has no values", &format!("{path}/svn"), Some(&admin), 404, "attestor.not_found"),
        get("a name that is no UTF-8", &format!("{path}/%FF"), Some(&admin), 404, "attestor.not_found"),
        post("values of nobody", sample, "Bearer x", "attestor.denied"),
        post("values that nobody signed", sample, &admin, "reference.unsigned"),
        post("junk", "foo", &admin, "attestor.protocol"),
        post("a list", "[]", &admin, "attestor.protocol"),
    ];
    assert_eq!(run(&world, cases).await, 8);
    for (path, expected) in [
        (format!("{path}/tpm.pcr4"), json!(["00".repeat(32)])),
        (path.to_owned(), json!({ "tpm.pcr4": ["00".repeat(32)] })),
    ] {
        let (status, _, body) = send(&world, &http("GET", &path, &[("authorization", &admin)], "")).await;
        assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, expected), "{path}");
    }
}

/// Not even HTTP, or HTTP that two readers could read in two ways.
#[tokio::test]
async fn requests_that_are_hardly_requests() {
    let world = world().await;
    let raw = |name, text: &str, status| case(name, text.as_bytes().to_vec(), status, "-");
    let head = |name, headers: &str, status| {
        raw(name, &format!("POST /kbs/v0/auth HTTP/1.1\r\nhost: kbs\r\n{headers}\r\n\r\n"), status)
    };
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let mut cases = vec![
        raw("garbage", "\u{1}\u{2}\u{3}\r\n\r\n", 400),
        case("a TLS hello", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3, 13, 10, 13, 10], 400, "-"),
        raw("HTTP/2 from the start", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0),
        raw("HTTP/0.9", "GET /healthz\r\n\r\n", 400),
        raw("an unknown version", "GET /healthz HTTP/9.9\r\n\r\n", 400),
        raw("a path with a space", "GET /kbs/v0/resource/a b/c HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        head("a header without a colon", "nonsense", 400),
        head("a header with a zero byte", "x: a\0b", 400),
        head("a length that is no number", "content-length: many", 400),
        head("a negative length", "content-length: -1", 400),
        head("two lengths", "content-length: 1\r\ncontent-length: 2", 400),
        head("200 headers", many.trim_end(), 431),
        head("a head of 200 KiB", &format!("authorization: Bearer {}", "a".repeat(200_000)), 431),
        head("a length beyond all numbers", "content-length: 99999999999999999999999999", 400),
        head("an unknown transfer coding", "transfer-encoding: gzip", 400),
        case(
            "chunks of no size",
            b"POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
                .to_vec(),
            400,
            "attestor.protocol",
        ),
    ];
    let cut = |name, text: &str, code| Case { cut: true, ..case(name, text.as_bytes().to_vec(), 400, code) };
    let post = "POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\n";
    cases.extend([
        cut(
            "a body that ends early",
            &format!("{post}connection: close\r\ncontent-length: 100\r\n\r\n{{"),
            "attestor.protocol",
        ),
        cut("a request that ends in its head", post, "-"),
        cut("nothing at all", "", "-"),
    ]);
    assert_eq!(run(&world, cases).await, 19);
}
