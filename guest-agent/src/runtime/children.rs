//! The agent's children: it adopts every container's first process and learns how each one ended.
//!
//! The runtime leaves a container's first process to its parent; as a child subreaper the agent is that parent.
//! Exit statuses come from a pidfd and `waitid`, so that a process id is never confused with a later one.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions, WaitStatus};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{RwLock, RwLockReadGuard};

/// Keeps apart the children somebody waits for and the orphans that nobody does.
#[derive(Debug, Default)]
pub struct Children {
    /// Held for reading while a runtime command runs: its own handle waits for it.
    commands: RwLock<()>,
    /// First processes of containers, with the status of those that [`Children::reap_orphans`] met first.
    inits: Mutex<HashMap<i32, Option<u32>>>,
}

impl Children {
    /// Makes the agent adopt orphaned descendants.
    ///
    /// # Errors
    /// The kernel refuses, which it never does since Linux 3.4.
    pub fn adopt() -> std::io::Result<()> {
        Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
    }

    /// Marks that a runtime command runs until the guard is dropped.
    pub(super) async fn command(&self) -> RwLockReadGuard<'_, ()> {
        self.commands.read().await
    }

    /// Takes charge of the first process of a container. The guard is that of the command which made it, so
    /// that nobody can have reaped the process yet.
    ///
    /// # Errors
    /// There is no such process.
    pub(super) fn take(&self, _made_by: &RwLockReadGuard<'_, ()>, pid: i32) -> std::io::Result<Init> {
        let pid = Pid::from_raw(pid).ok_or_else(|| std::io::Error::other("not a process id"))?;
        let fd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        let fd = Arc::new(crate::io::watch(fd, Interest::READABLE)?);
        self.lock().insert(pid.as_raw_pid(), None);
        Ok(Init { fd, pid })
    }

    /// Reaps ended children that nobody waits for, such as helpers of a runtime that was killed. Does nothing and
    /// says `false` while a runtime command runs.
    pub fn reap_orphans(&self) -> bool {
        let Ok(_quiet) = self.commands.try_write() else { return false };
        let mut inits = self.lock();
        while let Ok(Some((pid, status))) = rustix::process::waitpid(None, WaitOptions::NOHANG) {
            if let Some(known) = inits.get_mut(&pid.as_raw_pid()) {
                *known = waited(status);
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Option<u32>>> {
        self.inits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process the runtime made: the first of a container, or one executed in it.
#[derive(Debug)]
pub struct Init {
    fd: Arc<AsyncFd<OwnedFd>>,
    pid: Pid,
}

/// Signals a process without ever meeting a later one of the same id.
#[derive(Debug, Clone)]
pub struct Handle {
    fd: Arc<AsyncFd<OwnedFd>>,
    pid: Pid,
}

impl Handle {
    /// The process id in the agent's namespace.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends a signal; a process that is gone has taken every signal.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn signal(&self, signal: Signal) -> std::io::Result<()> {
        match rustix::process::pidfd_send_signal(self.fd.get_ref(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Init {
    /// The process id in the agent's namespace.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until the process has ended, and leaves it to [`Init::wait`] to reap it.
    pub(crate) async fn exited(&self) {
        if let Ok(mut ready) = self.fd.readable().await {
            ready.retain_ready();
        }
    }

    /// Another handle on the process, for signals.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { fd: Arc::clone(&self.fd), pid: self.pid }
    }

    /// Waits until the process has ended, and reaps it: its exit status, or 128 + signal. `None` when it was
    /// not ours to wait for.
    pub async fn wait(self, children: &Children) -> Option<u32> {
        loop {
            let Ok(mut ready) = self.fd.readable().await else { return None };
            let mut inits = children.lock();
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match rustix::process::waitid(WaitId::PidFd(self.fd.get_ref().as_fd()), options) {
                Ok(Some(status)) => {
                    inits.remove(&self.pid.as_raw_pid());
                    return exited(&status);
                }
                Ok(None) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(_) => return inits.remove(&self.pid.as_raw_pid()).flatten(),
            }
        }
    }
}

fn exited(status: &WaitIdStatus) -> Option<u32> {
    code(status.exit_status(), status.terminating_signal())
}

fn waited(status: WaitStatus) -> Option<u32> {
    code(status.exit_status(), status.terminating_signal())
}

fn code(status: Option<i32>, signal: Option<i32>) -> Option<u32> {
    status.or(signal.map(|signal| 128 + signal)).and_then(|code| u32::try_from(code).ok())
}
