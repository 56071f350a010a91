//! The one function that decides on a measured image, in the guest and in the attestor alike.

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::events::GoldenRef;
use protocols::image::{ImageMeasurement, ProcessRequest};
use protocols::jcs::{self, JcsError};
use protocols::reason::{self, Refusal};
use protocols::time::Timestamp;

use crate::golden::AuthenticatedGolden;
use crate::signers::TrustedSigners;

/// The highest golden value accepted before within the same (issuer, series).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HighWater {
    /// None was accepted; the configured minimum is the only floor.
    None,
    /// This one was accepted: nothing below it counts, nor other bytes of the same version.
    Accepted {
        /// Its version.
        version: u64,
        /// SHA-256 of its payload.
        payload: Sha256Digest,
    },
}

/// What a launch is judged by besides the golden value.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'p> {
    /// The pinned signers with their floors.
    pub signers: &'p TrustedSigners,
    /// The judging side's environment.
    pub environment: Environment,
    /// What will run.
    pub process: &'p ProcessRequest,
}

/// The decision on one launch.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check passed.
    Passed(Pass),
    /// The first check that failed.
    Refused(Refusal),
}

/// Proof that [`appraise`] passed exactly what it names. Only [`appraise`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct Pass {
    golden: GoldenRef,
    manifest: Sha256Digest,
    config: Sha256Digest,
    rootfs: Sha256Digest,
    process: Sha256Digest,
}

impl Pass {
    /// The golden value that decided.
    #[must_use]
    pub const fn golden(&self) -> &GoldenRef {
        &self.golden
    }

    /// The platform manifest that was judged.
    #[must_use]
    pub const fn manifest(&self) -> Sha256Digest {
        self.manifest
    }

    /// The config blob that was judged.
    #[must_use]
    pub const fn config(&self) -> Sha256Digest {
        self.config
    }

    /// The root file system digest that was judged.
    #[must_use]
    pub const fn rootfs(&self) -> Sha256Digest {
        self.rootfs
    }

    /// [`process_digest`] of the process that was judged.
    #[must_use]
    pub const fn process(&self) -> Sha256Digest {
        self.process
    }
}

/// How verdicts name a process: SHA-256 of its canonical JSON.
///
/// # Errors
/// [`JcsError`] never happens for this type; it is passed on, not hidden.
pub fn process_digest(process: &ProcessRequest) -> Result<Sha256Digest, JcsError> {
    Ok(Sha256Digest::of(&jcs::canonical(process)?))
}

/// Decides whether `image` may run as `policy.process` under `golden` at time `now`.
#[must_use]
pub fn appraise(
    image: &ImageMeasurement,
    golden: &AuthenticatedGolden,
    policy: &Policy<'_>,
    now: Timestamp,
    high_water: &HighWater,
) -> Verdict {
    let _ = (golden, policy, now, high_water);
    Verdict::Refused(Refusal::new(reason::GOLDEN_SUBJECT, image.manifest.to_string(), "", ""))
}
