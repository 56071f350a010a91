//! What the store promises: atomic, durable, and nothing lost by a race.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use protocols::event_log::{MR_RTMR3, Record};
use protocols::events::{Event, Init};
use protocols::register::{HashAlg, RegisterKind};
use protocols::tcl::{Outcome, Verdict};
use verifier::LogState;

use super::*;

fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

fn init() -> Record {
    let init = Init {
        v: 1,
        boot_nonce: [7; 32],
        register_kind: RegisterKind::Software,
        reg0: HashAlg::Sha384.zero(),
        agent: "0.1.0".into(),
        agent_h: digest("agent"),
        initdata: None,
        config: digest("configuration"),
        environment: protocols::environment::Environment::Development,
        simulated: true,
    };
    Event::from(init).record(MR_RTMR3, HashAlg::Sha384).unwrap()
}

fn history(receipt: &str) -> History {
    History { state: LogState::start(&init()).unwrap(), receipt: receipt.into() }
}

fn verdict(id: &str) -> VerdictRecord {
    VerdictRecord {
        id: id.into(),
        reference: "registry.example/app:latest".into(),
        signed: "a.b.c".into(),
        verdict: Verdict {
            nonce: "nonce".into(),
            guest: GuestId::new([1; 32]),
            cid: "c".into(),
            seq: 1,
            manifest: digest("m"),
            config: digest("c"),
            rootfs: digest("r"),
            process: digest("p"),
            outcome: Outcome::Refused {
                refusal: Box::new(protocols::reason::Refusal::new(protocols::reason::GOLDEN_MISSING, "", "", "")),
                golden: None,
            },
            head: HashAlg::Sha384.zero(),
            count: 1,
            policy: digest("policy"),
            environment: protocols::environment::Environment::Development,
            issued_at: Timestamp(1),
            expires: Timestamp(2),
        },
    }
}

fn open(directory: &Path) -> EmbeddedStore {
    EmbeddedStore::open(&directory.join("broker.redb")).unwrap()
}

#[tokio::test]
async fn a_challenge_is_used_once_and_forgotten_when_it_has_expired() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    assert!(store.use_challenge([1; 32], Timestamp(100), Timestamp(50)).await.unwrap());
    assert!(!store.use_challenge([1; 32], Timestamp(100), Timestamp(50)).await.unwrap());
    assert!(store.use_challenge([2; 32], Timestamp(300), Timestamp(99)).await.unwrap());
    // At its expiry nobody accepts it any more, so it need not be known any more; the other one must.
    assert!(store.use_challenge([1; 32], Timestamp(100), Timestamp(101)).await.unwrap());
    drop(store);
    let store = open(directory.path());
    assert!(!store.use_challenge([2; 32], Timestamp(300), Timestamp(101)).await.unwrap());
}

#[tokio::test]
async fn records_are_added_only_to_the_history_they_were_checked_against() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let guest = GuestId::new([1; 32]);
    let record = init().bytes().to_vec();
    assert_eq!(store.append(guest, 1, vec![], history("early")).await.unwrap(), Commit::Raced);
    assert!(store.history(guest).await.unwrap().is_none());
    assert_eq!(store.append(guest, 0, vec![record.clone()], history("first")).await.unwrap(), Commit::Done);
    // Another request had read the empty history too.
    assert_eq!(store.append(guest, 0, vec![vec![9]], history("second")).await.unwrap(), Commit::Raced);
    assert_eq!(store.history(guest).await.unwrap(), Some(history("first")));
    assert_eq!(store.records(guest, 0, 10).await.unwrap(), [record]);
    assert_eq!(store.receipts_after(guest, 0, 10).await.unwrap(), ["first"]);
    assert!(store.receipts_after(guest, 1, 10).await.unwrap().is_empty());
    // Guests are kept apart.
    let other = GuestId::new([2; 32]);
    assert!(store.records(other, 0, 10).await.unwrap().is_empty());
    assert!(store.receipts_after(other, 0, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_mark_is_raised_only_from_the_one_the_decision_saw() {
    let directory = tempfile::tempdir().unwrap();
    let series = Sha384Digest::of(b"series");
    let raise = |from, version| Some(Raise { series, from, version, payload: digest("payload") });
    {
        let store = open(directory.path());
        assert_eq!(store.high_water(series).await.unwrap(), HighWater::None);
        assert_eq!(store.record_verdict(verdict("one"), raise(HighWater::None, 5)).await.unwrap(), Commit::Done);
        // Decided at the same time, before version 5 was accepted.
        assert_eq!(store.record_verdict(verdict("two"), raise(HighWater::None, 4)).await.unwrap(), Commit::Raced);
        assert!(store.verdict("two").await.unwrap().is_none());
    }
    let store = open(directory.path());
    let mark = store.high_water(series).await.unwrap();
    assert_eq!(mark, HighWater::Accepted { version: 5, payload: digest("payload") });
    assert_eq!(store.record_verdict(verdict("three"), raise(mark, 6)).await.unwrap(), Commit::Done);
    assert_eq!(store.verdict("one").await.unwrap(), Some(verdict("one")));
    assert_eq!(store.high_water(Sha384Digest::of(b"other")).await.unwrap(), HighWater::None);
}

#[tokio::test]
async fn what_an_issuer_revoked_is_remembered_for_that_issuer() {
    let directory = tempfile::tempdir().unwrap();
    let (issuer, other) = (Sha384Digest::of(b"issuer"), Sha384Digest::of(b"other"));
    {
        let store = open(directory.path());
        store.revoke(issuer, vec![digest("one"), digest("two")]).await.unwrap();
        store.revoke(issuer, vec![digest("two")]).await.unwrap();
        store.revoke(issuer, vec![]).await.unwrap();
    }
    let store = open(directory.path());
    assert!(store.is_revoked(issuer, digest("one")).await.unwrap());
    assert!(store.is_revoked(issuer, digest("two")).await.unwrap());
    assert!(!store.is_revoked(other, digest("one")).await.unwrap());
    assert!(!store.is_revoked(issuer, digest("three")).await.unwrap());
}

#[tokio::test]
async fn one_guest_cannot_hide_another_guests_alarm() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let alarm = |guest: u8, count| Alarm {
        guest: GuestId::new([guest; 32]),
        code: protocols::reason::LOG_FORK,
        count,
        head: HashAlg::Sha384.zero(),
        held: 9,
        time: Timestamp(1),
    };
    for count in 0..100 {
        store.raise_alarm(alarm(1, count)).await.unwrap();
    }
    for guest in [0, 2, 255] {
        store.raise_alarm(alarm(guest, 1)).await.unwrap();
        store.raise_alarm(alarm(guest, 1)).await.unwrap();
    }
    let alarms = store.alarms().await.unwrap();
    let of = |guest: u8| alarms.iter().filter(|alarm| alarm.guest == GuestId::new([guest; 32])).count();
    assert_eq!([of(0), of(1), of(2), of(255)], [1, 16, 1, 1]);
}

#[test]
fn one_process_holds_the_file_and_a_foreign_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker.redb");
    let _held = EmbeddedStore::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(EmbeddedStore::open(&path), Err(StoreError::Io(_))));
    let foreign = directory.path().join("foreign");
    std::fs::write(&foreign, b"something else entirely, and long enough to be read as a header").unwrap();
    assert!(EmbeddedStore::open(&foreign).is_err());
}
