//! Load for a key broker, as `cargo xtask bench kbs` uses it: HTTP/1.1 written by hand over kept connections, so that the
//! client costs little of the two processors it shares with the server.
//!
//! `kbs_load ADDRESS MODE CONNECTIONS SECONDS|=COUNT [PKI]`, MODE being `rcar` (sample evidence), `rcar-snp` (of the simulated chip in
//! PKI), `get` (one attested session for each connection, then `default/bench/key`) or `auth` (challenges only). Prints one JSON
//! object.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, missing_docs)] // a program for people

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use protocols::encoding::b64;
use protocols::jwe;
use protocols::kbs::{RuntimeData, SnpEvidence, report_data};
use serde_json::{Value, json};
use simulated_tee::{Params, Pki};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection; opened again where the server has ended it.
struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

struct Answer {
    status: u16,
    cookie: Option<String>,
    body: Vec<u8>,
}

impl Connection {
    fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, buffer: Vec::with_capacity(16 * 1024) }
    }

    async fn ask(&mut self, request: &[u8]) -> Answer {
        for _ in 0..3 {
            if self.stream.is_none() {
                let stream = TcpStream::connect(self.address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                self.stream = Some(stream);
            }
            if let Some(answer) = self.once(request).await {
                return answer;
            }
            self.stream = None;
        }
        panic!("no answer from {}", self.address);
    }

    async fn once(&mut self, request: &[u8]) -> Option<Answer> {
        let stream = self.stream.as_mut()?;
        stream.write_all(request).await.ok()?;
        self.buffer.clear();
        let head = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head]).ok()?;
        let status = text.get(9..12)?.parse().ok()?;
        let (mut length, mut cookie) = (0usize, None);
        for line in text.split("\r\n").skip(1) {
            let Some((name, value)) = line.split_once(": ") else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().ok()?;
            } else if name.eq_ignore_ascii_case("set-cookie") {
                cookie = value.split(';').next().map(str::to_owned);
            }
        }
        while self.buffer.len() < head + length {
            if stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
        Some(Answer { status, cookie, body: self.buffer[head..head + length].to_vec() })
    }
}

fn request(method: &str, path: &str, cookie: Option<&str>, body: &str) -> Vec<u8> {
    let cookie = cookie.map(|cookie| format!("cookie: {cookie}\r\n")).unwrap_or_default();
    let length = body.len();
    format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n{cookie}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// What evidence is made by.
enum Tee {
    Sample,
    Snp(Box<Pki>),
}

impl Tee {
    fn name(&self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Snp(_) => "snp",
        }
    }

    fn evidence(&self, data: &RuntimeData) -> Value {
        let digest = data.digest("").unwrap();
        match self {
            Self::Sample => json!({ "svn": "1", "report_data": b64(digest.as_bytes()) }),
            Self::Snp(pki) => {
                let report = pki.report(&Params::new(report_data(&digest), [0; 32], [1; 32])).unwrap();
                let shown = SnpEvidence { attestation_report: report.to_json(), cert_chain: Some(pki.certificates()) };
                serde_json::to_value(shown).unwrap()
            }
        }
    }
}

/// One whole handshake; the session's cookie.
async fn rcar(connection: &mut Connection, auth: &[u8], tee: &Tee, key: &protocols::kbs::TeePubKey) -> String {
    let challenged = connection.ask(auth).await;
    assert_eq!(challenged.status, 200, "{}", String::from_utf8_lossy(&challenged.body));
    let challenge: Value = serde_json::from_slice(&challenged.body).unwrap();
    let nonce = challenge["nonce"].as_str().unwrap().to_owned();
    let data = RuntimeData { nonce, tee_pubkey: key.clone(), log: None };
    let body = json!({
        "init-data": null,
        "tee-evidence": { "primary_evidence": tee.evidence(&data), "additional_evidence": "" },
        "runtime-data": data,
    });
    let attest = request("POST", "/kbs/v0/attest", challenged.cookie.as_deref(), &body.to_string());
    let attested = connection.ask(&attest).await;
    assert_eq!(attested.status, 200, "{}", String::from_utf8_lossy(&attested.body));
    attested.cookie.unwrap()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, mode, connections, amount, rest @ ..] = arguments.as_slice() else {
        panic!("kbs_load ADDRESS MODE CONNECTIONS SECONDS|=COUNT [PKI]")
    };
    let address: SocketAddr = address.parse().unwrap();
    let connections: usize = connections.parse().unwrap();
    let (count, seconds) = match amount.strip_prefix('=') {
        Some(count) => (count.parse().unwrap(), 3600.0),
        None => (u64::MAX, amount.parse().unwrap()),
    };
    let tee = Arc::new(match mode.as_str() {
        "rcar-snp" => Tee::Snp(Box::new(Pki::open(Path::new(&rest[0])).unwrap())),
        _ => Tee::Sample,
    });
    let (left, begun) = (Arc::new(AtomicU64::new(count)), Instant::now());
    let end = begun + Duration::from_secs_f64(seconds);
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (mode, tee, left) = (mode.clone(), Arc::clone(&tee), Arc::clone(&left));
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::new(address);
            let key = jwe::jwk(&jwe::generate().unwrap().public_key());
            let body = json!({ "version": "0.4.0", "tee": tee.name(), "extra-params": {} }).to_string();
            let auth = request("POST", "/kbs/v0/auth", None, &body);
            let get = if mode == "get" {
                let cookie = rcar(&mut connection, &auth, &tee, &key).await;
                request("GET", "/kbs/v0/resource/default/bench/key", Some(&cookie), "")
            } else {
                Vec::new()
            };
            let mut times = Vec::new();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                let start = Instant::now();
                if start >= end {
                    break;
                }
                match mode.as_str() {
                    "get" => assert_eq!(connection.ask(&get).await.status, 200),
                    "auth" => assert!([200, 429].contains(&connection.ask(&auth).await.status)),
                    _ => _ = rcar(&mut connection, &auth, &tee, &key).await,
                }
                times.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            times
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.append(&mut task.await.unwrap());
    }
    let elapsed = begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |percent: usize| f64::from(times[(times.len() - 1) * percent / 100]) / 1000.0;
    let done = times.len();
    println!("{}", json!({ "count": done, "per_s": done as f64 / elapsed, "p50_ms": at(50), "p99_ms": at(99) }));
}
