//! The store in a PostgreSQL database, which several replicas share.

mod audit;
mod connect;
mod migrations;
mod rows;
mod statements;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Client, Object, Pool};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::resource::ResourcePath;
use protocols::tcl::{Outcome, RefusalRecord, VerdictRecord};
use protocols::time::Timestamp;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use verifier::HighWater;

pub use self::connect::PostgresOptions;
use self::statements as sql;
use crate::keys::{DataKey, StoreKey, Vault};
use crate::{Alarm, ChallengeUse, Commit, History, Raise, Rows, Store, StoreError};

/// Advisory locks: one number for all that this program locks in a database, then what.
const LOCK_MIGRATION: i64 = 0x7463_6c00_0000_0001;
/// Held, shared, by every connection; a restore wants it alone.
const LOCK_OPEN: i64 = 0x7463_6c00_0000_0002;
/// The longest a statement may take, its way there and back included.
const ANSWER: Duration = Duration::from_secs(8);
/// How often a statement is tried that the database gave up for the sake of another.
const ATTEMPTS: usize = 4;
/// Decisions kept; the oldest make room.
const MAX_VERDICTS: i64 = 65_536;
/// Refusals kept; the oldest make room.
const MAX_REFUSALS: i64 = 65_536;
/// Alarms kept; later ones are only logged.
const MAX_ALARMS: i64 = 65_536;
/// Alarms kept of one guest: the first says it all.
const MAX_ALARMS_OF_GUEST: i64 = 16;
/// After so many challenges or decisions the old ones are looked for.
const TIDY_EVERY: u64 = 256;
/// Expired challenges forgotten at once: more than come between.
const PURGE: i64 = 4096;

type Parameters<'p> = &'p [&'p (dyn ToSql + Sync)];

/// Everything in one database.
#[derive(Debug)]
pub struct PostgresStore {
    pool: Pool,
    vault: Vault,
    /// Changes since the start, to tidy up now and then.
    changes: AtomicU64,
}

/// What the database said, without values.
fn pg(error: tokio_postgres::Error) -> StoreError {
    StoreError::Io(match error.as_db_error() {
        Some(said) => format!("the database: {} ({})", said.message(), said.code().code()),
        None => match std::error::Error::source(&error) {
            Some(cause) => format!("the database: {error}: {cause}"),
            None => format!("the database: {error}"),
        },
    })
}

fn slow() -> StoreError {
    StoreError::Io("the database did not answer in time".to_owned())
}

fn number(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Io("a number beyond what the database holds".to_owned()))
}

/// A bound of what is looked for: beyond it there is nothing.
fn bound(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Io(error.to_string()))
}

fn from_json<T: for<'de> serde::Deserialize<'de>>(bytes: &[u8], what: &'static str) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Corrupt(what))
}

impl PostgresStore {
    /// Connects, and makes the tables or brings them to this release's version.
    ///
    /// # Errors
    /// [`StoreError::Io`] when there is no connection, [`StoreError::Corrupt`] when a later release made the tables,
    /// [`StoreError::Key`] when the data key was wrapped by another store key.
    pub async fn open(options: &PostgresOptions, key: &dyn StoreKey) -> Result<Self, StoreError> {
        let pool = connect::pool(options)?;
        let new = key.wrap_key(&DataKey::generate()?).await?;
        let mut client = connect::get(&pool).await?;
        let wrapped = tokio::time::timeout(ANSWER, migrations::migrate(&mut client, &new)).await;
        let wrapped = wrapped.map_err(|_| slow())??;
        drop(client);
        let vault = Vault::new(key.unwrap_key(&wrapped).await?)?;
        Ok(Self { pool, vault, changes: AtomicU64::new(0) })
    }

    async fn client(&self) -> Result<Client, StoreError> {
        connect::get(&self.pool).await
    }

    /// Runs one statement, again where the database gave it up for another, and gives the rows it touched.
    async fn execute(&self, statement: &'static str, parameters: Parameters<'_>) -> Result<u64, StoreError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let client = self.client().await?;
            let ran = async {
                let prepared = client.prepare_cached(statement).await?;
                client.execute(&prepared, parameters).await
            };
            match tokio::time::timeout(ANSWER, ran).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(error)) if attempt < ATTEMPTS && given_up(&error) => {}
                Ok(Err(error)) => return Err(pg(error)),
                Err(_) => return Err(discard(client)),
            }
        }
    }

    /// Asks, and gives every row.
    async fn query(
        &self,
        statement: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let client = self.client().await?;
        let asked = async {
            let prepared = client.prepare_cached(statement).await?;
            client.query(&prepared, parameters).await
        };
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(rows) => rows.map_err(pg),
            Err(_) => Err(discard(client)),
        }
    }

    /// The first value of the first row, where there is one.
    async fn value<T>(&self, statement: &'static str, parameters: Parameters<'_>) -> Result<Option<T>, StoreError>
    where
        T: for<'a> tokio_postgres::types::FromSql<'a>,
    {
        self.query(statement, parameters).await?.first().map(|row| row.try_get(0).map_err(pg)).transpose()
    }

    /// Forgets challenges that have expired, now and then.
    async fn forget_challenges(&self, now: Timestamp) -> Result<(), StoreError> {
        if self.tidies() {
            self.execute(sql::FORGET_CHALLENGES, &[&number(now.0)?, &PURGE]).await?;
        }
        Ok(())
    }

    /// Whether it is time to look for what is old.
    fn tidies(&self) -> bool {
        self.changes.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIDY_EVERY)
    }

    async fn mark(&self, kind: &str, series: Sha384Digest) -> Result<HighWater, StoreError> {
        let rows = self.query(sql::MARK, &[&kind, &series.as_bytes().as_slice()]).await?;
        let Some(row) = rows.first() else { return Ok(HighWater::None) };
        let (version, payload): (String, Vec<u8>) = (row.try_get(0).map_err(pg)?, row.try_get(1).map_err(pg)?);
        let (Ok(version), Ok(payload)) = (version.parse(), <[u8; 32]>::try_from(payload)) else {
            return Err(StoreError::Corrupt("a high-water mark"));
        };
        Ok(HighWater::Accepted { version, payload: Sha256Digest::new(payload) })
    }
}

/// A connection that has not answered is not used again.
fn discard(client: Client) -> StoreError {
    drop(Object::take(client));
    slow()
}

/// The database chose this one to fail, and undid it.
fn given_up(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| *code == SqlState::T_R_DEADLOCK_DETECTED || *code == SqlState::T_R_SERIALIZATION_FAILURE)
}

const fn done(rows: u64) -> Commit {
    if rows > 0 { Commit::Done } else { Commit::Raced }
}

#[async_trait]
impl Store for PostgresStore {
    async fn use_challenge(&self, challenge: ChallengeUse, now: Timestamp) -> Result<bool, StoreError> {
        let ChallengeUse { nonce, expires } = challenge;
        let fresh =
            self.execute(sql::USE_CHALLENGE, &[&nonce.as_slice(), &number(expires.0)?, &number(now.0)?]).await?;
        self.forget_challenges(now).await?;
        Ok(fresh > 0)
    }

    async fn history(&self, guest: GuestId) -> Result<Option<History>, StoreError> {
        let found: Option<Vec<u8>> = self.value(sql::HISTORY, &[&guest.as_bytes().as_slice()]).await?;
        found.map(|json| from_json(&json, "a history")).transpose()
    }

    async fn records(&self, guest: GuestId, from: u64, max: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows = self.query(sql::RECORDS, &[&guest.as_bytes().as_slice(), &bound(from), &bound(max)]).await?;
        rows.iter().map(|row| row.try_get(0).map_err(pg)).collect()
    }

    async fn append(
        &self,
        guest: GuestId,
        held: u64,
        records: Vec<Vec<u8>>,
        history: History,
    ) -> Result<Commit, StoreError> {
        let (held, count, json) = (number(held)?, number(history.state.count())?, to_json(&history)?);
        let guest = guest.as_bytes().as_slice();
        Ok(done(self.execute(sql::APPEND, &[&guest, &held, &count, &json, &records, &history.receipt]).await?))
    }

    async fn receipts_after(&self, guest: GuestId, count: u64, max: usize) -> Result<Vec<String>, StoreError> {
        let guest = guest.as_bytes().as_slice();
        let rows = self.query(sql::RECEIPTS_AFTER, &[&guest, &bound(count), &bound(max)]).await?;
        rows.iter().map(|row| row.try_get(0).map_err(pg)).collect()
    }

    async fn raise_alarm(&self, alarm: Alarm) -> Result<(), StoreError> {
        let json = to_json(&alarm)?;
        let guest = alarm.guest.as_bytes().as_slice();
        let (code, count, head) = (alarm.code.as_str(), alarm.count.to_string(), alarm.head.to_string());
        let room: [&(dyn ToSql + Sync); 6] = [&guest, &MAX_ALARMS_OF_GUEST, &MAX_ALARMS, &code, &count, &head];
        // Most are repetitions, which take no lock.
        if self.value(sql::HAS_ROOM_FOR_ALARM, &room).await? != Some(true) {
            return Ok(());
        }
        let mut client = self.client().await?;
        let raised = async {
            let transaction = client.transaction().await?;
            transaction.execute(sql::LOCK_ALARMS, &[]).await?;
            if transaction.query_one(sql::HAS_ROOM_FOR_ALARM, &room).await?.try_get(0)? {
                transaction.execute(sql::RAISE_ALARM, &[&guest, &code, &count, &head, &json]).await?;
            }
            transaction.commit().await
        };
        let raised = tokio::time::timeout(ANSWER, raised).await;
        match raised {
            Ok(raised) => raised.map_err(pg),
            Err(_) => Err(discard(client)),
        }
    }

    async fn alarms(&self) -> Result<Vec<Alarm>, StoreError> {
        let rows = self.query(sql::ALARMS, &[]).await?;
        rows.iter().map(|row| from_json(row.try_get(0).map_err(pg)?, "an alarm")).collect()
    }

    async fn high_water(&self, series: Sha384Digest) -> Result<HighWater, StoreError> {
        self.mark(GOLDEN, series).await
    }

    async fn reference_mark(&self, series: Sha384Digest) -> Result<HighWater, StoreError> {
        self.mark(REFERENCE, series).await
    }

    async fn raise_reference_marks(&self, mut raises: Vec<Raise>) -> Result<Commit, StoreError> {
        if raises.is_empty() {
            return Ok(Commit::Done);
        }
        // In one order, so that two of these never wait for each other.
        raises.sort_by_key(|raise| *raise.series.as_bytes());
        let mut client = self.client().await?;
        let raised = async {
            let transaction = client.transaction().await?;
            for Raise { series, from, version, payload } in &raises {
                let (series, payload) = (series.as_bytes().as_slice(), payload.as_bytes().as_slice());
                let version = version.to_string();
                let rows = match from {
                    HighWater::None => {
                        transaction.execute(sql::FIRST_MARK, &[&REFERENCE, &series, &version, &payload]).await?
                    }
                    HighWater::Accepted { version: before, payload: held } => {
                        let (before, held) = (before.to_string(), held.as_bytes().as_slice());
                        let raise: Parameters<'_> = &[&REFERENCE, &series, &version, &payload, &before, &held];
                        transaction.execute(sql::NEXT_MARK, raise).await?
                    }
                };
                if rows == 0 {
                    transaction.rollback().await?;
                    return Ok(Commit::Raced);
                }
            }
            transaction.commit().await?;
            Ok(Commit::Done)
        };
        let raised = tokio::time::timeout(ANSWER, raised).await;
        match raised {
            Ok(raised) => raised.map_err(pg),
            Err(_) => Err(discard(client)),
        }
    }

    async fn revoke(&self, issuer: Sha384Digest, payloads: Vec<Sha256Digest>) -> Result<(), StoreError> {
        if payloads.is_empty() {
            return Ok(());
        }
        let mut payloads: Vec<&[u8]> = payloads.iter().map(|payload| payload.as_bytes().as_slice()).collect();
        payloads.sort_unstable();
        self.execute(sql::REVOKE, &[&issuer.as_bytes().as_slice(), &payloads]).await?;
        Ok(())
    }

    async fn is_revoked(&self, issuer: Sha384Digest, payload: Sha256Digest) -> Result<bool, StoreError> {
        let (issuer, payload) = (issuer.as_bytes().as_slice(), payload.as_bytes().as_slice());
        self.value(sql::IS_REVOKED, &[&issuer, &payload]).await?.ok_or(StoreError::Corrupt("an answer"))
    }

    async fn passed(&self, guest: GuestId, seq: u64, golden: Sha256Digest) -> Result<bool, StoreError> {
        let (guest, golden) = (guest.as_bytes().as_slice(), golden.as_bytes().as_slice());
        self.value(sql::PASSED, &[&guest, &seq.to_string(), &golden]).await?.ok_or(StoreError::Corrupt("an answer"))
    }

    async fn record_verdict(&self, record: VerdictRecord, raise: Option<Raise>) -> Result<Commit, StoreError> {
        let json = to_json(&record)?;
        let guest = record.verdict.guest.as_bytes().as_slice();
        let launch = record.verdict.seq.to_string();
        let golden = match &record.verdict.outcome {
            Outcome::Pass(golden) => Some(golden.payload.as_bytes().as_slice()),
            Outcome::Refused { .. } => None,
        };
        let rows = match &raise {
            None => self.execute(sql::DECIDE, &[&record.id, &json, &guest, &launch, &golden]).await?,
            Some(Raise { series, from, version, payload }) => {
                let (series, version) = (series.as_bytes().as_slice(), version.to_string());
                let payload = payload.as_bytes().as_slice();
                match from {
                    HighWater::None => {
                        let with: Parameters<'_> =
                            &[&record.id, &json, &guest, &launch, &golden, &series, &version, &payload];
                        self.execute(sql::DECIDE_FIRST, with).await?
                    }
                    HighWater::Accepted { version: before, payload: held } => {
                        let (before, held) = (before.to_string(), held.as_bytes().as_slice());
                        let with: Parameters<'_> =
                            &[&record.id, &json, &guest, &launch, &golden, &series, &version, &payload, &before, &held];
                        self.execute(sql::DECIDE_NEXT, with).await?
                    }
                }
            }
        };
        if self.tidies() {
            self.execute(sql::FORGET_VERDICTS, &[&MAX_VERDICTS]).await?;
        }
        Ok(done(rows))
    }

    async fn verdict(&self, id: &str) -> Result<Option<VerdictRecord>, StoreError> {
        let found: Option<Vec<u8>> = self.value(sql::VERDICT, &[&id]).await?;
        found.map(|json| from_json(&json, "a decision")).transpose()
    }

    async fn record_refusal(&self, record: RefusalRecord) -> Result<(), StoreError> {
        self.execute(sql::KEEP_REFUSAL, &[&record.id, &to_json(&record)?]).await?;
        if self.tidies() {
            self.execute(sql::FORGET_REFUSALS, &[&MAX_REFUSALS]).await?;
        }
        Ok(())
    }

    async fn refusal(&self, id: &str) -> Result<Option<RefusalRecord>, StoreError> {
        let found: Option<Vec<u8>> = self.value(sql::REFUSAL, &[&id]).await?;
        found.map(|json| from_json(&json, "a refusal")).transpose()
    }

    async fn put_resource(&self, path: ResourcePath, bytes: Vec<u8>) -> Result<(), StoreError> {
        let sealed = self.vault.seal(&path, &bytes)?;
        self.execute(sql::PUT_RESOURCE, &[&path.as_str(), &sealed]).await?;
        Ok(())
    }

    async fn delete_resource(&self, path: ResourcePath) -> Result<bool, StoreError> {
        Ok(self.execute(sql::DELETE_RESOURCE, &[&path.as_str()]).await? > 0)
    }

    async fn resource(&self, path: ResourcePath) -> Result<Option<Vec<u8>>, StoreError> {
        let sealed: Option<Vec<u8>> = self.value(sql::RESOURCE, &[&path.as_str()]).await?;
        Ok(sealed.map(|sealed| self.vault.open(&path, &sealed)).transpose()?)
    }

    fn vault(&self) -> &Vault {
        &self.vault
    }

    async fn put_wrapped_key(&self, wrapped: Vec<u8>) -> Result<(), StoreError> {
        match self.execute(sql::PUT_WRAPPED_KEY, &[&wrapped]).await? {
            1 => Ok(()),
            _ => Err(StoreError::Corrupt("the data key")),
        }
    }

    async fn export(&self) -> Result<Rows, StoreError> {
        Ok(rows::export(self.client().await?))
    }

    async fn import(&self, rows: Rows) -> Result<(), StoreError> {
        rows::import(self.client().await?, rows).await
    }
}

/// The two kinds of marks.
const GOLDEN: &str = "golden";
const REFERENCE: &str = "reference";
