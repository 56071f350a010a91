//! From the bytes of a file to reference values that count.
//!
//! 1. [`read`]: a listed signer signed the document, which is strictly well formed and whose issuer is the configured
//!    name of that key; it is for this environment; its version is not below the configured minimum.
//! 2. [`highest`]: of one (issuer, series) the highest version counts. That version with two contents is
//!    `reference.conflict`.
//! 3. [`CheckedReferences::accept`]: nothing below a version accepted before, and no other content of that version.
//! 4. [`AcceptedReferences::values`]: from when it was issued until it expires, by the caller's time. The highest version counts even
//!    then: falling back to a lower one would let time undo an update.
//!
//! A document without a signature counts only where configuration names its file, and never in production. Nobody
//! answers for its issuer, so it neither raises a version nor is held to one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::dsse::{DsseError, Envelope};
use protocols::environment::Environment;
use protocols::events::GoldenRef;
use protocols::reason::{self, Refusal};
use protocols::time::Timestamp;
use verifier::HighWater;

use crate::corim::{self, CorimError, Standing, Told};
use crate::document::{Document, PAYLOAD_TYPE};
use crate::names::References;
use crate::signers::{Signer, Signers};

/// What a file is read under.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'t> {
    /// Who may sign.
    pub signers: &'t Signers,
    /// The reader's environment.
    pub environment: Environment,
    /// Whether configuration names this very file as one that may be unsigned. Means nothing in production.
    pub unsigned: bool,
}

/// Reference values whose signature, signer, environment and lowest version were checked. Only [`read`] makes them:
///
/// ```compile_fail,E0451
/// # fn forge(document: reference_values::Document, payload: protocols::digest::Sha256Digest) {
/// let forged = reference_values::CheckedReferences { document, payload, signer: None };
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedReferences {
    document: Document,
    payload: Sha256Digest,
    /// `None`: unsigned, and configuration wants it all the same.
    signer: Option<Sha256Digest>,
}

impl CheckedReferences {
    /// The content. Its values count only once it was accepted.
    #[must_use]
    pub const fn document(&self) -> &Document {
        &self.document
    }

    /// SHA-256 of the signed bytes.
    #[must_use]
    pub const fn payload(&self) -> Sha256Digest {
        self.payload
    }

    /// The key that signed; `None` where nobody did.
    #[must_use]
    pub const fn signer(&self) -> Option<Sha256Digest> {
        self.signer
    }

    /// The name under which the highest accepted version is kept; `None` where nobody answers for it.
    #[must_use]
    pub fn series(&self) -> Option<Sha384Digest> {
        self.signer.map(|_| GoldenRef::series_hash(&self.document.issuer, &self.document.series))
    }

    /// The mark that is kept once it is accepted.
    #[must_use]
    pub const fn mark(&self) -> HighWater {
        HighWater::Accepted { version: self.document.version, payload: self.payload }
    }

    /// Holds it against the version accepted before of its series.
    ///
    /// # Errors
    /// `reference.rollback`, `reference.conflict`.
    pub fn accept(self, before: &HighWater) -> Result<AcceptedReferences, Refusal> {
        let refuse =
            |code, expected: String, actual: String| Err(Refusal::new(code, subject(&self.document), expected, actual));
        match before {
            HighWater::Accepted { version, .. } if self.signer.is_some() && self.document.version < *version => refuse(
                reason::REFERENCE_ROLLBACK,
                format!("version {version} or higher"),
                format!("version {}", self.document.version),
            ),
            HighWater::Accepted { version, payload }
                if self.signer.is_some() && self.document.version == *version && self.payload != *payload =>
            {
                refuse(
                    reason::REFERENCE_CONFLICT,
                    format!("version {version} with payload {payload}"),
                    format!("payload {}", self.payload),
                )
            }
            _ => Ok(AcceptedReferences(self)),
        }
    }
}

/// Reference values that no later version was accepted before. Only [`CheckedReferences::accept`] makes them:
///
/// ```compile_fail,E0423
/// # fn forge(checked: reference_values::CheckedReferences) {
/// let forged = reference_values::AcceptedReferences(checked);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedReferences(CheckedReferences);

impl AcceptedReferences {
    /// What was checked.
    #[must_use]
    pub const fn checked(&self) -> &CheckedReferences {
        &self.0
    }

    /// When what [`Self::values`] says changes next, after `now`.
    #[must_use]
    pub fn changes(&self, now: Timestamp) -> Option<Timestamp> {
        let document = &self.0.document;
        [document.issued_at, document.expires].into_iter().find(|time| *time > now)
    }

    /// The values, from the second when they were issued.
    ///
    /// # Errors
    /// `reference.expired`: before or after the document's time.
    pub fn values(&self, now: Timestamp) -> Result<&References, Refusal> {
        let document = &self.0.document;
        if !(document.issued_at..document.expires).contains(&now) {
            let actual = format!("{} to {}", document.issued_at, document.expires);
            let expected = format!("values that count at {now}");
            return Err(Refusal::new(reason::REFERENCE_EXPIRED, subject(document), expected, actual));
        }
        Ok(&document.values)
    }
}

fn subject(document: &Document) -> String {
    format!("reference values `{}` of {}", document.series, document.issuer)
}

/// Reads one file: an envelope with one document, or a CoRIM with one or more.
///
/// # Errors
/// `reference.malformed`, `.signature`, `.signer`, `.unsigned`, `.rollback`; `policy.environment` for a document of
/// development in production. `name` is what the refusal calls the file.
pub fn read(name: &str, bytes: &[u8], trust: &Trust<'_>) -> Result<Vec<CheckedReferences>, Refusal> {
    let checked =
        if corim::looks_like(bytes) { of_corim(name, bytes, trust)? } else { vec![of_json(name, bytes, trust)?] };
    for one in &checked {
        fits(one, trust)?;
    }
    Ok(checked)
}

/// Whether it is for this environment, and not below the configured floor.
fn fits(checked: &CheckedReferences, trust: &Trust<'_>) -> Result<(), Refusal> {
    let document = &checked.document;
    if trust.environment == Environment::Production && document.environment != Environment::Production {
        let actual = format!("signed for {}", document.environment);
        let expected = "reference values of production";
        return Err(Refusal::new(reason::POLICY_ENVIRONMENT, subject(document), expected, actual));
    }
    let floor = trust.signers.floor(&document.issuer, &document.series);
    if checked.signer.is_some() && document.version < floor {
        let (expected, actual) = (format!("version {floor} or higher"), format!("version {}", document.version));
        return Err(Refusal::new(reason::REFERENCE_ROLLBACK, subject(document), expected, actual));
    }
    Ok(())
}

fn of_json(name: &str, bytes: &[u8], trust: &Trust<'_>) -> Result<CheckedReferences, Refusal> {
    let malformed = |actual: String| {
        let expected = "a DSSE envelope over a document of reference values, or a CoRIM";
        Refusal::new(reason::REFERENCE_MALFORMED, name, expected, actual)
    };
    match Envelope::parse(bytes) {
        Ok(envelope) if envelope.payload_type == PAYLOAD_TYPE => signed(name, &envelope, trust.signers),
        Ok(envelope) => Err(malformed(format!("payload type {}", envelope.payload_type))),
        Err(error) => match Document::from_json(bytes) {
            Ok(document) => {
                may_be_unsigned(name, trust)?;
                let payload = document.payload().map_err(|error| malformed(error.to_string()))?;
                Ok(CheckedReferences { document, payload: Sha256Digest::of(&payload), signer: None })
            }
            Err(_) => Err(malformed(error.to_string())),
        },
    }
}

fn of_corim(name: &str, bytes: &[u8], trust: &Trust<'_>) -> Result<Vec<CheckedReferences>, Refusal> {
    let malformed = |error: CorimError| {
        let expected = "a CoRIM whose reference triples are understood";
        Refusal::new(reason::REFERENCE_MALFORMED, name, expected, format!("one that {}", error.0))
    };
    if bytes.first() != Some(&0xD2) {
        let contents = corim::read(bytes, &corim::Meta::nobody()).map_err(malformed)?;
        may_be_unsigned(name, trust)?;
        let unsigned = |told: Told| CheckedReferences { document: told.document, payload: told.comid, signer: None };
        return Ok(contents.told.into_iter().map(unsigned).collect());
    }
    let signed = corim::open(bytes).map_err(malformed)?;
    let by = match signed.standing(trust.signers) {
        Standing::By(by) => by,
        Standing::Bad(signer) => return Err(bad_signature(name, &signer.keyid().hex())),
        Standing::Unknown => {
            let kid: String = signed.kid().iter().take(64).map(|byte| format!("{byte:02x}")).collect();
            return Err(unknown_signer(name, format!("key id {kid}")));
        }
    };
    let contents = corim::read(signed.payload(), signed.meta()).map_err(malformed)?;
    let checked = |told: Told| {
        let signer = issuer_of(&by, &told.document)?;
        Ok(CheckedReferences { document: told.document, payload: told.comid, signer: Some(signer) })
    };
    contents.told.into_iter().map(checked).collect()
}

fn may_be_unsigned(name: &str, trust: &Trust<'_>) -> Result<(), Refusal> {
    let expected = match trust.environment {
        Environment::Production => "a signature",
        Environment::Development if trust.unsigned => return Ok(()),
        Environment::Development => "a signature, or a file that [reference] unsigned names",
    };
    Err(Refusal::new(reason::REFERENCE_UNSIGNED, name, expected, "none"))
}

fn signed(name: &str, envelope: &Envelope, signers: &Signers) -> Result<CheckedReferences, Refusal> {
    let malformed = |actual: String| {
        Refusal::new(reason::REFERENCE_MALFORMED, name, "a document of reference values in canonical JSON", actual)
    };
    // One bad signature beside a good one changes nothing: anyone can add it.
    let by: Vec<&Signer> = signers
        .iter()
        .filter(|signer| signer.envelope_key().is_some_and(|key| envelope.verify(&[key]).is_ok()))
        .collect();
    if by.is_empty() {
        let keys: Vec<_> = signers.iter().filter_map(Signer::envelope_key).collect();
        envelope.verify(&keys).map_err(|error| match error {
            DsseError::BadSignature { keyid } => bad_signature(name, &keyid),
            DsseError::UnknownSigner { keyids } => unknown_signer(name, format!("key ids {}", keyids.join(", "))),
            DsseError::Malformed(what) => malformed(what),
        })?;
    }
    let document = Document::parse(&envelope.payload).map_err(|error| malformed(error.to_string()))?;
    let signer = issuer_of(&by, &document)?;
    Ok(CheckedReferences { document, payload: Sha256Digest::of(&envelope.payload), signer: Some(signer) })
}

fn bad_signature(name: &str, keyid: &str) -> Refusal {
    let expected = format!("a signature by key {keyid}");
    Refusal::new(reason::REFERENCE_SIGNATURE, name, expected, "a signature that does not verify")
}

fn unknown_signer(name: &str, actual: String) -> Refusal {
    Refusal::new(reason::REFERENCE_SIGNER, name, "a signature by a signer of reference values", actual)
}

/// The signer under whose configured name the document stands.
fn issuer_of(by: &[&Signer], document: &Document) -> Result<Sha256Digest, Refusal> {
    if let Some(signer) = by.iter().find(|signer| signer.issuer() == document.issuer) {
        return Ok(signer.keyid());
    }
    let names: Vec<_> = by.iter().map(|signer| signer.issuer()).collect();
    let expected = format!("issuer {}, as the signing key is named", names.join(" or "));
    Err(Refusal::new(reason::REFERENCE_SIGNER, subject(document), expected, format!("issuer {}", document.issuer)))
}

/// The highest version of every (issuer, series); unsigned ones all.
///
/// # Errors
/// `reference.conflict`.
pub fn highest(mut checked: Vec<CheckedReferences>) -> Result<Vec<CheckedReferences>, Refusal> {
    // Highest first: a conflict below the highest version is history.
    checked.sort_by_key(|one| Reverse(one.document.version));
    let mut all = Vec::new();
    let mut by_series: BTreeMap<Sha384Digest, CheckedReferences> = BTreeMap::new();
    for candidate in checked {
        let Some(series) = candidate.series() else {
            all.push(candidate);
            continue;
        };
        let Some(known) = by_series.get(&series) else {
            by_series.insert(series, candidate);
            continue;
        };
        let version = candidate.document.version;
        if version == known.document.version && candidate.payload != known.payload {
            let expected = format!("one content of version {version}");
            let actual = format!("payloads {} and {}", known.payload, candidate.payload);
            return Err(Refusal::new(reason::REFERENCE_CONFLICT, subject(&candidate.document), expected, actual));
        }
    }
    all.extend(by_series.into_values());
    Ok(all)
}

#[cfg(test)]
mod tests;
