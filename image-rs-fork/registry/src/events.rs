//! What a client does beside answering: retries, resumes, steps from a mirror to the next place.

use std::time::Duration;

/// One thing that happened. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A request failed for a reason that may pass and is sent again.
    Retry {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What happened.
        reason: String,
        /// How long is waited first.
        wait: Duration,
    },
    /// A blob broke off and goes on where it ended.
    Resume {
        /// The registry that goes on.
        host: String,
        /// The blob.
        what: String,
        /// Bytes that are there already.
        offset: u64,
    },
    /// A mirror did not give what it was asked for; the next place is asked.
    MirrorFailed {
        /// The repository on the mirror.
        mirror: String,
        /// What was asked for.
        what: String,
        /// What happened.
        reason: String,
    },
}

/// Hears of [`Event`]s as they happen. Called on the client's tasks: it must return at once.
pub trait RegistryEvents: Send + Sync + std::fmt::Debug {
    /// One event.
    fn event(&self, event: &Event);
}

/// Hears nothing; the events are in the log all the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoEvents;

impl RegistryEvents for NoEvents {
    fn event(&self, _: &Event) {}
}

/// Writes an event to the log.
pub(crate) fn trace(event: &Event) {
    match event {
        Event::Retry { host, what, reason, wait } => {
            tracing::warn!(
                host,
                what,
                reason,
                wait_ms = wait.as_secs_f64() * 1000.0,
                "registry request is tried again"
            );
        }
        Event::Resume { host, what, offset } => tracing::info!(host, what, offset, "blob is resumed"),
        Event::MirrorFailed { mirror, what, reason } => {
            tracing::warn!(mirror, what, reason, "mirror failed, the next place is asked");
        }
    }
}
