//! The program killed at random moments: whatever it acknowledged is in its file.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_store::{EmbeddedStore, LocalKey, Row, Store as _};
use kbs_client::ClientError;
use protocols::encoding::un_b64;
use protocols::guest::GuestId;
use protocols::kbs::Tee;

use support::process::{Shared, free_address, right};
use support::{ADMIN, raw};

/// Guests that talk at one time.
const WORKERS: u32 = 6;

/// What was answered well, and so must be there.
#[derive(Default, Clone)]
struct Acknowledged {
    nonces: BTreeSet<[u8; 32]>,
    /// The records of a guest for which it has receipts.
    records: BTreeMap<GuestId, Vec<Vec<u8>>>,
    decisions: BTreeSet<String>,
    resources: BTreeSet<String>,
}

/// One guest's life; everything acknowledged is written down at once.
async fn live(shared: &Shared, url: &str, number: u32, done: &Mutex<Acknowledged>) -> Result<(), ClientError> {
    let client = shared.client(url);
    let mut guest = shared.guest(number);
    let challenged = client.challenge(Tee::Tpm).await?;
    let log = guest.binding();
    let nonce = un_b64(&challenged.runtime_data(None).nonce).unwrap().try_into().unwrap();
    let evidence = guest.evidence(&challenged.binding(Some(&log))?);
    let session = challenged.attest(evidence, Some(log), None).await?;
    done.lock().unwrap().nonces.insert(nonce);
    let good = number.is_multiple_of(2);
    for _ in 0..2 {
        guest.deliver(&session).await?;
        let records = guest.records.iter().map(|record| record.bytes().to_vec()).collect();
        done.lock().unwrap().records.insert(guest.id(), records);
        if guest.records.len() == 1 {
            shared.push_image(&mut guest, good);
        }
    }
    let (id, code) = shared.decided(&guest, &session, good).await?;
    assert_eq!(code, right(good));
    done.lock().unwrap().decisions.insert(id);
    Ok(())
}

/// Kills it at so many moments.
async fn kills(moments: u32) {
    let shared = Arc::new(Shared::new(|directory| format!("store = \"{}/broker.redb\"", directory.display())).await);
    let done = Arc::new(Mutex::new(Acknowledged::default()));
    let numbers = Arc::new(AtomicU32::new(0));
    for moment in 0..moments {
        let address = free_address();
        let process = shared.start(address).await;
        if moment == 0 {
            shared.put_golden(address).await;
        }
        let url = format!("http://{address}");
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..WORKERS {
            let (shared, done, numbers, url) =
                (Arc::clone(&shared), Arc::clone(&done), Arc::clone(&numbers), url.clone());
            workers.spawn(async move {
                loop {
                    let number = numbers.fetch_add(1, Ordering::SeqCst);
                    match Box::pin(live(&shared, &url, number, &done)).await {
                        Ok(()) => {}
                        Err(ClientError::Unavailable { .. }) => return,
                        // Cut within an answer's body.
                        Err(ClientError::Protocol { .. }) => return,
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
        let (done_too, admin) = (Arc::clone(&done), format!("Bearer {ADMIN}"));
        workers.spawn(async move {
            for number in 0u32.. {
                let path = format!("default/key/{moment}-{number}");
                let (url, body) = (format!("/kbs/v0/resource/{path}"), path.clone().into_bytes());
                let admin = admin.clone();
                // It may not accept any more, which `raw` takes ill.
                let written =
                    tokio::spawn(async move { raw(address, "POST", &url, &[("authorization", &admin)], body).await });
                match written.await {
                    Ok((200, _)) => _ = done_too.lock().unwrap().resources.insert(path),
                    _ => return,
                }
            }
        });
        // However slow the machine is: something is acknowledged between any two kills.
        let before = done.lock().unwrap().decisions.len();
        let begun = std::time::Instant::now();
        while done.lock().unwrap().decisions.len() == before && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        tokio::time::sleep(Duration::from_millis(30 + u64::from(u16::from_le_bytes(random) % 300))).await;
        process.kill();
        while let Some(ended) = workers.join_next().await {
            ended.unwrap();
        }
        let so_far = done.lock().unwrap().clone();
        check(&shared, &so_far).await;
    }
    let done = done.lock().unwrap();
    assert!(done.decisions.len() >= moments as usize, "it served in between");
    println!(
        "{moments} kills: {} handshakes, {} guests with records, {} decisions, {} resources acknowledged, all there",
        done.nonces.len(),
        done.records.len(),
        done.decisions.len(),
        done.resources.len()
    );
}

async fn check(shared: &Shared, done: &Acknowledged) {
    let key = LocalKey::from_hex(&"5a".repeat(32)).unwrap();
    let store = EmbeddedStore::open(&shared.directory.path().join("broker.redb"), &key).await.unwrap();
    let (mut nonces, mut decisions) = (BTreeSet::new(), BTreeSet::new());
    let mut records: BTreeMap<GuestId, Vec<Vec<u8>>> = BTreeMap::new();
    let mut rows = store.export().await.unwrap();
    while let Some(row) = rows.recv().await {
        match row.unwrap() {
            Row::Challenge { nonce, .. } => _ = nonces.insert(nonce),
            Row::Verdict { record } => _ = decisions.insert(record.id),
            Row::Record { guest, place, record } => {
                let held = records.entry(guest).or_default();
                assert_eq!(place, held.len() as u64, "without a gap");
                held.push(record);
            }
            Row::History { guest, history } => {
                let receipts = store.receipts_after(guest, 0, 1024).await.unwrap();
                assert_eq!(receipts.last(), Some(&history.receipt));
            }
            _ => {}
        }
    }
    assert!(done.nonces.is_subset(&nonces), "a challenge could be used again");
    assert!(done.decisions.is_subset(&decisions), "a decision is lost");
    for (guest, acknowledged) in &done.records {
        assert!(records[guest].starts_with(acknowledged), "records are lost");
    }
    for path in &done.resources {
        assert_eq!(store.resource(path.parse().unwrap()).await.unwrap().unwrap(), path.as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_it_has_lost_nothing_that_it_acknowledged() {
    Box::pin(kills(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: cargo xtask soak kills"]
async fn soak() {
    let moments = std::env::var("TCL_SOAK_KILLS").unwrap().parse().unwrap();
    Box::pin(kills(moments)).await;
}
