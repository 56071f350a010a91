//! Which commands of a container are in the log: each once, however often it is executed.
//!
//! A probe that runs every second for a year must not fill the log: its first run is recorded, the others counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use attester::Appended;
use protocols::digest::Sha384Digest;
use tokio::sync::OnceCell;

use crate::error::AgentError;

/// The most different commands of one container: it must leave room in the log for others.
const MAX_COMMANDS: usize = 16_384;

/// The commands of one container, by the hash of their arguments.
#[derive(Debug, Default)]
pub(crate) struct Executions {
    commands: Mutex<BTreeMap<Sha384Digest, Arc<Command>>>,
}

/// One command.
#[derive(Debug, Default)]
struct Command {
    record: OnceCell<Appended>,
    receipt: OnceCell<()>,
    runs: AtomicU64,
}

impl Executions {
    /// Sees to it that a command is recorded and receipted, both before this returns and both once; who asks at the
    /// same time waits for the same record. Gives the number of runs asked for so far, this one among them.
    ///
    /// # Errors
    /// As `record` and `receipt`, and what failed is tried again by the next run; [`AgentError::Request`] for one
    /// command too many.
    pub(crate) async fn announce<R, D>(
        &self,
        argv_h: Sha384Digest,
        record: impl FnOnce() -> R,
        receipt: impl FnOnce(Appended) -> D,
    ) -> Result<u64, AgentError>
    where
        R: Future<Output = Result<Appended, AgentError>>,
        D: Future<Output = Result<(), AgentError>>,
    {
        let command = self.command(argv_h)?;
        let recorded = *command.record.get_or_try_init(record).await?;
        command.receipt.get_or_try_init(|| receipt(recorded)).await?;
        Ok(command.runs.fetch_add(1, Ordering::Relaxed).saturating_add(1))
    }

    fn command(&self, argv_h: Sha384Digest) -> Result<Arc<Command>, AgentError> {
        let mut commands = self.lock();
        if commands.len() >= MAX_COMMANDS && !commands.contains_key(&argv_h) {
            return Err(AgentError::Request { field: "args", what: "too many different commands in this container" });
        }
        Ok(Arc::clone(commands.entry(argv_h).or_default()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Sha384Digest, Arc<Command>>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use protocols::events::hash_list;
    use protocols::register::{HashAlg, RegisterValue};

    use super::*;

    fn appended() -> Appended {
        Appended { place: 1, count: 2, head: RegisterValue::from_bytes(HashAlg::Sha384, &[0; 48]).unwrap() }
    }

    #[tokio::test]
    async fn a_command_is_recorded_once_however_many_run_it() {
        let executions = Executions::default();
        let (records, receipts) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let run = |words: &[&str]| {
            let argv_h = hash_list(words);
            let (executions, records, receipts) = (&executions, &records, &receipts);
            async move {
                let record = || async move {
                    records.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    Ok(appended())
                };
                let receipt = |_| async move {
                    receipts.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                };
                executions.announce(argv_h, record, receipt).await.unwrap()
            }
        };
        let (one, two) = tokio::join!(run(&["probe"]), run(&["probe"]));
        assert_eq!((one.min(two), one.max(two)), (1, 2));
        for _ in 0..1000 {
            run(&["probe"]).await;
        }
        assert_eq!(run(&["other"]).await, 1);
        assert_eq!((records.into_inner(), receipts.into_inner()), (2, 2));
    }

    #[tokio::test]
    async fn nothing_passes_before_record_and_receipt() {
        let executions = Executions::default();
        let argv_h = hash_list(&["probe"]);
        let no = || async { Err(AgentError::Poisoned) };
        let never = |_| async { panic!("no receipt without a record") };
        assert!(executions.announce(argv_h, no, never).await.is_err());
        let yes = || async { Ok(appended()) };
        assert!(executions.announce(argv_h, yes, |_| async { Err(AgentError::Poisoned) }).await.is_err());
        // The record is there; the receipt is asked for again.
        let again = || async { panic!("recorded twice") };
        assert_eq!(executions.announce(argv_h, again, |_| async { Ok(()) }).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn different_commands_are_bounded() {
        let executions = Executions::default();
        for number in 0..MAX_COMMANDS {
            executions.command(hash_list(&[number.to_string()])).unwrap();
        }
        assert!(executions.command(hash_list(&["one more"])).is_err());
        assert!(executions.command(hash_list(&["7"])).is_ok());
    }
}
