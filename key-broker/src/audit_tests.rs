//! What the writer makes of a store that was put back in time, forked or edited beneath it, and of one that fails.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use async_trait::async_trait;
use broker_store::AuditTail;

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000);

/// A log in memory that does to its readers what no store may.
#[derive(Debug, Default)]
struct Faulty {
    log: Mutex<(Vec<Vec<u8>>, AuditTail)>,
    used: Mutex<std::collections::HashSet<[u8; 32]>>,
    fails: Mutex<bool>,
}

impl Faulty {
    fn copy(&self) -> (Vec<Vec<u8>>, AuditTail) {
        self.log.lock().unwrap().clone()
    }

    fn put(&self, log: (Vec<Vec<u8>>, AuditTail)) {
        *self.log.lock().unwrap() = log;
    }

    fn works(&self) -> Result<(), StoreError> {
        if *self.fails.lock().unwrap() { Err(StoreError::Io("the disk is full".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl AuditStore for Faulty {
    async fn audit_tail(&self) -> Result<AuditTail, StoreError> {
        self.works()?;
        Ok(self.copy().1)
    }

    async fn append_audit(
        &self,
        from: u64,
        entries: Vec<Vec<u8>>,
        frontier: Vec<u8>,
        challenges: Vec<ChallengeUse>,
        _: Timestamp,
    ) -> Result<Appended, StoreError> {
        self.works()?;
        let (mut rows, tail) = self.copy();
        if tail.size != from {
            return Ok(Appended::Raced);
        }
        let mut used = self.used.lock().unwrap();
        let places = challenges.iter().enumerate().filter(|(_, challenge)| used.contains(&challenge.nonce));
        let places: Vec<usize> = places.map(|(place, _)| place).collect();
        if !places.is_empty() {
            return Ok(Appended::Used(places));
        }
        used.extend(challenges.iter().map(|challenge| challenge.nonce));
        rows.extend(entries);
        let size = rows.len() as u64;
        self.put((rows, AuditTail { size, frontier }));
        Ok(Appended::Done)
    }

    async fn audit_entries(&self, from: u64, max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let (rows, _) = self.copy();
        Ok(rows.into_iter().skip(usize::try_from(from).unwrap()).take(max).collect())
    }
}

fn key() -> Arc<Signer> {
    Arc::new(Signer::new(&p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap()).unwrap())
}

async fn open(store: &Arc<Faulty>) -> Result<Auditor, BrokerError> {
    Auditor::open(Arc::clone(store) as _, key(), Arc::new(|| NOW)).await
}

fn event(path: &str) -> Event {
    Event::Release { session: "s".into(), path: path.into(), guest: None }
}

async fn write(auditor: &Auditor, count: usize) {
    for number in 0..count {
        auditor.append(event(&format!("a/b/{number}"))).await.unwrap();
    }
}

fn code(result: Result<(), BrokerError>) -> String {
    result.unwrap_err().refusal().code.to_string()
}

#[tokio::test]
async fn replicas_in_turns_write_one_log() {
    let store = Arc::new(Faulty::default());
    let (one, two) = (open(&store).await.unwrap(), open(&store).await.unwrap());
    for _ in 0..5 {
        write(&one, 1).await;
        write(&two, 2).await;
    }
    let signed = Checkpoint::verify(&one.checkpoint().await.unwrap().checkpoint, key().verifying_key()).unwrap();
    assert_eq!(signed.size, 15);
    let mut verifier = audit_log::Verifier::default();
    verifier.expect(&signed).unwrap();
    for entry in two.entries(0).await.unwrap().entries {
        verifier.take(&entry.0).unwrap();
    }
    verifier.finish().unwrap();
}

/// Entries that wait together are in one append, each with an answer of its own.
#[tokio::test]
async fn what_waits_together_is_written_together() {
    let store = Arc::new(Faulty::default());
    let auditor = Arc::new(open(&store).await.unwrap());
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..100 {
        let auditor = Arc::clone(&auditor);
        waiting.spawn(async move { auditor.append(event(&format!("a/b/{number}"))).await });
    }
    while let Some(done) = waiting.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(store.copy().1.size, 100);
}

/// Answers to challenges that were used before stand beside others in one append, and spoil none of them.
#[tokio::test]
async fn an_answer_to_a_challenge_that_was_used_is_not_written() {
    let store = Arc::new(Faulty::default());
    let auditor = Arc::new(open(&store).await.unwrap());
    let once = async |auditor: &Auditor, number: u8| {
        let challenge = ChallengeUse { nonce: [number; 32], expires: NOW.plus(300) };
        auditor.append_once(event(&format!("a/b/{number}")), challenge).await.unwrap()
    };
    assert!(once(&auditor, 0).await && once(&auditor, 1).await && !once(&auditor, 1).await);
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (one, other) = (Arc::clone(&auditor), Arc::clone(&auditor));
        waiting.spawn(async move { (number, once(&one, number).await) });
        waiting.spawn(async move {
            other.append(event("a/b/other")).await.unwrap();
            (u8::MAX, true)
        });
    }
    let told = waiting.join_all().await;
    let refused: std::collections::BTreeSet<u8> =
        told.iter().filter(|(_, new)| !new).map(|(number, _)| *number).collect();
    assert_eq!(refused, [0, 1].into());
    assert_eq!(store.copy().1.size, 2 + 6 + 8);
}

#[tokio::test]
async fn a_log_that_went_back_or_another_way_ends_the_writing_for_good() {
    for how in ["shrunk", "forked", "garbled", "grown and not signed"] {
        let store = Arc::new(Faulty::default());
        let auditor = open(&store).await.unwrap();
        write(&auditor, 3).await;
        let short = store.copy();
        write(&auditor, 2).await;
        let good = store.copy();
        // Another replica of the same key goes on from the short log, and gets further than this one.
        store.put(short.clone());
        let other = open(&store).await.unwrap();
        other.append(event("another/way/x")).await.unwrap();
        write(&other, 4).await;
        let fork = store.copy();
        match how {
            "shrunk" => store.put(short),
            "forked" => {}
            "garbled" => store.put((fork.0, AuditTail { frontier: b"{}".to_vec(), ..fork.1 })),
            _ => {
                store.put(good.clone());
                write(&open(&store).await.unwrap(), 1).await;
                let (rows, tail) = store.copy();
                let json = |frontier: &[u8]| serde_json::from_slice::<serde_json::Value>(frontier).unwrap();
                let mut forged = json(&tail.frontier);
                forged["checkpoint"] = json(&good.1.frontier)["checkpoint"].clone();
                store.put((rows, AuditTail { frontier: serde_json::to_vec(&forged).unwrap(), ..tail }));
            }
        }
        assert_eq!(code(auditor.append(event("a/b/c")).await), "attestor.audit", "{how}");
        // Nor when the good log is back: somebody has to look.
        store.put(good);
        assert_eq!(code(auditor.append(event("a/b/c")).await), "attestor.audit", "{how}");
        assert_eq!(store.copy().1.size, 5, "{how}: nothing was written");
    }
}

#[tokio::test]
async fn a_store_that_fails_keeps_what_waits_from_being_answered_and_is_asked_again() {
    let store = Arc::new(Faulty::default());
    let auditor = open(&store).await.unwrap();
    write(&auditor, 1).await;
    *store.fails.lock().unwrap() = true;
    assert_eq!(code(auditor.append(event("a/b/c")).await), "attestor.unavailable");
    *store.fails.lock().unwrap() = false;
    write(&auditor, 1).await;
    assert_eq!(store.copy().1.size, 2);
}

#[tokio::test]
async fn an_entry_that_is_too_long_is_refused_alone() {
    let store = Arc::new(Faulty::default());
    let auditor = open(&store).await.unwrap();
    assert!(auditor.append(event(&"x".repeat(audit_log::MAX_ENTRY))).await.is_err());
    write(&auditor, 1).await;
    assert_eq!(store.copy().1.size, 1);
}
