//! The decision on a measured image: in the guest or by the remote attestor, recorded either way.

use std::sync::Arc;

use image_rs_fork::MeasuredImage;
use image_rs_fork::registry::{Registry, golden};
use kbs_client::Question;
use protocols::digest::Sha256Digest;
use protocols::events::{Floor, Golden, GoldenRef, TimeSource, VerdictWord};
use protocols::image::ProcessRequest;
use protocols::reason::Refusal;
use protocols::tcl::{Mode, Outcome};
use protocols::time::Timestamp;
use verifier::{AuthenticatedGolden, Pass, Policy, Verdict, appraise, authenticate};

use super::AppraisedImage;
use crate::attestor::RemoteAttestor;
use crate::clock::Clock;
use crate::config::{BootState, Config, GoldenFrom, Local};
use crate::containers::Container;
use crate::error::{AgentError, blocking};
use crate::initdata::BoundInitdata;
use crate::journal::Journal;

/// Decides on launches. Everything it decides by is measured configuration, the log, or signed.
#[derive(Debug)]
pub(super) struct Decider {
    pub(super) config: Arc<Config>,
    pub(super) journal: Arc<Journal>,
    pub(super) attestor: Arc<dyn RemoteAttestor>,
    pub(super) clock: Arc<Clock>,
    /// Held from the look at the high-water mark to the record that raises it: two launches of one series
    /// must stand in the log in the order they were judged.
    pub(super) order: tokio::sync::Mutex<()>,
}

/// One launch to decide on.
pub(super) struct Case<'c> {
    pub(super) container: &'c Container,
    /// The reference as the log has it.
    pub(super) reference: &'c str,
    pub(super) image: MeasuredImage,
    pub(super) process: ProcessRequest,
}

/// A local verdict and the golden value it was reached with, where one was authentic.
type Judged = (Result<Pass, AgentError>, Option<GoldenRef>);

impl Decider {
    pub(super) async fn decide(
        &self,
        mode: Mode,
        registry: &dyn Registry,
        case: Case<'_>,
    ) -> Result<AppraisedImage, AgentError> {
        match mode {
            Mode::Local => self.locally(registry, case).await,
            Mode::Remote => self.remotely(case).await,
        }
    }

    async fn remotely(&self, case: Case<'_>) -> Result<AppraisedImage, AgentError> {
        let Case { container, reference, image, process } = case;
        let seq = container.seq;
        let verdict = self
            .attestor
            .decide(Question {
                cid: container.id.as_str().to_owned(),
                seq,
                reference: reference.to_owned(),
                image: image.measurement().clone(),
                process: process.clone(),
            })
            .await?;
        if let Some(id) = verdict.id() {
            container.set_decision(id.to_owned());
        }
        let (word, golden) = match verdict.outcome() {
            Outcome::Pass(golden) => (VerdictWord::Pass, Some(golden.clone())),
            Outcome::Refused { refusal, golden } => (VerdictWord::Refused(refusal.code), golden.clone()),
        };
        let manifest = image.measurement().manifest;
        let recorded = {
            // A remote pass raises the mark that a local launch may just be judged under.
            let _order = self.order.lock().await;
            self.record(Mode::Remote, seq, manifest, word, golden).await
        };
        let appraised = AppraisedImage::remotely(image, process, verdict)?;
        recorded?;
        Ok(appraised)
    }

    async fn locally(&self, registry: &dyn Registry, case: Case<'_>) -> Result<AppraisedImage, AgentError> {
        let Case { container, image, process, .. } = case;
        let seq = container.seq;
        let manifest = image.measurement().manifest;
        let stored = match self.local() {
            Err(error) => Err(error),
            Ok(local) => match self.boot_state(&local.boot_state).await {
                Err(error) => Err(error),
                Ok(()) => self.envelopes(local.golden_from, registry, &image).await,
            },
        };
        let _order = self.order.lock().await;
        let (judged, golden) = match stored {
            Err(error) => (Err(error), None),
            Ok(stored) => self.judge(&image, &process, &stored).await,
        };
        let word = match &judged {
            Ok(_) => VerdictWord::Pass,
            Err(error) => VerdictWord::Refused(error.code()),
        };
        let recorded = self.record(Mode::Local, seq, manifest, word, golden).await;
        // A refusal stays the answer even when it could not be recorded.
        let pass = judged?;
        recorded?;
        AppraisedImage::locally(image, process, &pass, self.config.digest)
    }

    fn local(&self) -> Result<&Local, AgentError> {
        let permitted = self.config.modes.permitted.iter().copied().collect();
        self.config.local.as_ref().ok_or(AgentError::Mode { asked: Mode::Local.to_string(), permitted })
    }

    /// Checks that the guest booted as the measured configuration says.
    async fn boot_state(&self, state: &BootState) -> Result<(), AgentError> {
        let attester = Arc::clone(self.journal.log().attester());
        match state {
            BootState::Unmeasured => Ok(()),
            BootState::Pcrs(pcrs) => {
                for (index, expected) in pcrs {
                    let (attester, index) = (Arc::clone(&attester), *index);
                    let found = blocking(move || attester.boot_pcr(index)).await??;
                    same_boot_state(format!("PCR {index}"), *expected, found)?;
                }
                Ok(())
            }
            BootState::Initdata => {
                let initdata = self.config.initdata.as_ref().map(BoundInitdata::digest);
                let Some(expected) = initdata else {
                    return Err(AgentError::BootState {
                        what: "initdata".to_owned(),
                        expected: "initdata bound into the evidence".to_owned(),
                        actual: "none given to this guest".to_owned(),
                    });
                };
                same_boot_state("initdata".to_owned(), expected, attester.initdata_bound())
            }
        }
    }

    /// What the untrusted storage holds for the image's manifest.
    async fn envelopes(
        &self,
        from: GoldenFrom,
        registry: &dyn Registry,
        image: &MeasuredImage,
    ) -> Result<golden::GoldenStorage, AgentError> {
        let manifest = image.measurement().manifest;
        let unavailable = |what: String| AgentError::GoldenUnavailable { manifest, what };
        match from {
            GoldenFrom::Registry => golden::fetch(registry, image.reference().repository(), &manifest)
                .await
                .map_err(|error| unavailable(error.to_string())),
            GoldenFrom::Kbs => {
                let stored = self.attestor.golden(manifest).await.map_err(|error| unavailable(error.to_string()))?;
                Ok(stored.map_or_else(golden::GoldenStorage::default, |stored| golden::GoldenStorage {
                    envelopes: stored.envelopes.into_iter().map(|envelope| envelope.0).collect(),
                    revocations: stored.revocations.map(|list| list.0),
                }))
            }
        }
    }

    async fn judge(&self, image: &MeasuredImage, process: &ProcessRequest, stored: &golden::GoldenStorage) -> Judged {
        let measured = image.measurement();
        let authentic: Result<AuthenticatedGolden, Refusal> = authenticate(
            &measured.manifest,
            &stored.envelopes,
            stored.revocations.as_deref(),
            &self.config.signers,
            self.now(),
        );
        let golden = match authentic {
            Ok(golden) => golden,
            Err(refusal) => return (Err(refusal.into()), None),
        };
        let reference = golden.reference();
        let issued = golden.value().issued_at;
        let high_water = match self.journal.high_water(reference.series_h).await {
            Ok(high_water) => high_water,
            Err(error) => return (Err(error), Some(reference)),
        };
        let policy = Policy { signers: &self.config.signers, environment: self.config.environment, process };
        let verdict = appraise(measured, &golden, &policy, self.now().max(issued), &high_water);
        let judged = match verdict {
            Verdict::Passed(pass) => {
                // Only now: what the storage merely offers must not move the time of other launches.
                self.clock.saw(issued);
                Ok(pass)
            }
            Verdict::Refused(refusal) => Err(refusal.into()),
        };
        (judged, Some(reference))
    }

    /// The time expiry is judged by.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.saw(self.attestor.last_time());
        self.clock.now(Timestamp::now())
    }

    async fn record(
        &self,
        mode: Mode,
        seq: u64,
        manifest: Sha256Digest,
        verdict: VerdictWord,
        golden: Option<GoldenRef>,
    ) -> Result<(), AgentError> {
        let (floor, time_source) = match mode {
            Mode::Local => (Floor::Log, TimeSource::LatestKnown),
            Mode::Remote => (Floor::Attestor, TimeSource::Attestor),
        };
        self.journal.record(Golden { seq, manifest, mode, verdict, golden, floor, time_source }).await?;
        Ok(())
    }
}

fn same_boot_state<D: PartialEq + ToString>(what: String, expected: D, found: Option<D>) -> Result<(), AgentError> {
    if found.as_ref() == Some(&expected) {
        return Ok(());
    }
    let actual = found.map_or_else(|| "none on this platform".to_owned(), |digest| digest.to_string());
    Err(AgentError::BootState { what, expected: expected.to_string(), actual })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocols::reason;

    #[test]
    fn a_boot_state_that_is_missing_is_no_boot_state() {
        let expected = Sha256Digest::of(b"secure boot");
        assert!(same_boot_state("PCR 7".to_owned(), expected, Some(expected)).is_ok());
        for found in [None, Some(Sha256Digest::of(b"other"))] {
            let error = same_boot_state("PCR 7".to_owned(), expected, found).unwrap_err();
            assert_eq!(error.code(), reason::POLICY_BOOT_STATE);
        }
    }
}
