//! One launch's question as a value: everything that decided it, so that it can be decided again from a file.
//!
//! [`Rehearsal::outcome`] makes the checks of a decision, by the functions that make them in a launch and in the same order:
//! [`authenticate`], what was revoked before, [`appraise`].

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::environment::Environment;
use protocols::image::{ImageMeasurement, ProcessRequest};
use protocols::reason::{Refusal, Source};
use protocols::tcl::{Outcome, RecordBytes};
use protocols::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::appraise::{HighWater, Policy, Verdict, appraise};
use crate::golden::{authenticate, revoked};
use crate::signers::{SignerConfig, SignersError, TrustedSigners};

/// The version of the file.
pub const VERSION: u32 = 1;

/// What storage and memory gave, and what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rehearsal {
    /// [`VERSION`].
    pub v: u32,
    /// The judging side's environment.
    pub environment: Environment,
    /// The judging side's time.
    pub now: Timestamp,
    /// What was measured.
    pub image: ImageMeasurement,
    /// What would run.
    pub process: ProcessRequest,
    /// The judging side's own signers.
    pub signers: Vec<SignerConfig>,
    /// Golden values as they were stored: DSSE, standard base64.
    pub envelopes: Vec<RecordBytes>,
    /// The revocation list as it was stored, or null.
    pub revocations: Option<RecordBytes>,
    /// Why the storage could not be read, where it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<Refusal>,
    /// Payloads that their issuers are known to have revoked before, whatever list is shown now.
    #[serde(default)]
    pub revoked: Vec<Sha256Digest>,
    /// The highest golden values accepted before.
    #[serde(default)]
    pub high_water: Vec<Mark>,
}

/// The highest golden value accepted within one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Hash of issuer and series, as the log names them.
    pub series_h: Sha384Digest,
    /// Its version.
    pub version: u64,
    /// SHA-256 of its payload.
    pub payload: Sha256Digest,
}

impl Rehearsal {
    /// Decides. `by` is told as the source of a refusal.
    ///
    /// # Errors
    /// [`SignersError`] for signers that no configuration can have.
    pub fn outcome(&self, by: Source) -> Result<Outcome, SignersError> {
        let signers = TrustedSigners::new(self.signers.clone())?;
        let refused = |refusal: Refusal, golden| Outcome::Refused { refusal: Box::new(refusal.by(by)), golden };
        if let Some(refusal) = &self.unavailable {
            return Ok(refused(refusal.clone(), None));
        }
        let envelopes: Vec<Vec<u8>> = self.envelopes.iter().map(|bytes| bytes.0.clone()).collect();
        let revocations = self.revocations.as_ref().map(|bytes| bytes.0.as_slice());
        let golden = match authenticate(&self.image.manifest, &envelopes, revocations, &signers, self.now) {
            Ok(golden) => golden,
            Err(refusal) => return Ok(refused(refusal, None)),
        };
        let reference = golden.reference();
        if self.revoked.contains(&reference.payload) {
            return Ok(refused(revoked(&golden), None));
        }
        let mark = self.high_water.iter().find(|mark| mark.series_h == reference.series_h);
        let high_water =
            mark.map_or(HighWater::None, |mark| HighWater::Accepted { version: mark.version, payload: mark.payload });
        let policy = Policy { signers: &signers, environment: self.environment, process: &self.process };
        Ok(match appraise(&self.image, &golden, &policy, self.now, &high_water) {
            Verdict::Passed(pass) => Outcome::Pass(pass.golden().clone()),
            Verdict::Refused(refusal) => refused(refusal, Some(reference)),
        })
    }
}
