//! The processes of one container: its first one, and those executed in it later.
//!
//! [`Processes`] hangs at the container's entry. No lock is held over any work: not over an exec, a read or a signal.
//!
//! - A process is known by its id from the request on; `""` and the container's id mean the first process.
//! - Everybody who waits for a process is told its status, then it is forgotten. One that nobody waits for is
//!   forgotten [`FORGET_AFTER`] after its end.
//! - What a process wrote stays in its pipes until it is read. Its end is told when that is read, at most
//!   [`DRAIN_TIME`] later.

mod process;
mod recorded;
mod request;
mod template;

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

pub(crate) use process::Process;
pub(crate) use recorded::Executions;
pub use request::{CapabilitySets, ExecRequest, ExecUser, ProcessId, Rights};
pub(crate) use template::{FinalProcess, Template};

use crate::cgroup::{Cgroup, OomWatch};
use crate::error::ProcessFault;
use crate::runtime::{Handle, Init};

/// How long what an ended process wrote is kept from being forgotten, and its readers wait for more.
pub const DRAIN_TIME: Duration = Duration::from_millis(500);
/// How long an ended process that nobody waits for stays known.
pub const FORGET_AFTER: Duration = Duration::from_secs(300);
/// The most processes of one container besides the first, those that have ended and are still known among them.
pub const MAX_PROCESSES: usize = 1024;
/// The most calls that may wait for one process's output at a time.
const MAX_READERS: usize = 16;

/// The most reads of one container's numbers at a time: one that the kernel blocks holds a thread.
const MAX_MEASURERS: usize = 4;

/// A container's first process, and what executing another one needs of it.
#[derive(Debug)]
pub(crate) struct First {
    /// For signals.
    pub(crate) handle: Handle,
    /// Its control groups.
    pub(crate) cgroup: Cgroup,
    /// Its measured description.
    pub(crate) template: Template,
    bundle: OwnedFd,
    /// Watches from before its start; taken when it has started.
    oom: Mutex<Option<OomWatch>>,
}

impl First {
    /// Learns about the process that the runtime made from `config`, the measured `config.json` of `bundle`.
    ///
    /// # Errors
    /// A descriptor cannot be had, or the bytes are no OCI spec.
    pub(crate) fn new(init: &Init, bundle: BorrowedFd<'_>, config: &[u8]) -> std::io::Result<Self> {
        let handle = init.handle();
        let cgroup = Cgroup::of(handle.pid());
        // A kernel that tells nobody of it is no reason not to run.
        let oom = cgroup.watch_oom().unwrap_or_else(|error| {
            tracing::warn!(%error, "lack of memory in this container will not be seen");
            None
        });
        Ok(Self {
            oom: Mutex::new(oom),
            cgroup,
            template: Template::of(config)?,
            bundle: rustix::io::fcntl_dupfd_cloexec(bundle, 0)?,
            handle,
        })
    }

    /// The watch for lack of memory, once.
    pub(crate) fn take_oom(&self) -> Option<OomWatch> {
        self.oom.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The container's bundle directory.
    pub(crate) fn bundle(&self) -> BorrowedFd<'_> {
        self.bundle.as_fd()
    }
}

/// The processes of one container.
#[derive(Debug)]
pub struct Processes {
    first: OnceLock<Arc<First>>,
    readers: Semaphore,
    measurers: Arc<Semaphore>,
    others: Mutex<BTreeMap<ProcessId, Arc<Process>>>,
    pub(crate) executions: Executions,
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            first: OnceLock::new(),
            readers: Semaphore::new(MAX_READERS),
            measurers: Arc::new(Semaphore::new(MAX_MEASURERS)),
            others: Mutex::default(),
            executions: Executions::default(),
        }
    }
}

impl Processes {
    /// Takes the first process, once it is created.
    pub(crate) fn set_first(&self, first: First) {
        let _ = self.first.set(Arc::new(first)); // a container is created once
    }

    /// The first process, once it is created.
    pub(crate) fn first(&self) -> Option<&Arc<First>> {
        self.first.get()
    }

    /// A place among those who wait for the first process's output.
    pub(crate) fn reader(&self) -> Result<SemaphorePermit<'_>, ProcessFault> {
        self.readers.try_acquire().map_err(|_| ProcessFault::TooMany("readers"))
    }

    /// A place among those who read the container's numbers, for as long as the reading itself takes.
    pub(crate) fn measurer(&self) -> Result<OwnedSemaphorePermit, ProcessFault> {
        Arc::clone(&self.measurers).try_acquire_owned().map_err(|_| ProcessFault::TooMany("reads of its numbers"))
    }

    /// Makes the entry of a process that is about to be executed. When there are as many as there may be, the one
    /// that ended first makes room.
    pub(crate) fn begin(&self, id: ProcessId) -> Result<Arc<Process>, ProcessFault> {
        let mut others = self.lock();
        if others.contains_key(&id) {
            return Err(ProcessFault::Taken);
        }
        if others.len() >= MAX_PROCESSES {
            let oldest = others.values().filter_map(|process| Some((process.ended_at()?, process.id.clone()))).min();
            let (_, oldest) = oldest.ok_or(ProcessFault::TooMany("processes"))?;
            others.remove(&oldest);
        }
        let process = Arc::new(Process::new(id.clone(), MAX_READERS));
        others.insert(id, Arc::clone(&process));
        Ok(process)
    }

    /// A process by its id.
    pub(crate) fn get(&self, id: &ProcessId) -> Result<Arc<Process>, ProcessFault> {
        self.lock().get(id).cloned().ok_or(ProcessFault::Unknown)
    }

    /// Forgets a process; whoever holds it already may still read from it.
    pub(crate) fn forget(&self, process: &Arc<Process>) {
        let mut others = self.lock();
        // The id may have been taken again since.
        if others.get(&process.id).is_some_and(|known| Arc::ptr_eq(known, process)) {
            others.remove(&process.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ProcessId, Arc<Process>>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn id(text: &str) -> ProcessId {
        ProcessId::new(text).unwrap()
    }

    #[test]
    fn an_id_is_taken_until_its_process_is_forgotten() {
        let table = Processes::default();
        let first = table.begin(id("e")).unwrap();
        assert_eq!(table.begin(id("e")).unwrap_err(), ProcessFault::Taken);
        table.forget(&first);
        assert_eq!(table.get(&id("e")).unwrap_err(), ProcessFault::Unknown);
        let second = table.begin(id("e")).unwrap();
        table.forget(&first);
        assert!(Arc::ptr_eq(&table.get(&id("e")).unwrap(), &second), "an old handle forgets nothing");
    }

    #[tokio::test]
    async fn what_nobody_holds_is_forgotten() {
        let table = Processes::default();
        let process = table.begin(id("e")).unwrap();
        let mut forgotten = Box::pin(process.forgotten());
        process.end(0);
        table.forget(&process);
        assert!((&mut forgotten).now_or_never().is_none(), "a reader still holds it");
        drop(process);
        forgotten.await;
    }

    #[test]
    fn a_full_table_makes_room_of_what_has_ended_and_of_nothing_else() {
        let table = Processes::default();
        for number in 0..MAX_PROCESSES {
            table.begin(id(&format!("e{number}"))).unwrap();
        }
        assert_eq!(table.begin(id("more")).unwrap_err(), ProcessFault::TooMany("processes"));
        table.get(&id("e7")).unwrap().end(0);
        table.get(&id("e3")).unwrap().end(0);
        table.begin(id("more")).unwrap();
        assert_eq!(table.get(&id("e7")).unwrap_err(), ProcessFault::Unknown, "it ended first");
        assert!(table.get(&id("e3")).is_ok());
        assert_eq!(table.lock().len(), MAX_PROCESSES);
    }
}
