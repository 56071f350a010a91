//! What must last: used challenges, guests' histories, high-water marks, resources, decisions, alarms, the audit log.
//!
//! Methods are named for what they must do atomically. Whatever returns `Ok` after a change has it on disk.

mod backup;
mod embedded;
mod keys;
mod postgres;
mod rows;

use async_trait::async_trait;
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::reason::Code;
use protocols::register::RegisterValue;
use protocols::resource::ResourcePath;
use protocols::tcl::{RefusalRecord, VerdictRecord};
use protocols::time::Timestamp;
use serde::{Deserialize, Serialize};
use verifier::{HighWater, LogState};

pub use backup::{BackupError, Summary, backup, restore};
pub use embedded::EmbeddedStore;
pub use keys::{DataKey, KeyError, LocalKey, StoreKey, Vault};
pub use postgres::{PostgresOptions, PostgresStore};
pub use rows::{Row, Rows};

/// The store could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium failed, or is full.
    #[error("store: {0}")]
    Io(String),
    /// Something in it is not what this release writes.
    #[error("store: {0} cannot be read")]
    Corrupt(&'static str),
    /// Its secrets cannot be sealed or opened.
    #[error("store: {0}")]
    Key(#[from] KeyError),
    /// Rows were to be taken into a store that holds some already.
    #[error("store: it is not empty")]
    NotEmpty,
    /// Another process has it open.
    #[error("store: another process has it open")]
    InUse,
}

/// How an attempt to change something ended that another request may have changed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// It is on disk.
    Done,
    /// Another request came first; nothing was changed.
    Raced,
}

/// What is held of a guest: the state after its records, and the receipt for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// The log's state after all its records; names their count and head.
    pub state: LogState,
    /// Compact JWS of the receipt for that count and head.
    pub receipt: String,
}

/// A guest showed a second or a shorter history, or one that its register or this attestor denies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// Whose.
    pub guest: GuestId,
    /// `log.fork`, `log.regress`, `log.replay` or `attestor.verdict`.
    pub code: Code,
    /// Records it showed.
    pub count: u64,
    /// The head it showed, with evidence.
    pub head: RegisterValue,
    /// Records held.
    pub held: u64,
    /// When it was first seen.
    pub time: Timestamp,
}

/// A golden value, or reference values, were accepted: nothing below it counts from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raise {
    /// Hash of issuer and series.
    pub series: Sha384Digest,
    /// The mark the decision was made with; another mark now means another request came first.
    pub from: HighWater,
    /// The accepted version.
    pub version: u64,
    /// SHA-256 of the accepted payload.
    pub payload: Sha256Digest,
}

/// The end of the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditTail {
    /// Entries in it.
    pub size: u64,
    /// What the log's owner needs to go on from there, as the last append gave it; empty at first.
    pub frontier: Vec<u8>,
}

/// A challenge that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChallengeUse {
    /// Its nonce.
    pub nonce: [u8; 32],
    /// Until when it must be remembered.
    pub expires: Timestamp,
}

/// Places of challenges that stand in the list before.
fn twice(challenges: &[ChallengeUse]) -> Vec<usize> {
    let mut seen = std::collections::HashSet::new();
    let twice = challenges.iter().enumerate().filter(|(_, challenge)| !seen.insert(challenge.nonce));
    twice.map(|(place, _)| place).collect()
}

/// How an append to the audit log ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Appended {
    /// It is on disk, and the challenges are used.
    Done,
    /// Another append came first; nothing was changed.
    Raced,
    /// The challenges at these places of the list were used before, or stand in it twice; nothing was changed.
    Used(Vec<usize>),
}

/// The audit log, as far as its writer and its readers know the store.
#[async_trait]
pub trait AuditStore: std::fmt::Debug + Send + Sync {
    /// The end of the audit log.
    async fn audit_tail(&self) -> Result<AuditTail, StoreError>;

    /// Adds entries to the audit log and replaces its frontier, if it still has `from` entries and none of `challenges`
    /// was used before; with them they are. Forgets challenges that have expired at `now`.
    async fn append_audit(
        &self,
        from: u64,
        entries: Vec<Vec<u8>>,
        frontier: Vec<u8>,
        challenges: Vec<ChallengeUse>,
        now: Timestamp,
    ) -> Result<Appended, StoreError>;

    /// At most `max` entries of the audit log, from place `from` on, without a gap. An entry that is missing before the
    /// log's end is [`StoreError::Corrupt`].
    async fn audit_entries(&self, from: u64, max: usize) -> Result<Vec<Vec<u8>>, StoreError>;
}

/// The one door to what must last.
#[async_trait]
pub trait Store: AuditStore {
    /// Marks a challenge as used; `false` when it was already. Forgets challenges that have expired at `now`.
    async fn use_challenge(&self, challenge: ChallengeUse, now: Timestamp) -> Result<bool, StoreError>;

    /// What is held of a guest.
    async fn history(&self, guest: GuestId) -> Result<Option<History>, StoreError>;

    /// The bytes of at most `max` of a guest's records, from place `from` on.
    async fn records(&self, guest: GuestId, from: u64, max: usize) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Adds records to a guest's history and replaces its state and receipt, if it still has `held` records.
    async fn append(
        &self,
        guest: GuestId,
        held: u64,
        records: Vec<Vec<u8>>,
        history: History,
    ) -> Result<Commit, StoreError>;

    /// A guest's receipts for more than `count` records, in order, at most `max`.
    async fn receipts_after(&self, guest: GuestId, count: u64, max: usize) -> Result<Vec<String>, StoreError>;

    /// Remembers an alarm; the same alarm again changes nothing. Of one guest only the first few are kept, so that
    /// nobody hides another guest's among their own.
    async fn raise_alarm(&self, alarm: Alarm) -> Result<(), StoreError>;

    /// Every alarm.
    async fn alarms(&self) -> Result<Vec<Alarm>, StoreError>;

    /// The highest golden value accepted within a series.
    async fn high_water(&self, series: Sha384Digest) -> Result<HighWater, StoreError>;

    /// The highest reference values accepted within a series.
    async fn reference_mark(&self, series: Sha384Digest) -> Result<HighWater, StoreError>;

    /// Raises marks of reference values all together, each from the one it was accepted over.
    async fn raise_reference_marks(&self, raises: Vec<Raise>) -> Result<Commit, StoreError>;

    /// Remembers golden values that their issuer has revoked, for good.
    async fn revoke(&self, issuer: Sha384Digest, payloads: Vec<Sha256Digest>) -> Result<(), StoreError>;

    /// Whether the issuer ever revoked this golden value.
    async fn is_revoked(&self, issuer: Sha384Digest, payload: Sha256Digest) -> Result<bool, StoreError>;

    /// Whether a decision passed this launch with this golden value.
    async fn passed(&self, guest: GuestId, seq: u64, golden: Sha256Digest) -> Result<bool, StoreError>;

    /// Keeps a decision and, when it passed, remembers that and raises the high-water mark it was made with.
    async fn record_verdict(&self, record: VerdictRecord, raise: Option<Raise>) -> Result<Commit, StoreError>;

    /// A decision by its name.
    async fn verdict(&self, id: &str) -> Result<Option<VerdictRecord>, StoreError>;

    /// Keeps a refusal; the oldest make room.
    async fn record_refusal(&self, record: RefusalRecord) -> Result<(), StoreError>;

    /// A refusal by its name.
    async fn refusal(&self, id: &str) -> Result<Option<RefusalRecord>, StoreError>;

    /// Stores a resource, replacing what was there.
    async fn put_resource(&self, path: ResourcePath, bytes: Vec<u8>) -> Result<(), StoreError>;

    /// Forgets a resource; `false` when there was none.
    async fn delete_resource(&self, path: ResourcePath) -> Result<bool, StoreError>;

    /// A resource's bytes. They lie sealed by the data key, to their path.
    async fn resource(&self, path: ResourcePath) -> Result<Option<Vec<u8>>, StoreError>;

    /// What seals its secrets.
    fn vault(&self) -> &Vault;

    /// Replaces the wrapped data key. It is the same data key: only who can unwrap it changes.
    async fn put_wrapped_key(&self, wrapped: Vec<u8>) -> Result<(), StoreError>;

    /// Everything in it, as it is at one moment.
    async fn export(&self) -> Result<Rows, StoreError>;

    /// Takes rows into a store that holds nothing, whole or not at all. Its data key is theirs from now on: the store has
    /// to be opened anew. [`StoreError::NotEmpty`], [`StoreError::InUse`].
    async fn import(&self, rows: Rows) -> Result<(), StoreError>;
}

/// Wraps a store's data key under another store key; whoever opens it next needs that one.
///
/// # Errors
/// [`StoreError`]: the old store key is the one that counts.
pub async fn rekey(store: &dyn Store, key: &dyn StoreKey) -> Result<(), StoreError> {
    let wrapped = key.wrap_key(store.vault().key()).await?;
    store.put_wrapped_key(wrapped).await
}
