//! Create, start, see off, remove: a container's way through the agent, with a task that holds it all along.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use protocols::events::{Exit, ExitReason, hash_str};
use tokio::sync::oneshot;

use super::{Agent, Outcome, SIGKILL};
use crate::containers::{Container, Containers, Started, State};
use crate::error::AgentError;
use crate::launch::{CreatedContainer, LaunchRequest, Leftovers, Reach};

/// How long an ended container's entry stays for a caller who never came back.
const FORGET_AFTER: Duration = Duration::from_secs(300);
/// Status of a process whose end nobody saw.
pub(super) const UNKNOWN_STATUS: u32 = 255;

/// Takes a launch's entry back unless the launch has come through, whatever breaks it off.
pub(super) struct EntryGuard {
    containers: Arc<Containers>,
    container: Arc<Container>,
    created: bool,
}

impl EntryGuard {
    pub(super) const fn new(containers: Arc<Containers>, container: Arc<Container>) -> Self {
        Self { containers, container, created: false }
    }
}

impl Drop for EntryGuard {
    fn drop(&mut self) {
        if !self.created {
            self.container.set_state(State::Refused);
            self.containers.remove(&self.container);
        }
    }
}

impl Agent {
    /// Launches a container: creates and starts it. The launch goes on when the caller stops waiting for it.
    pub async fn launch(self: &Arc<Self>, request: LaunchRequest) -> Outcome {
        let agent = Arc::clone(self);
        let launched = tokio::spawn(async move {
            let mut outcome = agent.create_new(request).await;
            if let (Some(container), Ok(())) = (&outcome.container, &outcome.result) {
                outcome.result = agent.start_created(container).await;
                if outcome.result.is_err() {
                    agent.containers.remove(container);
                }
            }
            outcome
        });
        launched.await.unwrap_or_else(|error| Outcome { container: None, result: Err(error.into()) })
    }

    /// Creates a container that waits for [`Agent::start`]: measured, appraised, recorded and receipted. It goes on
    /// when the caller stops waiting for it; whoever asks for exactly the same again before its start waits for it
    /// too.
    pub async fn create(self: &Arc<Self>, request: LaunchRequest) -> Outcome {
        if let Some(container) = self.containers.asked_again(&request) {
            return Self::join(container).await;
        }
        let outcome = self.create_new(request.clone()).await;
        if outcome.container.is_none()
            && let Some(container) = self.containers.asked_again(&request)
        {
            // Both came at once, and the other one was first.
            return Self::join(container).await;
        }
        outcome
    }

    async fn join(container: Arc<Container>) -> Outcome {
        tracing::info!(id = %container.id, stage = container.state().stage(), "asked for once more");
        let result = container.outcome().await;
        Outcome { container: Some(container), result }
    }

    async fn create_new(self: &Arc<Self>, request: LaunchRequest) -> Outcome {
        if self.draining.load(Ordering::Relaxed) {
            return Outcome { container: None, result: Err(AgentError::Draining) };
        }
        let container = match self.pipeline.begin(&request).await {
            Ok(container) => container,
            Err(error) => return Outcome { container: None, result: Err(error) },
        };
        let guard = EntryGuard::new(Arc::clone(&self.containers), Arc::clone(&container));
        let agent = Arc::clone(self);
        let task = tokio::spawn(async move {
            let mut guard = guard;
            let container = Arc::clone(&guard.container);
            tracing::info!(id = %container.id, seq = container.seq, mode = %container.mode, "launching");
            match Box::pin(agent.pipeline.create(&container, request)).await {
                Ok((created, reach)) => {
                    guard.created = true;
                    agent.hold(container, created, reach);
                    Ok(())
                }
                Err(error) => {
                    tracing::warn!(id = %container.id, code = %error.code(), %error, "launch refused");
                    container.set_refusal(error.refusal());
                    Err(error)
                }
            }
        });
        container.set_launch(task.abort_handle());
        let result = task.await.unwrap_or_else(|error| Err(error.into()));
        Outcome { container: Some(container), result }
    }

    /// Lets a created container's process run. Where that fails nothing is left of it but its entry, for
    /// [`Agent::remove_container`].
    ///
    /// # Errors
    /// [`AgentError::Container`] when it does not wait for its start, [`AgentError::Runtime`],
    /// [`AgentError::Attester`].
    pub async fn start(self: &Arc<Self>, id: &str) -> Result<(), AgentError> {
        let container = self.containers.get(id)?;
        self.start_created(&container).await
    }

    async fn start_created(&self, container: &Container) -> Result<(), AgentError> {
        if container.state() != State::Created {
            return Err(container.misfit("it does not wait for its start"));
        }
        let Some(start) = container.take_start() else {
            return Err(container.misfit("its start was asked for already"));
        };
        let (told, started) = oneshot::channel();
        let ended = || container.misfit("it has ended before its start");
        start.send(told).map_err(|_| ended())?;
        started.await.map_err(|_| ended())?
    }

    /// Ends a container with everything it runs, waits until its end is recorded and nothing of it is mounted or on
    /// disk, and forgets it. A launch that goes on is given up. `timeout` of zero waits for ever.
    ///
    /// # Errors
    /// [`AgentError::Container`] when it is not known or does not end in time; [`AgentError::Runtime`].
    pub async fn remove_container(self: &Arc<Self>, id: &str, timeout: Duration) -> Result<(), AgentError> {
        let container = self.containers.get(id)?;
        container.set_removed();
        let ended = self.end_container(&container);
        if timeout.is_zero() {
            ended.await?;
        } else {
            let late = |_| container.misfit("it was killed and does not end");
            tokio::time::timeout(timeout, ended).await.map_err(late)??;
        }
        self.containers.remove(&container);
        Ok(())
    }

    async fn end_container(&self, container: &Container) -> Result<(), AgentError> {
        container.launched().await;
        if matches!(container.state(), State::Created | State::Running) {
            container.set_stopped();
            self.signal(container, SIGKILL).await?;
            let _ = container.ended().await; // its end is what counts, whichever it is
        }
        Ok(())
    }

    /// Hands a created container to a task of its own, which ends it or waits for its end.
    fn hold(self: &Arc<Self>, container: Arc<Container>, created: CreatedContainer, reach: Reach) {
        let (start, wanted) = oneshot::channel();
        container.set_streams(reach.streams);
        self.watch_oom(&container, &reach.first);
        container.processes.set_first(reach.first);
        container.set_start(start);
        match created.pid_namespace() {
            Ok(namespace) => container.set_pid_namespace(namespace),
            // It was killed already: nobody can join it.
            Err(error) => tracing::warn!(id = %container.id, %error, "no PID namespace"),
        }
        container.set_state(State::Created);
        tracing::info!(id = %container.id, "created");
        let agent = Arc::clone(self);
        tokio::spawn(async move {
            agent.supervise(&container, created, wanted).await;
            if !container.keep() {
                tokio::time::sleep(FORGET_AFTER).await;
                agent.containers.remove(&container);
            }
        });
    }

    async fn supervise(&self, container: &Container, created: CreatedContainer, wanted: oneshot::Receiver<Started>) {
        let wanted = tokio::select! {
            wanted = wanted => wanted.ok(),
            () = created.killed() => None,
        };
        let Some(told) = wanted else {
            drop(container.take_start());
            let (status, leftovers) = created.ended(&self.runtime).await;
            return self.see_off(container, status, leftovers).await;
        };
        match self.pipeline.start(container, created).await {
            Ok(started) => {
                container.set_state(State::Running);
                tracing::info!(id = %container.id, "running");
                let _ = told.send(Ok(())); // whoever asked may be gone
                let (status, leftovers) = started.ended(&self.runtime).await;
                self.see_off(container, status, leftovers).await;
            }
            Err(error) => {
                tracing::warn!(id = %container.id, code = %error.code(), %error, "not started");
                container.set_state(State::Refused);
                let _ = told.send(Err(error));
            }
        }
    }

    async fn see_off(&self, container: &Container, status: Option<u32>, leftovers: Leftovers) {
        let reason = if container.stopped() { ExitReason::Stopped } else { ExitReason::Exited };
        let exit = Exit { seq: Some(container.seq), cid_h: hash_str(container.id.as_str()), status, reason };
        let recorded = self.journal.try_end(container.seq, exit.clone()).await;
        // Also when it failed: what lies here may be what fills the disk.
        leftovers.remove().await;
        if recorded.is_err() {
            // Until the log holds the end, nobody learns of it, and nobody else gets the id.
            if let Err(error) = self.journal.end(container.seq, exit).await {
                tracing::error!(id = %container.id, %error, "the exit cannot be recorded");
            }
        }
        container.set_state(State::Ended(status.unwrap_or(UNKNOWN_STATUS)));
        tracing::info!(id = %container.id, status, ?reason, "ended");
    }
}
