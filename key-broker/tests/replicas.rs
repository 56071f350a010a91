//! Three replicas over one database, behind a proxy that gives each request to the next: one is killed every little while
//! under load, and no verdict is wrong, no record lost.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

#[path = "../store/tests/server/mod.rs"]
mod server;
mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use broker_store::{LocalKey, PostgresStore, Store as _};
use kbs_client::ClientError;
use protocols::digest::Sha384Digest;
use protocols::guest::GuestId;
use protocols::jwe::{self, SecretKey};
use serde_json::{Value, json};

use server::Postgres;
use support::guest::Guest;
use support::process::{Process, Shared, free_address, right};
use support::raw;
use support::round_robin::RoundRobin;

/// Guests that talk at one time.
const WORKERS: u32 = 8;
/// How often a step is tried again.
const TRIES: u32 = 20;
/// One replica is killed so often.
const EVERY: Duration = Duration::from_millis(2500);

fn store(server: &Postgres, database: &str) -> String {
    format!(
        "[store.postgres]\nhost = \"{}\"\nport = {}\nuser = \"{}\"\ndatabase = \"{database}\"\nconnections = 8\n",
        server.socket().display(),
        server.port(),
        server.user()
    )
}

/// Counts what the load saw.
#[derive(Default)]
struct Seen {
    handshakes: AtomicU32,
    retried: AtomicU64,
    /// Guests, and the records for which each has receipts.
    receipted: Mutex<Vec<(GuestId, Vec<Vec<u8>>)>>,
    decisions: Mutex<Vec<String>>,
}

/// Takes a step again where the attestor was out of reach; everything else is a failure of the test.
macro_rules! tried {
    ($seen:expr, $step:expr) => {{
        let mut tries = 0;
        loop {
            match $step.await {
                Ok(done) => break done,
                Err(ClientError::Unavailable { .. }) if tries < TRIES => {
                    tries += 1;
                    $seen.retried.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }};
}

async fn live(shared: &Shared, client: &kbs_client::Client, number: u32, seen: &Seen) {
    let mut guest = shared.guest(number);
    let good = number.is_multiple_of(2);
    let session = tried!(seen, guest.attest(client));
    seen.handshakes.fetch_add(1, Ordering::SeqCst);
    shared.push_image(&mut guest, good);
    tried!(seen, guest.deliver(&session));
    let (id, code) = tried!(seen, shared.decided(&guest, &session, good));
    assert_eq!(code, right(good), "a wrong verdict");
    seen.decisions.lock().unwrap().push(id);
    guest.push_failed(1);
    tried!(seen, guest.deliver(&session));
    let records = guest.records.iter().map(|record| record.bytes().to_vec()).collect();
    seen.receipted.lock().unwrap().push((guest.id(), records));
}

/// Runs until so many handshakes are made and so many replicas were killed. Gives requests in all, and those tried again.
async fn run(handshakes: u32, kills: u32) -> (u64, u64) {
    let server = Postgres::start(&[]);
    let database = server.database();
    let shared = Arc::new(Shared::new(|_| store(&server, &database)).await);
    let addresses = [free_address(), free_address(), free_address()];
    let mut replicas: Vec<Process> = Vec::new();
    for address in addresses {
        replicas.push(shared.start(address).await);
    }
    shared.put_golden(addresses[0]).await;
    a_challenge_is_used_once_among_all(&shared, addresses).await;
    let proxy = RoundRobin::start(addresses.to_vec()).await;
    let seen = Arc::new(Seen::default());
    let (numbers, enough) = (Arc::new(AtomicU32::new(1)), Arc::new(AtomicBool::new(false)));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..WORKERS {
        let (shared, seen, numbers, enough) =
            (Arc::clone(&shared), Arc::clone(&seen), Arc::clone(&numbers), Arc::clone(&enough));
        let client = shared.client(&proxy.url());
        workers.spawn(async move {
            while !enough.load(Ordering::SeqCst) {
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                Box::pin(live(&shared, &client, number, &seen)).await;
            }
        });
    }
    let started = Instant::now();
    let mut killed = 0;
    while killed < kills || seen.handshakes.load(Ordering::SeqCst) < handshakes {
        tokio::time::sleep(EVERY).await;
        let next = killed as usize % replicas.len();
        replicas.remove(0).kill();
        killed += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
        replicas.push(shared.start(addresses[next]).await);
    }
    enough.store(true, Ordering::SeqCst);
    while let Some(ended) = workers.join_next().await {
        ended.unwrap();
    }
    let seconds = started.elapsed().as_secs_f64();
    let (requests, broken) = proxy.counted();
    let retried = seen.retried.load(Ordering::SeqCst);
    let handshakes = seen.handshakes.load(Ordering::SeqCst);
    println!(
        "{killed} kills in {seconds:.0} s: {handshakes} handshakes, {requests} requests, {retried} retried, {broken} broken off"
    );
    // A kill cuts off what each worker waits for, and no more: the others' requests go to a replica that is there.
    assert!(retried <= u64::from(killed * WORKERS), "{retried} requests were tried again after {killed} kills");
    everything_is_there(&server, &database, &seen).await;
    (requests, retried)
}

async fn everything_is_there(server: &Postgres, database: &str, seen: &Seen) {
    let store =
        PostgresStore::open(&server.options(database), &LocalKey::from_hex(&"5a".repeat(32)).unwrap()).await.unwrap();
    let receipted = std::mem::take(&mut *seen.receipted.lock().unwrap());
    for (guest, records) in receipted {
        assert_eq!(store.records(guest, 0, 64).await.unwrap(), records, "records are lost");
        let receipts = store.receipts_after(guest, 0, 64).await.unwrap();
        assert_eq!(receipts.last(), Some(&store.history(guest).await.unwrap().unwrap().receipt));
    }
    let decisions = std::mem::take(&mut *seen.decisions.lock().unwrap());
    for id in decisions {
        assert!(store.verdict(&id).await.unwrap().is_some(), "a decision is lost");
    }
    assert_eq!(store.alarms().await.unwrap(), [], "no replica took a guest for another's fork");
}

/// Any replica finishes the handshake that another began, and none of them a second time.
async fn a_challenge_is_used_once_among_all(shared: &Shared, replicas: [SocketAddr; 3]) {
    let json_type = ("content-type", "application/json");
    let auth = br#"{"version":"0.4.0","tee":"tpm","extra-params":""}"#;
    let (cookie, nonce) = challenge(replicas[0], auth).await;
    let guest: Guest = shared.guest(0);
    let jwk = serde_json::to_value(SecretKey::P256(jwe::generate().unwrap()).public_key().jwk()).unwrap();
    let hashed = json!({ "additional-evidence": "", "nonce": nonce, "tee-pubkey": jwk });
    let digest = Sha384Digest::of(&protocols::jcs::canonical(&hashed).unwrap());
    let attest = json!({
        "init-data": null,
        "runtime-data": { "nonce": nonce, "tee-pubkey": jwk },
        "tee-evidence": { "primary_evidence": guest.evidence(&digest).primary_evidence, "additional_evidence": "" },
    });
    let attest = attest.to_string().into_bytes();
    let cookie = format!("kbs-session-id={cookie}");
    let mut statuses = Vec::new();
    for replica in [replicas[1], replicas[2], replicas[0], replicas[1]] {
        let headers = [json_type, ("cookie", cookie.as_str())];
        statuses.push(raw(replica, "POST", "/kbs/v0/attest", &headers, attest.clone()).await.0);
    }
    assert_eq!(statuses, [200, 401, 401, 401]);
}

/// A challenge's cookie and nonce.
async fn challenge(replica: SocketAddr, auth: &[u8]) -> (String, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(replica).await.unwrap();
    let head = format!(
        "POST /kbs/v0/auth HTTP/1.1\r\nhost: kbs\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        auth.len()
    );
    stream.write_all(&[head.as_bytes(), auth].concat()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: kbs-session-id=")).unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    (cookie.split(';').next().unwrap().to_owned(), body["nonce"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_is_killed_every_little_while_and_nothing_is_lost() {
    Box::pin(run(100, 4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: cargo xtask soak replicas"]
async fn soak() {
    let handshakes = std::env::var("TCL_SOAK_HANDSHAKES").unwrap().parse().unwrap();
    let (requests, retried) = Box::pin(run(handshakes, 4)).await;
    assert!(retried * 100 < requests, "{retried} of {requests} requests were tried again");
}
