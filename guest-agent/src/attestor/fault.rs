//! An attestor that is out of reach at first, for tests of what depends on it.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use kbs_client::{ClientError, Question, VerifiedVerdict};
use protocols::digest::Sha256Digest;
use protocols::resource::ResourcePath;
use protocols::tcl::GoldenResource;
use protocols::time::Timestamp;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::RemoteAttestor;
use crate::error::AgentError;

/// Takes deliveries after a number of failures; decides nothing, because nobody but the attestor can.
#[derive(Debug)]
pub(crate) struct Unreliable {
    failures: AtomicU32,
    delivered: watch::Sender<u64>,
}

impl Unreliable {
    pub(crate) fn after(failures: u32) -> Self {
        Self { failures: AtomicU32::new(failures), delivered: watch::Sender::new(0) }
    }
}

fn out_of_reach<T>() -> Result<T, AgentError> {
    Err(ClientError::Unavailable { what: "injected fault".to_owned() }.into())
}

#[async_trait]
impl RemoteAttestor for Unreliable {
    async fn decide(&self, _: Question) -> Result<VerifiedVerdict, AgentError> {
        out_of_reach()
    }

    async fn deliver(&self, count: u64) -> Result<(), AgentError> {
        if self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return out_of_reach();
        }
        self.delivered.send_replace(count);
        Ok(())
    }

    async fn golden(&self, _: Sha256Digest) -> Result<Option<GoldenResource>, AgentError> {
        out_of_reach()
    }

    async fn resource(&self, _: ResourcePath) -> Result<Zeroizing<Vec<u8>>, AgentError> {
        out_of_reach()
    }

    fn delivered(&self) -> watch::Receiver<u64> {
        self.delivered.subscribe()
    }

    fn last_time(&self) -> Timestamp {
        Timestamp(0)
    }
}
