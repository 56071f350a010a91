//! A delivery held against what is stored of its guest. Pure: the store's content comes in as arguments.

use std::collections::BTreeMap;

use protocols::digest::Sha256Digest;
use protocols::event_log::Record;
use protocols::events::{Event, Exit, Failed, Golden, VerdictWord};
use protocols::guest::GuestId;
use protocols::reason::{self, Refusal};
use protocols::tcl::{Delivery, MAX_RECORDS_PER_REQUEST, Mode};
use verifier::LogState;

/// A delivery that fits what is held.
#[derive(Debug)]
pub(crate) struct Grown {
    /// Records held before.
    pub(crate) held: u64,
    /// The log's state after the delivery.
    pub(crate) state: LogState,
    /// The records that are new, in order.
    pub(crate) new: Vec<Vec<u8>>,
    /// What they say this attestor passed: launch number and golden value.
    pub(crate) passes: Vec<(u64, Sha256Digest)>,
    /// Bundles that they say ran, or may still run, without a golden value: launch number and bundle.
    pub(crate) pauses: Vec<(u64, Sha256Digest)>,
}

/// A delivery that does not fit.
#[derive(Debug)]
pub(crate) struct Misfit {
    pub(crate) refusal: Refusal,
    /// Whether the guest showed two histories, or a shorter one: worth an alarm once its evidence holds.
    pub(crate) alarm: bool,
}

impl From<Refusal> for Misfit {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, alarm: false }
    }
}

/// The part of a delivery that repeats records already held: the place of the first, and how many.
pub(crate) fn overlap(delivery: &Delivery, held: u64) -> (u64, usize) {
    let repeated = held.saturating_sub(delivery.from);
    let sent = delivery.records.len().min(MAX_RECORDS_PER_REQUEST);
    (delivery.from, usize::try_from(repeated).unwrap_or(usize::MAX).min(sent))
}

/// Checks a delivery record by record. `stored` is the state of what is held, `repeated` the stored bytes of the
/// [`overlap`].
pub(crate) fn grow(stored: Option<LogState>, repeated: &[Vec<u8>], delivery: &Delivery) -> Result<Grown, Misfit> {
    let guest = delivery.log.guest;
    let held = stored.as_ref().map_or(0, LogState::count);
    let count = delivery.log.count;
    let sent = u64::try_from(delivery.records.len()).unwrap_or(u64::MAX);
    if delivery.records.len() > MAX_RECORDS_PER_REQUEST {
        let expected = format!("at most {MAX_RECORDS_PER_REQUEST} records in one request");
        return Err(Refusal::new(reason::ATTESTOR_PROTOCOL, subject(guest), expected, sent.to_string()).into());
    }
    if delivery.from > held {
        let actual = format!("records from {}", delivery.from);
        return Err(
            Refusal::new(reason::LOG_GAP, subject(guest), format!("records from {held} or before"), actual).into()
        );
    }
    if delivery.from.checked_add(sent) != Some(count) {
        let actual = format!("{sent} from {}", delivery.from);
        return Err(
            Refusal::new(reason::LOG_MALFORMED, subject(guest), format!("records up to {count}"), actual).into()
        );
    }
    let (_, overlapping) = overlap(delivery, held);
    let (again, new) = delivery.records.split_at_checked(overlapping).unwrap_or((&delivery.records, &[]));
    let differing = again.iter().zip(repeated).position(|(sent, stored)| sent.0 != *stored);
    if let Some(place) = differing.or_else(|| (again.len() != repeated.len()).then_some(repeated.len())) {
        let place = delivery.from.saturating_add(u64::try_from(place).unwrap_or(u64::MAX));
        return Err(second(guest, format!("record {place} as received before"), "another record".to_owned()));
    }
    if count < held {
        let refusal =
            Refusal::new(reason::LOG_REGRESS, subject(guest), format!("{held} records or more"), count.to_string());
        return Err(Misfit { refusal, alarm: true });
    }
    let mut new = new.iter().map(|record| record.0.as_slice());
    let mut place = held;
    let mut state = match stored {
        Some(state) => state,
        None => {
            let Some(first) = new.next() else {
                let expected = "a first record Init";
                return Err(Refusal::new(reason::LOG_MALFORMED, subject(guest), expected, "no records").into());
            };
            place = 1;
            LogState::start(&parse(first, 0)?)?
        }
    };
    let (mut passes, mut pauses) = (Vec::new(), Pauses::default());
    for bytes in new {
        let record = parse(bytes, place)?;
        state.push(&record)?;
        passes.extend(remote_pass(&record));
        pauses.take(&record)?;
        place = place.saturating_add(1);
    }
    // The records are those held and the head is not: this guest's register holds another history.
    if count == held && state.head() != delivery.log.head {
        return Err(second(guest, state.head().to_string(), delivery.log.head.to_string()));
    }
    // Grown beyond what is held it leads elsewhere: a second history of which only the new end was shown, or a
    // register that something else extended. Of a guest that is not held the evidence says nothing yet.
    state.ends_at(&delivery.log.head).map_err(|refusal| Misfit { refusal, alarm: held > 0 })?;
    let new = delivery.records.iter().skip(overlapping).map(|record| record.0.clone()).collect();
    Ok(Grown {
        held,
        state,
        new,
        passes,
        pauses: pauses.0.into_iter().map(|(seq, (bundle, _))| (seq, bundle)).collect(),
    })
}

fn parse(bytes: &[u8], place: u64) -> Result<Record, Refusal> {
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    let (record, used) = Record::parse(bytes, place).map_err(|error| error.refusal())?;
    if used != bytes.len() {
        let actual = format!("{} bytes after record {place}", bytes.len().saturating_sub(used));
        return Err(Refusal::new(reason::LOG_MALFORMED, "event log", "one record and nothing after it", actual));
    }
    Ok(record)
}

/// The launch and the golden value of a record that says the remote attestor passed it.
fn remote_pass(record: &Record) -> Option<(u64, Sha256Digest)> {
    match Event::of(record, 0) {
        Ok(Event::Golden(Golden {
            seq, mode: Mode::Remote, verdict: VerdictWord::Pass, golden: Some(golden), ..
        })) => Some((seq, golden.payload)),
        _ => None,
    }
}

/// The pause launches of a delivery, each with its bundle and whether it was created. One that failed before that
/// never ran: an agent whose bundle was refused can go on delivering.
#[derive(Debug, Default)]
struct Pauses(BTreeMap<u64, (Sha256Digest, bool)>);

impl Pauses {
    fn take(&mut self, record: &Record) -> Result<(), Refusal> {
        match Event::of(record, 0).map_err(|error| error.refusal())? {
            Event::Pause(pause) => {
                let bundle = pause.bundle().map_err(|error| error.refusal())?;
                self.0.insert(pause.seq, (bundle, false));
            }
            Event::Created(created) => {
                if let Some((_, is_created)) = self.0.get_mut(&created.seq) {
                    *is_created = true;
                }
            }
            Event::Failed(Failed { seq, .. }) | Event::Exit(Exit { seq: Some(seq), .. })
                if self.0.get(&seq).is_some_and(|(_, is_created)| !is_created) =>
            {
                self.0.remove(&seq);
            }
            _ => {}
        }
        Ok(())
    }
}

fn subject(guest: GuestId) -> String {
    format!("log of guest {guest}")
}

fn second(guest: GuestId, expected: String, actual: String) -> Misfit {
    Misfit { refusal: Refusal::new(reason::LOG_FORK, subject(guest), expected, actual), alarm: true }
}
