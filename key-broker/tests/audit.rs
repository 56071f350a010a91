//! The audit log: what is in it, that an edit of what is stored is found, and that replicas cannot part ways unnoticed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test fails by panicking

mod support;

use std::sync::Arc;

use audit_log::{AuditError, Checkpoint, CheckpointResponse, EntriesResponse, Entry, Event, Outcome, ProofResponse};
use audit_log::{Verifier, leaf_hash, verify_consistency, verify_inclusion};
use key_broker::broker::Broker;
use key_broker::config::Config;
use p256::ecdsa::VerifyingKey;
use protocols::reason;
use protocols::time::Timestamp;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use support::guest::Guest;
use support::{ADMIN, World, image};

const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
const AUDIT_TAIL: TableDefinition<'_, (), (u64, &[u8])> = TableDefinition::new("audit_tail");

async fn get<T: for<'de> serde::Deserialize<'de>>(world: &World, path: &str) -> Result<T, String> {
    let (status, body) = world.raw("GET", path, &[("authorization", &format!("Bearer {ADMIN}"))], vec![]).await;
    if status == 200 { Ok(serde_json::from_str(&body).unwrap()) } else { Err(body) }
}

fn key(world: &World) -> VerifyingKey {
    let protocols::keys::VerifyingKey::EcdsaP256(key) =
        protocols::keys::VerifyingKey::from_pem(&world.key_pem).unwrap()
    else {
        panic!("not P-256")
    };
    key
}

async fn checkpoint(world: &World) -> Checkpoint {
    let CheckpointResponse { checkpoint } = get(world, "/tcl/v1/audit/checkpoint").await.unwrap();
    Checkpoint::verify(&checkpoint, &key(world)).unwrap()
}

async fn entries(world: &World, from: u64) -> Vec<Vec<u8>> {
    let EntriesResponse { entries } = get(world, &format!("/tcl/v1/audit/entries?from={from}")).await.unwrap();
    entries.into_iter().map(|entry| entry.0).collect()
}

/// The whole log, held against these checkpoints.
async fn verify(world: &World, checkpoints: &[Checkpoint]) -> Result<Vec<Entry>, AuditError> {
    let mut verifier = Verifier::default();
    for checkpoint in checkpoints {
        verifier.expect(checkpoint)?;
    }
    let read = entries(world, 0).await.iter().map(|entry| verifier.take(entry)).collect::<Result<_, _>>()?;
    verifier.finish()?;
    Ok(read)
}

/// An administrator, a guest that is refused, passed and given a secret.
async fn happen(world: &World) {
    let admin = format!("Bearer {ADMIN}");
    let path = "/kbs/v0/resource/default/key/one";
    assert_eq!(world.raw("POST", path, &[("authorization", &admin)], b"secret".to_vec()).await.0, 200);
    let client = world.client();
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&client).await.unwrap();
    guest.decide(&session, 1, &image()).await.unwrap();
    guest.push_failed(1);
    world.push_golden(&image(), 3).await;
    guest.decide(&session, 2, &image()).await.unwrap();
    session.resource("default/key/one").await.unwrap();
}

fn kinds(entries: &[Entry]) -> Vec<String> {
    let kind = |entry: &Entry| serde_json::to_value(&entry.event).unwrap()["kind"].as_str().unwrap().to_owned();
    entries.iter().map(kind).collect()
}

#[tokio::test]
async fn every_verdict_release_and_change_is_in_the_log_and_nothing_secret() {
    let mut world = World::new().await;
    happen(&world).await;
    world.restart().await;
    let signed = checkpoint(&world).await;
    let log = verify(&world, &[signed]).await.unwrap();
    let expected = ["start", "administration", "attested", "verdict", "verdict", "release", "start"];
    assert_eq!(kinds(&log), expected);
    let Event::Verdict { outcome, launch: 1, golden: None, .. } = &log[3].event else { panic!("{:?}", log[3]) };
    assert_eq!(*outcome, Outcome::Refused(reason::GOLDEN_MISSING));
    let Event::Verdict { outcome: Outcome::Pass, id, golden: Some(_), .. } = &log[4].event else {
        panic!("{:?}", log[4])
    };
    // Who reads the log finds the whole record.
    assert!(get::<serde_json::Value>(&world, &format!("/tcl/v1/verdicts/{id}")).await.is_ok());
    let Event::Release { path, guest: Some(_), .. } = &log[5].event else { panic!("{:?}", log[5]) };
    assert_eq!(path, "default/key/one");
    assert_ne!(log[0].replica, log[6].replica);
    assert!(!entries(&world, 0).await.concat().windows(6).any(|window| window == b"secret"));
}

#[tokio::test]
async fn an_entry_is_proven_to_be_in_the_log_and_the_log_to_have_grown() {
    let world = World::new().await;
    let first = checkpoint(&world).await;
    happen(&world).await;
    let signed = checkpoint(&world).await;
    let all = entries(&world, 0).await;
    for (place, entry) in (0..signed.size).zip(&all) {
        let path = format!("/tcl/v1/audit/proof?place={place}&size={}", signed.size);
        let ProofResponse { proof } = get(&world, &path).await.unwrap();
        verify_inclusion(leaf_hash(entry), place, signed.size, &proof, &signed.root).unwrap();
    }
    let path = format!("/tcl/v1/audit/consistency?old={}&new={}", first.size, signed.size);
    let ProofResponse { proof } = get(&world, &path).await.unwrap();
    verify_consistency((first.size, &first.root), (signed.size, &signed.root), &proof).unwrap();
    for path in [
        "proof?place=9&size=9",
        "proof?place=0&size=1000",
        "proof?place=0",
        "proof?place=-1&size=2",
        "proof?place=18446744073709551615&size=18446744073709551615",
        "consistency?old=3&new=2",
        "consistency?old=1&new=18446744073709551615",
        "entries?from=x",
        "entries",
    ] {
        let refused = get::<ProofResponse>(&world, &format!("/tcl/v1/audit/{path}")).await.unwrap_err();
        assert!(refused.contains("attestor.protocol"), "{path}: {refused}");
    }
    for path in ["checkpoint", "entries?from=0", "proof?place=0&size=1", "consistency?old=0&new=1"] {
        let (status, body) = world.raw("GET", &format!("/tcl/v1/audit/{path}"), &[], vec![]).await;
        assert_eq!(status, 403, "{path}: {body}");
    }
}

/// Whoever can write the store but not sign.
fn edit(world: &World, edit: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>)) {
    let database = Database::open(world.directory.path().join("broker.redb")).unwrap();
    let write = database.begin_write().unwrap();
    edit(&mut write.open_table(AUDIT).unwrap());
    write.commit().unwrap();
}

fn row(table: &redb::Table<'_, u64, &'static [u8]>, place: u64) -> Vec<u8> {
    table.get(place).unwrap().unwrap().value().to_vec()
}

#[tokio::test]
async fn a_row_edited_deleted_or_moved_is_found() {
    for how in ["edited", "deleted", "moved"] {
        let mut world = World::new().await;
        happen(&world).await;
        world.stop().await;
        edit(&world, |table| match how {
            "edited" => {
                let mut bytes = row(table, 5);
                let at = bytes.windows(7).position(|window| window == b"key/one").unwrap();
                bytes.splice(at..at + 7, *b"key/two");
                table.insert(5, bytes.as_slice()).unwrap();
            }
            "deleted" => _ = table.remove(5).unwrap(),
            _ => {
                let (four, five) = (row(table, 4), row(table, 5));
                table.insert(4, five.as_slice()).unwrap();
                table.insert(5, four.as_slice()).unwrap();
            }
        });
        world.begin().await;
        let signed = checkpoint(&world).await;
        match how {
            "edited" => assert!(matches!(verify(&world, &[signed]).await, Err(AuditError::Root { .. })), "{how}"),
            "moved" => {
                assert!(matches!(verify(&world, &[signed]).await, Err(AuditError::Entry { place: 4, .. })), "{how}");
            }
            _ => {
                let refused = get::<EntriesResponse>(&world, "/tcl/v1/audit/entries?from=0").await.unwrap_err();
                assert!(refused.contains("attestor.audit"), "{refused}");
            }
        }
    }
}

/// The tail says how to go on: with another one, no attestor with this key begins to serve.
#[tokio::test]
async fn a_tail_that_was_not_signed_keeps_an_attestor_from_serving() {
    let mut world = World::new().await;
    happen(&world).await;
    world.stop().await;
    let path = world.directory.path().join("broker.redb");
    let (size, tail) = {
        let database = Database::open(&path).unwrap();
        let table = database.begin_read().unwrap().open_table(AUDIT_TAIL).unwrap();
        let stored = table.get(()).unwrap().unwrap();
        let (size, tail) = stored.value();
        (size, tail.to_vec())
    };
    let mut other: serde_json::Value = serde_json::from_slice(&tail).unwrap();
    other["tree"]["edge"][0] = format!("sha256:{}", "0".repeat(64)).into();
    let no_signature: serde_json::Value = serde_json::json!({ "tree": other["tree"], "checkpoint": "e30.e30.e30" });
    for (size, tail) in [
        (size, serde_json::to_vec(&other).unwrap()),
        (size, serde_json::to_vec(&no_signature).unwrap()),
        (size - 1, tail.clone()),
        (size, b"{}".to_vec()),
    ] {
        let database = Database::open(&path).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(AUDIT_TAIL).unwrap().insert((), (size, tail.as_slice())).unwrap();
        write.commit().unwrap();
        drop(database);
        let error = world.try_begin().await.unwrap_err();
        assert!(error.contains("attestor.audit"), "{error}");
    }
}

#[tokio::test]
async fn two_replicas_write_one_log_and_two_logs_of_one_key_are_found() {
    let world = World::new().await;
    let settings = || Config::read(&world.directory.path().join("broker.toml")).unwrap().settings().unwrap();
    let now = Arc::new(|| Timestamp(support::NOW));
    let second = Broker::new(settings(), world.store(), Arc::clone(&world.registry) as _, now).await.unwrap();
    // Both write in turns.
    happen(&world).await;
    second.reload(settings()).await.unwrap();
    world.reload().await.unwrap();
    let signed = checkpoint(&world).await;
    let log = verify(&world, std::slice::from_ref(&signed)).await.unwrap();
    let replicas: std::collections::BTreeSet<_> = log.iter().map(|entry| entry.replica.clone()).collect();
    assert_eq!((replicas.len(), kinds(&log).iter().filter(|kind| *kind == "reload").count()), (2, 2));

    // A copy of the store grows another way under an attestor of the same key.
    use broker_store::AuditStore as _;
    let tail = world.store().audit_tail().await.unwrap();
    let rows = world.store().audit_entries(0, 100).await.unwrap();
    let database = tempfile::NamedTempFile::new().unwrap();
    let forked = broker_store::EmbeddedStore::open(database.path(), settings().store.key()).await.unwrap();
    let forked = Arc::new(forked);
    let _ = forked.append_audit(0, rows, tail.frontier, vec![], Timestamp(support::NOW)).await.unwrap();
    let now = Arc::new(|| Timestamp(support::NOW));
    let third = Broker::new(settings(), Arc::clone(&forked) as _, Arc::clone(&world.registry) as _, now).await.unwrap();
    third.reload(settings()).await.unwrap();
    world.reload().await.unwrap();
    world.reload().await.unwrap();
    // Each log is whole by itself; who holds the word of both sees that they are two.
    let stored = forked.audit_tail().await.unwrap();
    let tail: serde_json::Value = serde_json::from_slice(&stored.frontier).unwrap();
    let other = Checkpoint::verify(tail["checkpoint"].as_str().unwrap(), &key(&world)).unwrap();
    assert!(other.size > signed.size);
    let found = verify(&world, &[checkpoint(&world).await, other]).await;
    assert!(matches!(found, Err(AuditError::Fork { .. } | AuditError::Root { .. })), "{found:?}");
}
