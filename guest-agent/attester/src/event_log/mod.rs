//! The event log's only writer: write-ahead record, extend, append, commit.
//!
//! Files in the log's directory, mode 0600: `log` (header and records, without the end mark) and, while a
//! record is on its way, `wal`. The order of one record is
//!
//! 1. `wal` with the register's value before, made durable;
//! 2. the register is extended and read back;
//! 3. the record is appended to `log` and made durable;
//! 4. `wal` is removed.
//!
//! A process that ends anywhere in between finds at its next start which step was done, by the register.

mod io;
mod recovery;
mod wal;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::environment::Environment;
use protocols::event_log::{self, LogError, MAX_RECORDS, Record};
use protocols::events::{Event, Init, Restart};
use protocols::guest::GuestId;
use protocols::register::RegisterValue;
use protocols::tcl::LogBinding;

pub use io::{DirIo, LogIo};
use recovery::{Register, Resolve};
use wal::Wal;

use crate::{Attester, AttesterError, Poison, RegisterInfo};

const LOG: &str = "log";
const WAL: &str = "wal";

/// What `Init` and `Restart` say about the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitFacts {
    /// Release of the agent.
    pub agent: String,
    /// SHA-256 of the agent's executable.
    pub agent_h: Sha256Digest,
    /// Digest of the initdata the guest found, of the platform's algorithm, or `None` where there is none.
    pub initdata: Option<RegisterValue>,
    /// SHA-256 of the configuration's bytes.
    pub config: Sha256Digest,
    /// Production or development.
    pub environment: Environment,
}

/// How a log was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// There was none: `Init` was recorded.
    Fresh,
    /// It agreed with the register (after its write-ahead record was resolved): `Restart` was recorded.
    Resumed,
    /// It cannot be reconciled with the register: nothing more is recorded.
    Poisoned(Poison),
}

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The record's place, from 0.
    pub place: u64,
    /// Records in the log with it.
    pub count: u64,
    /// The register after it.
    pub head: RegisterValue,
}

/// The event log and the register behind it. Share it as `Arc<EventLog>`; one lock inside is the only serial point.
#[derive(Debug)]
pub struct EventLog {
    attester: Arc<dyn Attester>,
    info: RegisterInfo,
    io: Box<dyn LogIo>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    records: Vec<Vec<u8>>,
    /// Bytes of the stored log.
    length: u64,
    head: RegisterValue,
    guest: Option<GuestId>,
    sealed: bool,
    /// Written ahead, and not known to be in register and log.
    pending: Option<Wal>,
    poison: Option<Poison>,
}

/// What became of a pending record.
enum Settled {
    Recorded(Appended),
    Dropped,
}

impl EventLog {
    /// Opens or starts the log in `dir` (files `log` and `wal`).
    ///
    /// # Errors
    /// [`AttesterError::RegisterStart`] when there is no log and the register is not at its start value,
    /// [`AttesterError::LogWrite`] (also when another process has the log),
    /// [`AttesterError::RegisterUnavailable`], [`AttesterError::RegisterExtend`],
    /// [`AttesterError::Environment`] for a simulated platform in production and for a log begun in
    /// another environment, [`AttesterError::Initdata`] for a log begun with another initdata,
    /// [`AttesterError::Full`].
    pub fn open(dir: &Path, attester: Arc<dyn Attester>, facts: &InitFacts) -> Result<(Self, Opened), AttesterError> {
        let io = DirIo::open_exclusive(dir).map_err(failed("open the log's directory"))?;
        Self::open_with(Box::new(io), attester, facts)
    }

    /// As [`EventLog::open`], on other file operations.
    ///
    /// # Errors
    /// As [`EventLog::open`].
    pub fn open_with(
        io: Box<dyn LogIo>,
        attester: Arc<dyn Attester>,
        facts: &InitFacts,
    ) -> Result<(Self, Opened), AttesterError> {
        let info = attester.register();
        if info.simulated && facts.environment == Environment::Production {
            return Err(AttesterError::Environment { what: "a simulated attester in a production configuration" });
        }
        let log = io.read(LOG).map_err(failed("read the log"))?;
        let wal = io.read(WAL).map_err(failed("read the write-ahead record"))?;
        let register = Register { info, start: attester.register_start()?, now: attester.read_register()? };
        let mut records = Vec::new();
        let judged = match (log, &wal) {
            (Some(log), wal) => recovery::judge(&register, &log, wal.as_deref(), &mut records),
            (None, Some(_)) => Err(Poison::Wal("there is no log")),
            (None, None) if register.now == register.start => {
                let header = event_log::header();
                io.replace(LOG, &header).map_err(failed("begin the log"))?;
                recovery::judge(&register, &header, None, &mut records)
            }
            (None, None) => {
                return Err(AttesterError::RegisterStart { expected: register.start, actual: register.now });
            }
        };
        let mut state = State {
            records: records.iter().map(|record| record.bytes().to_vec()).collect(),
            length: 0,
            head: register.now,
            guest: None,
            sealed: false,
            pending: None,
            poison: None,
        };
        let found = match judged {
            Ok(found) => found,
            Err(poison) => {
                state.poisoned(poison.clone());
                return Ok((Self { attester, info, io, state: Mutex::new(state) }, Opened::Poisoned(poison)));
            }
        };
        if found.init.as_ref().is_some_and(|init| init.environment != facts.environment) {
            return Err(AttesterError::Environment { what: "a log that was begun in another environment" });
        }
        // A disk that changed while the agent was down must not bring another policy into the same history.
        if let Some(init) = found.init.as_ref().filter(|init| init.initdata != facts.initdata) {
            return Err(AttesterError::initdata(init.initdata, facts.initdata));
        }
        state.length = found.length;
        state.head = found.head;
        state.sealed = found.sealed;
        let this = Self { attester, info, io, state: Mutex::new(state) };
        let opened = this.begin(found.init, found.resolve, facts)?;
        Ok((this, opened))
    }

    /// Finishes what a crash left, then records `Init` or `Restart`.
    fn begin(&self, init: Option<Init>, resolve: Resolve, facts: &InitFacts) -> Result<Opened, AttesterError> {
        let mut state = self.state();
        match resolve {
            Resolve::Nothing => {}
            Resolve::RemoveWal => self.io.remove(WAL).map_err(failed("remove the write-ahead record"))?,
            Resolve::Finish(wal) => {
                self.write(&mut state, *wal)?;
            }
        }
        let fresh = init.is_none();
        let boot_nonce = init.map_or_else(random, |init| Ok(init.boot_nonce))?;
        state.guest = Some(self.attester.guest(&boot_nonce)?);
        let event = if fresh {
            Event::from(Init {
                v: 1,
                boot_nonce,
                register_kind: self.info.kind,
                reg0: state.head,
                agent: facts.agent.clone(),
                agent_h: facts.agent_h,
                initdata: facts.initdata,
                config: facts.config,
                environment: facts.environment,
                simulated: self.info.simulated,
            })
        } else {
            Event::from(Restart { n: state.count(), config: facts.config, agent_h: facts.agent_h })
        };
        match self.append(&mut state, &event) {
            Ok(_) => Ok(if fresh { Opened::Fresh } else { Opened::Resumed }),
            Err(AttesterError::Poisoned(poison)) => Ok(Opened::Poisoned(poison)),
            Err(error) => Err(error),
        }
    }

    /// The platform behind the register.
    #[must_use]
    pub fn attester(&self) -> &Arc<dyn Attester> {
        &self.attester
    }

    /// Records `event`: when this returns `Ok`, register and stored log both hold it.
    ///
    /// # Errors
    /// [`AttesterError::RegisterExtend`] when it was not recorded; [`AttesterError::LogWrite`] and
    /// [`AttesterError::RegisterUnavailable`] when it was not, or will only be at the next call;
    /// [`AttesterError::Poisoned`], [`AttesterError::Sealed`], [`AttesterError::Full`],
    /// [`AttesterError::Event`].
    pub fn record(&self, event: impl Into<Event>) -> Result<Appended, AttesterError> {
        let event = event.into();
        if matches!(event, Event::Init(_) | Event::Restart(_)) {
            let what = "only opening the log records Init and Restart";
            return Err(AttesterError::Event(LogError::Malformed { record: 0, what }));
        }
        self.append(&mut self.state(), &event)
    }

    /// Whether log and register can no longer be reconciled.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.state().poison.is_some()
    }

    /// Whether `Seal` was recorded.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.state().sealed
    }

    /// The guest's identity.
    ///
    /// # Errors
    /// [`AttesterError::Poisoned`] when the log gives none.
    pub fn guest(&self) -> Result<GuestId, AttesterError> {
        self.state().guest()
    }

    /// Records in the log.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.state().count()
    }

    /// The head of the log, as it is bound into evidence.
    ///
    /// # Errors
    /// [`AttesterError::Poisoned`]; [`AttesterError::LogWrite`] and [`AttesterError::RegisterUnavailable`]
    /// while a record is neither known to be recorded nor dropped.
    pub fn binding(&self) -> Result<LogBinding, AttesterError> {
        let mut state = self.state();
        self.settle(&mut state)?;
        self.bind(&state)
    }

    /// The stored bytes of the records from place `from` on; empty beyond the end.
    #[must_use]
    pub fn records_from(&self, from: u64) -> Vec<Vec<u8>> {
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        self.state().records.get(from..).map(<[_]>::to_vec).unwrap_or_default()
    }

    /// All records, parsed.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        let state = self.state();
        let parse = |(place, bytes): (usize, &Vec<u8>)| Record::parse(bytes, place).ok().map(|(record, _)| record);
        state.records.iter().enumerate().filter_map(parse).collect()
    }

    /// The log with its end mark, as verifiers read it.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        let mut out = event_log::header();
        for record in &self.state().records {
            out.extend_from_slice(record);
        }
        out.extend_from_slice(&event_log::END_MARK);
        out
    }

    /// Evidence over the digest that `bind` makes of the head, while no record can be added:
    /// evidence and binding describe the same log.
    ///
    /// # Errors
    /// [`AttesterError::EvidenceUnavailable`], and those of [`EventLog::binding`].
    pub fn attest(
        &self,
        bind: impl FnOnce(&LogBinding) -> Sha384Digest,
    ) -> Result<(serde_json::Value, LogBinding), AttesterError> {
        let mut state = self.state();
        self.settle(&mut state)?;
        // Without this a register that something else moved would be quoted under a log that denies it.
        let register = self.attester.read_register()?;
        if register != state.head {
            let log = state.head;
            return Err(state.poisoned(Poison::Replay { log, register }));
        }
        let binding = self.bind(&state)?;
        let evidence = self.attester.evidence(&bind(&binding))?;
        Ok((evidence, binding))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic between two steps leaves a pending record, which the next call settles.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bind(&self, state: &State) -> Result<LogBinding, AttesterError> {
        Ok(LogBinding {
            alg: self.info.alg,
            count: state.count(),
            guest: state.guest()?,
            head: state.head,
            kind: self.info.kind,
        })
    }

    fn append(&self, state: &mut State, event: &Event) -> Result<Appended, AttesterError> {
        self.settle(state)?;
        if state.sealed && is_launch_class(event) {
            return Err(AttesterError::Sealed { operation: event.operation() });
        }
        if state.records.len() >= MAX_RECORDS {
            return Err(AttesterError::Full);
        }
        let record = event.record(self.info.mr, self.info.alg).map_err(AttesterError::Event)?;
        let wal = Wal { place: state.count(), before: state.head, record };
        if let Err(error) = self.io.replace(WAL, &wal.encode()) {
            // It may be there in spite of the error; the next record replaces it, a restart completes it.
            let _ = self.io.remove(WAL);
            return Err(failed("write the write-ahead record")(error));
        }
        self.write(state, wal)
    }

    /// Extends and appends a record whose write-ahead record is stored.
    fn write(&self, state: &mut State, wal: Wal) -> Result<Appended, AttesterError> {
        let digest = wal.record.digest();
        state.pending = Some(wal);
        let register = self.attester.read_register()?;
        // At start, a crash may have come after the extend. A register that something else moved is not
        // extended any more: settling finds and names it.
        let extended = if register == state.head { self.attester.extend(&digest) } else { Ok(()) };
        match (self.settle(state), extended) {
            (Ok(Some(Settled::Recorded(appended))), _) => Ok(appended),
            (Ok(_), Err(refused)) => Err(refused),
            (Ok(_), Ok(())) => Err(AttesterError::RegisterExtend { detail: "the register did not move".to_owned() }),
            (Err(AttesterError::RegisterUnavailable { .. }), Err(refused)) => Err(refused),
            (Err(error), _) => Err(error),
        }
    }

    /// Finds out by the register what became of a pending record, and finishes or drops it.
    fn settle(&self, state: &mut State) -> Result<Option<Settled>, AttesterError> {
        if let Some(poison) = &state.poison {
            return Err(AttesterError::Poisoned(poison.clone()));
        }
        let Some(wal) = &state.pending else { return Ok(None) };
        let register = self.attester.read_register()?;
        if register == state.head {
            self.io.remove(WAL).map_err(failed("remove the write-ahead record"))?;
            state.pending = None;
            return Ok(Some(Settled::Dropped));
        }
        if Some(register) != wal.after() {
            let log = state.head;
            return Err(state.poisoned(Poison::Replay { log, register }));
        }
        let bytes = wal.record.bytes().to_vec();
        self.io.append(LOG, state.length, &bytes).map_err(failed("append to the log"))?;
        state.sealed |= wal.record.domain() == protocols::events::DOMAIN && wal.record.operation() == "Seal";
        state.length += u64::try_from(bytes.len()).unwrap_or_default();
        state.head = register;
        state.records.push(bytes);
        state.pending = None;
        // The record stands in both; a write-ahead record left behind is recognised and removed at start.
        if let Err(error) = self.io.remove(WAL) {
            tracing::warn!(%error, "the write-ahead record could not be removed");
        }
        let count = state.count();
        Ok(Some(Settled::Recorded(Appended { place: count - 1, count, head: register })))
    }
}

impl State {
    fn count(&self) -> u64 {
        u64::try_from(self.records.len()).unwrap_or_default()
    }

    fn guest(&self) -> Result<GuestId, AttesterError> {
        match (&self.poison, self.guest) {
            (_, Some(guest)) => Ok(guest),
            (Some(poison), None) => Err(AttesterError::Poisoned(poison.clone())),
            (None, None) => Err(AttesterError::Poisoned(Poison::Foreign("it has no first record"))),
        }
    }

    fn poisoned(&mut self, poison: Poison) -> AttesterError {
        tracing::error!(%poison, "the event log is poisoned");
        self.poison = Some(poison.clone());
        AttesterError::Poisoned(poison)
    }
}

/// What runs or changes something, refused after `Seal`. `Failed` and `Exit` tell how launches before it ended.
const fn is_launch_class(event: &Event) -> bool {
    matches!(
        event,
        Event::Image(_)
            | Event::PullImage(_)
            | Event::Golden(_)
            | Event::Pause(_)
            | Event::Launch(_)
            | Event::Created(_)
            | Event::Started(_)
            | Event::Exec(_)
            | Event::CopyFile(_)
            | Event::Policy(_)
    )
}

fn failed(step: &'static str) -> impl FnOnce(std::io::Error) -> AttesterError {
    move |source| AttesterError::LogWrite { step, source }
}

fn random() -> Result<[u8; 32], AttesterError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| AttesterError::EvidenceUnavailable { detail: format!("no randomness: {error}") })?;
    Ok(bytes)
}
