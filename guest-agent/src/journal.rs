//! The event log as the agent's tasks use it: recording off the runtime's workers, and the rules over it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use attester::{Appended, AttesterError, EventLog};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::event_log::Record;
use protocols::events::{Event, Exec, Seal};
use protocols::kbs::TeeEvidence;
use protocols::register::RegisterValue;
use protocols::tcl::LogBinding;
use tokio::sync::watch;
use verifier::log::Stage;
use verifier::{HighWater, LogState};

use crate::error::{AgentError, blocking};

/// The first and the longest pause before the end of a launch is recorded again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// The event log and what its records say so far.
#[derive(Debug)]
pub struct Journal {
    log: Arc<EventLog>,
    rules: Mutex<Option<LogState>>,
    count: watch::Sender<u64>,
    /// Held while a record is made: `Seal` must know how many there are before it.
    writer: Arc<tokio::sync::Mutex<()>>,
}

impl Journal {
    /// Shares an opened log.
    #[must_use]
    pub fn new(log: EventLog) -> Self {
        let count = watch::Sender::new(log.count());
        Self { log: Arc::new(log), rules: Mutex::new(None), count, writer: Arc::default() }
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
    pub async fn record(self: &Arc<Self>, event: impl Into<Event>) -> Result<Appended, AgentError> {
        let event = event.into();
        self.writing(move |journal| journal.append(event)).await
    }

    /// Records two events with nothing between them.
    ///
    /// # Errors
    /// [`AgentError::Attester`]; when the second failed the first is recorded.
    pub async fn record_all(self: &Arc<Self>, events: [Event; 2]) -> Result<Appended, AgentError> {
        let [first, second] = events;
        self.writing(move |journal| {
            journal.append(first)?;
            journal.append(second)
        })
        .await
    }

    /// Records a process that is about to be executed; `None` when the log does not hold its container as started
    /// any more: a record after the container's end would break the log's rules.
    ///
    /// # Errors
    /// [`AgentError::Attester`], and as for [`Journal::rules`].
    pub async fn record_exec(self: &Arc<Self>, exec: Exec) -> Result<Option<Appended>, AgentError> {
        let recorded = self.writing(move |journal| {
            // A record that failed may be completed by this: the container's end among them.
            journal.log.binding()?;
            journal.tell();
            let runs = |state: &LogState| state.open().get(&exec.seq).is_some_and(|open| open.stage == Stage::Started);
            if journal.rules_blocking(runs)? { journal.append(exec.into()).map(Some) } else { Ok(None) }
        });
        recorded.await
    }

    /// Records how launch `seq` ended, unless the log does not hold it open.
    ///
    /// # Errors
    /// [`AgentError::Attester`], and as for [`Journal::rules`].
    pub async fn try_end(self: &Arc<Self>, seq: u64, end: impl Into<Event>) -> Result<(), AgentError> {
        let end = end.into();
        let ended = self.writing(move |journal| {
            // A record that failed may be completed by this: the end itself among them.
            journal.log.binding()?;
            journal.tell();
            if journal.rules_blocking(|state| state.open().contains_key(&seq))? {
                journal.append(end)?;
            }
            Ok(())
        });
        ended.await
    }

    /// As [`Journal::try_end`], again and again for as long as it may still succeed.
    ///
    /// # Errors
    /// It never will.
    pub async fn end(self: &Arc<Self>, seq: u64, end: impl Into<Event>) -> Result<(), AgentError> {
        let end = end.into();
        let mut pause = PAUSES.0;
        loop {
            match self.try_end(seq, end.clone()).await {
                Err(error) if may_pass(&error) => tracing::warn!(seq, %error, "the end could not be recorded yet"),
                done => return done,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Records `Seal`: nothing is launched after it, in this life of the agent or a later one.
    ///
    /// # Errors
    /// [`AgentError::Attester`].
    pub async fn seal(self: &Arc<Self>, reason: &str) -> Result<Appended, AgentError> {
        let reason = reason.to_owned();
        self.writing(move |journal| journal.append(Seal { n: journal.log.count(), reason }.into())).await
    }

    /// Does `work` as the only writer, to its end even when whoever waits for it is broken off.
    async fn writing<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, AgentError> + Send + 'static,
    ) -> Result<T, AgentError> {
        let writer = Arc::clone(&self.writer).lock_owned().await;
        let journal = Arc::clone(self);
        blocking(move || {
            let _writer = writer;
            work(&journal)
        })
        .await?
    }

    fn append(&self, event: Event) -> Result<Appended, AgentError> {
        let appended = self.log.record(event);
        self.tell();
        Ok(appended?)
    }

    fn tell(&self) {
        let now = self.log.count();
        self.count.send_if_modified(|count| std::mem::replace(count, now.max(*count)) < now);
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
    pub async fn snapshot(self: &Arc<Self>) -> Result<(Vec<u8>, RegisterValue), AgentError> {
        self.writing(|journal| Ok((journal.log.export(), journal.log.attester().read_register()?))).await
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
    /// [`AgentError::Attester`], and as for [`Journal::rules`].
    pub async fn high_water(self: &Arc<Self>, series_h: Sha384Digest) -> Result<HighWater, AgentError> {
        let mark = self.writing(move |journal| {
            // A pass whose record failed may still be completed, and would then stand before this launch's.
            journal.log.binding()?;
            journal.tell();
            journal.rules_blocking(|state| state.high_water(&series_h))
        });
        mark.await
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
        protocols::kbs::challenge_binding(challenge)
    }
}

/// Whether recording may succeed later: the disk is full, the register does not answer.
const fn may_pass(error: &AgentError) -> bool {
    matches!(
        error,
        AgentError::Attester(
            AttesterError::LogWrite { .. }
                | AttesterError::RegisterUnavailable { .. }
                | AttesterError::RegisterExtend { .. }
        )
    )
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
