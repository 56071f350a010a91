//! From envelopes that anyone may have stored to the one golden value that counts.
//!
//! The storage is untrusted: it can withhold and add, so what it adds must change nothing.
//!
//! 1. Each envelope is read alone. It is *authentic* when a pinned key signed it, its statement is strictly
//!    well formed, its issuer is the configured name of that key, and its subject is the manifest.
//! 2. Envelopes that are not authentic are ignored while an authentic one exists. Where none exists, the
//!    refusal shown is the most telling one, whatever the envelopes' order: `golden.signature` (a pinned key
//!    is named, the bytes differ), then `golden.subject`, `golden.malformed`, `golden.signer`.
//! 3. Within one (issuer, series) the highest version counts. That version with two contents is
//!    `golden.conflict`; a conflict below it is history, cured by the higher version.
//! 4. The highest version counts even when it has expired or was revoked: falling back to a lower one would
//!    let time undo an update. A higher version is the cure here too.
//! 5. One manifest may carry several series (two tags of one image, two issuers). The first whose highest
//!    version is in good standing is taken, in the order of the configured signers, then by name of series.
//!
//! A revocation list speaks for its issuer only. A list that is there but not readable, not signed by a
//! pinned key or not its issuer's is `golden.unavailable`, never ignored. What an expired list revokes stays
//! revoked; where a list is required, an expired one does not count as one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use protocols::digest::Sha256Digest;
use protocols::dsse::{DsseError, Envelope};
use protocols::events::GoldenRef;
use protocols::golden::{GoldenValue, PAYLOAD_TYPE, RevocationList, Statement};
use protocols::reason::{self, Refusal};
use protocols::time::Timestamp;

use crate::signers::{RevocationRule, Signer, TrustedSigners};

/// A golden value whose signature, signer, subject and revocation state were checked.
/// Only [`authenticate`] makes one:
///
/// ```compile_fail,E0451
/// # fn forge(value: protocols::golden::GoldenValue, digest: protocols::digest::Sha256Digest) {
/// let forged = verifier::AuthenticatedGolden { value, subject: digest, payload: digest, signer: digest };
/// # }
/// ```
///
/// nor can one be read from bytes:
///
/// ```compile_fail,E0277
/// let forged: verifier::AuthenticatedGolden = serde_json::from_str("{}").unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticatedGolden {
    value: GoldenValue,
    subject: Sha256Digest,
    payload: Sha256Digest,
    signer: Sha256Digest,
}

impl AuthenticatedGolden {
    /// The signed content.
    #[must_use]
    pub const fn value(&self) -> &GoldenValue {
        &self.value
    }

    /// The platform manifest it speaks of.
    #[must_use]
    pub const fn subject(&self) -> Sha256Digest {
        self.subject
    }

    /// The configured name of the key that signed it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.value.issuer
    }

    /// How the log and verdicts name it.
    #[must_use]
    pub fn reference(&self) -> GoldenRef {
        GoldenRef {
            payload: self.payload,
            signer: self.signer,
            series_h: GoldenRef::series_hash(&self.value.issuer, &self.value.series),
            version: self.value.version,
        }
    }
}

/// A revocation list by a pinned key in its issuer's name. Only [`revocations`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthenticatedRevocations(RevocationList);

impl AuthenticatedRevocations {
    /// The issuer that answers for it, and for whose golden values alone it speaks.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// SHA-256 of the payloads of revoked golden values.
    #[must_use]
    pub fn revoked(&self) -> &[Sha256Digest] {
        &self.0.revoked
    }
}

/// Reads a revocation list (DSSE, as stored), for those who remember what was ever revoked: the storage can go
/// back to an older list or to none.
///
/// # Errors
/// `golden.unavailable`; see the module's rules.
pub fn revocations(
    manifest: &Sha256Digest,
    bytes: &[u8],
    signers: &TrustedSigners,
) -> Result<AuthenticatedRevocations, Refusal> {
    read_list(manifest, bytes, signers).map(AuthenticatedRevocations)
}

/// The refusal of a golden value that its issuer has revoked.
#[must_use]
pub fn revoked(golden: &AuthenticatedGolden) -> Refusal {
    let value = &golden.value;
    let expected = "a golden value that is not revoked";
    let actual = format!("version {} of {}, revoked", value.version, value.series);
    Refusal::new(reason::GOLDEN_REVOKED, golden.subject.to_string(), expected, actual)
}

/// Finds the golden value for `manifest` among `envelopes` (DSSE, as stored), honouring `revocations`
/// (a DSSE revocation list; `None` when the storage says that it holds none).
///
/// # Errors
/// `golden.missing`, `.signature`, `.subject`, `.malformed`, `.signer`, `.conflict`, `.revoked`, `.unavailable`;
/// see the module's rules.
pub fn authenticate(
    manifest: &Sha256Digest,
    envelopes: &[Vec<u8>],
    revocations: Option<&[u8]>,
    signers: &TrustedSigners,
    now: Timestamp,
) -> Result<AuthenticatedGolden, Refusal> {
    let mut authentic = Vec::new();
    let mut refused = Vec::new();
    for bytes in envelopes {
        match read(manifest, bytes, signers) {
            Ok(candidate) => authentic.push(candidate),
            Err((rank, refusal)) => refused.push((rank, Sha256Digest::of(bytes), refusal)),
        }
    }
    if authentic.is_empty() {
        // Ties are broken by the bytes, so that the storage's order never shows.
        let shown = refused.into_iter().min_by_key(|(rank, digest, _)| (*rank, *digest));
        return Err(shown.map_or_else(|| missing(manifest), |(_, _, refusal)| refusal));
    }
    let list = revocations.map(|bytes| read_list(manifest, bytes, signers)).transpose()?;

    let mut winners = highest(manifest, authentic)?;
    winners.sort_by_cached_key(|(place, golden)| {
        let value = &golden.value;
        let lowered = value.version < signers.floor(&value.issuer, &value.series);
        let unfit = standing(golden, list.as_ref(), signers, now).is_err();
        (unfit, lowered, now >= value.expires, *place, value.series.clone())
    });
    let (_, chosen) = winners.into_iter().next().ok_or_else(|| missing(manifest))?;
    standing(&chosen, list.as_ref(), signers, now)?;
    Ok(chosen)
}

/// How telling a refusal is, most telling first; the order of the variants is the documented order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Signature,
    Subject,
    Malformed,
    Signer,
}

/// A candidate and the place of its signer in the configuration.
type Candidate = (usize, AuthenticatedGolden);

fn missing(manifest: &Sha256Digest) -> Refusal {
    Refusal::new(reason::GOLDEN_MISSING, manifest.to_string(), "a signed golden value", "none is stored")
}

/// Reads one envelope alone.
fn read(manifest: &Sha256Digest, bytes: &[u8], signers: &TrustedSigners) -> Result<Candidate, (Rank, Refusal)> {
    let subject = manifest.to_string();
    let malformed = |actual: String| {
        let expected = "a DSSE envelope over a golden value statement";
        (Rank::Malformed, Refusal::new(reason::GOLDEN_MALFORMED, subject.clone(), expected, actual))
    };
    let envelope = Envelope::parse(bytes).map_err(|error| malformed(error.to_string()))?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(malformed(format!("payload type {}", envelope.payload_type)));
    }
    let signed_by = signed_by(&envelope, signers).map_err(|error| match error {
        DsseError::BadSignature { keyid } => {
            let expected = format!("a signature by key {keyid}");
            let actual = "a signature that does not verify";
            (Rank::Signature, Refusal::new(reason::GOLDEN_SIGNATURE, subject.clone(), expected, actual))
        }
        DsseError::UnknownSigner { keyids } => {
            let actual = format!("key ids {}", keyids.join(", "));
            (Rank::Signer, Refusal::new(reason::GOLDEN_SIGNER, subject.clone(), "a signature by a pinned key", actual))
        }
        DsseError::Malformed(what) => malformed(what),
    })?;
    let statement = Statement::<GoldenValue>::parse(&envelope.payload).map_err(|error| malformed(error.to_string()))?;
    let stated = statement.subject_digest().map_err(|error| malformed(error.to_string()))?;
    let value = statement.predicate;
    let Some((place, signer)) = signed_by.iter().find(|(_, signer)| signer.issuer() == value.issuer) else {
        let names: Vec<_> = signed_by.iter().map(|(_, signer)| signer.issuer()).collect();
        let expected = format!("issuer {}, as the signing key is named", names.join(" or "));
        let actual = format!("issuer {}", value.issuer);
        return Err((Rank::Signer, Refusal::new(reason::GOLDEN_SIGNER, subject, expected, actual)));
    };
    if stated != *manifest {
        let refusal = Refusal::new(reason::GOLDEN_SUBJECT, subject.clone(), subject, stated.to_string());
        return Err((Rank::Subject, refusal));
    }
    let payload = Sha256Digest::of(&envelope.payload);
    Ok((*place, AuthenticatedGolden { value, subject: stated, payload, signer: signer.keyid() }))
}

/// The pinned signers under whose keys the envelope verifies, at least one. One bad signature beside a good
/// one changes nothing: anyone can add it.
fn signed_by<'s>(envelope: &Envelope, signers: &'s TrustedSigners) -> Result<Vec<(usize, &'s Signer)>, DsseError> {
    let verified: Vec<_> =
        signers.iter().enumerate().filter(|(_, signer)| envelope.verify(&[signer.key()]).is_ok()).collect();
    if verified.is_empty() {
        let keys: Vec<_> = signers.iter().map(Signer::key).collect();
        envelope.verify(&keys)?;
    }
    Ok(verified)
}

/// The highest version of every (issuer, series).
fn highest(manifest: &Sha256Digest, authentic: Vec<Candidate>) -> Result<Vec<Candidate>, Refusal> {
    let mut series: BTreeMap<(String, String), Vec<Candidate>> = BTreeMap::new();
    for candidate in authentic {
        let value = &candidate.1.value;
        series.entry((value.issuer.clone(), value.series.clone())).or_default().push(candidate);
    }
    let mut winners = Vec::with_capacity(series.len());
    for ((_, name), mut candidates) in series {
        candidates.sort_by_key(|(place, golden)| (Reverse(golden.value.version), golden.payload, *place));
        let mut candidates = candidates.into_iter();
        let Some(first) = candidates.next() else { continue };
        let (version, payload) = (first.1.value.version, first.1.payload);
        if let Some((_, other)) = candidates.find(|(_, c)| c.value.version == version && c.payload != payload) {
            let expected = format!("one content of version {version} of series {name}");
            let actual = format!("payloads {payload} and {}", other.payload);
            return Err(Refusal::new(reason::GOLDEN_CONFLICT, manifest.to_string(), expected, actual));
        }
        winners.push(first);
    }
    Ok(winners)
}

/// Reads a revocation list; whatever is wrong with it, nothing can be said about revocation.
fn read_list(manifest: &Sha256Digest, bytes: &[u8], signers: &TrustedSigners) -> Result<RevocationList, Refusal> {
    let unavailable = |actual: String| {
        let expected = "a revocation list signed by a pinned key";
        Refusal::new(reason::GOLDEN_UNAVAILABLE, manifest.to_string(), expected, actual)
    };
    let envelope = Envelope::parse(bytes).map_err(|error| unavailable(error.to_string()))?;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(unavailable(format!("payload type {}", envelope.payload_type)));
    }
    let signed_by = signed_by(&envelope, signers).map_err(|error| unavailable(error.to_string()))?;
    let list = Statement::<RevocationList>::parse(&envelope.payload).map_err(|error| unavailable(error.to_string()))?;
    let list = list.predicate;
    if !signed_by.iter().any(|(_, signer)| signer.issuer() == list.issuer) {
        return Err(unavailable(format!("a list of issuer {} signed by another", list.issuer)));
    }
    Ok(list)
}

/// Whether revocation lets this golden value count.
fn standing(
    golden: &AuthenticatedGolden,
    list: Option<&RevocationList>,
    signers: &TrustedSigners,
    now: Timestamp,
) -> Result<(), Refusal> {
    let value = &golden.value;
    let list = list.filter(|list| list.issuer == value.issuer);
    if list.is_some_and(|list| list.revoked.contains(&golden.payload)) {
        return Err(revoked(golden));
    }
    if signers.revocations(&value.issuer) == RevocationRule::Required && list.is_none_or(|list| now >= list.expires) {
        let expected = format!("a current revocation list of issuer {}", value.issuer);
        let actual = list.map_or_else(|| "none".to_owned(), |list| format!("one that expired at {}", list.expires));
        return Err(Refusal::new(reason::GOLDEN_UNAVAILABLE, golden.subject.to_string(), expected, actual));
    }
    Ok(())
}

#[cfg(test)]
#[path = "golden_tests.rs"]
mod tests;
