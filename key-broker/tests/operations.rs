//! How the attestor is watched: health, counts, ids of requests, and the rate limit.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

mod support;

use support::guest::{Guest, question};
use support::{ADMIN, World, image};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const STOCK_AUTH: &[u8] = br#"{"version":"0.4.0","tee":"tpm","extra-params":""}"#;

async fn get(world: &World, path: &str) -> (u16, String) {
    world.raw("GET", path, &[], vec![]).await
}

/// The whole answer to one request, head and all.
async fn whole(world: &World, line: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream
        .write_all(format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn counts_name_routes_and_codes_and_nothing_that_was_asked_for() {
    let world = World::new().await;
    world.push_golden(&image(), 1).await;
    let mut guest = Guest::boot(&world.tpm, 1);
    guest.push_image(0, &image());
    let session = guest.attest(&world.client()).await.unwrap();
    guest.deliver(&session).await.unwrap();
    let session = guest.attest(&world.client()).await.unwrap();
    guest.ask(&session, &question(0, &image())).await.unwrap();
    world.raw("POST", "/kbs/v0/auth", &[], vec![b'x'; 20_000]).await;
    world.raw("GET", "/kbs/v0/resource/very/secret/name", &[], vec![]).await;
    world.raw("GET", "/a/path/of/a/stranger", &[], vec![]).await;
    world.raw("STRANGE", "/healthz", &[], vec![]).await;
    let (status, text) = get(&world, "/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"key_broker_requests_total{method="POST",route="/kbs/v0/auth",status="200"} 2"#,
        r#"key_broker_requests_total{method="POST",route="/kbs/v0/auth",status="413"} 1"#,
        r#"key_broker_requests_total{method="GET",route="/kbs/v0/resource/{*path}",status="401"} 1"#,
        r#"key_broker_requests_total{method="GET",route="none",status="404"} 1"#,
        r#"key_broker_request_duration_seconds_count{route="/tcl/v1/decide"} 1"#,
        r#"key_broker_handshakes_total{tee="tpm",outcome="attested"} 2"#,
        r#"key_broker_decisions_total{code="pass"} 1"#,
        r#"key_broker_refusals_total{code="attestor.protocol"} 1"#,
        r#"key_broker_bodies_refused_total{cause="too_large"} 1"#,
        "key_broker_store_errors_total 0",
        "key_broker_build_info{version=",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let memory = text.lines().find_map(|line| line.strip_prefix("key_broker_resident_memory_bytes ")).unwrap();
    assert!(memory.parse::<u64>().unwrap() > 1024 * 1024);
    for secret in ["secret", "stranger", "STRANGE", &guest.id().to_string(), ADMIN] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn it_is_ready_while_it_serves_and_tells_when_it_ends() {
    let world = World::new().await;
    assert_eq!(get(&world, "/healthz").await, (200, String::new()));
    assert_eq!(get(&world, "/readyz").await.0, 200);
    world.broker().drain();
    assert_eq!(get(&world, "/healthz").await, (503, "draining\n".into()));
    assert_eq!(get(&world, "/readyz").await.0, 503);
    let (status, _) = world.raw("POST", "/kbs/v0/auth", &[], STOCK_AUTH.to_vec()).await;
    assert_eq!(status, 200, "who is there is served");
}

#[tokio::test]
async fn a_request_keeps_its_id_where_it_can_stand_in_a_log() {
    let world = World::new().await;
    let id = |answer: String| {
        answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).map(str::to_owned).unwrap()
    };
    let given = id(whole(&world, "GET /healthz", "x-request-id: Agent_7.of-9\r\n").await);
    assert_eq!(given, "Agent_7.of-9");
    for odd in ["short", "with space in it", "with\"quotes\"", &"a".repeat(65), "tab\tinside-it"] {
        let made = id(whole(&world, "GET /nowhere", &format!("x-request-id: {odd}\r\n")).await);
        assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{odd}: {made}");
    }
}

#[tokio::test]
async fn a_source_that_asks_too_often_waits_and_others_do_not() {
    let limited = |text: String| format!("{text}\n[limits]\nper_second = 1\nburst = 5\nforwarded = \"X-Real-IP\"\n");
    let world = World::edited(tempfile::tempdir().unwrap(), "development", limited).await;
    let ask =
        async |source: &str| world.raw("POST", "/kbs/v0/auth", &[("x-real-ip", source)], STOCK_AUTH.to_vec()).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(ask("192.0.2.1").await);
    }
    let served = answers.iter().filter(|(status, _)| *status == 200).count();
    assert!((5..20).contains(&served), "{served}");
    let (status, body) = answers.last().unwrap();
    assert_eq!(*status, 429);
    assert!(body.contains("attestor.rate") && body.contains("errors/AttestationError"), "{body}");
    assert_eq!(ask("192.0.2.2").await.0, 200);
    // What asks for a session's or an administrator's credentials is not limited by them.
    assert_eq!(world.raw("GET", "/healthz", &[("x-real-ip", "192.0.2.1")], vec![]).await.0, 200);
    let answer = whole(&world, "POST /kbs/v0/attest", "x-real-ip: 192.0.2.1\r\ncontent-length: 0\r\n").await;
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    assert!(get(&world, "/metrics").await.1.contains("key_broker_rate_limited_total"));

    // Without a header that is trusted by name, this machine is not limited, whatever it says.
    let limited = |text: String| format!("{text}\n[limits]\nper_second = 1\nburst = 1\n");
    let world = World::edited(tempfile::tempdir().unwrap(), "development", limited).await;
    for _ in 0..5 {
        let headers = [("x-forwarded-for", "192.0.2.1")];
        assert_eq!(world.raw("POST", "/kbs/v0/auth", &headers, STOCK_AUTH.to_vec()).await.0, 200);
    }
}
