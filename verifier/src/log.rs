//! The rules over an event log, record by record.
//!
//! [`LogState`] is made from a guest's first record and takes one record after the other, so that an
//! attestor that stores it beside the records never checks the same record twice.

use std::collections::BTreeMap;

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::event_log::Record;
use protocols::events::Init;
use protocols::image::RootfsMeasurement;
use protocols::reason::{self, Refusal};
use protocols::register::{HashAlg, RegisterValue};
use serde::{Deserialize, Serialize};

use crate::appraise::HighWater;

/// How far a launch has come. `Failed` and `Exit` end it and remove it from the open ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// `Image` was recorded.
    Measured,
    /// `Golden` with `pass`.
    Passed,
    /// `Golden` with a reason code: only `Failed` may follow.
    Refused,
    /// `Launch`.
    Launched,
    /// `Created`.
    Created,
    /// `Started`.
    Started,
    /// Open when the agent restarted: only `Failed` or `Exit` may follow.
    Orphaned,
}

/// One launch that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenLaunch {
    /// How far it has come.
    pub stage: Stage,
    /// Platform manifest.
    pub manifest: Sha256Digest,
    /// Config blob.
    pub config: Sha256Digest,
    /// Measured root file system.
    pub rootfs: RootfsMeasurement,
    /// SHA-384 of the reference.
    pub ref_h: Sha384Digest,
    /// SHA-384 of the container's id, from `Launch` on.
    pub cid_h: Option<Sha384Digest>,
}

/// What the records taken so far say. Serialisable for a store inside the trust boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogState {
    mr: u32,
    init: Init,
    head: RegisterValue,
    count: u64,
    open: BTreeMap<u64, OpenLaunch>,
    accepted: BTreeMap<Sha384Digest, (u64, Sha256Digest)>,
    sealed: bool,
}

impl LogState {
    /// Takes a guest's first record, which must be `Init` of version 1.
    ///
    /// # Errors
    /// `log.malformed`, `register.start`.
    pub fn start(record: &Record) -> Result<Self, Refusal> {
        let _ = record;
        Err(Refusal::new(reason::LOG_MALFORMED, "record 0", "", ""))
    }

    /// Takes the next record. On refusal the state is unchanged.
    ///
    /// # Errors
    /// `log.malformed`, `log.sealed`, `log.full`.
    pub fn push(&mut self, record: &Record) -> Result<(), Refusal> {
        let _ = record;
        Err(Refusal::new(reason::LOG_MALFORMED, "record", "", ""))
    }

    /// The register's number: a PCR, or 4.
    #[must_use]
    pub const fn mr(&self) -> u32 {
        self.mr
    }

    /// The register's algorithm.
    #[must_use]
    pub const fn alg(&self) -> HashAlg {
        self.head.alg()
    }

    /// The first record.
    #[must_use]
    pub const fn init(&self) -> &Init {
        &self.init
    }

    /// The register after the records taken so far, replayed from `Init.reg0`.
    #[must_use]
    pub const fn head(&self) -> RegisterValue {
        self.head
    }

    /// Records taken so far.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Whether `Seal` was recorded.
    #[must_use]
    pub const fn sealed(&self) -> bool {
        self.sealed
    }

    /// Launches that have not ended, by number.
    #[must_use]
    pub const fn open(&self) -> &BTreeMap<u64, OpenLaunch> {
        &self.open
    }

    /// The highest golden value this log accepted within a series ([`protocols::events::GoldenRef::series_hash`]).
    #[must_use]
    pub fn high_water(&self, series_h: &Sha384Digest) -> HighWater {
        self.accepted
            .get(series_h)
            .map_or(HighWater::None, |(version, payload)| HighWater::Accepted { version: *version, payload: *payload })
    }

    /// Whether the replay equals a register read or quoted elsewhere.
    ///
    /// # Errors
    /// `log.replay`.
    pub fn ends_at(&self, register: &RegisterValue) -> Result<(), Refusal> {
        if self.head == *register {
            return Ok(());
        }
        let subject = format!("{} records", self.count);
        Err(Refusal::new(reason::LOG_REPLAY, subject, register.to_string(), self.head.to_string()))
    }
}

/// Checks a whole parsed log.
///
/// # Errors
/// As [`LogState::start`] and [`LogState::push`]; an empty log is `log.malformed`.
pub fn check_log(records: &[Record]) -> Result<LogState, Refusal> {
    let Some((first, rest)) = records.split_first() else {
        return Err(Refusal::new(reason::LOG_MALFORMED, "event log", "a first record Init", "no records"));
    };
    let mut state = LogState::start(first)?;
    for record in rest {
        state.push(record)?;
    }
    Ok(state)
}
