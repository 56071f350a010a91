//! The attestor as strangers and stock clients meet it: bodies as captured from real ones, and everything malformed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

mod support;

use std::time::Duration;

use protocols::encoding::{b64, un_b64};
use protocols::jwe::{self, SecretKey};
use protocols::kbs::{Attestation, Response, RuntimeData};
use protocols::tcl::LogBinding;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use support::guest::Guest;
use support::tpm::SoftTpm;
use support::{ADMIN, World, digest};

/// POST /kbs/v0/auth as a stock attestation agent sends it.
const STOCK_AUTH: &str = r#"{"version":"0.4.0","tee":"tpm","extra-params":{"supported-hash-algorithms":["sha256","sha384","sha512","sm3"]}}"#;
/// POST /kbs/v0/attest as a stock attestation agent sends it, for sample evidence.
const STOCK_ATTEST: &str = r#"{"init-data":null,"runtime-data":{"nonce":"NONCE","tee-pubkey":{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"RqnYyYln4RT2hA5688MOoRDortnIcteezHtjKYnqwAc","y":"SmPpY489tjsM1NqrGCt4V54RwU3z_tAuNEoIFehHtWk"}},"tee-evidence":{"primary_evidence":{"report_data":"aDPXi8iTIrHTrlb3gfdU0loBLVcfgT6Tq+6XYGuojDlTXXJqJ0Agl2jqXeZH3GA9","svn":"1"},"additional_evidence":""}}"#;

/// One exchange over a connection of its own: status, session cookie, body.
async fn post(world: &World, path: &str, cookie: Option<&str>, body: &str) -> (u16, Option<String>, Value) {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let cookie = cookie.map(|cookie| format!("cookie: kbs-session-id={cookie}\r\n")).unwrap_or_default();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: kbs\r\nconnection: close\r\ncontent-type: application/json\r\n{cookie}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let set = head.lines().find_map(|line| line.strip_prefix("set-cookie: kbs-session-id="));
    let cookie = set.and_then(|value| value.split(';').next()).map(str::to_owned);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, cookie, serde_json::from_str(body).unwrap_or(Value::Null))
}

fn variant(body: &Value) -> &str {
    body["type"].as_str().unwrap().strip_prefix("https://github.com/confidential-containers/kbs/errors/").unwrap()
}

/// A challenge for a stock client.
async fn challenge(world: &World) -> (String, String) {
    let (status, cookie, body) = post(world, "/kbs/v0/auth", None, STOCK_AUTH).await;
    assert_eq!(status, 200);
    (body["nonce"].as_str().unwrap().to_owned(), cookie.unwrap())
}

/// A stock client's attestation with a TPM's evidence, written member by member.
fn attestation(guest: &Guest, nonce: &str, key: &SecretKey) -> String {
    let jwk = serde_json::to_value(key.public_key().jwk()).unwrap();
    let hashed = json!({ "additional-evidence": "", "nonce": nonce, "tee-pubkey": jwk });
    let digest = protocols::digest::Sha384Digest::of(&protocols::jcs::canonical(&hashed).unwrap());
    json!({
        "init-data": null,
        "runtime-data": { "nonce": nonce, "tee-pubkey": jwk },
        "tee-evidence": {
            "primary_evidence": guest.evidence(&digest).primary_evidence,
            "additional_evidence": "",
        },
    })
    .to_string()
}

/// The session keys that CoCo's clients choose among.
fn keys() -> [SecretKey; 3] {
    let pem = |text| SecretKey::from_pem(text).unwrap();
    [
        p256(),
        pem(include_str!("../../protocols/tests/data/jwe/p521-1.pem")),
        pem(include_str!("../../protocols/tests/data/jwe/rsa-2.pem")),
    ]
}

fn p256() -> SecretKey {
    SecretKey::P256(jwe::generate().unwrap())
}

#[tokio::test]
async fn a_stock_client_attests_and_reads_a_resource_by_cookie_or_token() {
    for key in keys() {
        Box::pin(attests_and_reads(key)).await;
    }
}

async fn attests_and_reads(key: SecretKey) {
    let world = World::new().await;
    let admin = format!("Bearer {ADMIN}");
    let path = "/kbs/v0/resource/default/key/one";
    world.raw("POST", path, &[("authorization", &admin)], b"hello-secret".to_vec()).await;

    let (status, cookie, body) = post(&world, "/kbs/v0/auth", None, STOCK_AUTH).await;
    assert_eq!((status, &body["extra-params"]), (200, &json!("")));
    assert_eq!(body.as_object().unwrap().len(), 2);
    let nonce = body["nonce"].as_str().unwrap();
    assert_eq!(un_b64(nonce).unwrap().len(), 32);

    let guest = Guest::boot(&world.tpm, 1);
    let attest = attestation(&guest, nonce, &key);
    let (status, session, body) = post(&world, "/kbs/v0/attest", cookie.as_deref(), &attest).await;
    assert_eq!(status, 200, "{body}");
    let token = body["token"].as_str().unwrap();

    let cookie = format!("kbs-session-id={}", session.unwrap());
    for header in [("cookie", cookie), ("authorization", format!("Bearer {token}"))] {
        let (status, body) = world.raw("GET", path, &[(header.0, &header.1)], vec![]).await;
        assert_eq!(status, 200, "{body}");
        let response: Response = serde_json::from_str(&body).unwrap();
        assert_eq!(jwe::decrypt(&key, &response).unwrap().as_slice(), b"hello-secret");
        // A missing resource is 404, or real clients would attest again, three times.
        let (status, body) =
            world.raw("GET", "/kbs/v0/resource/default/key/missing", &[(header.0, &header.1)], vec![]).await;
        assert_eq!((status, variant(&serde_json::from_str(&body).unwrap())), (404, "PluginInternalError"));
    }
    // A stock session decides nothing.
    let bearer = format!("Bearer {token}");
    let (status, body) = world.raw("GET", "/tcl/v1/receipts?after=0", &[("authorization", &bearer)], vec![]).await;
    assert_eq!(status, 403);
    assert!(body.contains("evidence.guest"));
}

/// Attests with our own protocol, whatever guest `log` names.
async fn attest_as(world: &World, guest: &Guest, log: &LogBinding) -> (u16, Value) {
    attest_with(world, guest, log, &p256()).await
}

async fn attest_with(world: &World, guest: &Guest, log: &LogBinding, key: &SecretKey) -> (u16, Value) {
    let ours = r#"{"version":"0.4.0","tee":"tpm","extra-params":{"tcl":{"version":1}}}"#;
    let (_, cookie, body) = post(world, "/kbs/v0/auth", None, ours).await;
    let runtime_data = RuntimeData {
        nonce: body["nonce"].as_str().unwrap().to_owned(),
        tee_pubkey: key.public_key().jwk(),
        log: Some(log.clone()),
    };
    let tee_evidence = guest.evidence(&runtime_data.digest("").unwrap());
    let attestation = Attestation { init_data: None, runtime_data, tee_evidence };
    let body = serde_json::to_string(&attestation).unwrap();
    let (status, _, body) = post(world, "/kbs/v0/attest", cookie.as_deref(), &body).await;
    (status, body)
}

/// A log binding names the guest by the guest's own word: it opens nobody else's receipts.
#[tokio::test]
async fn receipts_are_read_by_their_guest_alone() {
    let world = World::new().await;
    let receipts = async |token: &Value| {
        let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
        world.raw("GET", "/tcl/v1/receipts?after=0", &[("authorization", &bearer)], vec![]).await
    };
    let mut victim = Guest::boot(&world.tpm, 1);
    let rogue = Guest::boot(&SoftTpm { reset_count: 6, ..world.tpm.clone() }, 2);
    let as_victim = LogBinding { guest: victim.id(), count: 99, ..rogue.binding() };
    // Whoever signs no requests has no session of this protocol.
    let [_, p521, _] = keys();
    let (status, body) = attest_with(&world, &victim, &victim.binding(), &p521).await;
    assert_eq!((status, &body["reason"]), (401, &json!("evidence.malformed")), "{body}");
    let (status, early) = attest_as(&world, &rogue, &as_victim).await;
    assert_eq!(status, 200, "{early}");

    let session = victim.attest(&world.client()).await.unwrap();
    victim.deliver(&session).await.unwrap();
    let (status, body) = receipts(&early).await;
    assert!(status == 401 && body.contains("attestor.session"), "{status} {body}");
    let (status, late) = attest_as(&world, &rogue, &as_victim).await;
    assert_eq!((status, &late["reason"]), (401, &json!("evidence.guest")), "{late}");

    let (_, own) = attest_as(&world, &victim, &LogBinding { count: 99, ..victim.binding() }).await;
    let (status, body) = receipts(&own).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["receipts"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_token_says_what_was_attested() {
    let world = World::new().await;
    let (nonce, cookie) = challenge(&world).await;
    let key = p256();
    let attest = attestation(&Guest::boot(&world.tpm, 1), &nonce, &key);
    let (_, _, body) = post(&world, "/kbs/v0/attest", Some(&cookie), &attest).await;
    let token = body["token"].as_str().unwrap();
    let claims = protocols::encoding::un_b64url(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["tee"], "tpm");
    assert_eq!(claims["environment"], "development");
    assert_eq!(claims["simulated"], true);
    assert_eq!(claims["nonce"], nonce.as_str());
    assert_eq!(claims["tee-pubkey"], serde_json::to_value(key.public_key().jwk()).unwrap());
    let ear = appraisal::Ear::from_json(&serde_json::to_vec(&claims).unwrap()).unwrap();
    let submod = &ear.submods["cpu0"];
    // What booted is expected; that the platform is simulated is worth a warning.
    assert_eq!(submod.status, appraisal::Tier::Warning);
    assert_eq!((submod.vector.executables, submod.vector.hardware), (3, 32));
    assert_eq!(submod.policy, digest(appraisal::policy::BUILT_IN).to_string());
    assert_eq!(submod.evidence["tpm"]["pcrs"][4], "00".repeat(32));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
}

/// The token is a JWT to everybody: a library that shares nothing with our signer reads it and finds an EAR.
#[tokio::test]
async fn another_library_verifies_the_token_and_finds_an_attestation_result() {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
    let world = World::new().await;
    let (nonce, cookie) = challenge(&world).await;
    let attest = attestation(&Guest::boot(&world.tpm, 1), &nonce, &p256());
    let (_, _, body) = post(&world, "/kbs/v0/attest", Some(&cookie), &attest).await;
    let token = body["token"].as_str().unwrap();

    let protocols::keys::VerifyingKey::EcdsaP256(key) =
        protocols::keys::VerifyingKey::from_pem(&world.key_pem).unwrap()
    else {
        panic!("tokens are ES256")
    };
    let key = DecodingKey::from_ec_der(key.to_sec1_point(false).as_bytes());
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_issuer(&["trusted-container-launcher/key-broker"]);
    // The tests' clock is not the machine's.
    rules.validate_exp = false;
    let claims = decode::<Value>(token, &key, &rules).unwrap().claims;
    assert_eq!(claims["eat_profile"], "tag:trusted-container-launcher,2026:ear");
    for part in ["developer", "build"] {
        assert!(claims["ear.verifier-id"][part].is_string(), "{claims}");
    }
    let submod = &claims["submods"]["cpu0"];
    assert_eq!(submod["ear.status"], "warning");
    let vector = submod["ear.trustworthiness-vector"].as_object().unwrap();
    let names = [
        "configuration",
        "executables",
        "file-system",
        "hardware",
        "instance-identity",
        "runtime-opaque",
        "sourced-data",
        "storage-opaque",
    ];
    let mut found: Vec<&str> = vector.keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, names);
    assert!(vector.values().all(|value| value.as_i64().is_some_and(|value| (-128..=127).contains(&value))));
    let mut altered = token.to_owned();
    altered.insert(token.find('.').unwrap() + 1, 'A');
    decode::<Value>(&altered, &key, &rules).unwrap_err();
}

#[tokio::test]
async fn what_the_appraisal_policy_contraindicates_gets_no_session() {
    let unexpected = |text: String| text.replace(&"00".repeat(32), &"77".repeat(32));
    let world = World::edited(tempfile::tempdir().unwrap(), "production", unexpected).await;
    let (nonce, cookie) = challenge(&world).await;
    let attest = attestation(&Guest::boot(&world.tpm, 1), &nonce, &p256());
    let (status, _, body) = post(&world, "/kbs/v0/attest", Some(&cookie), &attest).await;
    assert_eq!((status, &body["reason"]), (401, &json!("evidence.appraisal")), "{body}");
    assert!(body["token"].is_null());

    // In development the same is a warning, unless the configured policy is stricter.
    let closed = tempfile::tempdir().unwrap();
    let policy = closed.path().join("closed.rego").display().to_string();
    std::fs::write(&policy, appraisal::policy::BUILT_IN.replace("\"development\"", "\"nowhere\"")).unwrap();
    for (named, expected) in [("", 200), ("policy", 401)] {
        let directory = tempfile::tempdir().unwrap();
        let section = format!("\n[appraisal]\n{named} = \"{policy}\"\n");
        let edit = |text| if named.is_empty() { unexpected(text) } else { unexpected(text) + &section };
        let world = World::edited(directory, "development", edit).await;
        let (nonce, cookie) = challenge(&world).await;
        let attest = attestation(&Guest::boot(&world.tpm, 1), &nonce, &p256());
        assert_eq!(post(&world, "/kbs/v0/attest", Some(&cookie), &attest).await.0, expected);
    }
}

#[tokio::test]
async fn a_replayed_challenge_is_refused_even_after_a_restart() {
    let mut world = World::new().await;
    let (nonce, cookie) = challenge(&world).await;
    let attest = attestation(&Guest::boot(&world.tpm, 1), &nonce, &p256());
    assert_eq!(post(&world, "/kbs/v0/attest", Some(&cookie), &attest).await.0, 200);
    for _ in 0..2 {
        let (status, _, body) = post(&world, "/kbs/v0/attest", Some(&cookie), &attest).await;
        assert_eq!((status, variant(&body), &body["reason"]), (401, "AttestationError", &json!("attestor.session")));
        world.restart().await;
    }
}

#[tokio::test]
async fn malformed_handshakes_are_refused_with_the_status_real_clients_know_and_a_reason() {
    let world = World::new().await;
    let auth = |body: String| {
        let world = &world;
        async move { post(world, "/kbs/v0/auth", None, &body).await }
    };
    let deep = "[".repeat(10_000);
    for (name, body, reason) in [
        ("empty body", String::new(), "attestor.protocol"),
        ("not json", "hello".into(), "attestor.protocol"),
        ("no extra-params", r#"{"version":"0.4.0","tee":"tpm"}"#.into(), "attestor.protocol"),
        ("version 0.1.1", STOCK_AUTH.replace("0.4.0", "0.1.1"), "attestor.protocol"),
        ("version 0.4.1", STOCK_AUTH.replace("0.4.0", "0.4.1"), "attestor.protocol"),
        ("version garbage", STOCK_AUTH.replace("0.4.0", "x"), "attestor.protocol"),
        ("unknown tee", STOCK_AUTH.replace("tpm", "abacus"), "attestor.protocol"),
        ("deep nesting", deep, "attestor.protocol"),
        (
            "a later version of ours",
            r#"{"version":"0.4.0","tee":"tpm","extra-params":{"tcl":{"version":2}}}"#.into(),
            "attestor.protocol",
        ),
    ] {
        let (status, cookie, body) = auth(body).await;
        assert_eq!((status, cookie, variant(&body)), (401, None, "AttestationError"), "{name}");
        assert_eq!(body["reason"], reason, "{name}");
    }

    let guest = Guest::boot(&world.tpm, 1);
    let key = p256();
    let (nonce, cookie) = challenge(&world).await;
    let good: Value = serde_json::from_str(&attestation(&guest, &nonce, &key)).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(pointer).unwrap() = value;
        body.to_string()
    };
    let quote = "/tee-evidence/primary_evidence/tpm_quote";
    let x = good.pointer("/runtime-data/tee-pubkey/x").unwrap().as_str().unwrap().to_owned();
    let cut = b64(&un_b64(good.pointer(&format!("{quote}/message")).unwrap().as_str().unwrap()).unwrap()[..40]);
    let cases = [
        ("no cookie", None, good.to_string(), "attestor.session"),
        ("bogus cookie", Some("0123456789abcdef"), good.to_string(), "attestor.session"),
        ("empty object", Some(cookie.as_str()), "{}".into(), "attestor.protocol"),
        ("another nonce", Some(&cookie), with("/runtime-data/nonce", json!(b64(&[0; 32]))), "evidence.nonce"),
        ("key off the curve", Some(&cookie), with("/runtime-data/tee-pubkey/y", json!(x)), "evidence.malformed"),
        ("unexpected log", Some(&cookie), with_log(&good), "evidence.malformed"),
        ("junk beside", Some(&cookie), with("/tee-evidence/additional_evidence", json!("x")), "evidence.malformed"),
        ("evidence of no shape", Some(&cookie), with("/tee-evidence/primary_evidence", json!(7)), "evidence.malformed"),
        ("quote cut short", Some(&cookie), with(&format!("{quote}/message"), json!(cut)), "evidence.malformed"),
        ("23 PCRs", Some(&cookie), with(&format!("{quote}/pcrs"), json!([""])), "evidence.malformed"),
    ];
    for (name, cookie, body, reason) in cases {
        let (status, _, body) = post(&world, "/kbs/v0/attest", cookie, &body).await;
        assert_eq!((status, variant(&body)), (401, "AttestationError"), "{name}");
        assert_eq!(body["reason"], reason, "{name}");
    }
    // None of them used the challenge up.
    assert_eq!(post(&world, "/kbs/v0/attest", Some(&cookie), &good.to_string()).await.0, 200);
}

fn with_log(good: &Value) -> String {
    let mut body = good.clone();
    let log = json!({
        "alg": "sha256", "count": 1, "guest": "00".repeat(32), "head": format!("sha256:{}", "00".repeat(32)),
        "kind": "tpm-listed",
    });
    body["runtime-data"]["log"] = log;
    body.to_string()
}

#[tokio::test]
async fn sample_evidence_as_stock_agents_fall_back_to_is_never_accepted() {
    let world = World::new().await;
    let auth = STOCK_AUTH.replace("tpm", "sample");
    let (status, cookie, body) = post(&world, "/kbs/v0/auth", None, &auth).await;
    assert_eq!(status, 200);
    let attest = STOCK_ATTEST.replace("NONCE", body["nonce"].as_str().unwrap());
    let (status, _, body) = post(&world, "/kbs/v0/attest", cookie.as_deref(), &attest).await;
    assert_eq!((status, variant(&body), &body["reason"]), (401, "AttestationError", &json!("evidence.policy")));
}

#[tokio::test]
async fn what_is_not_allowed_or_not_there_is_answered_as_real_servers_do() {
    let world = World::new().await;
    let (_, cookie) = challenge(&world).await;
    let cookie = format!("kbs-session-id={cookie}");
    let resource = "/kbs/v0/resource/default/key/one";
    for (name, method, path, headers, status, error) in [
        ("no auth", "GET", resource, vec![], 401, "TokenNotFound"),
        ("junk bearer", "GET", resource, vec![("authorization", "Bearer junk")], 401, "TokenVerifierError"),
        ("challenged only", "GET", resource, vec![("cookie", cookie.as_str())], 401, "TokenNotFound"),
        ("unknown plugin", "GET", "/kbs/v0/nope/a", vec![], 404, "PluginNotFound"),
        ("prefix only", "GET", "/kbs/v0/", vec![], 404, "PluginNotFound"),
        ("auth by GET", "GET", "/kbs/v0/auth", vec![], 404, "PluginNotFound"),
    ] {
        let (got, body) = world.raw(method, path, &headers, vec![]).await;
        assert_eq!((got, variant(&serde_json::from_str(&body).unwrap())), (status, error), "{name}");
    }
    assert_eq!(world.raw("GET", "/healthz", &[], vec![]).await, (200, String::new()));
    let (status, body) = world.raw("GET", "/elsewhere", &[], vec![]).await;
    assert_eq!(status, 404);
    assert!(body.contains("attestor.not_found"));
}

#[tokio::test]
async fn our_endpoints_refuse_strangers_and_garbage_with_codes() {
    let world = World::new().await;
    let guest = Guest::boot(&world.tpm, 1);
    let (nonce, cookie) = challenge(&world).await;
    let attest = attestation(&guest, &nonce, &p256());
    let (_, _, body) = post(&world, "/kbs/v0/attest", Some(&cookie), &attest).await;
    let bearer = format!("Bearer {}", body["token"].as_str().unwrap());
    let other = p256::ecdsa::SigningKey::from_slice(&[3; 32]).unwrap();
    let forged = protocols::jws::sign(protocols::tcl::EVENTS_TYP, None, &json!({}), &other).unwrap();
    for path in ["/tcl/v1/events", "/tcl/v1/decide"] {
        let cases = [
            ("no token", None, b"x".to_vec(), 401, "attestor.session"),
            ("junk token", Some("Bearer a.b.c"), b"x".to_vec(), 401, "attestor.session"),
            ("no JWS", Some(bearer.as_str()), b"junk".to_vec(), 400, "attestor.protocol"),
            ("not text", Some(&bearer), vec![0xFF; 9], 400, "attestor.protocol"),
        ];
        for (name, token, body, status, code) in cases {
            let headers: Vec<_> = token.map(|token| ("authorization", token)).into_iter().collect();
            let (got, body) = world.raw("POST", path, &headers, body).await;
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((got, &body["refusal"]["code"]), (status, &json!(code)), "{path} {name}");
            assert_eq!(body["refusal"]["source"], "attestor");
        }
    }
    // A stranger's signature under a stolen token.
    let (status, body) = world.raw("POST", "/tcl/v1/events", &[("authorization", &bearer)], forged.into_bytes()).await;
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("attestor.denied"));
    for query in ["", "?after=", "?after=-1", "?before=1"] {
        let path = format!("/tcl/v1/receipts{query}");
        assert_eq!(world.raw("GET", &path, &[("authorization", &bearer)], vec![]).await.0, 400, "{query}");
    }
}

#[tokio::test]
async fn bodies_and_heads_that_are_too_large_are_refused() {
    let world = World::new().await;
    let (status, body) = world.raw("POST", "/kbs/v0/auth", &[], vec![b' '; 3 * 1024 * 1024]).await;
    // The server may close while the rest is still coming; then nothing is read at all.
    assert!([0, 413].contains(&status), "{status} {body}");
    let (status, _) =
        world.raw("GET", "/healthz", &[("authorization", &format!("Bearer {}", "a".repeat(200_000)))], vec![]).await;
    assert!([0, 431].contains(&status), "{status}");
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x0D, 0x0A, 0x0D, 0x0A]).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    // And it still serves.
    assert_eq!(world.raw("GET", "/healthz", &[], vec![]).await.0, 200);
}

/// The clock jumps whenever everything waits, so that waiting costs no time.
#[tokio::test(start_paused = true)]
async fn a_peer_that_stalls_in_head_or_body_is_cut_off() {
    let world = World::new().await;
    let limit = Duration::from_secs(60);
    let mut head = TcpStream::connect(world.address).await.unwrap();
    head.write_all(b"POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(limit, head.read_to_string(&mut answer)).await.unwrap().unwrap();

    let mut body = TcpStream::connect(world.address).await.unwrap();
    body.write_all(b"POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    let mut answer = String::new();
    tokio::time::timeout(limit, body.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    // Connected and silent.
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    tokio::time::timeout(limit, silent.read_to_string(&mut answer)).await.unwrap().unwrap();
}

/// Waits without end in what it serves, until it is let go.
#[tokio::test]
async fn a_request_in_work_is_answered_before_the_server_ends() {
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = std::sync::Arc::new(tokio::sync::Mutex::new(Some(released)));
    let router = axum::Router::new().route(
        "/slow",
        axum::routing::get(async move || {
            released.lock().await.take().unwrap().await.unwrap();
            "done"
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(key_broker::server::serve(listener, router, async move {
        let _ = stopped.await;
    }));
    let mut idle = TcpStream::connect(address).await.unwrap();
    let request = tokio::spawn(async move { support::raw(address, "GET", "/slow", &[], vec![]).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.send(()).unwrap();
    // New connections are refused, idle ones closed, the request in work goes on.
    let mut rest = String::new();
    idle.read_to_string(&mut rest).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!server.is_finished());
    release.send(()).unwrap();
    let (status, body) = request.await.unwrap();
    assert_eq!((status, body.as_str()), (200, "done"));
    server.await.unwrap();
}
