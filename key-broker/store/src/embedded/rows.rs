//! The file's whole content as rows, out and in.

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::guest::GuestId;
use protocols::resource::ResourcePath;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};
use tokio::sync::mpsc;

use super::{
    ALARMS, AUDIT, AUDIT_TAIL, CHALLENGES, DATA_KEY, HIGH_WATER, HISTORIES, PASSES, RECEIPTS, RECORDS, REFERENCE_MARKS,
    REFUSAL_ORDER, REFUSALS, RESOURCES, REVOKED, VERDICT_ORDER, VERDICTS, alarm_key, from_json, io, keep_refusal,
    keep_verdict, to_json,
};
use crate::StoreError;
use crate::rows::{Row, Rows};

/// Rows on their way.
const ON_THE_WAY: usize = 64;

type Sender = mpsc::Sender<Result<Row, StoreError>>;

pub(super) fn channel() -> (Sender, Rows) {
    mpsc::channel(ON_THE_WAY)
}

/// Sends every row of one snapshot, and at last that it was the last.
pub(super) fn export(database: &Database, rows: &Sender) {
    let sent =
        send_all(database, &|row| rows.blocking_send(Ok(row)).map_err(|_| StoreError::Io("nobody reads".into())));
    let last = sent.map(|()| Row::End);
    // Whoever stopped reading needs no end.
    let _ = rows.blocking_send(last);
}

fn send_all(database: &Database, send: &dyn Fn(Row) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let read = database.begin_read().map_err(io)?;
    let key = read.open_table(DATA_KEY).map_err(io)?;
    let wrapped = key.get(()).map_err(io)?.ok_or(StoreError::Corrupt("the data key"))?.value().to_vec();
    send(Row::DataKey { wrapped })?;
    for entry in read.open_table(CHALLENGES).map_err(io)?.iter().map_err(io)? {
        let (expires, nonce) = entry.map_err(io)?.0.value();
        send(Row::Challenge { expires, nonce })?;
    }
    for entry in read.open_table(HISTORIES).map_err(io)?.iter().map_err(io)? {
        let (guest, history) = entry.map_err(io)?;
        send(Row::History { guest: GuestId::new(guest.value()), history: from_json(history.value(), "a history")? })?;
    }
    for entry in read.open_table(RECORDS).map_err(io)?.iter().map_err(io)? {
        let (key, record) = entry.map_err(io)?;
        let (guest, place) = key.value();
        send(Row::Record { guest: GuestId::new(guest), place, record: record.value().to_vec() })?;
    }
    for entry in read.open_table(RECEIPTS).map_err(io)?.iter().map_err(io)? {
        let (key, receipt) = entry.map_err(io)?;
        let (guest, count) = key.value();
        send(Row::Receipt { guest: GuestId::new(guest), count, receipt: receipt.value().to_owned() })?;
    }
    for (table, golden) in [(HIGH_WATER, true), (REFERENCE_MARKS, false)] {
        for entry in read.open_table(table).map_err(io)?.iter().map_err(io)? {
            let (series, mark) = entry.map_err(io)?;
            let (version, payload) = mark.value();
            let (series, payload) = (Sha384Digest::new(series.value()), Sha256Digest::new(payload));
            send(match golden {
                true => Row::GoldenMark { series, version, payload },
                false => Row::ReferenceMark { series, version, payload },
            })?;
        }
    }
    for entry in read.open_table(REVOKED).map_err(io)?.iter().map_err(io)? {
        let (issuer, payload) = entry.map_err(io)?.0.value();
        send(Row::Revoked { issuer: Sha384Digest::new(issuer), payload: Sha256Digest::new(payload) })?;
    }
    for entry in read.open_table(PASSES).map_err(io)?.iter().map_err(io)? {
        let (guest, seq, golden) = entry.map_err(io)?.0.value();
        send(Row::Pass { guest: GuestId::new(guest), seq, golden: Sha256Digest::new(golden) })?;
    }
    for entry in read.open_table(RESOURCES).map_err(io)?.iter().map_err(io)? {
        let (path, sealed) = entry.map_err(io)?;
        send(Row::Resource { path: path.value().to_owned(), sealed: sealed.value().to_vec() })?;
    }
    let verdicts = read.open_table(VERDICTS).map_err(io)?;
    for entry in read.open_table(VERDICT_ORDER).map_err(io)?.iter().map_err(io)? {
        let (_, id) = entry.map_err(io)?;
        let stored = verdicts.get(id.value()).map_err(io)?.ok_or(StoreError::Corrupt("a decision"))?;
        send(Row::Verdict { record: from_json(stored.value(), "a decision")? })?;
    }
    let refusals = read.open_table(REFUSALS).map_err(io)?;
    for entry in read.open_table(REFUSAL_ORDER).map_err(io)?.iter().map_err(io)? {
        let (_, id) = entry.map_err(io)?;
        let stored = refusals.get(id.value()).map_err(io)?.ok_or(StoreError::Corrupt("a refusal"))?;
        send(Row::Refusal { record: from_json(stored.value(), "a refusal")? })?;
    }
    for entry in read.open_table(ALARMS).map_err(io)?.iter().map_err(io)? {
        let (_, alarm) = entry.map_err(io)?;
        send(Row::Alarm { alarm: from_json(alarm.value(), "an alarm")? })?;
    }
    for entry in read.open_table(AUDIT).map_err(io)?.iter().map_err(io)? {
        let (place, entry) = entry.map_err(io)?;
        send(Row::Audit { place: place.value(), entry: entry.value().to_vec() })?;
    }
    if let Some(row) = read.open_table(AUDIT_TAIL).map_err(io)?.get(()).map_err(io)? {
        let (size, frontier) = row.value();
        send(Row::AuditTail { size, frontier: frontier.to_vec() })?;
    }
    Ok(())
}

/// Takes rows into a store that holds nothing, all in one transaction.
pub(super) fn import(database: &Database, mut rows: Rows) -> Result<(), StoreError> {
    let write = database.begin_write().map_err(io)?;
    if !is_empty(&write)? {
        return Err(StoreError::NotEmpty);
    }
    loop {
        match rows.blocking_recv().ok_or(StoreError::Corrupt("rows that end too early"))?? {
            Row::End => break,
            row => take(&write, row)?,
        }
    }
    write.commit().map_err(io)
}

fn is_empty(write: &WriteTransaction) -> Result<bool, StoreError> {
    let mut rows = 0u64;
    let mut add = |len: Result<u64, redb::StorageError>| -> Result<(), StoreError> {
        rows = rows.saturating_add(len.map_err(io)?);
        Ok(())
    };
    add(write.open_table(CHALLENGES).map_err(io)?.len())?;
    add(write.open_table(HISTORIES).map_err(io)?.len())?;
    add(write.open_table(RECORDS).map_err(io)?.len())?;
    add(write.open_table(RECEIPTS).map_err(io)?.len())?;
    add(write.open_table(HIGH_WATER).map_err(io)?.len())?;
    add(write.open_table(REFERENCE_MARKS).map_err(io)?.len())?;
    add(write.open_table(REVOKED).map_err(io)?.len())?;
    add(write.open_table(PASSES).map_err(io)?.len())?;
    add(write.open_table(RESOURCES).map_err(io)?.len())?;
    add(write.open_table(VERDICTS).map_err(io)?.len())?;
    add(write.open_table(REFUSALS).map_err(io)?.len())?;
    add(write.open_table(ALARMS).map_err(io)?.len())?;
    add(write.open_table(AUDIT).map_err(io)?.len())?;
    add(write.open_table(AUDIT_TAIL).map_err(io)?.len())?;
    Ok(rows == 0)
}

fn take(write: &WriteTransaction, row: Row) -> Result<(), StoreError> {
    match row {
        Row::DataKey { wrapped } => {
            write.open_table(DATA_KEY).map_err(io)?.insert((), wrapped.as_slice()).map_err(io)?;
        }
        Row::Challenge { expires, nonce } => {
            write.open_table(CHALLENGES).map_err(io)?.insert((expires, nonce), ()).map_err(io)?;
        }
        Row::History { guest, history } => {
            let json = to_json(&history)?;
            write.open_table(HISTORIES).map_err(io)?.insert(guest.as_bytes(), json.as_slice()).map_err(io)?;
        }
        Row::Record { guest, place, record } => {
            let mut table = write.open_table(RECORDS).map_err(io)?;
            table.insert((*guest.as_bytes(), place), record.as_slice()).map_err(io)?;
        }
        Row::Receipt { guest, count, receipt } => {
            let mut table = write.open_table(RECEIPTS).map_err(io)?;
            table.insert((*guest.as_bytes(), count), receipt.as_str()).map_err(io)?;
        }
        Row::GoldenMark { series, version, payload } => {
            let mut table = write.open_table(HIGH_WATER).map_err(io)?;
            table.insert(series.as_bytes(), (version, *payload.as_bytes())).map_err(io)?;
        }
        Row::ReferenceMark { series, version, payload } => {
            let mut table = write.open_table(REFERENCE_MARKS).map_err(io)?;
            table.insert(series.as_bytes(), (version, *payload.as_bytes())).map_err(io)?;
        }
        Row::Revoked { issuer, payload } => {
            let key = (*issuer.as_bytes(), *payload.as_bytes());
            write.open_table(REVOKED).map_err(io)?.insert(key, ()).map_err(io)?;
        }
        Row::Pass { guest, seq, golden } => {
            let key = (*guest.as_bytes(), seq, *golden.as_bytes());
            write.open_table(PASSES).map_err(io)?.insert(key, ()).map_err(io)?;
        }
        Row::Resource { path, sealed } => {
            let path: ResourcePath = path.parse().map_err(|_| StoreError::Corrupt("a resource's path"))?;
            write.open_table(RESOURCES).map_err(io)?.insert(path.as_str(), sealed.as_slice()).map_err(io)?;
        }
        Row::Verdict { record } => keep_verdict(write, &record, &to_json(&record)?)?,
        Row::Refusal { record } => keep_refusal(write, &record, &to_json(&record)?)?,
        Row::Alarm { alarm } => {
            let (key, json) = (alarm_key(&alarm), to_json(&alarm)?);
            write.open_table(ALARMS).map_err(io)?.insert(key.as_str(), json.as_slice()).map_err(io)?;
        }
        Row::Audit { place, entry } => {
            write.open_table(AUDIT).map_err(io)?.insert(place, entry.as_slice()).map_err(io)?;
        }
        Row::AuditTail { size, frontier } => {
            write.open_table(AUDIT_TAIL).map_err(io)?.insert((), (size, frontier.as_slice())).map_err(io)?;
        }
        Row::End => {}
    }
    Ok(())
}
