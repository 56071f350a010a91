//! The event log as the agent's tasks use it: recording off the runtime's workers, and the rules over it.

use std::sync::{Arc, Mutex, PoisonError};

use attester::{Appended, AttesterError, EventLog};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::event_log::Record;
use protocols::events::{Event, Seal};
use protocols::kbs::TeeEvidence;
use protocols::register::RegisterValue;
use protocols::tcl::LogBinding;
use tokio::sync::watch;
use verifier::{HighWater, LogState};

use crate::error::{AgentError, blocking};

/// The event log and what its records say so far.
#[derive(Debug)]
pub struct Journal {
    log: Arc<EventLog>,
    rules: Mutex<Option<LogState>>,
    count: watch::Sender<u64>,
    /// Held while a record is made: `Seal` must know how many there are before it.
    writer: tokio::sync::Mutex<()>,
}

impl Journal {
    /// Shares an opened log.
    #[must_use]
    pub fn new(log: EventLog) -> Self {
        let count = watch::Sender::new(log.count());
        Self { log: Arc::new(log), rules: Mutex::new(None), count, writer: tokio::sync::Mutex::new(()) }
    }

    /// The log itself.
    #[must_use]
    pub const fn log(&self) -> &Arc<EventLog> {
        &self.log
    }

    /// Tells the number of records whenever it grows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }

    /// Records an event: register and stored log hold it when this returns.
    ///
    /// # Errors
    /// [`AgentError::Attester`].
    pub async fn record(&self, event: impl Into<Event>) -> Result<Appended, AgentError> {
        let _writer = self.writer.lock().await;
        self.append(event.into()).await
    }

    /// Records `Seal`: nothing is launched after it, in this life of the agent or a later one.
    ///
    /// # Errors
    /// [`AgentError::Attester`].
    pub async fn seal(&self, reason: &str) -> Result<Appended, AgentError> {
        let _writer = self.writer.lock().await;
        let seal = Seal { n: self.log.count(), reason: reason.to_owned() };
        self.append(seal.into()).await
    }

    async fn append(&self, event: Event) -> Result<Appended, AgentError> {
        let log = Arc::clone(&self.log);
        let appended = blocking(move || log.record(event)).await??;
        self.count.send_if_modified(|count| {
            let grew = appended.count > *count;
            *count = appended.count.max(*count);
            grew
        });
        Ok(appended)
    }

    /// Evidence over a digest that `bind` makes of the log's head, and the head it was made of.
    ///
    /// # Errors
    /// [`AgentError::Attester`].
    pub async fn attest(
        &self,
        bind: impl FnOnce(&LogBinding) -> Sha384Digest + Send + 'static,
    ) -> Result<(TeeEvidence, LogBinding), AgentError> {
        let log = Arc::clone(&self.log);
        let (primary_evidence, binding) = blocking(move || log.attest(bind)).await??;
        Ok((TeeEvidence { primary_evidence, additional_evidence: String::new() }, binding))
    }

    /// The stored bytes of the records from `from` up to `to`.
    ///
    /// # Errors
    /// [`AgentError::Task`].
    pub async fn records(&self, from: u64, to: u64) -> Result<Vec<Vec<u8>>, AgentError> {
        let log = Arc::clone(&self.log);
        let mut records = blocking(move || log.records_from(from)).await?;
        records.truncate(usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX));
        Ok(records)
    }

    /// The exported log and the register as it stands behind exactly that log.
    ///
    /// # Errors
    /// [`AgentError::Attester`] when the register cannot be read.
    pub async fn snapshot(&self) -> Result<(Vec<u8>, RegisterValue), AgentError> {
        let _writer = self.writer.lock().await;
        let log = Arc::clone(&self.log);
        blocking(move || Ok((log.export(), log.attester().read_register()?))).await?
    }

    /// Looks at what the log says up to its last record.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when the log breaks the rules that every verifier holds it to,
    /// [`AgentError::Poisoned`] when it cannot be read.
    pub async fn rules<T: Send + 'static>(
        self: &Arc<Self>,
        look: impl FnOnce(&LogState) -> T + Send + 'static,
    ) -> Result<T, AgentError> {
        let journal = Arc::clone(self);
        blocking(move || journal.rules_blocking(look)).await?
    }

    fn rules_blocking<T>(&self, look: impl FnOnce(&LogState) -> T) -> Result<T, AgentError> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let known = rules.as_ref().map_or(0, LogState::count);
        for bytes in self.log.records_from(known) {
            let place = rules.as_ref().map_or(0, LogState::count);
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            let (record, _) = Record::parse(&bytes, place).map_err(|error| error.refusal())?;
            match rules.as_mut() {
                Some(state) => state.push(&record)?,
                None => *rules = Some(LogState::start(&record)?),
            }
        }
        rules.as_ref().map(look).ok_or(AgentError::Poisoned)
    }

    /// The highest golden value accepted before in a series, as this guest's own log tells.
    ///
    /// # Errors
    /// As [`Journal::rules`].
    pub async fn high_water(self: &Arc<Self>, series_h: Sha384Digest) -> Result<HighWater, AgentError> {
        self.rules(move |state| state.high_water(&series_h)).await
    }

    /// Fails when nothing more can be launched.
    ///
    /// # Errors
    /// [`AgentError::Poisoned`], [`AttesterError::Sealed`].
    pub fn ready(&self) -> Result<(), AgentError> {
        if self.log.is_poisoned() {
            return Err(AgentError::Poisoned);
        }
        if self.log.is_sealed() {
            return Err(AttesterError::Sealed { operation: "Launch" }.into());
        }
        Ok(())
    }

    /// The digest evidence for the guest's root carries: never bytes of the caller's choice.
    #[must_use]
    pub fn evidence_binding(challenge: &[u8]) -> Sha384Digest {
        Sha384Digest::of_parts(&[b"tcl-evidence-v1", challenge])
    }
}

/// SHA-256 of a file, read in pieces.
///
/// # Errors
/// The file cannot be read.
pub fn hash_file(path: &std::path::Path) -> std::io::Result<Sha256Digest> {
    use sha2::{Digest as _, Sha256};
    use std::io::Read as _;
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        hasher.update(part);
    }
    Ok(Sha256Digest::new(hasher.finalize().into()))
}
