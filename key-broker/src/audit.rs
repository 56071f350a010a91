//! The audit log's writer: one task takes what is to be written from every request, adds all that waits in one durable
//! append, and answers each. Nothing that is audited is answered before.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use audit_log::{AuditError, Checkpoint, CheckpointResponse, EntriesResponse, Entry, Event, MAX_ENTRIES, Plan};
use audit_log::{ProofResponse, Row, Subtree, Tree, verify_consistency};
use broker_store::{Appended, AuditStore, ChallengeUse, StoreError};
use protocols::digest::Sha256Digest;
use protocols::jws::Signer;
use protocols::reason;
use protocols::tcl::RecordBytes;
use protocols::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::challenge::random;
use crate::error::BrokerError;

/// Entries that wait at most; whoever comes later waits to wait.
const QUEUE: usize = 4096;
/// Entries of one append.
const BATCH: usize = 512;
/// How often an append is tried again when another replica came first.
const ATTEMPTS: usize = 64;

/// What is kept beside the entries: all it takes to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    tree: Tree,
    /// Compact JWS of the checkpoint over exactly this tree.
    checkpoint: String,
}

impl Tail {
    fn signed(tree: Tree, time: Timestamp, signing: &Signer) -> Result<Self, Fault> {
        let checkpoint = Checkpoint::of(&tree, time).sign(signing)?;
        Ok(Self { tree, checkpoint })
    }
}

/// Why nothing was written.
#[derive(Debug, Clone)]
enum Fault {
    Store(String),
    /// What is stored is not what was signed; told once, and from then on nothing is written.
    Broken(String),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(_) => Self::Broken(error.to_string()),
            _ => Self::Store(error.to_string()),
        }
    }
}

impl From<AuditError> for Fault {
    fn from(error: AuditError) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<Fault> for BrokerError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Store(why) => Self::Store(StoreError::Io(why)),
            Fault::Broken(why) => {
                Self::refused(reason::ATTESTOR_AUDIT, "audit log", "a log that grew out of the one signed before", why)
            }
        }
    }
}

/// An entry, and the challenge it says was answered.
type Written = (Event, Option<ChallengeUse>);
/// Whether it was written, which only an answer to a challenge that was used before is not.
type Waiting = (Written, oneshot::Sender<Result<bool, Fault>>);

/// The one door to the audit log.
#[derive(Debug)]
pub(crate) struct Auditor {
    sender: mpsc::Sender<Waiting>,
    log: Arc<Log>,
}

/// What the writer needs, and the newest tail that is known, of whichever replica.
struct Log {
    store: Arc<dyn AuditStore>,
    signing: Arc<Signer>,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    replica: String,
    last: Mutex<Tail>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("replica", &self.replica).finish_non_exhaustive()
    }
}

impl Auditor {
    /// Opens the stored log, which must be one that this key signed, and starts to write.
    ///
    /// # Errors
    /// `attestor.audit` when what is stored is not what was signed; [`BrokerError::Store`].
    pub(crate) async fn open(
        store: Arc<dyn AuditStore>,
        signing: Arc<Signer>,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> Result<Self, BrokerError> {
        let replica = hex::encode(random::<8>()?);
        let last = Mutex::new(Tail::signed(Tree::default(), clock(), &signing)?);
        let log = Log { store, signing, clock, replica, last };
        log.refresh().await?;
        let log = Arc::new(log);
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(Arc::clone(&log).write(receiver));
        Ok(Self { sender, log })
    }

    /// Writes one entry; returns when it is durable.
    pub(crate) async fn append(&self, event: Event) -> Result<(), BrokerError> {
        self.add(event, None).await.map(|_| ())
    }

    /// Writes one entry and uses up a challenge, both or neither; `false` when it was used before.
    pub(crate) async fn append_once(&self, event: Event, challenge: ChallengeUse) -> Result<bool, BrokerError> {
        self.add(event, Some(challenge)).await
    }

    async fn add(&self, event: Event, challenge: Option<ChallengeUse>) -> Result<bool, BrokerError> {
        // Checked here, at its longest, so that one entry cannot spoil what is written with it.
        let probe = Entry { seq: u64::MAX, time: Timestamp::MAX, replica: self.log.replica.clone(), event };
        let Ok(_) = probe.encode() else { return Err(BrokerError::Internal("an audit entry that is too long")) };
        let event = probe.event;
        let (answer, answered) = oneshot::channel();
        let gone = || BrokerError::Internal("the audit log's writer has ended");
        self.sender.send(((event, challenge), answer)).await.map_err(|_| gone())?;
        Ok(answered.await.map_err(|_| gone())??)
    }

    /// The newest checkpoint, of whichever replica.
    pub(crate) async fn checkpoint(&self) -> Result<CheckpointResponse, BrokerError> {
        self.log.refresh().await?;
        Ok(CheckpointResponse { checkpoint: self.log.last().checkpoint.clone() })
    }

    /// Entries from a place on.
    pub(crate) async fn entries(&self, from: u64) -> Result<EntriesResponse, BrokerError> {
        let rows = self.log.store.audit_entries(from, MAX_ENTRIES).await.map_err(Fault::from)?;
        let entries = (from..).zip(rows).map(|(place, row)| {
            let entry = Row::decode(&row, place).map_err(Fault::from)?.into_entry();
            Ok(RecordBytes(entry))
        });
        Ok(EntriesResponse { entries: entries.collect::<Result<_, Fault>>()? })
    }

    /// A proof; `plan` is `None` where there can be none.
    pub(crate) async fn prove(&self, plan: Option<Plan>) -> Result<ProofResponse, BrokerError> {
        let nowhere = || {
            let expected = "a place before a size, and sizes in order, within the log";
            BrokerError::refused(reason::ATTESTOR_PROTOCOL, "proof", expected, "another")
        };
        let plan = plan.ok_or_else(nowhere)?;
        let size = self.log.store.audit_tail().await.map_err(Fault::from)?.size;
        if plan.subtrees().iter().any(|subtree| subtree.last() >= size) {
            return Err(nowhere());
        }
        Ok(ProofResponse { proof: self.log.prove(&plan).await? })
    }
}

impl Log {
    fn last(&self) -> MutexGuard<'_, Tail> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(self: Arc<Self>, mut receiver: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut broken = None;
        while receiver.recv_many(&mut batch, BATCH).await > 0 {
            // Requests that are ready now come into the same commit; where none is, nothing waits.
            loop {
                let gathered = batch.len();
                tokio::task::yield_now().await;
                while batch.len() < BATCH
                    && let Ok(next) = receiver.try_recv()
                {
                    batch.push(next);
                }
                if batch.len() == gathered {
                    break;
                }
            }
            let (events, answers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
            let done = match &broken {
                Some(fault) => Err(Fault::clone(fault)),
                None => self.append(&events).await,
            };
            if let (Err(fault @ Fault::Broken(why)), None) = (&done, &broken) {
                tracing::error!(
                    "ALARM: the audit log is not what was signed: {why}; nothing is audited, so nothing served"
                );
                broken = Some(fault.clone());
            }
            for (place, answer) in answers.into_iter().enumerate() {
                let told = done.as_ref().map(|written| written.get(place) == Some(&true)).map_err(Fault::clone);
                // A request that went away meanwhile is audited all the same.
                let _ = answer.send(told);
            }
        }
    }

    /// One durable append of all these but those whose challenge was used before; tells which were written.
    async fn append(&self, events: &[Written]) -> Result<Vec<bool>, Fault> {
        let mut written = vec![true; events.len()];
        for _ in 0..ATTEMPTS {
            let mut tree = self.last().tree.clone();
            let from = tree.size();
            let time = (self.clock)();
            let mut rows = Vec::with_capacity(events.len());
            let (mut challenges, mut of) = (Vec::new(), Vec::new());
            for (place, (event, challenge)) in
                events.iter().enumerate().filter(|(place, _)| written.get(*place) == Some(&true))
            {
                let entry = Entry { seq: tree.size(), time, replica: self.replica.clone(), event: event.clone() };
                rows.push(Row::push(&mut tree, entry.encode()?).encode());
                if let Some(challenge) = challenge {
                    challenges.push(*challenge);
                    of.push(place);
                }
            }
            if rows.is_empty() {
                return Ok(written);
            }
            let tail = Tail::signed(tree, time, &self.signing)?;
            let frontier = serde_json::to_vec(&tail).map_err(|error| Fault::Broken(error.to_string()))?;
            match self.store.append_audit(from, rows, frontier, challenges, time).await? {
                Appended::Done => {
                    *self.last() = tail;
                    return Ok(written);
                }
                Appended::Raced => self.refresh().await?,
                Appended::Used(places) => {
                    for place in places.iter().filter_map(|place| of.get(*place)) {
                        if let Some(written) = written.get_mut(*place) {
                            *written = false;
                        }
                    }
                }
            }
        }
        Err(Fault::Store("the audit log changes under every append".to_owned()))
    }

    /// Takes the stored tail, which must have grown out of the last one known: another replica may have written.
    async fn refresh(&self) -> Result<(), Fault> {
        let stored = self.store.audit_tail().await?;
        let last = self.last().clone();
        let known = &last.tree;
        if stored.size < known.size() {
            return Err(AuditError::Shrunk { expected: known.size(), actual: stored.size }.into());
        }
        if stored.size == 0 {
            return Ok(());
        }
        let tail: Tail = serde_json::from_slice(&stored.frontier).map_err(|_| AuditError::Tree(stored.size))?;
        if tail == last {
            return Ok(());
        }
        let (root, size) = (tail.tree.root(), tail.tree.size());
        let signed = Checkpoint::verify(&tail.checkpoint, self.signing.verifying_key())?;
        if size != stored.size || (signed.size, signed.root) != (size, root) {
            return Err(AuditError::Root { size, expected: signed.root, actual: root }.into());
        }
        if known.size() > 0 {
            let fork = AuditError::Fork { older: known.size(), newer: size };
            let proof = self.prove(&Plan::consistency(known.size(), size).ok_or(fork)?).await?;
            verify_consistency((known.size(), &known.root()), (size, &root), &proof)?;
        }
        let mut current = self.last();
        // The writer may have got further meanwhile.
        if current.tree.size() <= size {
            *current = tail;
        }
        Ok(())
    }

    async fn prove(&self, plan: &Plan) -> Result<Vec<Sha256Digest>, Fault> {
        let mut hashes = Vec::new();
        for subtree in plan.subtrees() {
            hashes.push(self.hash(subtree).await?);
        }
        plan.prove(&hashes).ok_or_else(|| AuditError::Proof.into())
    }

    async fn hash(&self, subtree: Subtree) -> Result<Sha256Digest, Fault> {
        let place = subtree.last();
        let missing = || AuditError::Entry { place, what: "its row is missing" };
        let rows = self.store.audit_entries(place, 1).await?;
        let row = Row::decode(rows.first().ok_or_else(missing)?, place)?;
        Ok(row.subtree(subtree.level).ok_or_else(missing)?)
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
