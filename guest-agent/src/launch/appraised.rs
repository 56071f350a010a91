//! From a measured image to one that may run: the only two ways.

use image_rs_fork::MeasuredImage;
use kbs_client::VerifiedVerdict;
use protocols::digest::Sha256Digest;
use protocols::image::ProcessRequest;
use protocols::tcl::{Mode, Outcome};
use verifier::{Pass, process_digest};

use crate::error::AgentError;

/// A measured image that passed, together with the process it passed with.
///
/// It cannot be made without a pass:
///
/// ```compile_fail,E0451
/// fn forge(image: image_rs_fork::MeasuredImage, process: protocols::image::ProcessRequest)
///     -> guest_agent::launch::AppraisedImage
/// {
///     let policy = protocols::digest::Sha256Digest::new([0; 32]);
///     guest_agent::launch::AppraisedImage { image, process, policy, mode: protocols::tcl::Mode::Local }
/// }
/// ```
///
/// nor with a verdict whose signature was not checked:
///
/// ```compile_fail,E0308
/// fn unsigned(
///     image: image_rs_fork::MeasuredImage,
///     process: protocols::image::ProcessRequest,
///     verdict: protocols::tcl::Verdict,
/// ) {
///     let _ = guest_agent::launch::AppraisedImage::remotely(image, process, verdict);
/// }
/// ```
///
/// With the proofs it can (the same calls, and they compile):
///
/// ```no_run
/// fn proven(
///     (one, two): (image_rs_fork::MeasuredImage, image_rs_fork::MeasuredImage),
///     process: protocols::image::ProcessRequest,
///     pass: verifier::Pass,
///     verdict: kbs_client::VerifiedVerdict,
///     policy: protocols::digest::Sha256Digest,
/// ) {
///     let _ = guest_agent::launch::AppraisedImage::locally(one, process.clone(), &pass, policy);
///     let _ = guest_agent::launch::AppraisedImage::remotely(two, process, verdict);
/// }
/// ```
#[derive(Debug)]
pub struct AppraisedImage {
    image: MeasuredImage,
    process: ProcessRequest,
    policy: Sha256Digest,
    mode: Mode,
}

impl AppraisedImage {
    /// Takes a pass made in this guest. `policy` is the digest of the measured configuration it was made under.
    ///
    /// # Errors
    /// [`AgentError::OtherVerdict`] when the pass is about anything else than this image and process.
    pub fn locally(
        image: MeasuredImage,
        process: ProcessRequest,
        pass: &Pass,
        policy: Sha256Digest,
    ) -> Result<Self, AgentError> {
        let judged =
            Judged { manifest: pass.manifest(), config: pass.config(), rootfs: pass.rootfs(), process: pass.process() };
        judged.is(&image, &process)?;
        Ok(Self { image, process, policy, mode: Mode::Local })
    }

    /// Takes the remote attestor's verified verdict, once.
    ///
    /// # Errors
    /// [`AgentError::Refused`] when it is a refusal, [`AgentError::OtherVerdict`] when it is about anything else.
    pub fn remotely(
        image: MeasuredImage,
        process: ProcessRequest,
        verdict: VerifiedVerdict,
    ) -> Result<Self, AgentError> {
        let claims = verdict.claims();
        if let Outcome::Refused { refusal, .. } = &claims.outcome {
            return Err(AgentError::Refused(refusal.clone()));
        }
        let judged =
            Judged { manifest: claims.manifest, config: claims.config, rootfs: claims.rootfs, process: claims.process };
        judged.is(&image, &process)?;
        Ok(Self { image, process, policy: claims.policy, mode: Mode::Remote })
    }

    /// The measured image.
    #[must_use]
    pub const fn image(&self) -> &MeasuredImage {
        &self.image
    }

    /// The process it passed with.
    #[must_use]
    pub const fn process(&self) -> &ProcessRequest {
        &self.process
    }

    /// Digest of the policy that let it pass.
    #[must_use]
    pub const fn policy(&self) -> Sha256Digest {
        self.policy
    }

    /// Where it was decided.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }
}

/// What a verdict is about.
struct Judged {
    manifest: Sha256Digest,
    config: Sha256Digest,
    rootfs: Sha256Digest,
    process: Sha256Digest,
}

impl Judged {
    fn is(&self, image: &MeasuredImage, process: &ProcessRequest) -> Result<(), AgentError> {
        let measured = image.measurement();
        let process = process_digest(process)
            .map_err(|_| AgentError::Request { field: "process", what: "has no canonical form" })?;
        for (field, expected, actual) in [
            ("manifest", measured.manifest, self.manifest),
            ("config", measured.config, self.config),
            ("root file system", measured.rootfs.digest, self.rootfs),
            ("process", process, self.process),
        ] {
            if expected != actual {
                return Err(AgentError::OtherVerdict { field, expected, actual });
            }
        }
        Ok(())
    }
}
