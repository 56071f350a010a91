//! Which images may be used at all: a signature policy in the terms of containers-policy.json(5).
//!
//! The policy is asked on every launch, after the manifest was fetched and before anything else of the image is
//! looked at, a stored layer included: the store keeps bytes, never verdicts. What counts and what is refused is
//! described in `docs/signatures.md`.

mod bundle;
mod collect;
mod error;
mod file;
mod identity;
mod json;
mod key;
mod openpgp;
mod payload;
mod scope;
mod signed_by;
mod sigstore;
#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use protocols::digest::Sha256Digest;
use protocols::time::Timestamp;
use registry::{ImageReference, Registry};

use self::collect::{Collecting, Found, Scheme, collect};
pub use self::error::PolicyError;
use self::scope::Name;
use self::signed_by::SignedBy;
use self::sigstore::Sigstore;
use crate::error::ImageError;

/// The largest policy, in bytes.
pub const MAX_POLICY: usize = 1024 * 1024;
/// The most signatures of one manifest that are read from one place.
pub const MAX_SIGNATURES: usize = 64;
/// The largest key file, in bytes.
const MAX_KEY_FILE: u64 = 1024 * 1024;
/// The longest foreign text that goes into an error, in characters.
const MAX_QUOTED: usize = 200;

/// A checked signature policy, its keys included. Only parsing makes one, or the open word that no signature
/// counts:
/// ```compile_fail
/// let policy = image_rs_fork::SignaturePolicy::default();
/// ```
#[derive(Debug, Clone)]
pub struct SignaturePolicy(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    default: Vec<Requirement>,
    /// By scope of the `docker` transport.
    scopes: BTreeMap<String, Vec<Requirement>>,
}

/// One requirement; all of a scope must hold.
#[derive(Debug)]
enum Requirement {
    AcceptAnything,
    Reject,
    Sigstore(Sigstore),
    SignedBy(SignedBy),
}

impl Requirement {
    /// Where its signatures lie, the likeliest place first.
    const fn schemes(&self) -> &'static [Scheme] {
        match self {
            Self::AcceptAnything | Self::Reject => &[],
            Self::Sigstore(_) => &[Scheme::Tag, Scheme::Bundle],
            Self::SignedBy(_) => &[Scheme::Lookaside],
        }
    }

    /// Whether one signature satisfies it at `now`.
    fn check(&self, image: &Name, subject: &Subject<'_>, found: &Found, now: Timestamp) -> Result<(), Rejection> {
        match (self, found) {
            (_, Found::Unreadable(problem)) => Err(Rejection::Unreadable(problem.clone())),
            (Self::Sigstore(sigstore), Found::Simple { payload, signature }) => {
                sigstore.check_payload(image, subject, payload, signature)
            }
            (Self::Sigstore(sigstore), Found::Bundle(bundle)) => sigstore.check_bundle(image, subject, bundle),
            (Self::SignedBy(signed_by), Found::OpenPgp(message)) => signed_by.check(image, subject, message, now),
            _ => Err(Rejection::WrongKey),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AcceptAnything => f.write_str("any image"),
            Self::Reject => f.write_str("no image"),
            Self::Sigstore(sigstore) => sigstore.fmt(f),
            Self::SignedBy(signed_by) => signed_by.fmt(f),
        }
    }
}

/// A manifest or index that a signature may speak of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) digest: Sha256Digest,
    pub(crate) bytes: &'a [u8],
}

/// Why one signature does not count.
#[derive(Debug, PartialEq, Eq)]
enum Rejection {
    WrongKey,
    OtherDigest,
    OtherIdentity(String),
    NoIdentity,
    /// The signature holds, and its key was revoked.
    Revoked,
    /// The signature holds; it or its key has ended, or not begun.
    Expired(String),
    /// The signature holds; its key is not for signing.
    KeyUse,
    /// An algorithm or a length that can be forged.
    Weak(String),
    Unreadable(String),
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongKey => f.write_str("wrong key, or altered"),
            Self::OtherDigest => f.write_str("other digest"),
            Self::OtherIdentity(name) => write!(f, "signed as {}", quoted(name)),
            Self::NoIdentity => f.write_str("names no repository"),
            Self::Revoked => f.write_str("the key was revoked"),
            Self::Expired(problem) => f.write_str(problem),
            Self::KeyUse => f.write_str("the key is not for signing"),
            Self::Weak(problem) => write!(f, "too weak: {problem}"),
            Self::Unreadable(problem) => f.write_str(&quoted(problem)),
        }
    }
}

/// What others wrote, cut and without control characters.
fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

impl SignaturePolicy {
    fn new(default: Vec<Requirement>, scopes: BTreeMap<String, Vec<Requirement>>) -> Self {
        Self(Arc::new(Rules { default, scopes }))
    }

    /// No signature counts and every image is taken, as the same word in a policy says. For those who judge an
    /// image by other means, such as a golden value signed by a pinned key.
    #[must_use]
    pub fn insecure_accept_anything() -> Self {
        Self::new(vec![Requirement::AcceptAnything], BTreeMap::new())
    }

    /// Reads a policy and the key files it names.
    ///
    /// # Errors
    /// [`PolicyError`] for whatever is unknown, repeated, contradictory or unsupported.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        file::parse(bytes, &read_key)
    }

    /// As [`SignaturePolicy::parse`], with key files read by `read`.
    ///
    /// # Errors
    /// As [`SignaturePolicy::parse`].
    pub fn parse_with(bytes: &[u8], read: impl Fn(&Path) -> std::io::Result<Vec<u8>>) -> Result<Self, PolicyError> {
        file::parse(bytes, &read)
    }

    /// The requirements of the most specific scope the image falls under; the more general are of no account.
    fn requirements(&self, image: &Name) -> &[Requirement] {
        let scopes = image.scopes();
        let found = scopes.iter().map(String::as_str).chain([""]).find_map(|scope| self.0.scopes.get(scope));
        found.unwrap_or(&self.0.default)
    }

    /// Asks whether the image may be used. `subjects` are the document the reference stands for and, where that
    /// is an index, the platform's manifest in it: a signature of either speaks of what will run. `now` is what
    /// expired keys and signatures are judged by.
    pub(crate) async fn enforce(
        &self,
        reference: &ImageReference,
        subjects: &[Subject<'_>],
        registry: &dyn Registry,
        now: Timestamp,
    ) -> Result<(), ImageError> {
        let image = Name::of(reference);
        let requirements = self.requirements(&image);
        let refused = |expected: String, actual: String| ImageError::Signature {
            subject: reference.to_string(),
            expected,
            actual,
        };
        if requirements.iter().any(|it| matches!(it, Requirement::Reject)) {
            return Err(refused(
                "an image of a scope that is not rejected".to_owned(),
                "the policy rejects it".to_owned(),
            ));
        }
        let mut collected: HashMap<(Sha256Digest, Scheme), Vec<Found>> = HashMap::new();
        for requirement in requirements {
            if matches!(requirement, Requirement::AcceptAnything) {
                continue;
            }
            let mut rejections = Vec::new();
            let mut accepted = false;
            for (scheme, subject) in places(requirement, subjects) {
                let key = (subject.digest, scheme);
                if let Entry::Vacant(place) = collected.entry(key) {
                    let found = collect(registry, reference.repository(), &subject.digest, scheme).await;
                    let found = found.map_err(|error| match error {
                        Collecting::Registry(error) => ImageError::Registry(error),
                        Collecting::TooMany(count) => refused(
                            format!("at most {MAX_SIGNATURES} signatures of {}", subject.digest),
                            format!("{count} signatures"),
                        ),
                    })?;
                    place.insert(found);
                }
                for found in collected.get(&key).into_iter().flatten() {
                    match requirement.check(&image, &subject, found, now) {
                        Ok(()) => accepted = true,
                        Err(rejection) => rejections.push(rejection),
                    }
                }
                if accepted {
                    break;
                }
            }
            if !accepted {
                let actual = if rejections.is_empty() {
                    nothing(requirement, reference, registry)
                } else {
                    summary(&rejections)
                };
                return Err(refused(requirement.to_string(), actual));
            }
        }
        Ok(())
    }
}

/// Every place signatures may lie in, the likeliest first.
fn places<'s>(requirement: &Requirement, subjects: &'s [Subject<'s>]) -> impl Iterator<Item = (Scheme, Subject<'s>)> {
    requirement.schemes().iter().flat_map(|scheme| subjects.iter().map(move |it| (*scheme, *it)))
}

/// That there is no signature, and where it was looked for.
fn nothing(requirement: &Requirement, reference: &ImageReference, registry: &dyn Registry) -> String {
    match requirement {
        Requirement::SignedBy(_) => match registry.lookaside(reference.repository()) {
            Some(place) => format!("no signature in {}", quoted(&place)),
            None => "no signature: the configuration names no lookaside for this repository".to_owned(),
        },
        _ => "no signature".to_owned(),
    }
}

/// `2 signatures: wrong key, or altered; other digest`.
fn summary(rejections: &[Rejection]) -> String {
    let mut reasons: Vec<(String, usize)> = Vec::new();
    for reason in rejections.iter().map(ToString::to_string) {
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => reasons.push((reason, 1)),
        }
    }
    let reasons: Vec<String> = reasons
        .into_iter()
        .map(|(reason, count)| if count == 1 { reason } else { format!("{reason} ({count} times)") })
        .collect();
    let plural = if rejections.len() == 1 { "" } else { "s" };
    format!("{} signature{plural}: {}", rejections.len(), reasons.join("; "))
}

fn read_key(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_KEY_FILE.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_KEY_FILE {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "more than 1 MiB"));
    }
    Ok(bytes)
}
