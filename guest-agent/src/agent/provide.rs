//! An image's root file system for another agent in this guest.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use image_rs_fork::MountedRootfs;

use super::Agent;
use super::launch::EntryGuard;
use crate::error::AgentError;
use crate::launch::LaunchRequest;

impl Agent {
    /// Pulls, measures, has judged, records and mounts an image for a container that another agent will run. Goes on
    /// when the caller stops waiting only if it runs in a task of its own.
    ///
    /// # Errors
    /// The first check or step that failed; nothing stays mounted.
    pub(crate) async fn provide(&self, id: &str, reference: &str) -> Result<MountedRootfs, AgentError> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(AgentError::Draining);
        }
        let request = LaunchRequest { id: id.to_owned(), reference: reference.to_owned(), ..LaunchRequest::default() };
        let container = self.pipeline.begin(&request).await?;
        // Its entry shows the pull's progress and goes with it: what runs later is none of this agent's containers.
        let _entry = EntryGuard::new(Arc::clone(&self.containers), Arc::clone(&container));
        tracing::info!(id = %container.id, seq = container.seq, mode = %container.mode, "pulling for another agent");
        self.pipeline.provide(&container, reference).await
    }
}
