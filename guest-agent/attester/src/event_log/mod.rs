//! The event log's only writer: write-ahead record, extend, append, commit.

use std::path::Path;
use std::sync::Arc;

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::environment::Environment;
use protocols::event_log::Record;
use protocols::events::Event;
use protocols::guest::GuestId;
use protocols::register::RegisterValue;
use protocols::tcl::LogBinding;

use crate::{Attester, AttesterError, Poison};

/// What `Init` and `Restart` say about the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitFacts {
    /// Release of the agent.
    pub agent: String,
    /// SHA-256 of the agent's executable.
    pub agent_h: Sha256Digest,
    /// Digest of the initdata the guest found, or `None` where there is none.
    pub initdata: Option<Sha256Digest>,
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
}

impl EventLog {
    /// Opens or starts the log in `dir` (files `log` and `wal`, mode 0600).
    ///
    /// # Errors
    /// [`AttesterError::RegisterStart`] when there is no log and the register is not at its start value,
    /// [`AttesterError::LogWrite`], [`AttesterError::RegisterUnavailable`], [`AttesterError::Environment`].
    pub fn open(dir: &Path, attester: Arc<dyn Attester>, facts: &InitFacts) -> Result<(Self, Opened), AttesterError> {
        let _ = (dir, facts);
        let _ = Self { attester };
        Err(AttesterError::Full)
    }

    /// The platform behind the register.
    #[must_use]
    pub fn attester(&self) -> &Arc<dyn Attester> {
        &self.attester
    }

    /// Records `event`: when this returns `Ok`, register and stored log both hold it.
    ///
    /// # Errors
    /// [`AttesterError::RegisterExtend`] and [`AttesterError::LogWrite`] when it was not recorded,
    /// [`AttesterError::Poisoned`], [`AttesterError::Sealed`], [`AttesterError::Full`], [`AttesterError::Event`].
    pub fn record(&self, event: impl Into<Event>) -> Result<Appended, AttesterError> {
        let _ = event.into();
        Err(AttesterError::Full)
    }

    /// Whether log and register can no longer be reconciled.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        true
    }

    /// Whether `Seal` was recorded.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        false
    }

    /// The guest's identity.
    ///
    /// # Errors
    /// [`AttesterError::Poisoned`] when the log gives none.
    pub fn guest(&self) -> Result<GuestId, AttesterError> {
        Err(AttesterError::Full)
    }

    /// Records in the log.
    #[must_use]
    pub fn count(&self) -> u64 {
        0
    }

    /// The head of the log, as it is bound into evidence.
    ///
    /// # Errors
    /// [`AttesterError::Poisoned`].
    pub fn binding(&self) -> Result<LogBinding, AttesterError> {
        Err(AttesterError::Full)
    }

    /// The stored bytes of the records from place `from` on; empty beyond the end.
    #[must_use]
    pub fn records_from(&self, from: u64) -> Vec<Vec<u8>> {
        let _ = from;
        Vec::new()
    }

    /// All records, parsed.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        Vec::new()
    }

    /// The log with its end mark, as verifiers read it.
    #[must_use]
    pub fn export(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Evidence over the digest that `bind` makes of the head, while no record can be added:
    /// evidence and binding describe the same log.
    ///
    /// # Errors
    /// [`AttesterError::EvidenceUnavailable`], [`AttesterError::Poisoned`], [`AttesterError::LogWrite`].
    pub fn attest(
        &self,
        bind: impl FnOnce(&LogBinding) -> Sha384Digest,
    ) -> Result<(serde_json::Value, LogBinding), AttesterError> {
        let _ = bind;
        Err(AttesterError::Full)
    }
}
