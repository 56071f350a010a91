//! An orderly end: containers are stopped and recorded, the log is sealed and delivered.
//!
//! `Seal` is for good: the register holds it, so an agent that is started again in the same guest launches nothing
//! any more. A restart that must go on launching is a kill, not a drain.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::agent::Agent;
use crate::containers::State;

/// How long launches that go on may take to end by themselves.
const LAUNCH_TIME: Duration = Duration::from_secs(20);
/// The grace period of every container, in seconds.
const GRACE_SECONDS: u32 = 10;
/// How long the last delivery may take, attesting again included.
const DELIVERY_TIME: Duration = Duration::from_secs(30);

impl Agent {
    /// Refuses new launches, ends everything, seals the log and delivers it. `reason` is what `Seal` says.
    pub async fn drain(self: &Arc<Self>, reason: &str) {
        self.draining.store(true, Ordering::Relaxed);
        tracing::info!("draining");
        self.finish_launches().await;
        self.stop_all().await;
        // A launch that was broken off may have left what its own steps could not take down any more.
        if let Err(error) = crate::restart::end_leftovers(&self.runtime, &self.places).await {
            tracing::error!(%error, "something of a container is left");
        }
        if self.journal.ready().is_err() {
            return;
        }
        match self.journal.seal(reason).await {
            Ok(sealed) => match tokio::time::timeout(DELIVERY_TIME, self.attestor.deliver(sealed.count)).await {
                Ok(Ok(())) => tracing::info!(records = sealed.count, "the sealed log is delivered"),
                Ok(Err(error)) => tracing::warn!(%error, "the sealed log could not be delivered"),
                Err(_) => tracing::warn!("the sealed log could not be delivered in time"),
            },
            Err(error) => tracing::error!(%error, "the log could not be sealed"),
        }
    }

    async fn finish_launches(&self) {
        let launching: Vec<_> = self.containers.all();
        let launched = async {
            for container in &launching {
                container.launched().await;
            }
        };
        if tokio::time::timeout(LAUNCH_TIME, launched).await.is_err() {
            for container in &launching {
                container.abort_launch();
            }
        }
    }

    async fn stop_all(self: &Arc<Self>) {
        let mut stops = tokio::task::JoinSet::new();
        for container in self.containers.all() {
            if !matches!(container.state(), State::Created | State::Running) {
                continue;
            }
            let agent = Arc::clone(self);
            stops.spawn(async move {
                if let Err(error) = agent.stop(container.id.as_str(), 0, GRACE_SECONDS).await {
                    tracing::error!(id = %container.id, %error, "could not be stopped");
                }
            });
        }
        while stops.join_next().await.is_some() {}
    }
}
