//! The one function that decides on a measured image, in the guest and in the attestor alike.
//!
//! The checks, in their fixed order; the first that fails gives the code:
//!
//! | # | code | passes when |
//! |---|---|---|
//! | 1 | `golden.signer` | the signing key is pinned under the issuer's name by *this* policy |
//! | 2 | `golden.subject` | the golden value speaks of the measured manifest |
//! | 3 | `golden.environment` | it was signed for exactly this environment |
//! | 4 | `golden.expired` | `now` is before its expiry |
//! | 5 | `golden.rollback` | its version is not below the configured floor nor the high-water mark |
//! | 6 | `golden.conflict` | at the high-water mark's version it is the same golden value |
//! | 7 | `image.config` | the config's digest is the signed one |
//! | 8 | `image.platform` | operating system and architecture are the signed ones, and so is the variant where both name one |
//! | 9 | `image.layer` | the diffIDs are the signed ones, in number and order |
//! | 10 | `image.rootfs` | the golden value has a digest for the measured layout, and it is the measured one |
//! | 11 | `policy.process` | the process is within the signed policy; without one it is the image's own |

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::events::GoldenRef;
use protocols::golden::GoldenValue;
use protocols::image::{ImageMeasurement, Platform, ProcessRequest};
use protocols::jcs::{self, JcsError};
use protocols::reason::{self, Refusal};
use protocols::time::Timestamp;

use crate::golden::AuthenticatedGolden;
use crate::process;
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

/// Proof that [`appraise`] passed exactly what it names. Only [`appraise`] makes one:
///
/// ```compile_fail,E0451
/// # fn forge(golden: protocols::events::GoldenRef, digest: protocols::digest::Sha256Digest) {
/// let forged = verifier::Pass { golden, manifest: digest, config: digest, rootfs: digest, process: digest };
/// # }
/// ```
///
/// It is used once and cannot be copied:
///
/// ```compile_fail,E0308
/// # fn copy(pass: &verifier::Pass) {
/// let second: verifier::Pass = pass.clone();
/// # }
/// ```
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

/// Decides whether `image` may run as `policy.process` under `golden` at time `now`. Total: every input
/// ends in a verdict. The checks and their order are the module's table.
#[must_use]
pub fn appraise(
    image: &ImageMeasurement,
    golden: &AuthenticatedGolden,
    policy: &Policy<'_>,
    now: Timestamp,
    high_water: &HighWater,
) -> Verdict {
    let judged = check_golden(image, golden, policy, now, high_water)
        .and_then(|()| check_image(image, golden.value()))
        .and_then(|()| check_process(image, golden.value(), policy.process));
    match judged {
        Ok(process) => Verdict::Passed(Pass {
            golden: golden.reference(),
            manifest: image.manifest,
            config: image.config,
            rootfs: image.rootfs.digest,
            process,
        }),
        Err(refusal) => Verdict::Refused(refusal),
    }
}

/// Checks 1 to 6.
fn check_golden(
    image: &ImageMeasurement,
    golden: &AuthenticatedGolden,
    policy: &Policy<'_>,
    now: Timestamp,
    high_water: &HighWater,
) -> Result<(), Refusal> {
    let value = golden.value();
    let reference = golden.reference();
    let refuse =
        |code, expected: String, actual: String| Err(Refusal::new(code, image.manifest.to_string(), expected, actual));
    if !policy.signers.pins(&reference.signer, golden.issuer()) {
        let actual = format!("key {} of issuer {}", reference.signer.hex(), golden.issuer());
        return refuse(reason::GOLDEN_SIGNER, "a signature by a pinned key".to_owned(), actual);
    }
    if golden.subject() != image.manifest {
        return refuse(reason::GOLDEN_SUBJECT, image.manifest.to_string(), golden.subject().to_string());
    }
    if value.environment != policy.environment {
        return refuse(reason::GOLDEN_ENVIRONMENT, policy.environment.to_string(), value.environment.to_string());
    }
    if now >= value.expires {
        return refuse(reason::GOLDEN_EXPIRED, format!("expiry after {now}"), value.expires.to_string());
    }
    let mut floor = policy.signers.floor(&value.issuer, &value.series);
    if let HighWater::Accepted { version, .. } = high_water {
        floor = floor.max(*version);
    }
    if value.version < floor {
        let expected = format!("version {floor} or higher of series {}", value.series);
        return refuse(reason::GOLDEN_ROLLBACK, expected, format!("version {}", value.version));
    }
    match high_water {
        HighWater::Accepted { version, payload } if *version == value.version && *payload != reference.payload => {
            let expected = format!("version {version} with payload {payload}, as accepted before");
            refuse(reason::GOLDEN_CONFLICT, expected, format!("payload {}", reference.payload))
        }
        _ => Ok(()),
    }
}

/// Checks 7 to 10.
fn check_image(image: &ImageMeasurement, value: &GoldenValue) -> Result<(), Refusal> {
    let refuse =
        |code, expected: String, actual: String| Err(Refusal::new(code, image.manifest.to_string(), expected, actual));
    if image.config != value.config {
        return refuse(reason::IMAGE_CONFIG, value.config.to_string(), image.config.to_string());
    }
    if !same_platform(&image.platform, &value.platform) {
        return refuse(reason::IMAGE_PLATFORM, value.platform.to_string(), image.platform.to_string());
    }
    if image.layers.len() != value.layers.len() {
        let expected = format!("{} layers", value.layers.len());
        return refuse(reason::IMAGE_LAYER, expected, format!("{} layers", image.layers.len()));
    }
    let mut layers = image.layers.iter().zip(&value.layers).enumerate();
    if let Some((place, (found, signed))) = layers.find(|(_, (found, signed))| found != signed) {
        return refuse(reason::IMAGE_LAYER, format!("layer {place} {signed}"), found.to_string());
    }
    let layout = image.rootfs.layout.as_str();
    match value.rootfs.get(&image.rootfs.layout) {
        Some(signed) if *signed == image.rootfs.digest => Ok(()),
        Some(signed) => {
            refuse(reason::IMAGE_ROOTFS, format!("{layout} {signed}"), format!("{layout} {}", image.rootfs.digest))
        }
        None => {
            let expected = format!("a signed digest for layout {layout}");
            let signed: Vec<_> = value.rootfs.keys().map(|layout| layout.as_str()).collect();
            refuse(reason::IMAGE_ROOTFS, expected, format!("digests for [{}]", signed.join(", ")))
        }
    }
}

/// An image asked for by digest names no variant where its index did; the config's digest was compared before.
fn same_platform(a: &Platform, b: &Platform) -> bool {
    let same_variant = match (&a.variant, &b.variant) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    a.os == b.os && a.architecture == b.architecture && same_variant
}

/// Check 11; gives the digest of the process that passed.
fn check_process(
    image: &ImageMeasurement,
    value: &GoldenValue,
    request: &ProcessRequest,
) -> Result<Sha256Digest, Refusal> {
    let refusal = |expected, actual| Refusal::new(reason::POLICY_PROCESS, image.manifest.to_string(), expected, actual);
    process::check(&image.process, value.process.as_ref(), request)
        .map_err(|mismatch| refusal(mismatch.expected, mismatch.actual))?;
    process_digest(request).map_err(|error| refusal("a process with a canonical form".to_owned(), error.to_string()))
}

#[cfg(test)]
#[path = "appraise_tests.rs"]
mod tests;
