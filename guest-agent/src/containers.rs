//! The containers the agent knows: one entry each, no lock over any of their work.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use image_rs_fork::Progress;
use protocols::digest::Sha256Digest;
use protocols::reason::Refusal;
use protocols::tcl::Mode;
use tokio::sync::{oneshot, watch};

use crate::container_id::ContainerId;
use crate::error::AgentError;
use crate::io::Streams;
use crate::launch::LaunchRequest;
use crate::processes::Processes;

/// How far a container has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its launch goes on.
    Launching(Stage),
    /// It is created and waits for its start.
    Created,
    /// Its process runs.
    Running,
    /// Its process has ended with this status.
    Ended(u32),
    /// Its launch was refused, or it could not be started: it never ran.
    Refused,
}

/// What a launch is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Asking the registry for the manifest and checking it.
    Fetch,
    /// Fetching and measuring layers.
    Pull,
    /// Deciding in the guest.
    Appraise,
    /// Waiting for the attestor's decision.
    Golden,
    /// Laying out and recording.
    Measure,
    /// The runtime creates and starts.
    Create,
}

impl State {
    /// The stage's name in `Progress`.
    #[must_use]
    pub const fn stage(self) -> &'static str {
        match self {
            Self::Launching(Stage::Fetch) => "fetch",
            Self::Launching(Stage::Pull) => "pull",
            Self::Launching(Stage::Golden) => "golden",
            Self::Launching(Stage::Appraise) => "appraise",
            Self::Launching(Stage::Measure) => "measure",
            Self::Launching(Stage::Create) => "create",
            Self::Created => "created",
            Self::Running => "running",
            Self::Ended(_) | Self::Refused => "ended",
        }
    }

    /// The state's name in `List`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Launching(_) => "launching",
            Self::Created => "created",
            Self::Running => "running",
            Self::Ended(_) | Self::Refused => "ended",
        }
    }
}

/// How much of an image has arrived.
#[derive(Debug, Default)]
pub struct PullProgress {
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    layers_done: AtomicU32,
    layers_total: AtomicU32,
}

impl Progress for PullProgress {
    fn start(&self, layers: usize, bytes: u64) {
        self.layers_total.store(u32::try_from(layers).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    fn advance(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    fn layer(&self, _digest: &Sha256Digest, _reused: bool) {
        self.layers_done.fetch_add(1, Ordering::Relaxed);
    }
}

impl PullProgress {
    /// Bytes done and in total, layers done and in total.
    #[must_use]
    pub fn read(&self) -> (u64, u64, u32, u32) {
        (
            self.bytes_done.load(Ordering::Relaxed),
            self.bytes_total.load(Ordering::Relaxed),
            self.layers_done.load(Ordering::Relaxed),
            self.layers_total.load(Ordering::Relaxed),
        )
    }
}

/// One container's entry.
#[derive(Debug)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Launch number.
    pub seq: u64,
    /// Where its launch is decided.
    pub mode: Mode,
    /// How much of its image has arrived.
    pub pull: PullProgress,
    /// Its first process and those executed in it.
    pub processes: Processes,
    begun: Instant,
    keep: bool,
    manifest: OnceLock<Sha256Digest>,
    decision: OnceLock<String>,
    streams: OnceLock<Streams>,
    state: watch::Sender<State>,
    stopped: AtomicBool,
    waited: AtomicBool,
    drained: [AtomicBool; 2],
    launch: OnceLock<tokio::task::AbortHandle>,
    start: Mutex<Option<oneshot::Sender<Started>>>,
    pid_namespace: OnceLock<Arc<OwnedFd>>,
    request: Mutex<Option<LaunchRequest>>,
    refusal: OnceLock<Refusal>,
    removed: watch::Sender<bool>,
}

/// Where the task that holds a created container tells whether it runs.
pub(crate) type Started = oneshot::Sender<Result<(), AgentError>>;

/// One of the two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout = 0,
    /// Standard error.
    Stderr = 1,
}

impl Container {
    /// The state now.
    #[must_use]
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Moves on.
    pub fn set_state(&self, state: State) {
        if !matches!(state, State::Launching(_) | State::Created) {
            // It may hold files of the host open.
            drop(self.request.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        self.state.send_replace(state);
    }

    /// Comes to another stage of its launch, and tells how long it has taken so far.
    pub(crate) fn enter(&self, stage: Stage) {
        let (left, state) = (self.state().stage(), State::Launching(stage));
        let (pulled, _, layers, _) = self.pull.read();
        let after_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(id = %self.id, left, stage = state.stage(), after_ms, pulled, layers, "launching");
        self.set_state(state);
    }

    /// The platform manifest, once it is known.
    #[must_use]
    pub fn manifest(&self) -> Option<Sha256Digest> {
        self.manifest.get().copied()
    }

    /// Learns the platform manifest.
    pub fn set_manifest(&self, manifest: Sha256Digest) {
        let _ = self.manifest.set(manifest); // a launch has one image
    }

    /// The attestor's name of its decision, where it made one.
    #[must_use]
    pub fn decision(&self) -> Option<&str> {
        self.decision.get().map(String::as_str)
    }

    /// Learns the attestor's name of its decision.
    pub fn set_decision(&self, id: String) {
        let _ = self.decision.set(id); // a launch is decided once
    }

    /// Takes the streams of the created container.
    pub fn set_streams(&self, streams: Streams) {
        let _ = self.streams.set(streams); // a launch is created once
    }

    /// Learns which task launches it.
    pub fn set_launch(&self, task: tokio::task::AbortHandle) {
        let _ = self.launch.set(task); // one task launches it
    }

    /// Breaks its launch off; what the launch holds is taken down with it.
    pub fn abort_launch(&self) {
        if let Some(task) = self.launch.get() {
            task.abort();
        }
    }

    /// Learns how to ask for its start.
    pub(crate) fn set_start(&self, start: oneshot::Sender<Started>) {
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
    }

    /// Takes the one way to ask for its start.
    pub(crate) fn take_start(&self) -> Option<oneshot::Sender<Started>> {
        self.start.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Learns the PID namespace of its first process.
    pub(crate) fn set_pid_namespace(&self, namespace: OwnedFd) {
        let _ = self.pid_namespace.set(Arc::new(namespace)); // a launch is created once
    }

    /// The PID namespace of its first process, for another container of its pod.
    ///
    /// # Errors
    /// [`AgentError::Container`] when it is not created or has ended.
    pub(crate) fn pid_namespace(&self) -> Result<Arc<OwnedFd>, AgentError> {
        let namespace = match self.state() {
            State::Created | State::Running => self.pid_namespace.get().cloned(),
            State::Launching(_) | State::Ended(_) | State::Refused => None,
        };
        namespace.ok_or_else(|| self.misfit("it has no process whose namespace could be joined"))
    }

    /// Learns what it was asked for as.
    pub(crate) fn set_request(&self, request: LaunchRequest) {
        *self.request.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
    }

    /// Whether `request` asks for this container once more before its start.
    pub(crate) fn is_asked_again(&self, request: &LaunchRequest) -> bool {
        let known = self.request.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(self.state(), State::Launching(_) | State::Created) && known.as_ref() == Some(request)
    }

    /// Learns why its launch was refused.
    pub(crate) fn set_refusal(&self, refusal: Refusal) {
        let _ = self.refusal.set(refusal); // the first is the reason
    }

    /// How its launch ended, for somebody who waits for it too.
    pub(crate) async fn outcome(&self) -> Result<(), AgentError> {
        self.launched().await;
        match (self.state(), self.refusal.get()) {
            (State::Refused, Some(refusal)) => Err(refusal.clone().into()),
            (State::Refused, None) => Err(self.misfit("its launch was broken off")),
            _ => Ok(()),
        }
    }

    /// Notes that nobody wants it any more: its launch is given up where it can be.
    pub(crate) fn set_removed(&self) {
        self.removed.send_replace(true);
    }

    /// Waits until nobody wants it any more.
    pub(crate) async fn removed(&self) {
        let _ = self.removed.subscribe().wait_for(|removed| *removed).await;
    }

    /// Waits until its launch has come to an end, one way or the other.
    pub async fn launched(&self) {
        let _ = self.state.subscribe().wait_for(|state| !matches!(state, State::Launching(_))).await;
    }

    /// Whether its entry stays until it is removed.
    #[must_use]
    pub const fn keep(&self) -> bool {
        self.keep
    }

    /// Notes that a caller asked to stop it.
    pub fn set_stopped(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Whether a caller asked to stop it.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Waits until its process has ended, and gives the status.
    ///
    /// # Errors
    /// [`AgentError::Container`] when its launch was refused.
    pub async fn ended(&self) -> Result<u32, AgentError> {
        let mut state = self.state.subscribe();
        let end = state.wait_for(|state| matches!(state, State::Ended(_) | State::Refused)).await;
        match end.map(|state| *state) {
            Ok(State::Ended(status)) => Ok(status),
            _ => Err(self.misfit("its launch was refused")),
        }
    }

    /// Its streams, once it is created.
    ///
    /// # Errors
    /// [`AgentError::Container`] when its launch was refused.
    pub async fn streams(&self) -> Result<&Streams, AgentError> {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|state| !matches!(state, State::Launching(_))).await;
        self.streams.get().ok_or_else(|| self.misfit("it never ran"))
    }

    /// An error about this container.
    #[must_use]
    pub fn misfit(&self, what: &'static str) -> AgentError {
        AgentError::Container { id: self.id.to_string(), what }
    }
}

/// All entries.
#[derive(Debug, Default)]
pub struct Containers {
    map: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
}

impl Containers {
    /// Makes the entry of a new launch; `number` gives its launch number when the id is free.
    ///
    /// # Errors
    /// [`AgentError::Container`] when the id is taken.
    pub fn begin(
        &self,
        id: ContainerId,
        number: impl FnOnce() -> u64,
        mode: Mode,
        keep: bool,
    ) -> Result<Arc<Container>, AgentError> {
        let mut map = self.lock();
        if map.contains_key(&id) {
            return Err(AgentError::Container { id: id.to_string(), what: "the id is taken" });
        }
        let container = Arc::new(Container {
            id: id.clone(),
            seq: number(),
            mode,
            pull: PullProgress::default(),
            processes: Processes::default(),
            begun: Instant::now(),
            keep,
            manifest: OnceLock::new(),
            decision: OnceLock::new(),
            streams: OnceLock::new(),
            state: watch::Sender::new(State::Launching(Stage::Fetch)),
            stopped: AtomicBool::new(false),
            waited: AtomicBool::new(false),
            drained: [AtomicBool::new(false), AtomicBool::new(false)],
            launch: OnceLock::new(),
            start: Mutex::new(None),
            pid_namespace: OnceLock::new(),
            request: Mutex::new(None),
            refusal: OnceLock::new(),
            removed: watch::Sender::new(false),
        });
        map.insert(id, Arc::clone(&container));
        Ok(container)
    }

    /// The entry that `request` asks for once more.
    pub(crate) fn asked_again(&self, request: &LaunchRequest) -> Option<Arc<Container>> {
        let id = ContainerId::new(&request.id).ok()?;
        self.lock().get(&id).filter(|container| container.is_asked_again(request)).cloned()
    }

    /// The entry of an id.
    ///
    /// # Errors
    /// [`AgentError::ContainerId`] or [`AgentError::Container`].
    pub fn get(&self, id: &str) -> Result<Arc<Container>, AgentError> {
        let id = ContainerId::new(id)?;
        let found = self.lock().get(&id).cloned();
        found.ok_or_else(|| AgentError::Container { id: id.to_string(), what: "it is not known" })
    }

    /// Every entry, by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.lock().values().cloned().collect()
    }

    /// Forgets an entry.
    pub fn remove(&self, container: &Arc<Container>) {
        let mut map = self.lock();
        // The id may have been taken again since.
        if map.get(&container.id).is_some_and(|known| Arc::ptr_eq(known, container)) {
            map.remove(&container.id);
        }
    }

    /// Notes that somebody has learnt the exit status.
    pub fn waited(&self, container: &Arc<Container>) {
        container.waited.store(true, Ordering::Relaxed);
        self.forget_if_done(container);
    }

    /// Notes that an output was read to its end.
    pub fn drained(&self, container: &Arc<Container>, stream: OutputStream) {
        if let Some(drained) = container.drained.get(stream as usize) {
            drained.store(true, Ordering::Relaxed);
        }
        self.forget_if_done(container);
    }

    /// An entry that nobody asked to keep goes when its status is known and its output read.
    fn forget_if_done(&self, container: &Arc<Container>) {
        let done = matches!(container.state(), State::Ended(_))
            && container.waited.load(Ordering::Relaxed)
            && container.drained.iter().all(|drained| drained.load(Ordering::Relaxed));
        if done && !container.keep {
            self.remove(container);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContainerId, Arc<Container>>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(table: &Containers, keep: bool) -> Arc<Container> {
        table.begin(ContainerId::new("c").unwrap(), || 1, Mode::Local, keep).unwrap()
    }

    #[tokio::test]
    async fn an_entry_stays_until_its_status_is_known_and_its_output_read() {
        let table = Containers::default();
        let container = begin(&table, false);
        assert!(table.begin(ContainerId::new("c").unwrap(), || 2, Mode::Local, false).is_err(), "taken");
        container.set_state(State::Ended(3));
        assert_eq!(container.ended().await.unwrap(), 3);
        table.waited(&container);
        table.drained(&container, OutputStream::Stdout);
        assert!(table.get("c").is_ok(), "stderr was not read");
        table.drained(&container, OutputStream::Stderr);
        assert!(table.get("c").is_err());

        let kept = begin(&table, true);
        kept.set_state(State::Ended(0));
        table.waited(&kept);
        table.drained(&kept, OutputStream::Stdout);
        table.drained(&kept, OutputStream::Stderr);
        assert!(table.get("c").is_ok());
        // An old handle of the same id removes nothing.
        table.remove(&container);
        assert!(table.get("c").is_ok());
        table.remove(&kept);
        assert!(table.get("c").is_err());
    }

    #[tokio::test]
    async fn who_waits_for_a_refused_launch_learns_that_it_never_ran() {
        let table = Containers::default();
        let container = begin(&table, false);
        let waiter = {
            let container = Arc::clone(&container);
            tokio::spawn(async move { (container.ended().await.is_err(), container.streams().await.is_err()) })
        };
        container.set_state(State::Refused);
        assert_eq!(waiter.await.unwrap(), (true, true));
    }

    #[tokio::test]
    async fn several_may_wait() {
        let table = Containers::default();
        let container = begin(&table, false);
        let waiters: Vec<_> = (0..8)
            .map(|_| {
                let container = Arc::clone(&container);
                tokio::spawn(async move { container.ended().await.unwrap() })
            })
            .collect();
        container.set_state(State::Ended(137));
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), 137);
        }
    }
}
