//! One process that was executed in a container.

use std::sync::OnceLock;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use super::{DRAIN_TIME, ProcessId};
use crate::error::ProcessFault;
use crate::io::Streams;
use crate::runtime::Handle;

/// How often unread output of an ended process is looked for.
const DRAIN_STEP: std::time::Duration = std::time::Duration::from_millis(5);

/// How far a process has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The runtime has not started it yet.
    Starting,
    /// It runs.
    Running,
    /// It has ended: with this status, at this time.
    Ended(u32, Instant),
    /// It was never started.
    Failed,
}

/// A process's entry.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    phase: watch::Sender<Phase>,
    live: OnceLock<Live>,
    readers: Semaphore,
}

/// What a process that was started has.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) streams: Streams,
    /// `None` for a command that could not be started.
    pub(crate) handle: Option<Handle>,
}

impl Process {
    pub(super) fn new(id: ProcessId, readers: usize) -> Self {
        let phase = watch::Sender::new(Phase::Starting);
        Self { id, phase, live: OnceLock::new(), readers: Semaphore::new(readers) }
    }

    /// It runs, with these streams.
    pub(crate) fn run(&self, streams: Streams, handle: Option<Handle>) {
        let _ = self.live.set(Live { streams, handle }); // it is started once
        self.phase.send_replace(Phase::Running);
    }

    /// It has ended.
    pub(crate) fn end(&self, status: u32) {
        self.phase.send_replace(Phase::Ended(status, Instant::now()));
    }

    /// It was never started.
    pub(crate) fn fail(&self) {
        self.phase.send_replace(Phase::Failed);
    }

    /// Waits until nobody holds the entry any more.
    pub(crate) fn forgotten(&self) -> impl Future<Output = ()> + use<> {
        let mut phase = self.phase.subscribe();
        async move { while phase.changed().await.is_ok() {} }
    }

    /// How far it has come.
    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// When it ended.
    pub(super) fn ended_at(&self) -> Option<Instant> {
        match self.phase() {
            Phase::Ended(_, at) => Some(at),
            _ => None,
        }
    }

    /// A place among those who wait for its output.
    pub(crate) fn reader(&self) -> Result<SemaphorePermit<'_>, ProcessFault> {
        self.readers.try_acquire().map_err(|_| ProcessFault::TooMany("readers"))
    }

    /// What it has, as soon as it was started.
    pub(crate) async fn live(&self) -> Result<&Live, ProcessFault> {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase != Phase::Starting).await; // the sender is in this entry
        self.live.get().ok_or(ProcessFault::Unknown)
    }

    /// What it has, if it was started.
    pub(crate) fn live_now(&self) -> Result<&Live, ProcessFault> {
        self.live.get().ok_or(ProcessFault::NotStarted)
    }

    /// Waits for its end and gives the status.
    pub(crate) async fn ended(&self) -> Result<u32, ProcessFault> {
        self.end_seen().await.map(|(status, _)| status)
    }

    async fn end_seen(&self) -> Result<(u32, Instant), ProcessFault> {
        let mut phase = self.phase.subscribe();
        let end = phase.wait_for(|phase| matches!(phase, Phase::Ended(..) | Phase::Failed)).await;
        match end.map(|phase| *phase) {
            Ok(Phase::Ended(status, at)) => Ok((status, at)),
            _ => Err(ProcessFault::Unknown),
        }
    }

    /// Waits until its readers need not be waited for: it has ended, and its output is read or [`DRAIN_TIME`] over.
    pub(crate) async fn drained(&self) {
        let (Ok((_, ended)), Some(live)) = (self.end_seen().await, self.live.get()) else { return };
        live.streams.drained(ended + DRAIN_TIME, DRAIN_STEP).await;
    }

    /// Waits until no more output is owed: [`DRAIN_TIME`] after its end. Something it left behind may hold its
    /// pipes open for ever.
    pub(crate) async fn silent(&self) {
        if let Ok((_, ended)) = self.end_seen().await {
            tokio::time::sleep_until(ended + DRAIN_TIME).await;
        }
    }
}
