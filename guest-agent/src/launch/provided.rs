//! An appraised root file system for another agent in this guest, which runs what it likes from it.

use image_rs_fork::MountedRootfs;
use protocols::events::{Failed, Provided, hash_str};

use super::{AppraisedImage, Asked, Pipeline, merge};
use crate::containers::{Container, Stage};
use crate::error::{AgentError, blocking};

impl Pipeline {
    /// Pulls, measures and has the image judged with its own process, mounts it in the agent's own place, and records
    /// that it is handed over. When it fails, the log says so as far as it can and nothing stays mounted.
    ///
    /// # Errors
    /// The first check or step that failed.
    pub(crate) async fn provide(&self, container: &Container, reference: &str) -> Result<MountedRootfs, AgentError> {
        let image = self.measure(container, reference).await?;
        let given = async {
            let process = merge(&image.measurement().process, Asked::default());
            let appraised = self.judged(container, reference, image, process).await?;
            self.hand_over(container, appraised).await
        };
        match given.await {
            Ok(rootfs) => Ok(rootfs),
            Err(error) => {
                self.end(container, Failed { seq: container.seq, code: error.code() }.into()).await;
                Err(error)
            }
        }
    }

    async fn hand_over(&self, container: &Container, appraised: AppraisedImage) -> Result<MountedRootfs, AgentError> {
        container.enter(Stage::Measure);
        let measured = appraised.image().measurement();
        let provided = Provided {
            seq: container.seq,
            cid_h: hash_str(container.id.as_str()),
            image_manifest: measured.manifest,
            rootfs: measured.rootfs,
            policy_h: appraised.policy(),
        };
        let parent = self.places().rootfs;
        let dir = parent.join(container.id.as_str());
        let mounted = blocking(move || {
            crate::paths::private_dir(&parent).map_err(|error| AgentError::Bundle { what: error.to_string() })?;
            Ok::<_, AgentError>(appraised.image().mount(&dir)?)
        });
        let rootfs = mounted.await??;
        // The other agent sees it only once its handing over is in log and register, and with the attestor.
        let recorded = match self.journal.record(provided).await {
            Ok(recorded) => self.ledger(container.mode).receipt(&recorded).await,
            Err(error) => Err(error),
        };
        match recorded {
            Ok(()) => Ok(rootfs),
            Err(error) => {
                blocking(move || drop(rootfs)).await?;
                Err(error)
            }
        }
    }
}
