//! Carries records to the attestor that no launch waits for: exits, queued launches, everything in between.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::attestor::RemoteAttestor;

/// How long records are gathered before a delivery; launches and starts that wait for a receipt deliver at once, and
/// carry what lies here. A created container's record has often gone before its start is asked for.
const GATHER: Duration = Duration::from_millis(50);
/// The first and the longest pause after a failed delivery.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Delivers whatever `recorded` grows by, until it closes.
pub(crate) async fn carry(attestor: Arc<dyn RemoteAttestor>, mut recorded: watch::Receiver<u64>) {
    let mut pause = PAUSES.0;
    loop {
        let count = *recorded.borrow_and_update();
        if count > *attestor.delivered().borrow() {
            tokio::time::sleep(GATHER).await;
            let count = *recorded.borrow_and_update();
            match attestor.deliver(count).await {
                Ok(()) => pause = PAUSES.0,
                Err(error) => {
                    tracing::warn!(%error, code = %error.code(), records = count, "the log could not be delivered");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                    continue;
                }
            }
        }
        if recorded.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestor::fault::Unreliable;

    #[tokio::test(start_paused = true)]
    async fn queued_records_arrive_when_the_attestor_is_back() {
        let recorded = watch::Sender::new(3);
        let late = Arc::new(Unreliable::after(4));
        let carrier = tokio::spawn(carry(Arc::clone(&late) as Arc<dyn RemoteAttestor>, recorded.subscribe()));
        let mut delivered = late.delivered();
        delivered.wait_for(|count| *count == 3).await.unwrap();
        recorded.send_replace(5);
        delivered.wait_for(|count| *count == 5).await.unwrap();
        drop(recorded);
        carrier.await.unwrap();
    }
}
