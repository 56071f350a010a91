//! The database's whole content as rows, out and in.

use std::time::Duration;

use deadpool_postgres::{Client, Transaction};
use futures_util::TryStreamExt as _;
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::resource::ResourcePath;
use protocols::tcl::{RefusalRecord, VerdictRecord};
use tokio::sync::mpsc;
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::FromSql;

use super::{GOLDEN, LOCK_OPEN, Parameters, REFERENCE, from_json, number, pg, statements as sql, to_json};
use crate::rows::{Row, Rows};
use crate::{Alarm, StoreError};

/// Rows on their way.
const ON_THE_WAY: usize = 64;
/// How often, and after how long, is looked again whether other connections have ended.
const ALONE_ATTEMPTS: usize = 30;
const ALONE_AFTER: Duration = Duration::from_millis(100);

type Sender = mpsc::Sender<Result<Row, StoreError>>;

/// Sends every row of one snapshot, and at last that it was the last.
pub(super) fn export(client: Client) -> Rows {
    let (send, rows) = mpsc::channel(ON_THE_WAY);
    tokio::spawn(async move {
        let mut client = client;
        let sent = snapshot(&mut client, &send).await;
        // The connection is free before whoever reads sees the end.
        drop(client);
        let _ = send.send(sent.map(|()| Row::End)).await;
    });
    rows
}

async fn snapshot(client: &mut Client, send: &Sender) -> Result<(), StoreError> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(pg)?;
    unbounded(&transaction).await?;
    each(&transaction, send, "SELECT wrapped FROM data_key", |row| Ok(Row::DataKey { wrapped: get(row, 0)? })).await?;
    each(&transaction, send, "SELECT expires, nonce FROM challenges ORDER BY expires, nonce", |row| {
        Ok(Row::Challenge { expires: unsigned(row, 0)?, nonce: array(row, 1)? })
    })
    .await?;
    each(&transaction, send, "SELECT guest, history FROM histories ORDER BY guest", |row| {
        let history = from_json(get(row, 1)?, "a history")?;
        Ok(Row::History { guest: GuestId::new(array(row, 0)?), history })
    })
    .await?;
    each(&transaction, send, "SELECT guest, place, record FROM records ORDER BY guest, place", |row| {
        Ok(Row::Record { guest: GuestId::new(array(row, 0)?), place: unsigned(row, 1)?, record: get(row, 2)? })
    })
    .await?;
    each(&transaction, send, "SELECT guest, count, receipt FROM receipts ORDER BY guest, count", |row| {
        Ok(Row::Receipt { guest: GuestId::new(array(row, 0)?), count: unsigned(row, 1)?, receipt: get(row, 2)? })
    })
    .await?;
    each(&transaction, send, "SELECT kind, series, version::text, payload FROM marks ORDER BY kind, series", |row| {
        let (series, version) = (Sha384Digest::new(array(row, 1)?), decimal(row, 2)?);
        let payload = Sha256Digest::new(array(row, 3)?);
        match get::<&str>(row, 0)? {
            GOLDEN => Ok(Row::GoldenMark { series, version, payload }),
            REFERENCE => Ok(Row::ReferenceMark { series, version, payload }),
            _ => Err(StoreError::Corrupt("the kind of a mark")),
        }
    })
    .await?;
    each(&transaction, send, "SELECT issuer, payload FROM revoked ORDER BY issuer, payload", |row| {
        let (issuer, payload) = (Sha384Digest::new(array(row, 0)?), Sha256Digest::new(array(row, 1)?));
        Ok(Row::Revoked { issuer, payload })
    })
    .await?;
    each(&transaction, send, "SELECT guest, seq::text, golden FROM passes ORDER BY guest, passes.seq, golden", |row| {
        let (guest, golden) = (GuestId::new(array(row, 0)?), Sha256Digest::new(array(row, 2)?));
        Ok(Row::Pass { guest, seq: decimal(row, 1)?, golden })
    })
    .await?;
    each(&transaction, send, "SELECT path, sealed FROM resources ORDER BY path COLLATE \"C\"", |row| {
        Ok(Row::Resource { path: get(row, 0)?, sealed: get(row, 1)? })
    })
    .await?;
    each(&transaction, send, "SELECT record FROM verdicts ORDER BY number", |row| {
        let record: VerdictRecord = from_json(get(row, 0)?, "a decision")?;
        Ok(Row::Verdict { record })
    })
    .await?;
    each(&transaction, send, "SELECT record FROM refusals ORDER BY number", |row| {
        let record: RefusalRecord = from_json(get(row, 0)?, "a refusal")?;
        Ok(Row::Refusal { record })
    })
    .await?;
    each(&transaction, send, sql::ALARMS, |row| {
        let alarm: Alarm = from_json(get(row, 0)?, "an alarm")?;
        Ok(Row::Alarm { alarm })
    })
    .await?;
    each(&transaction, send, "SELECT place, entry FROM audit ORDER BY place", |row| {
        Ok(Row::Audit { place: unsigned(row, 0)?, entry: get(row, 1)? })
    })
    .await?;
    each(&transaction, send, "SELECT size, frontier FROM audit_tail WHERE size > 0", |row| {
        Ok(Row::AuditTail { size: unsigned(row, 0)?, frontier: get(row, 1)? })
    })
    .await?;
    transaction.commit().await.map_err(pg)
}

/// Lets statements of this transaction take as long as they need: a whole store passes through them.
async fn unbounded(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let limits = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
    transaction.batch_execute(limits).await.map_err(pg)
}

async fn each(
    transaction: &Transaction<'_>,
    send: &Sender,
    statement: &str,
    row: fn(&tokio_postgres::Row) -> Result<Row, StoreError>,
) -> Result<(), StoreError> {
    let none: [i64; 0] = [];
    let found = transaction.query_raw(statement, none).await.map_err(pg)?;
    let mut found = std::pin::pin!(found);
    while let Some(next) = found.try_next().await.map_err(pg)? {
        send.send(Ok(row(&next)?)).await.map_err(|_| StoreError::Io("nobody reads".to_owned()))?;
    }
    Ok(())
}

fn get<'r, T: FromSql<'r>>(row: &'r tokio_postgres::Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(pg)
}

fn unsigned(row: &tokio_postgres::Row, column: usize) -> Result<u64, StoreError> {
    u64::try_from(get::<i64>(row, column)?).map_err(|_| StoreError::Corrupt("a number"))
}

fn decimal(row: &tokio_postgres::Row, column: usize) -> Result<u64, StoreError> {
    get::<&str>(row, column)?.parse().map_err(|_| StoreError::Corrupt("a number"))
}

fn array<const N: usize>(row: &tokio_postgres::Row, column: usize) -> Result<[u8; N], StoreError> {
    get::<&[u8]>(row, column)?.try_into().map_err(|_| StoreError::Corrupt("a digest"))
}

/// Takes rows into a database that holds nothing and that nobody else has open, all in one transaction.
pub(super) async fn import(mut client: Client, mut rows: Rows) -> Result<(), StoreError> {
    let transaction = client.transaction().await.map_err(pg)?;
    unbounded(&transaction).await?;
    alone(&transaction).await?;
    let filled = "SELECT EXISTS (SELECT 1 FROM challenges) OR EXISTS (SELECT 1 FROM histories) \
        OR EXISTS (SELECT 1 FROM records) OR EXISTS (SELECT 1 FROM receipts) OR EXISTS (SELECT 1 FROM marks) \
        OR EXISTS (SELECT 1 FROM revoked) OR EXISTS (SELECT 1 FROM passes) OR EXISTS (SELECT 1 FROM resources) \
        OR EXISTS (SELECT 1 FROM verdicts) OR EXISTS (SELECT 1 FROM refusals) OR EXISTS (SELECT 1 FROM alarms) OR EXISTS (SELECT 1 FROM audit) \
        OR EXISTS (SELECT 1 FROM audit_tail WHERE size > 0)";
    if transaction.query_one(filled, &[]).await.map_err(pg)?.try_get(0).map_err(pg)? {
        return Err(StoreError::NotEmpty);
    }
    loop {
        match rows.recv().await.ok_or(StoreError::Corrupt("rows that end too early"))?? {
            Row::End => break,
            row => take(&transaction, row).await?,
        }
    }
    transaction.commit().await.map_err(pg)
}

/// Waits a moment for connections to end that were closed just now.
async fn alone(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    for _ in 0..ALONE_ATTEMPTS {
        let locked = transaction.query_one("SELECT pg_try_advisory_xact_lock($1)", &[&LOCK_OPEN]).await.map_err(pg)?;
        if locked.try_get(0).map_err(pg)? {
            return Ok(());
        }
        tokio::time::sleep(ALONE_AFTER).await;
    }
    Err(StoreError::InUse)
}

async fn insert(transaction: &Transaction<'_>, statement: &str, values: Parameters<'_>) -> Result<(), StoreError> {
    let prepared = transaction.prepare_cached(statement).await.map_err(pg)?;
    transaction.execute(&prepared, values).await.map_err(pg)?;
    Ok(())
}

async fn take(to: &Transaction<'_>, row: Row) -> Result<(), StoreError> {
    match row {
        Row::DataKey { wrapped } => insert(to, sql::PUT_WRAPPED_KEY, &[&wrapped]).await,
        Row::Challenge { expires, nonce } => {
            let statement = "INSERT INTO challenges (nonce, expires) VALUES ($1, $2)";
            insert(to, statement, &[&nonce.as_slice(), &number(expires)?]).await
        }
        Row::History { guest, history } => {
            let statement = "INSERT INTO histories (guest, count, history) VALUES ($1, $2, $3)";
            let (count, json) = (number(history.state.count())?, to_json(&history)?);
            insert(to, statement, &[&guest.as_bytes().as_slice(), &count, &json]).await
        }
        Row::Record { guest, place, record } => {
            let statement = "INSERT INTO records (guest, place, record) VALUES ($1, $2, $3)";
            insert(to, statement, &[&guest.as_bytes().as_slice(), &number(place)?, &record]).await
        }
        Row::Receipt { guest, count, receipt } => {
            let statement = "INSERT INTO receipts (guest, count, receipt) VALUES ($1, $2, $3)";
            insert(to, statement, &[&guest.as_bytes().as_slice(), &number(count)?, &receipt]).await
        }
        Row::GoldenMark { series, version, payload } => mark(to, GOLDEN, series, version, payload).await,
        Row::ReferenceMark { series, version, payload } => mark(to, REFERENCE, series, version, payload).await,
        Row::Revoked { issuer, payload } => {
            let payloads = [payload.as_bytes().as_slice()].to_vec();
            insert(to, sql::REVOKE, &[&issuer.as_bytes().as_slice(), &payloads]).await
        }
        Row::Pass { guest, seq, golden } => {
            let statement = "INSERT INTO passes (guest, seq, golden) VALUES ($1, $2::text::numeric, $3)";
            let (guest, golden) = (guest.as_bytes().as_slice(), golden.as_bytes().as_slice());
            insert(to, statement, &[&guest, &seq.to_string(), &golden]).await
        }
        Row::Resource { path, sealed } => {
            let path: ResourcePath = path.parse().map_err(|_| StoreError::Corrupt("a resource's path"))?;
            insert(to, sql::PUT_RESOURCE, &[&path.as_str(), &sealed]).await
        }
        Row::Verdict { record } => {
            let statement = "INSERT INTO verdicts (id, record) VALUES ($1, $2)";
            insert(to, statement, &[&record.id, &to_json(&record)?]).await
        }
        Row::Refusal { record } => {
            let statement = "INSERT INTO refusals (id, record) VALUES ($1, $2)";
            insert(to, statement, &[&record.id, &to_json(&record)?]).await
        }
        Row::Alarm { alarm } => {
            let (code, count, head) = (alarm.code.as_str(), alarm.count.to_string(), alarm.head.to_string());
            let (guest, json) = (alarm.guest.as_bytes().as_slice(), to_json(&alarm)?);
            insert(to, sql::RAISE_ALARM, &[&guest, &code, &count, &head, &json]).await
        }
        Row::Audit { place, entry } => {
            insert(to, "INSERT INTO audit (place, entry) VALUES ($1, $2)", &[&number(place)?, &entry]).await
        }
        Row::AuditTail { size, frontier } => {
            let statement = "UPDATE audit_tail SET size = $1, frontier = $2";
            insert(to, statement, &[&number(size)?, &frontier]).await
        }
        Row::End => Ok(()),
    }
}

async fn mark(
    to: &Transaction<'_>,
    kind: &str,
    series: Sha384Digest,
    version: u64,
    payload: Sha256Digest,
) -> Result<(), StoreError> {
    let (series, payload) = (series.as_bytes().as_slice(), payload.as_bytes().as_slice());
    insert(to, sql::FIRST_MARK, &[&kind, &series, &version.to_string(), &payload]).await
}
