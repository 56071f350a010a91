//! What to make of a log, its write-ahead record and the register that are found at start. Pure.

use protocols::event_log::{self, LogError, Record};
use protocols::events::{Event, Init};
use protocols::register::RegisterValue;

use super::wal::Wal;
use crate::{Poison, RegisterInfo};

/// The register that is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Register {
    pub(super) info: RegisterInfo,
    /// Its value before the first record.
    pub(super) start: RegisterValue,
    /// Its value now.
    pub(super) now: RegisterValue,
}

/// A log that agrees with its register, or will after `resolve`.
#[derive(Debug)]
pub(super) struct Found {
    /// Bytes of the log that hold.
    pub(super) length: u64,
    /// Its records' replay.
    pub(super) head: RegisterValue,
    /// The first record, where there is one, also if it is the one that was interrupted.
    pub(super) init: Option<Init>,
    /// Whether `Seal` is among them.
    pub(super) sealed: bool,
    /// What is left to do.
    pub(super) resolve: Resolve,
}

/// What a crash left to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolve {
    /// Nothing.
    Nothing,
    /// Remove a write-ahead record that is done with or was never completed.
    RemoveWal,
    /// Write this record: the register says whether it is extended already.
    Finish(Box<Wal>),
}

/// Judges what was found. `records` receives the log's records up to the first that is refused.
pub(super) fn judge(
    register: &Register,
    log: &[u8],
    wal: Option<&[u8]>,
    records: &mut Vec<Record>,
) -> Result<Found, Poison> {
    let wal = wal.map(Wal::parse);
    let header = event_log::header();
    let mut rest = log.strip_prefix(header.as_slice()).ok_or(Poison::Malformed(LogError::Header))?;
    let mut found = Found {
        length: u64::try_from(header.len()).unwrap_or_default(),
        head: register.start,
        init: None,
        sealed: false,
        resolve: Resolve::Nothing,
    };
    while !rest.is_empty() {
        let place = records.len();
        let (record, used) = match Record::parse(rest, place) {
            Ok(record) => record,
            // A crash while appending leaves a beginning of the record that the write-ahead record holds.
            Err(_) if wal.iter().flatten().any(|wal| is_torn(wal, place, rest)) => break,
            Err(error) => return Err(Poison::Malformed(error)),
        };
        match check(register, &record, place)? {
            Event::Init(init) => found.init = Some(init),
            Event::Seal(_) => found.sealed = true,
            _ => {}
        }
        found.head = found.head.extend(&record.digest()).ok_or(Poison::Foreign("a record of another algorithm"))?;
        found.length += u64::try_from(used).unwrap_or_default();
        records.push(record);
        rest = rest.get(used..).unwrap_or_default();
    }
    let torn = !rest.is_empty();
    let replay = Poison::Replay { log: found.head, register: register.now };
    let wal = match wal {
        Some(Some(wal)) => wal,
        _ if register.now != found.head => return Err(replay),
        // Never completed, so nothing was extended on its word.
        Some(None) => return Ok(Found { resolve: Resolve::RemoveWal, ..found }),
        None => return Ok(found),
    };
    let place = usize::try_from(wal.place).map_err(|_| Poison::Wal("its place"))?;
    if place.checked_add(1) == Some(records.len()) {
        // Appended; only the removal of the write-ahead record is missing.
        if records.last() != Some(&wal.record) {
            return Err(Poison::Wal("it differs from the last record"));
        }
        let done = register.now == found.head;
        return if done { Ok(Found { resolve: Resolve::RemoveWal, ..found }) } else { Err(replay) };
    }
    if place != records.len() || wal.before != found.head {
        return Err(Poison::Wal("it stands at another place"));
    }
    if let Event::Init(init) = check(register, &wal.record, place)? {
        found.init = Some(init);
    }
    // Appending begins after the extend: a part of the record in the log says that the register moved.
    let moved = Some(register.now) == wal.after();
    if moved || register.now == found.head && !torn {
        return Ok(Found { resolve: Resolve::Finish(Box::new(wal)), ..found });
    }
    Err(replay)
}

fn is_torn(wal: &Wal, place: usize, rest: &[u8]) -> bool {
    let record = wal.record.bytes();
    usize::try_from(wal.place) == Ok(place) && rest.len() < record.len() && record.starts_with(rest)
}

/// Whether a record may stand at `place` of this register's log.
fn check(register: &Register, record: &Record, place: usize) -> Result<Event, Poison> {
    let info = register.info;
    if record.mr() != info.mr || record.digest().alg() != info.alg {
        return Err(Poison::Foreign("a record of another register"));
    }
    let event = Event::of(record, place).map_err(Poison::Malformed)?;
    match (&event, place) {
        (Event::Init(init), 0)
            if (init.register_kind, init.reg0, init.simulated) != (info.kind, register.start, info.simulated) =>
        {
            Err(Poison::Foreign("its first record names another register"))
        }
        (Event::Init(_), 1..) => Err(Poison::Foreign("a second first record")),
        (Event::Init(_), 0) | (_, 1..) => Ok(event),
        (_, 0) => Err(Poison::Foreign("the first record is not Init")),
    }
}
