//! The rules over an event log, record by record.
//!
//! [`LogState`] is made from a guest's first record and takes one record after the other, so that an
//! attestor that stores it beside the records never checks the same record twice.
//!
//! - Record 0, and only it, is `Init` of version 1; number, algorithm and kind of its register fit together, and
//!   the register starts at zero (`register.start`).
//! - Every record is of that register and algorithm, and an event of ours.
//! - A launch goes `Image`, at most one `PullImage` of its manifest and reference, `Golden`, `Launch`, `Created`,
//!   `Started`, `Exit`. `Failed` may stand in place of any step before `Started`; after a `Golden` that refused
//!   only `Failed` may follow. What a step names (manifest, root file system, container, runtime) is what the
//!   steps before it named. A launch number is used once. Two containers that have not ended have two ids.
//! - In local mode a pass is not below what this log accepted before in its series (`golden.rollback`), nor of
//!   other bytes at that version (`golden.conflict`): an agent must hold one lock from judging locally to recording
//!   it, and take that lock to record a remote pass too.
//! - The pause container goes `Pause`, `Launch` without a manifest, and on as any other: its root file system and
//!   process are those of `Pause`. Which bundle may do so is for whoever judges to say (`policy.pause`).
//! - `Provided` may stand after a `Golden` that passed in place of `Launch`, with its manifest and root file system,
//!   and ends the launch: another agent runs the image, and this log knows no more of it.
//! - `Exec` is of a started container, its count a power of two. Each `Policy` names the one before it.
//! - `Restart` and `Seal` name the number of records before them. What was open at a `Restart` can only end.
//! - After `Seal` launches end and the agent may restart, nothing else (`log.sealed`).
//! - At most 1,024 launches are open at one time and at most 4,096 series were accepted, so that the state an
//!   attestor reads and writes with every delivery stays small whatever a guest sends.
//! - At most 65,536 records (`log.full`).

mod ended;
mod events;

use std::collections::BTreeMap;

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::event_log::{self, MR_RTMR3, Record};
use protocols::events::{Event, Init, Pause};
use protocols::image::RootfsMeasurement;
use protocols::reason::{self, Code, Refusal};
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use serde::{Deserialize, Serialize};

use crate::appraise::HighWater;
use ended::Ended;

/// PCRs 16 to 23 can be reset or are bound to a locality: they hold no log.
const HIGHEST_PCR: u32 = 15;
/// The most launches that have not ended.
pub const MAX_OPEN: usize = 1024;
/// The most series within which a golden value was accepted.
pub const MAX_SERIES: usize = 4096;

/// How far a launch has come. `Failed` and `Exit` end it and remove it from the open ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// `Image` was recorded.
    Measured,
    /// `Golden` with `pass`, or `Pause`.
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

/// A container, as its `Launch` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// SHA-384 of its id.
    pub cid_h: Sha384Digest,
    /// SHA-256 of the runtime's executable.
    pub runtime: Sha256Digest,
}

/// An image, as its `Image` names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenImage {
    /// SHA-384 of the reference.
    pub ref_h: Sha384Digest,
    /// Platform manifest.
    pub manifest: Sha256Digest,
    /// Config blob.
    pub config: Sha256Digest,
    /// Whether its `PullImage` was recorded.
    pub pulled: bool,
}

/// What a launch is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// An image, which needs a golden value.
    Image(OpenImage),
    /// The guest's own pause bundle, which needs none.
    Pause(Pause),
}

/// One launch that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenLaunch {
    /// How far it has come.
    pub stage: Stage,
    /// What it is of.
    pub subject: Subject,
    /// Measured root file system.
    pub rootfs: RootfsMeasurement,
    /// Its container, from `Launch` on.
    pub container: Option<Container>,
}

impl OpenLaunch {
    /// The image; `None` for the pause container.
    #[must_use]
    pub const fn image(&self) -> Option<&OpenImage> {
        match &self.subject {
            Subject::Image(image) => Some(image),
            Subject::Pause(_) => None,
        }
    }
}

/// What the records taken so far say. Only checked records lead to one. It can be stored: whoever reads it
/// back must trust the store, which [`Deserialize`] cannot check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogState {
    mr: u32,
    init: Init,
    head: RegisterValue,
    count: u64,
    config: Sha256Digest,
    agent_h: Sha256Digest,
    restarts: u64,
    sealed: bool,
    policy: Option<Sha256Digest>,
    open: BTreeMap<u64, OpenLaunch>,
    ended: Ended,
    accepted: BTreeMap<Sha384Digest, (u64, Sha256Digest)>,
}

impl LogState {
    /// Takes a guest's first record, which must be `Init`.
    ///
    /// # Errors
    /// `log.malformed`, `register.start`.
    pub fn start(record: &Record) -> Result<Self, Refusal> {
        let Event::Init(init) = Event::of(record, 0).map_err(|error| error.refusal())? else {
            return Err(malformed(0, "Init", record.operation()));
        };
        if init.v != 1 {
            return Err(malformed(0, "Init of version 1", format!("version {}", init.v)));
        }
        let alg = record.digest().alg();
        let fits = match init.register_kind {
            RegisterKind::Rtmr | RegisterKind::Software => record.mr() == MR_RTMR3 && alg == HashAlg::Sha384,
            RegisterKind::VtpmHcl | RegisterKind::VtpmSvsm | RegisterKind::TpmEk | RegisterKind::TpmListed => {
                record.mr() <= HIGHEST_PCR && alg == HashAlg::Sha256
            }
        };
        if !fits || init.reg0.alg() != alg {
            let actual = format!("{} register {} with {alg:?}", init.register_kind, record.mr());
            return Err(malformed(0, "a register whose kind, number and algorithm fit together", actual));
        }
        if init.reg0 != alg.zero() {
            let subject = format!("register {}", record.mr());
            return Err(Refusal::new(reason::REGISTER_START, subject, "zero", init.reg0.to_string()));
        }
        let head = extended(&init.reg0, record, 0)?;
        Ok(Self {
            mr: record.mr(),
            head,
            count: 1,
            config: init.config,
            agent_h: init.agent_h,
            restarts: 0,
            sealed: false,
            policy: None,
            open: BTreeMap::new(),
            ended: Ended::default(),
            accepted: BTreeMap::new(),
            init,
        })
    }

    /// Takes the next record. On refusal the state is unchanged.
    ///
    /// # Errors
    /// `log.malformed`, `.sealed`, `.full`, `golden.rollback`, `.conflict`.
    pub fn push(&mut self, record: &Record) -> Result<(), Refusal> {
        let place = usize::try_from(self.count).unwrap_or(usize::MAX);
        if place >= event_log::MAX_RECORDS {
            return Err(event_log::LogError::Full.refusal());
        }
        if record.mr() != self.mr {
            let expected = format!("register {}", self.mr);
            return Err(malformed(self.count, expected, format!("register {}", record.mr())));
        }
        let head = extended(&self.head, record, self.count)?;
        let event = Event::of(record, place).map_err(|error| error.refusal())?;
        self.take(event)?;
        self.head = head;
        self.count += 1;
        Ok(())
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

    /// SHA-256 of the configuration in force: `Init`'s, or that of the last `Restart`.
    #[must_use]
    pub const fn config(&self) -> Sha256Digest {
        self.config
    }

    /// SHA-256 of the agent's executable: `Init`'s, or that of the last `Restart`.
    #[must_use]
    pub const fn agent_h(&self) -> Sha256Digest {
        self.agent_h
    }

    /// How often the agent restarted.
    #[must_use]
    pub const fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Whether `Seal` was recorded.
    #[must_use]
    pub const fn sealed(&self) -> bool {
        self.sealed
    }

    /// SHA-256 of the policy text that gates requests; `None` before it was recorded in this life of the agent.
    #[must_use]
    pub const fn policy(&self) -> Option<Sha256Digest> {
        self.policy
    }

    /// Launches that have not ended, by number.
    #[must_use]
    pub const fn open(&self) -> &BTreeMap<u64, OpenLaunch> {
        &self.open
    }

    /// The lowest launch number above every one used so far.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        let open = self.open.last_key_value().map(|(seq, _)| *seq);
        open.max(self.ended.last()).map_or(0, |seq| seq.saturating_add(1))
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

/// Checks a whole parsed log. Whether it is *the* log is for [`LogState::ends_at`] to say.
///
/// # Errors
/// As [`LogState::start`] and [`LogState::push`]; an empty log is `log.malformed`.
pub fn check_log(records: &[Record]) -> Result<LogState, Refusal> {
    let Some((first, rest)) = records.split_first() else {
        return Err(malformed(0, "Init", "no record"));
    };
    let mut state = LogState::start(first)?;
    for record in rest {
        state.push(record)?;
    }
    Ok(state)
}

fn extended(register: &RegisterValue, record: &Record, place: u64) -> Result<RegisterValue, Refusal> {
    register
        .extend(&record.digest())
        .ok_or_else(|| malformed(place, format!("{:?}", register.alg()), format!("{:?}", record.digest().alg())))
}

fn refusal(code: Code, place: u64, expected: impl Into<String>, actual: impl Into<String>) -> Refusal {
    Refusal::new(code, format!("record {place}"), expected, actual)
}

fn malformed(place: u64, expected: impl Into<String>, actual: impl Into<String>) -> Refusal {
    refusal(reason::LOG_MALFORMED, place, expected, actual)
}

#[cfg(test)]
mod tests;
