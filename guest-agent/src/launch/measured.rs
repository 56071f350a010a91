//! From a bundle to a launch that is in the log, in the register and, as configured, with the attestor.

use std::sync::Arc;

use attester::Appended;
use protocols::digest::Sha256Digest;

use super::LoadedContainer;
use crate::attestor::RemoteAttestor;
use crate::config::Receipts;
use crate::error::AgentError;
use crate::journal::Journal;
use crate::runtime::Runtime;

/// A launch whose `Launch` record is in log and register, and with the attestor or in its queue.
///
/// Only such a launch can be created:
///
/// ```compile_fail,E0599
/// async fn skip(container: guest_agent::launch::LoadedContainer, ledger: guest_agent::launch::Ledger<'_>) {
///     let _ = container.create(&ledger).await;
/// }
/// ```
///
/// ```no_run
/// async fn create(container: guest_agent::launch::LoadedContainer, ledger: guest_agent::launch::Ledger<'_>) {
///     if let Ok(launch) = container.measure(&ledger).await {
///         let _ = launch.create(&ledger).await;
///     }
/// }
/// ```
#[derive(Debug)]
pub struct MeasuredLaunch {
    pub(super) loaded: LoadedContainer,
    /// The runtime's digest as it was recorded.
    pub(super) runtime: Sha256Digest,
}

/// Where a launch is written down, who must know of it, and what will run it.
#[derive(Debug, Clone, Copy)]
pub struct Ledger<'l> {
    /// Log and register.
    pub journal: &'l Arc<Journal>,
    /// The remote attestor.
    pub attestor: &'l dyn RemoteAttestor,
    /// Whether the launch waits for receipts; always in remote mode.
    pub receipts: Receipts,
    /// The runtime, whose digest is part of the record.
    pub runtime: &'l Runtime,
}

impl Ledger<'_> {
    /// Sees to it that what was recorded is with the attestor, or may wait.
    pub(crate) async fn receipt(&self, recorded: &Appended) -> Result<(), AgentError> {
        match self.receipts {
            Receipts::Wait => self.attestor.deliver(recorded.count).await,
            Receipts::Queue(limit) => {
                let waiting = recorded.count.saturating_sub(*self.attestor.delivered().borrow());
                if waiting > limit {
                    return Err(AgentError::QueueFull { waiting, limit });
                }
                Ok(())
            }
        }
    }
}

impl LoadedContainer {
    /// Records the launch before anything executes, and waits for its receipt where that is asked.
    ///
    /// # Errors
    /// [`AgentError::Attester`] when it cannot be recorded, [`AgentError::Attestor`] when the attestor does not
    /// receipt it, [`AgentError::QueueFull`]. Nothing stays mounted or on disk.
    pub async fn measure(self, ledger: &Ledger<'_>) -> Result<MeasuredLaunch, AgentError> {
        match self.announce(ledger).await {
            Ok(runtime) => Ok(MeasuredLaunch { loaded: self, runtime }),
            Err(error) => {
                self.held.release().await;
                Err(error)
            }
        }
    }

    async fn announce(&self, ledger: &Ledger<'_>) -> Result<Sha256Digest, AgentError> {
        let runtime = ledger.runtime.digest()?;
        let launch = self.launch_event(runtime);
        let recorded = match self.pause_event() {
            // Between the two nothing may stand that makes the number look used for something else.
            Some(pause) => ledger.journal.record_all([pause.into(), launch.into()]).await?,
            None => ledger.journal.record(launch).await?,
        };
        ledger.receipt(&recorded).await?;
        Ok(runtime)
    }
}
