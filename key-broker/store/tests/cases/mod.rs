//! What every store promises: atomic, durable, and nothing lost by a race. One list of cases, run against each kind.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::sync::Arc;

use async_trait::async_trait;
use broker_store::{
    Alarm, Appended, AuditTail, BackupError, ChallengeUse, Commit, EmbeddedStore, History, KeyError, LocalKey, Raise,
    Row, Store, StoreError,
};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::event_log::{MR_RTMR3, Record};
use protocols::events::{Event, GoldenRef, Init};
use protocols::guest::GuestId;
use protocols::register::{HashAlg, RegisterKind};
use protocols::resource::ResourcePath;
use protocols::tcl::{Outcome, RefusalRecord, Verdict, VerdictRecord};
use protocols::time::Timestamp;
use verifier::{HighWater, LogState};

/// One place where things are stored, which can be opened again and again.
#[async_trait]
pub(crate) trait Medium: Send + Sync {
    /// Opens it, as after a restart, with a store key.
    async fn open_with(&self, key: &LocalKey) -> Result<Arc<dyn Store>, StoreError>;

    /// Every byte of it that lies on a disk.
    async fn raw(&self) -> Vec<u8>;

    /// Opens it with the key of these tests.
    async fn open(&self) -> Arc<dyn Store> {
        self.open_with(&store_key()).await.unwrap()
    }
}

/// The store key of these tests.
pub(crate) fn store_key() -> LocalKey {
    LocalKey::from_hex(&"5a".repeat(32)).unwrap()
}

/// Runs every case against the medium that an expression makes, a new one for each.
#[macro_export]
macro_rules! conformance {
    ($medium:expr) => {
        $crate::conformance!($medium;
            a_challenge_is_used_once_and_forgotten_when_it_has_expired,
            records_are_added_only_to_the_history_they_were_checked_against,
            a_mark_is_raised_only_from_the_one_the_decision_saw,
            marks_of_reference_values_are_raised_together_or_not_at_all,
            what_an_issuer_revoked_is_remembered_for_that_issuer,
            what_a_decision_passed_is_remembered,
            a_refusal_is_kept_as_it_was_told,
            one_guest_cannot_hide_another_guests_alarm,
            a_resource_is_what_was_put_there_last,
            the_audit_log_grows_at_its_end_alone,
            an_append_uses_challenges_with_it_or_does_nothing,
            secrets_lie_sealed_and_open_with_their_store_key_alone,
            a_store_key_is_changed_without_touching_a_secret,
            a_backup_restores_everything_into_an_empty_store,
            a_changed_or_cut_backup_restores_nothing,
            of_many_changes_at_once_every_acknowledged_one_is_there,
        );
    };
    ($medium:expr; $($case:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let medium = $medium;
            $crate::cases::$case(&medium).await;
        }
    )+};
}

/// A digest to tell values apart by.
pub(crate) fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

/// The first record of a guest.
pub(crate) fn init() -> Record {
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

/// The history of one record.
pub(crate) fn history(receipt: &str) -> History {
    History { state: LogState::start(&init()).unwrap(), receipt: receipt.into() }
}

/// A refused decision of that name.
pub(crate) fn verdict(id: &str) -> VerdictRecord {
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
            observe: false,
            issued_at: Timestamp(1),
            expires: Timestamp(2),
        },
    }
}

/// The same, passed with the golden value of a payload.
pub(crate) fn passed(id: &str, seq: u64, payload: &str) -> VerdictRecord {
    let mut record = verdict(id);
    record.verdict.seq = seq;
    record.verdict.outcome = Outcome::Pass(GoldenRef {
        payload: digest(payload),
        signer: digest("signer"),
        series_h: Sha384Digest::of(b"series"),
        version: 1,
    });
    record
}

pub(crate) const fn challenge(nonce: [u8; 32], expires: Timestamp) -> ChallengeUse {
    ChallengeUse { nonce, expires }
}

/// An append that answers no challenge.
async fn append_audit(store: &dyn Store, from: u64, entries: Vec<Vec<u8>>, frontier: Vec<u8>) -> Appended {
    store.append_audit(from, entries, frontier, vec![], Timestamp(50)).await.unwrap()
}

pub(crate) async fn a_challenge_is_used_once_and_forgotten_when_it_has_expired(medium: &dyn Medium) {
    let store = medium.open().await;
    assert!(store.use_challenge(challenge([1; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
    assert!(!store.use_challenge(challenge([1; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
    assert!(store.use_challenge(challenge([2; 32], Timestamp(300)), Timestamp(99)).await.unwrap());
    // At its expiry nobody accepts it any more, so it need not be known any more; the other one must.
    assert!(store.use_challenge(challenge([1; 32], Timestamp(100)), Timestamp(101)).await.unwrap());
    drop(store);
    let store = medium.open().await;
    assert!(!store.use_challenge(challenge([2; 32], Timestamp(300)), Timestamp(101)).await.unwrap());
}

pub(crate) async fn records_are_added_only_to_the_history_they_were_checked_against(medium: &dyn Medium) {
    let guest = GuestId::new([1; 32]);
    let record = init().bytes().to_vec();
    {
        let store = medium.open().await;
        assert_eq!(store.append(guest, 1, vec![], history("early")).await.unwrap(), Commit::Raced);
        assert!(store.history(guest).await.unwrap().is_none());
        assert_eq!(store.append(guest, 0, vec![record.clone()], history("first")).await.unwrap(), Commit::Done);
        // Another request had read the empty history too.
        assert_eq!(store.append(guest, 0, vec![vec![9]], history("second")).await.unwrap(), Commit::Raced);
    }
    let store = medium.open().await;
    assert_eq!(store.history(guest).await.unwrap(), Some(history("first")));
    assert_eq!(store.records(guest, 0, 10).await.unwrap(), [record]);
    assert!(store.records(guest, 0, 0).await.unwrap().is_empty());
    assert!(store.records(guest, 1, 10).await.unwrap().is_empty());
    assert_eq!(store.receipts_after(guest, 0, 10).await.unwrap(), ["first"]);
    assert!(store.receipts_after(guest, 1, 10).await.unwrap().is_empty());
    assert!(store.receipts_after(guest, u64::MAX, 10).await.unwrap().is_empty());
    // Guests are kept apart.
    let other = GuestId::new([2; 32]);
    assert!(store.records(other, 0, 10).await.unwrap().is_empty());
    assert!(store.receipts_after(other, 0, 10).await.unwrap().is_empty());
}

pub(crate) async fn a_mark_is_raised_only_from_the_one_the_decision_saw(medium: &dyn Medium) {
    let series = Sha384Digest::of(b"series");
    let raise = |from, version| Some(Raise { series, from, version, payload: digest("payload") });
    {
        let store = medium.open().await;
        assert_eq!(store.high_water(series).await.unwrap(), HighWater::None);
        assert_eq!(store.record_verdict(verdict("one"), raise(HighWater::None, 5)).await.unwrap(), Commit::Done);
        // Decided at the same time, before version 5 was accepted.
        assert_eq!(
            store.record_verdict(passed("two", 1, "p"), raise(HighWater::None, 4)).await.unwrap(),
            Commit::Raced
        );
        assert!(store.verdict("two").await.unwrap().is_none());
        assert!(!store.passed(GuestId::new([1; 32]), 1, digest("p")).await.unwrap());
    }
    let store = medium.open().await;
    let mark = store.high_water(series).await.unwrap();
    assert_eq!(mark, HighWater::Accepted { version: 5, payload: digest("payload") });
    assert_eq!(store.record_verdict(verdict("three"), raise(mark, 6)).await.unwrap(), Commit::Done);
    assert_eq!(store.verdict("one").await.unwrap(), Some(verdict("one")));
    assert_eq!(store.high_water(Sha384Digest::of(b"other")).await.unwrap(), HighWater::None);
    // Marks of golden values are none of reference values.
    assert_eq!(store.reference_mark(series).await.unwrap(), HighWater::None);
}

pub(crate) async fn marks_of_reference_values_are_raised_together_or_not_at_all(medium: &dyn Medium) {
    let (one, two) = (Sha384Digest::of(b"one"), Sha384Digest::of(b"two"));
    let raise = |series, from, version| Raise { series, from, version, payload: digest("payload") };
    let accepted = |version| HighWater::Accepted { version, payload: digest("payload") };
    {
        let store = medium.open().await;
        let both = vec![raise(one, HighWater::None, 1), raise(two, HighWater::None, u64::MAX)];
        assert_eq!(store.raise_reference_marks(both).await.unwrap(), Commit::Done);
        let stale = vec![raise(one, accepted(1), 2), raise(two, HighWater::None, 2)];
        assert_eq!(store.raise_reference_marks(stale).await.unwrap(), Commit::Raced);
        assert_eq!(store.raise_reference_marks(vec![]).await.unwrap(), Commit::Done);
    }
    let store = medium.open().await;
    assert_eq!(store.reference_mark(one).await.unwrap(), accepted(1));
    assert_eq!(store.reference_mark(two).await.unwrap(), accepted(u64::MAX));
    assert_eq!(store.high_water(one).await.unwrap(), HighWater::None);
}

pub(crate) async fn what_an_issuer_revoked_is_remembered_for_that_issuer(medium: &dyn Medium) {
    let (issuer, other) = (Sha384Digest::of(b"issuer"), Sha384Digest::of(b"other"));
    {
        let store = medium.open().await;
        store.revoke(issuer, vec![digest("one"), digest("two")]).await.unwrap();
        store.revoke(issuer, vec![digest("two")]).await.unwrap();
        store.revoke(issuer, vec![]).await.unwrap();
    }
    let store = medium.open().await;
    assert!(store.is_revoked(issuer, digest("one")).await.unwrap());
    assert!(store.is_revoked(issuer, digest("two")).await.unwrap());
    assert!(!store.is_revoked(other, digest("one")).await.unwrap());
    assert!(!store.is_revoked(issuer, digest("three")).await.unwrap());
}

pub(crate) async fn what_a_decision_passed_is_remembered(medium: &dyn Medium) {
    let guest = GuestId::new([1; 32]);
    {
        let store = medium.open().await;
        assert_eq!(store.record_verdict(passed("one", 7, "golden"), None).await.unwrap(), Commit::Done);
        assert_eq!(store.record_verdict(verdict("two"), None).await.unwrap(), Commit::Done);
    }
    let store = medium.open().await;
    assert!(store.passed(guest, 7, digest("golden")).await.unwrap());
    assert!(!store.passed(guest, 8, digest("golden")).await.unwrap());
    assert!(!store.passed(guest, 7, digest("other")).await.unwrap());
    assert!(!store.passed(GuestId::new([2; 32]), 7, digest("golden")).await.unwrap());
    assert_eq!(store.verdict("one").await.unwrap(), Some(passed("one", 7, "golden")));
    assert_eq!(store.verdict("two").await.unwrap(), Some(verdict("two")));
    assert!(store.verdict("three").await.unwrap().is_none());
}

/// A refusal of that name.
fn refusal(id: &str, guest: Option<u8>) -> RefusalRecord {
    RefusalRecord {
        id: id.into(),
        time: Timestamp(7),
        request: "GET /kbs/v0/resource".into(),
        session: guest.map(|_| "session".into()),
        guest: guest.map(|byte| GuestId::new([byte; 32])),
        observed: guest.is_none(),
        refusal: protocols::reason::Refusal::new(protocols::reason::ATTESTOR_DENIED, "a/b/c", "yes", "no ✗"),
    }
}

pub(crate) async fn a_refusal_is_kept_as_it_was_told(medium: &dyn Medium) {
    {
        let store = medium.open().await;
        assert!(store.refusal("one").await.unwrap().is_none());
        store.record_refusal(refusal("one", Some(1))).await.unwrap();
        store.record_refusal(refusal("two", None)).await.unwrap();
    }
    let store = medium.open().await;
    assert_eq!(store.refusal("one").await.unwrap(), Some(refusal("one", Some(1))));
    assert_eq!(store.refusal("two").await.unwrap(), Some(refusal("two", None)));
    // Decisions have names of their own.
    assert!(store.verdict("one").await.unwrap().is_none());
}

pub(crate) async fn one_guest_cannot_hide_another_guests_alarm(medium: &dyn Medium) {
    let store = medium.open().await;
    let alarm = |guest: u8, count| Alarm {
        guest: GuestId::new([guest; 32]),
        code: protocols::reason::LOG_FORK,
        count,
        head: HashAlg::Sha384.zero(),
        held: 9,
        time: Timestamp(1),
    };
    for count in 0..40 {
        store.raise_alarm(alarm(1, count)).await.unwrap();
    }
    for guest in [0, 2, 255] {
        store.raise_alarm(alarm(guest, 1)).await.unwrap();
        store.raise_alarm(Alarm { time: Timestamp(2), ..alarm(guest, 1) }).await.unwrap();
    }
    let alarms = store.alarms().await.unwrap();
    let of = |guest: u8| alarms.iter().filter(|alarm| alarm.guest == GuestId::new([guest; 32])).count();
    assert_eq!([of(0), of(1), of(2), of(255)], [1, 16, 1, 1]);
    assert!(alarms.contains(&alarm(2, 1)), "the first of its kind is what is kept");
}

pub(crate) async fn a_resource_is_what_was_put_there_last(medium: &dyn Medium) {
    let path = |text: &str| text.parse::<ResourcePath>().unwrap();
    {
        let store = medium.open().await;
        assert!(store.resource(path("default/key/one")).await.unwrap().is_none());
        store.put_resource(path("default/key/one"), b"first".to_vec()).await.unwrap();
        store.put_resource(path("default/key/one"), b"second".to_vec()).await.unwrap();
        store.put_resource(path("default/key/empty"), vec![]).await.unwrap();
        store.put_resource(path("default/key/gone"), b"gone".to_vec()).await.unwrap();
        assert!(store.delete_resource(path("default/key/gone")).await.unwrap());
        assert!(!store.delete_resource(path("default/key/gone")).await.unwrap());
    }
    let store = medium.open().await;
    assert_eq!(store.resource(path("default/key/one")).await.unwrap().unwrap(), b"second");
    assert_eq!(store.resource(path("default/key/empty")).await.unwrap().unwrap(), b"");
    assert!(store.resource(path("default/key/two")).await.unwrap().is_none());
    assert!(store.resource(path("default/key/gone")).await.unwrap().is_none());
}

pub(crate) async fn the_audit_log_grows_at_its_end_alone(medium: &dyn Medium) {
    let entries = |names: &[&str]| names.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>();
    {
        let store = medium.open().await;
        assert_eq!(store.audit_tail().await.unwrap(), AuditTail::default());
        assert!(store.audit_entries(0, 10).await.unwrap().is_empty());
        assert_eq!(append_audit(&*store, 1, entries(&["early"]), vec![1]).await, Appended::Raced);
        assert_eq!(append_audit(&*store, 0, entries(&["a", "b"]), vec![2]).await, Appended::Done);
        assert_eq!(append_audit(&*store, 0, entries(&["other"]), vec![3]).await, Appended::Raced);
        assert_eq!(append_audit(&*store, 2, entries(&["c"]), vec![4, 4]).await, Appended::Done);
    }
    let store = medium.open().await;
    assert_eq!(store.audit_tail().await.unwrap(), AuditTail { size: 3, frontier: vec![4, 4] });
    assert_eq!(store.audit_entries(0, 10).await.unwrap(), entries(&["a", "b", "c"]));
    assert_eq!(store.audit_entries(1, 1).await.unwrap(), entries(&["b"]));
    assert!(store.audit_entries(3, 10).await.unwrap().is_empty());
    assert!(store.audit_entries(u64::MAX, usize::MAX).await.unwrap().is_empty());
}

pub(crate) async fn an_append_uses_challenges_with_it_or_does_nothing(medium: &dyn Medium) {
    let uses =
        |numbers: &[u8]| numbers.iter().map(|number| challenge([*number; 32], Timestamp(100))).collect::<Vec<_>>();
    let append = async |store: &dyn Store, from: u64, numbers: &[u8]| {
        store.append_audit(from, vec![vec![1]], vec![9], uses(numbers), Timestamp(50)).await.unwrap()
    };
    {
        let store = medium.open().await;
        assert!(store.use_challenge(challenge([1; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
        assert_eq!(append(&*store, 0, &[2, 1, 3]).await, Appended::Used(vec![1]));
        assert_eq!(append(&*store, 0, &[2, 3, 2, 2]).await, Appended::Used(vec![2, 3]));
        assert_eq!(append(&*store, 1, &[2, 3]).await, Appended::Raced);
        assert_eq!(store.audit_tail().await.unwrap(), AuditTail::default());
        // What did not become durable used nothing up.
        assert_eq!(append(&*store, 0, &[2, 3]).await, Appended::Done);
    }
    let store = medium.open().await;
    assert_eq!(append(&*store, 1, &[3]).await, Appended::Used(vec![0]));
    assert!(!store.use_challenge(challenge([2; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
    assert_eq!(store.audit_tail().await.unwrap().size, 1);
    // Expired, it may be anybody's again.
    let late = store.append_audit(1, vec![vec![2]], vec![8], uses(&[3]), Timestamp(101)).await.unwrap();
    assert_eq!(late, Appended::Done);
}

pub(crate) async fn secrets_lie_sealed_and_open_with_their_store_key_alone(medium: &dyn Medium) {
    let secret = b"a secret that nobody may find on the disk";
    let path = || "default/key/one".parse::<ResourcePath>().unwrap();
    {
        let store = medium.open().await;
        store.put_resource(path(), secret.to_vec()).await.unwrap();
    }
    let raw = medium.raw().await;
    assert!(raw.windows(15).any(|window| window == b"default/key/one"), "the disk is what is looked at");
    assert!(!raw.windows(secret.len()).any(|window| window == secret));
    let other = LocalKey::from_hex(&"a5".repeat(32)).unwrap();
    assert!(matches!(medium.open_with(&other).await, Err(StoreError::Key(KeyError::Wrong(_)))));
    assert_eq!(medium.open().await.resource(path()).await.unwrap().unwrap(), secret);
}

pub(crate) async fn a_store_key_is_changed_without_touching_a_secret(medium: &dyn Medium) {
    let path = || "default/key/one".parse::<ResourcePath>().unwrap();
    let new = LocalKey::from_hex(&"a5".repeat(32)).unwrap();
    {
        let store = medium.open().await;
        store.put_resource(path(), b"secret".to_vec()).await.unwrap();
        broker_store::rekey(&*store, &new).await.unwrap();
        // Who holds it open goes on.
        assert_eq!(store.resource(path()).await.unwrap().unwrap(), b"secret");
    }
    assert!(matches!(medium.open_with(&store_key()).await, Err(StoreError::Key(KeyError::Wrong(_)))));
    let store = medium.open_with(&new).await.unwrap();
    assert_eq!(store.resource(path()).await.unwrap().unwrap(), b"secret");
}

/// Something of every kind.
async fn fill(store: &dyn Store) {
    let guest = GuestId::new([1; 32]);
    let series = Sha384Digest::of(b"series");
    let raise = Raise { series, from: HighWater::None, version: u64::MAX, payload: digest("payload") };
    assert!(store.use_challenge(challenge([1; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
    assert_eq!(store.append(guest, 0, vec![init().bytes().to_vec()], history("first")).await.unwrap(), Commit::Done);
    assert_eq!(store.record_verdict(passed("one", 7, "golden"), Some(raise)).await.unwrap(), Commit::Done);
    assert_eq!(store.record_verdict(verdict("two"), None).await.unwrap(), Commit::Done);
    assert_eq!(store.raise_reference_marks(vec![Raise { version: 2, ..raise }]).await.unwrap(), Commit::Done);
    store.revoke(series, vec![digest("revoked")]).await.unwrap();
    let alarm = Alarm {
        guest,
        code: protocols::reason::LOG_FORK,
        count: 3,
        head: HashAlg::Sha384.zero(),
        held: 9,
        time: Timestamp(1),
    };
    store.raise_alarm(alarm).await.unwrap();
    store.record_refusal(refusal("refused", Some(1))).await.unwrap();
    store.put_resource("default/key/one".parse().unwrap(), b"a secret of the backup".to_vec()).await.unwrap();
    assert_eq!(append_audit(store, 0, vec![vec![1], vec![]], vec![9]).await, Appended::Done);
}

async fn rows(store: &dyn Store) -> Vec<Row> {
    let mut rows = store.export().await.unwrap();
    let mut all = Vec::new();
    while let Some(row) = rows.recv().await {
        all.push(row.unwrap());
    }
    assert_eq!(all.last(), Some(&Row::End));
    all
}

pub(crate) async fn a_backup_restores_everything_into_an_empty_store(medium: &dyn Medium) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup");
    // From a file, and to one: between any two kinds of store the way is one of these.
    let other = directory.path().join("other.redb");
    let store = medium.open().await;
    let source = EmbeddedStore::open(&other, &store_key()).await.unwrap();
    fill(&source).await;
    let written = broker_store::backup(&source, &file, Timestamp(5)).await.unwrap();
    assert!(written.rows > 10);
    let text = std::fs::read(&file).unwrap();
    assert!(!text.windows(8).any(|window| window == b"a secret"));
    let wrong = LocalKey::from_hex(&"a5".repeat(32)).unwrap();
    let refused = broker_store::restore(Arc::clone(&store), &file, &wrong).await;
    assert!(matches!(refused, Err(BackupError::Store(StoreError::Key(_)))), "{refused:?}");
    assert_eq!(broker_store::restore(store, &file, &store_key()).await.unwrap(), written);

    let store = medium.open().await;
    assert_eq!(rows(&*store).await, rows(&source).await);
    assert_eq!(store.resource("default/key/one".parse().unwrap()).await.unwrap().unwrap(), b"a secret of the backup");
    assert!(!store.use_challenge(challenge([1; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
    assert_eq!(append_audit(&*store, 2, vec![vec![3]], vec![8]).await, Appended::Done);
    let again = broker_store::restore(Arc::clone(&store), &file, &store_key()).await;
    assert!(matches!(again, Err(BackupError::Store(StoreError::NotEmpty))), "{again:?}");

    // And out of this one into a file.
    let second = directory.path().join("second");
    broker_store::backup(&*store, &second, Timestamp(6)).await.unwrap();
    let back = directory.path().join("back.redb");
    let target = Arc::new(EmbeddedStore::open(&back, &store_key()).await.unwrap());
    broker_store::restore(target, &second, &store_key()).await.unwrap();
    let back = EmbeddedStore::open(&back, &store_key()).await.unwrap();
    assert_eq!(rows(&*store).await, rows(&back).await);
}

pub(crate) async fn a_changed_or_cut_backup_restores_nothing(medium: &dyn Medium) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup");
    let source = EmbeddedStore::open(&directory.path().join("source.redb"), &store_key()).await.unwrap();
    fill(&source).await;
    broker_store::backup(&source, &file, Timestamp(5)).await.unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without = |left_out: usize| {
        let kept = lines.iter().enumerate().filter(|(place, _)| *place != left_out);
        kept.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let lowered = text.replace(&u64::MAX.to_string(), "6");
    assert_ne!(lowered, text);
    let mut spoiled = vec![lowered, format!("{text}{{}}\n"), text.trim_end().to_owned(), String::new()];
    spoiled.extend((0..lines.len()).map(without));
    let store = medium.open().await;
    for text in spoiled {
        std::fs::write(&file, &text).unwrap();
        let refused = broker_store::restore(Arc::clone(&store), &file, &store_key()).await;
        assert!(matches!(refused, Err(BackupError::Malformed(_))), "{refused:?} of {text}");
        assert_eq!(rows(&*store).await.len(), 2, "{text}");
    }
}

pub(crate) async fn of_many_changes_at_once_every_acknowledged_one_is_there(medium: &dyn Medium) {
    let guests = 24u8;
    let series = Sha384Digest::of(b"series");
    {
        let store = medium.open().await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..guests {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                let guest = GuestId::new([number; 32]);
                assert!(store.use_challenge(challenge([number; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
                let record = vec![number];
                assert_eq!(store.append(guest, 0, vec![record], history("one")).await.unwrap(), Commit::Done);
                // All want to raise the same mark from the same place: one may.
                let payload = digest(&number.to_string());
                let raise = Raise { series, from: HighWater::None, version: 1, payload };
                let id = format!("decision-{number}");
                let won = store.record_verdict(verdict(&id), Some(raise)).await.unwrap() == Commit::Done;
                // And all use one challenge, and one place of the audit log.
                let first = store.use_challenge(challenge([255; 32], Timestamp(100)), Timestamp(50)).await.unwrap();
                let audited = append_audit(&*store, 0, vec![vec![number]], vec![number]).await == Appended::Done;
                (number, won, first, audited)
            });
        }
        let ended = tasks.join_all().await;
        assert_eq!(ended.iter().filter(|(_, won, _, _)| *won).count(), 1);
        assert_eq!(ended.iter().filter(|(_, _, first, _)| *first).count(), 1);
        let auditor = ended.iter().find(|(_, _, _, audited)| *audited).unwrap().0;
        assert_eq!(store.audit_entries(0, 10).await.unwrap(), [[auditor]]);
        for (number, won, _, _) in ended {
            assert_eq!(store.verdict(&format!("decision-{number}")).await.unwrap().is_some(), won);
        }
    }
    let store = medium.open().await;
    for number in 0..guests {
        assert!(!store.use_challenge(challenge([number; 32], Timestamp(100)), Timestamp(50)).await.unwrap());
        assert_eq!(store.records(GuestId::new([number; 32]), 0, 9).await.unwrap(), [[number]]);
    }
    assert_eq!(store.audit_tail().await.unwrap().size, 1);
}
