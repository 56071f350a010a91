//! Which container ran out of memory: one stream of container ids for the whole sandbox.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::event::EventfdFlags;
use rustix::fs::inotify::{CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;

use super::parse::keyed;
use super::{Cgroup, read_file};

/// The most events that wait for a caller. Nothing is told twice about a container while as many wait.
const MAX_WAITING: usize = 1024;

/// Container ids in the order in which the kernel killed something in them for lack of memory.
#[derive(Debug)]
pub struct OomEvents {
    waiting: Mutex<VecDeque<String>>,
    ready: Semaphore,
}

impl Default for OomEvents {
    fn default() -> Self {
        Self { waiting: Mutex::default(), ready: Semaphore::new(0) }
    }
}

impl OomEvents {
    /// The next event, when there is one. Each goes to one of those who wait.
    pub async fn next(&self) -> String {
        loop {
            match self.ready.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => std::future::pending().await, // it is never closed
            }
            if let Some(id) = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return id;
            }
        }
    }

    /// Tells one of those who wait, or the next who does.
    pub(crate) fn push(&self, id: &str) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_WAITING {
            tracing::warn!(id, "out of memory; nobody asks for such events");
            return;
        }
        waiting.push_back(id.to_owned());
        self.ready.add_permits(1);
    }
}

/// Watches one container's group.
#[derive(Debug)]
pub(crate) struct OomWatch {
    fd: AsyncFd<OwnedFd>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// An eventfd; the file it was registered with must stay open.
    One { control: PathBuf, _file: OwnedFd },
    /// An inotify descriptor over `memory.events`, and the kills counted so far.
    Two { events: PathBuf, kills: u64 },
}

impl Cgroup {
    /// Starts to watch; `None` where no memory is counted.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn watch_oom(&self) -> io::Result<Option<OomWatch>> {
        if let Some(dir) = self.v1.get("memory") {
            let control = dir.join("memory.oom_control");
            let file = OwnedFd::from(std::fs::File::open(&control)?);
            let fd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let registration = {
                use std::os::fd::AsRawFd as _;
                format!("{} {}", fd.as_raw_fd(), file.as_raw_fd())
            };
            std::fs::write(dir.join("cgroup.event_control"), registration)?;
            let fd = crate::io::watch(fd, Interest::READABLE)?;
            return Ok(Some(OomWatch { fd, kind: Kind::One { control, _file: file } }));
        }
        let Some(events) = self.v2.as_ref().map(|dir| dir.join("memory.events")).filter(|file| file.exists()) else {
            return Ok(None);
        };
        let fd = rustix::fs::inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        rustix::fs::inotify::add_watch(&fd, &events, WatchFlags::MODIFY | WatchFlags::DELETE_SELF)?;
        // After the watch: a kill in between is told.
        let kills = kills(&events);
        let fd = crate::io::watch(fd, Interest::READABLE)?;
        Ok(Some(OomWatch { fd, kind: Kind::Two { events, kills } }))
    }
}

impl OomWatch {
    /// Waits for the next time something was killed; `None` when the group is gone.
    ///
    /// # Errors
    /// The descriptor cannot be read.
    pub(crate) async fn next(&mut self) -> io::Result<Option<()>> {
        let mut buffer = [0u8; 4096];
        loop {
            let mut ready = self.fd.readable().await?;
            match rustix::io::read(self.fd.get_ref(), buffer.as_mut_slice()) {
                Ok(_) => {}
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    continue;
                }
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            match &mut self.kind {
                // The end of the group is told in the same way.
                Kind::One { control, .. } => return Ok(control.exists().then_some(())),
                Kind::Two { events, kills: known } => {
                    if !events.exists() {
                        return Ok(None);
                    }
                    let now = kills(events);
                    if now > std::mem::replace(known, now) {
                        return Ok(Some(()));
                    }
                }
            }
        }
    }
}

fn kills(events: &std::path::Path) -> u64 {
    keyed(&read_file(events)).get("oom_kill").copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn every_event_goes_to_exactly_one_of_those_who_wait() {
        let events = Arc::new(OomEvents::default());
        let waiters: Vec<_> = (0..4)
            .map(|_| {
                let events = Arc::clone(&events);
                tokio::spawn(async move { events.next().await })
            })
            .collect();
        tokio::task::yield_now().await;
        // One who gave up takes nothing along.
        assert!(tokio::time::timeout(Duration::from_millis(10), events.next()).await.is_err());
        for id in ["a", "b", "c", "d", "e"] {
            events.push(id);
        }
        let mut told = Vec::new();
        for waiter in waiters {
            told.push(waiter.await.unwrap());
        }
        told.push(events.next().await);
        told.sort();
        assert_eq!(told, ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn events_that_nobody_asks_for_are_bounded() {
        let events = OomEvents::default();
        for _ in 0..MAX_WAITING + 10 {
            events.push("c");
        }
        assert_eq!(events.ready.available_permits(), MAX_WAITING);
    }

    #[tokio::test]
    async fn in_version_2_only_a_kill_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("memory.events");
        std::fs::write(&file, "low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n").unwrap();
        let cgroup = Cgroup { v1: Default::default(), v2: Some(dir.path().to_owned()) };
        let mut watch = cgroup.watch_oom().unwrap().unwrap();
        std::fs::write(&file, "low 0\nhigh 0\nmax 9\noom 0\noom_kill 1\n").unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), watch.next()).await.is_err(), "a limit that was met");
        std::fs::write(&file, "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\n").unwrap();
        assert_eq!(watch.next().await.unwrap(), Some(()));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(watch.next().await.unwrap(), None);
        assert!(Cgroup::default().watch_oom().unwrap().is_none());
    }
}
