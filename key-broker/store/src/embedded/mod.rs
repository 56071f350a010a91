//! The store in one file, with durable transactions.

mod audit;
mod challenges;
mod rows;
mod writer;

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::resource::ResourcePath;
use protocols::tcl::{Outcome, RefusalRecord, VerdictRecord};
use protocols::time::Timestamp;
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    Table, TableDefinition, WriteTransaction,
};
use verifier::HighWater;

use self::writer::{Effect, Writer};
use crate::keys::{DataKey, StoreKey, Vault};
use crate::{Alarm, ChallengeUse, Commit, History, Raise, Rows, Store, StoreError};

/// Version of the layout below.
const SCHEMA: u64 = 2;
/// Decisions kept; the oldest make room.
const MAX_VERDICTS: u64 = 65_536;
/// Refusals kept; the oldest make room.
const MAX_REFUSALS: u64 = 65_536;
/// Alarms kept; later ones are only logged.
const MAX_ALARMS: u64 = 65_536;
/// Alarms kept of one guest: the first says it all.
const MAX_ALARMS_OF_GUEST: usize = 16;
/// How long an opening waits for another process to let the file go.
const HELD: Duration = Duration::from_secs(3);
/// Bytes of the file kept in memory.
const CACHE: usize = 16 * 1024 * 1024;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The one row: the data key, wrapped by the store key.
const DATA_KEY: TableDefinition<'_, (), &[u8]> = TableDefinition::new("data_key");
/// (expiry, nonce): expired ones are a range at the table's start.
const CHALLENGES: TableDefinition<'_, (u64, [u8; 32]), ()> = TableDefinition::new("challenges");
const HISTORIES: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("histories");
/// (guest, place).
const RECORDS: TableDefinition<'_, ([u8; 32], u64), &[u8]> = TableDefinition::new("records");
/// (guest, count).
const RECEIPTS: TableDefinition<'_, ([u8; 32], u64), &str> = TableDefinition::new("receipts");
/// Hash of issuer and series -> (version, payload).
const HIGH_WATER: TableDefinition<'_, [u8; 48], (u64, [u8; 32])> = TableDefinition::new("high_water");
/// The same of reference values: one issuer may sign both, and name series alike.
const REFERENCE_MARKS: TableDefinition<'_, [u8; 48], (u64, [u8; 32])> = TableDefinition::new("reference_marks");
/// (hash of the issuer, payload of a golden value it revoked).
const REVOKED: TableDefinition<'_, ([u8; 48], [u8; 32]), ()> = TableDefinition::new("revoked");
/// (guest, launch number, payload of the golden value): decisions that passed, for as long as their guest's history.
const PASSES: TableDefinition<'_, ([u8; 32], u64, [u8; 32]), ()> = TableDefinition::new("passes");
const RESOURCES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("resources");
const VERDICTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("verdicts");
/// Running number -> id, to find the oldest.
const VERDICT_ORDER: TableDefinition<'_, u64, &str> = TableDefinition::new("verdict_order");
const REFUSALS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("refusals");
/// Running number -> id, to find the oldest.
const REFUSAL_ORDER: TableDefinition<'_, u64, &str> = TableDefinition::new("refusal_order");
const ALARMS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("alarms");
const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// The one row: (entries, frontier).
const AUDIT_TAIL: TableDefinition<'_, (), (u64, &[u8])> = TableDefinition::new("audit_tail");

/// Everything in one file.
#[derive(Debug)]
pub struct EmbeddedStore {
    // Before the database: the writer ends first.
    writer: Writer,
    database: Arc<Database>,
    vault: Vault,
}

fn io(error: impl std::fmt::Display) -> StoreError {
    StoreError::Io(error.to_string())
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(io)
}

fn from_json<T: for<'de> serde::Deserialize<'de>>(bytes: &[u8], what: &'static str) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Corrupt(what))
}

impl EmbeddedStore {
    /// Opens the file, making it when it is not there. One process holds it at a time.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be opened, [`StoreError::InUse`] when another process goes on holding it for
    /// three seconds, [`StoreError::Corrupt`] when another release made it, [`StoreError::Key`] when its data key was wrapped by another store key.
    pub async fn open(path: &Path, key: &dyn StoreKey) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let (database, wrapped) = tokio::task::spawn_blocking(move || prepare(&path)).await.map_err(io)??;
        let database = Arc::new(database);
        let data_key = match wrapped {
            Some(wrapped) => key.unwrap_key(&wrapped).await?,
            None => {
                let new = DataKey::generate()?;
                let wrapped = key.wrap_key(&new).await?;
                let database = Arc::clone(&database);
                tokio::task::spawn_blocking(move || put_wrapped_key(&database, &wrapped)).await.map_err(io)??;
                new
            }
        };
        let vault = Vault::new(data_key)?;
        Ok(Self { writer: Writer::start(Arc::clone(&database))?, database, vault })
    }

    /// Looks up single rows, on the caller's thread: they are in memory but for a page of the file at times, and to
    /// change threads costs more than that.
    fn look_up<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        work(&self.database.begin_read().map_err(io)?)
    }

    /// Reads much, where blocking is allowed.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        tokio::task::spawn_blocking(move || work(&database.begin_read().map_err(io)?)).await.map_err(io)?
    }
}

/// Opens the database, waiting for one whose holder is just ending: a restart is no failure.
fn hold(file: &std::fs::File) -> Result<Database, StoreError> {
    let deadline = std::time::Instant::now() + HELD;
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    loop {
        let backend = FileBackend::new(file.try_clone().map_err(io)?).map_err(io)?;
        match builder.create_with_backend(backend) {
            Err(DatabaseError::DatabaseAlreadyOpen) if std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse),
            opened => return opened.map_err(io),
        }
    }
}

/// Opens the file and makes what is missing; gives the wrapped data key, unless the file is new.
fn prepare(path: &Path) -> Result<(Database, Option<Vec<u8>>), StoreError> {
    // It holds secrets, if sealed ones: made for its owner alone, whatever the umask.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| StoreError::Io(format!("{}: {error}", path.display())))?;
    let database = hold(&file)?;
    let write = database.begin_write().map_err(io)?;
    {
        let mut meta = write.open_table(META).map_err(io)?;
        let schema = meta.get("schema").map_err(io)?.map(|value| value.value());
        match schema {
            None => {
                meta.insert("schema", SCHEMA).map_err(io)?;
            }
            Some(SCHEMA) => {}
            Some(_) => return Err(StoreError::Corrupt("a file of another release")),
        }
        // Made once here, so that reading never meets a missing table.
        write.open_table(DATA_KEY).map_err(io)?;
        write.open_table(CHALLENGES).map_err(io)?;
        write.open_table(HISTORIES).map_err(io)?;
        write.open_table(RECORDS).map_err(io)?;
        write.open_table(RECEIPTS).map_err(io)?;
        write.open_table(HIGH_WATER).map_err(io)?;
        write.open_table(REFERENCE_MARKS).map_err(io)?;
        write.open_table(REVOKED).map_err(io)?;
        write.open_table(PASSES).map_err(io)?;
        write.open_table(RESOURCES).map_err(io)?;
        write.open_table(VERDICTS).map_err(io)?;
        write.open_table(VERDICT_ORDER).map_err(io)?;
        write.open_table(REFUSALS).map_err(io)?;
        write.open_table(REFUSAL_ORDER).map_err(io)?;
        write.open_table(ALARMS).map_err(io)?;
        write.open_table(AUDIT).map_err(io)?;
        write.open_table(AUDIT_TAIL).map_err(io)?;
    }
    write.commit().map_err(io)?;
    let wrapped = {
        let table = database.begin_read().map_err(io)?.open_table(DATA_KEY).map_err(io)?;
        table.get(()).map_err(io)?.map(|value| value.value().to_vec())
    };
    Ok((database, wrapped))
}

fn put_wrapped_key(database: &Database, wrapped: &[u8]) -> Result<(), StoreError> {
    let write = database.begin_write().map_err(io)?;
    write.open_table(DATA_KEY).map_err(io)?.insert((), wrapped).map_err(io)?;
    write.commit().map_err(io)
}

fn mark(stored: Option<(u64, [u8; 32])>) -> HighWater {
    stored.map_or(HighWater::None, |(version, payload)| HighWater::Accepted {
        version,
        payload: Sha256Digest::new(payload),
    })
}

/// Raises marks all together; where another came first, none is touched.
fn raised(marks: &mut Table<'_, [u8; 48], (u64, [u8; 32])>, raises: &[Raise]) -> Result<Commit, StoreError> {
    let mut after = BTreeMap::new();
    for Raise { series, from, version, payload } in raises {
        let key = *series.as_bytes();
        let stored = match after.get(&key) {
            Some(raised) => Some(*raised),
            None => marks.get(&key).map_err(io)?.map(|value| value.value()),
        };
        if mark(stored) != *from {
            return Ok(Commit::Raced);
        }
        after.insert(key, (*version, *payload.as_bytes()));
    }
    for (key, raised) in after {
        marks.insert(&key, raised).map_err(io)?;
    }
    Ok(Commit::Done)
}

fn keep_verdict(write: &WriteTransaction, record: &VerdictRecord, json: &[u8]) -> Result<(), StoreError> {
    if let Outcome::Pass(golden) = &record.verdict.outcome {
        let key = (*record.verdict.guest.as_bytes(), record.verdict.seq, *golden.payload.as_bytes());
        write.open_table(PASSES).map_err(io)?.insert(key, ()).map_err(io)?;
    }
    keep(write, (VERDICTS, VERDICT_ORDER, MAX_VERDICTS), &record.id, json)
}

fn keep_refusal(write: &WriteTransaction, record: &RefusalRecord, json: &[u8]) -> Result<(), StoreError> {
    keep(write, (REFUSALS, REFUSAL_ORDER, MAX_REFUSALS), &record.id, json)
}

/// Records by id, the order they came in, and how many are kept.
type Ring<'r> = (TableDefinition<'r, &'static str, &'static [u8]>, TableDefinition<'r, u64, &'static str>, u64);

/// Adds a record to a table in which the oldest make room.
fn keep(write: &WriteTransaction, ring: Ring<'_>, id: &str, json: &[u8]) -> Result<(), StoreError> {
    let (records, order, max) = ring;
    let (mut records, mut order) = (write.open_table(records).map_err(io)?, write.open_table(order).map_err(io)?);
    let next = order.last().map_err(io)?.map_or(0, |(number, _)| number.value().saturating_add(1));
    if order.len().map_err(io)? >= max {
        let oldest = order.pop_first().map_err(io)?.map(|(_, id)| id.value().to_owned());
        if let Some(oldest) = oldest {
            records.remove(oldest.as_str()).map_err(io)?;
        }
    }
    order.insert(next, id).map_err(io)?;
    records.insert(id, json).map_err(io)?;
    Ok(())
}

fn alarm_key(alarm: &Alarm) -> String {
    format!("{} {} {} {}", alarm.guest, alarm.code, alarm.count, alarm.head)
}

/// A guest's keys of two parts, from a place on.
type Places = ([u8; 32], u64);

#[async_trait]
impl Store for EmbeddedStore {
    async fn use_challenge(&self, challenge: ChallengeUse, now: Timestamp) -> Result<bool, StoreError> {
        let ChallengeUse { nonce, expires } = challenge;
        self.writer
            .change(move |write| {
                let mut known = write.open_table(CHALLENGES).map_err(io)?;
                challenges::forget_expired(&mut known, 1, now)?;
                Ok(Effect::Changed(known.insert((expires.0, nonce), ()).map_err(io)?.is_none()))
            })
            .await
    }

    async fn history(&self, guest: GuestId) -> Result<Option<History>, StoreError> {
        self.look_up(|read| {
            let table = read.open_table(HISTORIES).map_err(io)?;
            let stored = table.get(guest.as_bytes()).map_err(io)?;
            stored.map(|bytes| from_json(bytes.value(), "a history")).transpose()
        })
    }

    async fn records(&self, guest: GuestId, from: u64, max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read(move |read| {
            let table = read.open_table(RECORDS).map_err(io)?;
            let range: std::ops::RangeInclusive<Places> = (*guest.as_bytes(), from)..=(*guest.as_bytes(), u64::MAX);
            let found = table.range(range).map_err(io)?.take(max);
            found.map(|entry| entry.map(|(_, value)| value.value().to_vec())).collect::<Result<_, _>>().map_err(io)
        })
        .await
    }

    async fn append(
        &self,
        guest: GuestId,
        held: u64,
        records: Vec<Vec<u8>>,
        history: History,
    ) -> Result<Commit, StoreError> {
        let (guest, json) = (*guest.as_bytes(), to_json(&history)?);
        self.writer
            .change(move |write| {
                let mut histories = write.open_table(HISTORIES).map_err(io)?;
                let stored: Option<History> = histories
                    .get(&guest)
                    .map_err(io)?
                    .map(|bytes| from_json(bytes.value(), "a history"))
                    .transpose()?;
                if stored.map_or(0, |history| history.state.count()) != held {
                    return Ok(Effect::None(Commit::Raced));
                }
                histories.insert(&guest, json.as_slice()).map_err(io)?;
                let mut table = write.open_table(RECORDS).map_err(io)?;
                for (place, record) in (held..).zip(&records) {
                    table.insert((guest, place), record.as_slice()).map_err(io)?;
                }
                let mut receipts = write.open_table(RECEIPTS).map_err(io)?;
                receipts.insert((guest, history.state.count()), history.receipt.as_str()).map_err(io)?;
                Ok(Effect::Changed(Commit::Done))
            })
            .await
    }

    async fn receipts_after(&self, guest: GuestId, count: u64, max: usize) -> Result<Vec<String>, StoreError> {
        let Some(from) = count.checked_add(1) else { return Ok(Vec::new()) };
        self.read(move |read| {
            let table = read.open_table(RECEIPTS).map_err(io)?;
            let range: std::ops::RangeInclusive<Places> = (*guest.as_bytes(), from)..=(*guest.as_bytes(), u64::MAX);
            let found = table.range(range).map_err(io)?.take(max);
            found.map(|entry| entry.map(|(_, value)| value.value().to_owned())).collect::<Result<_, _>>().map_err(io)
        })
        .await
    }

    async fn raise_alarm(&self, alarm: Alarm) -> Result<(), StoreError> {
        let (key, json) = (alarm_key(&alarm), to_json(&alarm)?);
        self.writer
            .change(move |write| {
                let mut table = write.open_table(ALARMS).map_err(io)?;
                let known = table.get(key.as_str()).map_err(io)?.is_some();
                // Every key of a guest starts with its 64 digits and a space; `!` is the next character after it.
                let (first, end) = (format!("{} ", alarm.guest), format!("{}!", alarm.guest));
                let own = table.range(first.as_str()..end.as_str()).map_err(io)?.take(MAX_ALARMS_OF_GUEST).count();
                if known || own >= MAX_ALARMS_OF_GUEST || table.len().map_err(io)? >= MAX_ALARMS {
                    return Ok(Effect::None(()));
                }
                table.insert(key.as_str(), json.as_slice()).map_err(io)?;
                Ok(Effect::Changed(()))
            })
            .await
    }

    async fn alarms(&self) -> Result<Vec<Alarm>, StoreError> {
        self.read(move |read| {
            let table = read.open_table(ALARMS).map_err(io)?;
            let all = table.iter().map_err(io)?;
            all.map(|entry| from_json(entry.map_err(io)?.1.value(), "an alarm")).collect()
        })
        .await
    }

    async fn high_water(&self, series: Sha384Digest) -> Result<HighWater, StoreError> {
        self.look_up(|read| {
            let table = read.open_table(HIGH_WATER).map_err(io)?;
            Ok(mark(table.get(series.as_bytes()).map_err(io)?.map(|value| value.value())))
        })
    }

    async fn reference_mark(&self, series: Sha384Digest) -> Result<HighWater, StoreError> {
        self.look_up(|read| {
            let table = read.open_table(REFERENCE_MARKS).map_err(io)?;
            Ok(mark(table.get(series.as_bytes()).map_err(io)?.map(|value| value.value())))
        })
    }

    async fn raise_reference_marks(&self, raises: Vec<Raise>) -> Result<Commit, StoreError> {
        if raises.is_empty() {
            return Ok(Commit::Done);
        }
        self.writer
            .change(move |write| {
                let mut marks = write.open_table(REFERENCE_MARKS).map_err(io)?;
                Ok(match raised(&mut marks, &raises)? {
                    Commit::Done => Effect::Changed(Commit::Done),
                    Commit::Raced => Effect::None(Commit::Raced),
                })
            })
            .await
    }

    async fn revoke(&self, issuer: Sha384Digest, payloads: Vec<Sha256Digest>) -> Result<(), StoreError> {
        let new = self
            .read(move |read| {
                let known = read.open_table(REVOKED).map_err(io)?;
                let mut new = Vec::new();
                for payload in payloads {
                    let key = (*issuer.as_bytes(), *payload.as_bytes());
                    if known.get(key).map_err(io)?.is_none() {
                        new.push(key);
                    }
                }
                Ok(new)
            })
            .await?;
        // The same list comes with every decision: only what is new costs a write.
        if new.is_empty() {
            return Ok(());
        }
        self.writer
            .change(move |write| {
                let mut table = write.open_table(REVOKED).map_err(io)?;
                for key in &new {
                    table.insert(*key, ()).map_err(io)?;
                }
                Ok(Effect::Changed(()))
            })
            .await
    }

    async fn is_revoked(&self, issuer: Sha384Digest, payload: Sha256Digest) -> Result<bool, StoreError> {
        self.look_up(|read| {
            let table = read.open_table(REVOKED).map_err(io)?;
            Ok(table.get((*issuer.as_bytes(), *payload.as_bytes())).map_err(io)?.is_some())
        })
    }

    async fn passed(&self, guest: GuestId, seq: u64, golden: Sha256Digest) -> Result<bool, StoreError> {
        self.look_up(|read| {
            let table = read.open_table(PASSES).map_err(io)?;
            Ok(table.get((*guest.as_bytes(), seq, *golden.as_bytes())).map_err(io)?.is_some())
        })
    }

    async fn record_verdict(&self, record: VerdictRecord, raise: Option<Raise>) -> Result<Commit, StoreError> {
        let json = to_json(&record)?;
        self.writer
            .change(move |write| {
                if let Some(raise) = &raise {
                    let mut marks = write.open_table(HIGH_WATER).map_err(io)?;
                    if raised(&mut marks, std::slice::from_ref(raise))? == Commit::Raced {
                        return Ok(Effect::None(Commit::Raced));
                    }
                }
                keep_verdict(write, &record, &json)?;
                Ok(Effect::Changed(Commit::Done))
            })
            .await
    }

    async fn verdict(&self, id: &str) -> Result<Option<VerdictRecord>, StoreError> {
        self.look_up(|read| {
            let table = read.open_table(VERDICTS).map_err(io)?;
            let stored = table.get(id).map_err(io)?;
            stored.map(|bytes| from_json(bytes.value(), "a decision")).transpose()
        })
    }

    async fn record_refusal(&self, record: RefusalRecord) -> Result<(), StoreError> {
        let json = to_json(&record)?;
        self.writer
            .change(move |write| {
                keep_refusal(write, &record, &json)?;
                Ok(Effect::Changed(()))
            })
            .await
    }

    async fn refusal(&self, id: &str) -> Result<Option<RefusalRecord>, StoreError> {
        self.look_up(|read| {
            let table = read.open_table(REFUSALS).map_err(io)?;
            let stored = table.get(id).map_err(io)?;
            stored.map(|bytes| from_json(bytes.value(), "a refusal")).transpose()
        })
    }

    async fn put_resource(&self, path: ResourcePath, bytes: Vec<u8>) -> Result<(), StoreError> {
        let sealed = self.vault.seal(&path, &bytes)?;
        self.writer
            .change(move |write| {
                let mut table = write.open_table(RESOURCES).map_err(io)?;
                table.insert(path.as_str(), sealed.as_slice()).map_err(io)?;
                Ok(Effect::Changed(()))
            })
            .await
    }

    async fn delete_resource(&self, path: ResourcePath) -> Result<bool, StoreError> {
        self.writer
            .change(move |write| {
                let mut table = write.open_table(RESOURCES).map_err(io)?;
                let there = table.remove(path.as_str()).map_err(io)?.is_some();
                Ok(if there { Effect::Changed(true) } else { Effect::None(false) })
            })
            .await
    }

    async fn resource(&self, path: ResourcePath) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed = self.look_up(|read| {
            let table = read.open_table(RESOURCES).map_err(io)?;
            Ok(table.get(path.as_str()).map_err(io)?.map(|bytes| bytes.value().to_vec()))
        })?;
        Ok(sealed.map(|sealed| self.vault.open(&path, &sealed)).transpose()?)
    }

    fn vault(&self) -> &Vault {
        &self.vault
    }

    async fn put_wrapped_key(&self, wrapped: Vec<u8>) -> Result<(), StoreError> {
        self.writer
            .change(move |write| {
                write.open_table(DATA_KEY).map_err(io)?.insert((), wrapped.as_slice()).map_err(io)?;
                Ok(Effect::Changed(()))
            })
            .await
    }

    async fn export(&self) -> Result<Rows, StoreError> {
        let (send, rows) = rows::channel();
        let database = Arc::clone(&self.database);
        tokio::task::spawn_blocking(move || rows::export(&database, &send));
        Ok(rows)
    }

    async fn import(&self, rows: Rows) -> Result<(), StoreError> {
        let database = Arc::clone(&self.database);
        tokio::task::spawn_blocking(move || rows::import(&database, rows)).await.map_err(io)?
    }
}
