//! What no client sends to the attestor's own endpoints and to HTTP itself: every request has its answer, and the next one is served.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

mod support;

use std::time::Duration;

use support::{ADMIN, World};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Sends bytes as they are, and gives everything that is answered.
async fn exchange(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    // A server that refuses early may close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

/// A request of one line and headers, which ends the connection.
fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

fn as_admin(line: &str) -> Vec<u8> {
    request(line, &format!("authorization: Bearer {ADMIN}\r\n"))
}

fn with_body(line: &str, headers: &str, body: &str) -> Vec<u8> {
    [request(line, headers), body.as_bytes().to_vec()].concat()
}

/// Name, bytes, status, and what the answer holds.
fn table() -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    const NOWHERE: &str = "attestor.not_found";
    const SESSION: &str = "attestor.session";
    const DENIED: &str = "attestor.denied";
    const PROTOCOL: &str = "attestor.protocol";
    let long = "a".repeat(8000);
    let get = |path: &str| request(&format!("GET {path}"), "");
    let raw = |text: &str| text.as_bytes().to_vec();
    let post = "POST /tcl/v1/decide";
    let mut table = vec![
        ("the root", get("/"), 404, NOWHERE),
        ("no endpoint", get("/tcl/v1"), 404, NOWHERE),
        ("a version that is not", get("/tcl/v2/decide"), 404, NOWHERE),
        ("two slashes", get("//tcl/v1/receipts"), 404, NOWHERE),
        ("dots", get("/tcl/v1/../v1/receipts"), 404, NOWHERE),
        ("another case", get("/TCL/v1/receipts"), 404, NOWHERE),
        ("no id", get("/tcl/v1/verdicts/"), 404, NOWHERE),
        ("a longer id", as_admin("GET /tcl/v1/verdicts/a/b"), 404, NOWHERE),
        ("GET to POST", get("/tcl/v1/decide"), 404, NOWHERE),
        ("PUT", request("PUT /tcl/v1/events", "content-length: 0\r\n"), 404, NOWHERE),
        ("DELETE of a decision", as_admin("DELETE /tcl/v1/verdicts/x"), 404, NOWHERE),
        ("PATCH", request("PATCH /metrics", ""), 404, NOWHERE),
        ("POST of metrics", request("POST /metrics", "content-length: 0\r\n"), 404, NOWHERE),
        ("TRACE", request("TRACE /healthz", ""), 404, NOWHERE),
        ("an invented method", request("BREW /tcl/v1/decide", ""), 404, NOWHERE),
        ("a method in lower case", request("get /healthz", ""), 404, NOWHERE),
        ("an id of many bytes", as_admin(&format!("GET /tcl/v1/verdicts/{long}")), 404, NOWHERE),
        ("an id with zero bytes", as_admin("GET /tcl/v1/verdicts/%00%00"), 404, NOWHERE),
        ("an id that climbs", as_admin("GET /tcl/v1/verdicts/..%2f..%2fetc%2fpasswd"), 404, NOWHERE),
        ("an id that is no text", as_admin("GET /tcl/v1/verdicts/%ff%fe"), 400, PROTOCOL),
        ("an escape that is none", as_admin("GET /tcl/v1/verdicts/%zz"), 404, NOWHERE),
        ("a cut escape", as_admin("GET /tcl/v1/verdicts/%"), 404, NOWHERE),
        ("an id without credentials", get("/tcl/v1/verdicts/%ff"), 403, DENIED),
        ("a token that is no text", [b"GET /tcl/v1/verdicts/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer \xff\xfe\r\n\r\n".to_vec()].concat(), 403, DENIED),
        ("an empty token", request("GET /tcl/v1/verdicts/x", "authorization: Bearer \r\n"), 403, DENIED),
        ("a token twice", request("GET /tcl/v1/verdicts/x", &format!("authorization: Bearer x\r\nauthorization: Bearer {ADMIN}\r\n")), 403, DENIED),
        ("a password", request("GET /tcl/v1/verdicts/x", "authorization: Basic YTpi\r\n"), 403, DENIED),
        ("a JWT of nobody", request("GET /tcl/v1/verdicts/x", "authorization: Bearer eyJhbGciOiJub25lIn0.e30.\r\n"), 403, DENIED),
        ("a certificate in a header", request("GET /tcl/v1/verdicts/x", "x-ssl-client-verify: SUCCESS\r\nx-forwarded-client-cert: Hash=00\r\n"), 403, DENIED),
        ("no session", with_body(post, "content-length: 2\r\n", "{}"), 401, SESSION),
        ("a session that is none", with_body(post, "authorization: Bearer a.b.c\r\ncontent-length: 2\r\n", "{}"), 401, SESSION),
        ("a long session", with_body(post, &format!("authorization: Bearer {}\r\ncontent-length: 0\r\n", "a".repeat(20_000)), ""), 401, SESSION),
        ("no session, and a body that never comes", request(post, "content-length: 99999999\r\n"), 401, SESSION),
        ("no session, and a body that is asked for first", request(post, "content-length: 4\r\nexpect: 100-continue\r\n"), 401, SESSION),
        ("receipts of nobody", get("/tcl/v1/receipts?after=-1"), 401, SESSION),
        ("a head of 80 KiB", request("GET /healthz", &format!("x: {}\r\n", "a".repeat(80_000))), 431, ""),
        ("150 headers", request("GET /healthz", &"x: y\r\n".repeat(150)), 431, ""),
        ("a line of 70 KiB", get(&format!("/{}", "a".repeat(70_000))), 431, ""),
        ("a header without a colon", request("GET /healthz", "no colon\r\n"), 400, ""),
        ("a header with a space in its name", request("GET /healthz", "a b: c\r\n"), 400, ""),
        ("a zero byte in the path", get("/healthz\0"), 400, ""),
        ("a version from the future", raw("GET /healthz HTTP/9.9\r\nhost: x\r\n\r\n"), 400, ""),
        ("no version", raw("GET /healthz\r\n\r\n"), 400, ""),
        ("HTTP/2 in the open", raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 0, ""),
        ("a handshake where none is spoken", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n".to_vec(), 400, ""),
        ("a length that is no number", request("POST /kbs/v0/auth", "content-length: abc\r\n"), 400, ""),
        ("a negative length", request("POST /kbs/v0/auth", "content-length: -1\r\n"), 400, ""),
        ("two lengths", request("POST /kbs/v0/auth", "content-length: 1\r\ncontent-length: 2\r\n"), 400, ""),
        ("another coding", request("POST /kbs/v0/auth", "transfer-encoding: gzip\r\n"), 400, ""),
        ("a chunk without a size", with_body("POST /kbs/v0/auth", "transfer-encoding: chunked\r\n", "zz\r\n"), 400, PROTOCOL),
        ("a chunk beyond any size", with_body("POST /kbs/v0/auth", "transfer-encoding: chunked\r\n", "FFFFFFFFFFFFFFFFFF\r\n"), 400, PROTOCOL),
        ("a body too large, in chunks", with_body("POST /kbs/v0/auth", "transfer-encoding: chunked\r\n", &format!("5000\r\n{}\r\n0\r\n\r\n", "a".repeat(0x5000))), 413, PROTOCOL),
        ("an old client", raw("GET /healthz HTTP/1.0\r\n\r\n"), 200, ""),
        ("an absolute address", request("GET http://elsewhere/healthz", ""), 200, ""),
        ("an upgrade", request("GET /healthz", "upgrade: websocket\r\nsec-websocket-key: x\r\n"), 200, ""),
        ("a query of metrics", get("/metrics?name[]=x&%ff"), 200, "key_broker_requests_total"),
    ];
    table.push(("everything", request("OPTIONS *", ""), 404, NOWHERE));
    table
}

#[tokio::test]
async fn every_hostile_request_has_its_answer_and_the_next_is_served() {
    let world = World::new().await;
    let table = table();
    assert!(table.len() >= 50);
    let mut wrong = Vec::new();
    for (name, bytes, expected, holds) in table {
        let answer = exchange(&world, &bytes).await;
        if status(&answer) != expected || !answer.contains(holds) {
            wrong.push(format!("{name}: {}", answer.chars().take(300).collect::<String>()));
        }
        let (next, _) = world.raw("GET", "/healthz", &[], vec![]).await;
        assert_eq!(next, 200, "after {name}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn requests_in_one_breath_are_answered_in_their_order() {
    let world = World::new().await;
    let first = "GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: the-first\r\n\r\n";
    let second = "GET /tcl/v1/nothing HTTP/1.1\r\nhost: x\r\nx-request-id: the-second\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: the-third\r\nconnection: close\r\n\r\n";
    let answer = exchange(&world, format!("{first}{second}{last}").as_bytes()).await;
    let place = |text: &str| answer.find(text).unwrap_or_else(|| panic!("{text} in {answer}"));
    assert!(place("the-first") < place("the-second") && place("the-second") < place("the-third"), "{answer}");
    assert_eq!((answer.matches("HTTP/1.1 200").count(), answer.matches("HTTP/1.1 404").count()), (2, 1));
    // What follows a body of a stated length is the next request, not its rest.
    let smuggled = "POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answer = exchange(&world, smuggled.as_bytes()).await;
    assert!(!answer.is_empty());
    assert_eq!(world.raw("GET", "/healthz", &[], vec![]).await.0, 200);
}

/// The clock jumps whenever everything waits, so that waiting costs no time.
#[tokio::test(start_paused = true)]
async fn heads_and_chunks_that_stop_coming_are_given_up() {
    let world = World::new().await;
    for begun in [
        "",
        "G",
        "GET /healthz HTTP/1.1\r\nhost: x\r\nx: y\r\n",
        "POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    }
    // Cut within a chunk: whoever cut it hears nothing more, and nobody else notices.
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream
        .write_all(b"POST /kbs/v0/auth HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab")
        .await
        .unwrap();
    drop(stream);
    assert_eq!(world.raw("GET", "/healthz", &[], vec![]).await.0, 200);
}
