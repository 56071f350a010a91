//! Which processes executed in a container are in the log: those whose count there is due, however often one runs.
//!
//! A probe that runs every second for a year must not fill the log: `protocols::events::Exec` says which counts are
//! recorded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use attester::Appended;
use protocols::digest::Sha384Digest;
use protocols::events::Exec;
use tokio::sync::OnceCell;

use crate::error::AgentError;

/// The most different processes executed in one container: it must leave room in the log for others.
const MAX_COMMANDS: usize = 16_384;

/// The processes executed in one container, by the hash of their description.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    commands: Mutex<BTreeMap<Sha384Digest, Arc<Command>>>,
}

/// One of them.
#[derive(Debug, Default)]
struct Command {
    /// How often it was asked for. Held while a count that is due is recorded: the next one waits for that.
    runs: tokio::sync::Mutex<u64>,
    /// Where its first record went.
    first: OnceCell<Appended>,
    /// Whether the attestor has its first record.
    receipt: OnceCell<()>,
}

impl Executions {
    /// Counts one more run of a process, records it where that is due, and sees to it that its first record is
    /// receipted, all before this returns.
    ///
    /// # Errors
    /// As `record` and `receipt`: what failed was not counted, or is asked for again by the next run.
    /// [`AgentError::Request`] for one process too many.
    pub(crate) async fn announce<R, D>(
        &self,
        process_h: Sha384Digest,
        record: impl FnOnce(u64) -> R,
        receipt: impl FnOnce(Appended) -> D,
    ) -> Result<u64, AgentError>
    where
        R: Future<Output = Result<Appended, AgentError>>,
        D: Future<Output = Result<(), AgentError>>,
    {
        let command = self.command(process_h)?;
        let mut runs = command.runs.lock().await;
        let n = runs.saturating_add(1);
        if Exec::is_due(n) {
            let recorded = record(n).await?;
            let _ = command.first.set(recorded); // later records need no receipt before the process runs
        }
        *runs = n;
        drop(runs);
        if let Some(first) = command.first.get() {
            command.receipt.get_or_try_init(|| receipt(*first)).await?;
        }
        Ok(n)
    }

    fn command(&self, process_h: Sha384Digest) -> Result<Arc<Command>, AgentError> {
        let mut commands = self.lock();
        if commands.len() >= MAX_COMMANDS && !commands.contains_key(&process_h) {
            return Err(AgentError::Request { field: "args", what: "too many different processes in this container" });
        }
        Ok(Arc::clone(commands.entry(process_h).or_default()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Sha384Digest, Arc<Command>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use protocols::events::hash_list;
    use protocols::register::{HashAlg, RegisterValue};

    use super::*;

    fn appended() -> Appended {
        Appended { place: 1, count: 2, head: RegisterValue::from_bytes(HashAlg::Sha384, &[0; 48]).unwrap() }
    }

    #[tokio::test]
    async fn ten_thousand_runs_of_a_probe_are_a_handful_of_records() {
        let executions = Executions::default();
        let (records, receipts) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        let run = |words: &[&str]| {
            let process_h = hash_list(words);
            let (executions, records, receipts) = (&executions, &records, &receipts);
            async move {
                let record = |n| async move {
                    tokio::task::yield_now().await;
                    records.lock().unwrap().push(n);
                    Ok(appended())
                };
                let receipt = |_| async move {
                    receipts.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                };
                executions.announce(process_h, record, receipt).await.unwrap()
            }
        };
        let (one, two) = tokio::join!(run(&["probe"]), run(&["probe"]));
        assert_eq!((one.min(two), one.max(two)), (1, 2));
        for _ in 2..10_000 {
            run(&["probe"]).await;
        }
        let due: Vec<u64> = (0..14).map(|power| 1 << power).collect();
        assert_eq!(*records.lock().unwrap(), due);
        assert_eq!(run(&["other"]).await, 1);
        assert_eq!(receipts.into_inner(), 2, "one for each process");
    }

    #[tokio::test]
    async fn nothing_passes_before_record_and_receipt() {
        let executions = Executions::default();
        let process_h = hash_list(&["probe"]);
        let no = |_| async { Err(AgentError::Poisoned) };
        let never = |_| async { panic!("no receipt without a record") };
        assert!(executions.announce(process_h, no, never).await.is_err());
        let yes = |n| async move {
            assert_eq!(n, 1, "what was not recorded was not counted");
            Ok(appended())
        };
        assert!(executions.announce(process_h, yes, |_| async { Err(AgentError::Poisoned) }).await.is_err());
        // The record is there; the receipt is asked for again, by the run that is due and by the one that is not.
        let fine = |_| async { Ok(appended()) };
        assert!(executions.announce(process_h, fine, |_| async { Err(AgentError::Poisoned) }).await.is_err());
        let again = |_| async { panic!("the third run is not due") };
        assert_eq!(executions.announce(process_h, again, |_| async { Ok(()) }).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn different_processes_are_bounded() {
        let executions = Executions::default();
        for number in 0..MAX_COMMANDS {
            executions.command(hash_list(&[number.to_string()])).unwrap();
        }
        assert!(executions.command(hash_list(&["one more"])).is_err());
        assert!(executions.command(hash_list(&["7"])).is_ok());
    }
}
