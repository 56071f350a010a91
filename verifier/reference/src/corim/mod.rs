//! CoRIM (draft-ietf-rats-corim): the subset that carries reference values, read strictly and written.
//!
//! Read is a `COSE_Sign1` (tag 18) over a CoRIM (tag 501), or the latter alone, which is unsigned. Every CoMID (tag 506)
//! with reference triples is one document: its tag-id is the series, its tag-version the version. The signer's name is
//! the issuer. What is not understood within a reference triple refuses the whole; other triples and CoSWIDs (tag 505) are named and ignored.
//!
//! | environment's class | mkey | name |
//! |---|---|---|
//! | class-id UUID d05e6d1b-9f46-4ae2-a610-ce3e6ee7e153 or 89a7a1f0-e704-4faa-acbd-81c86df8a961 (AMD's SEV-SNP, by chip and by provider) | 0 | `snp.measurement` |
//! | vendor `AMD`, model `SEV-SNP` | `measurement` | `snp.measurement` |
//! | vendor `Microsoft`, model `Azure paravisor` | `measurement` | `azure.measurement` |
//! | vendor `Microsoft`, model `Azure paravisor on TDX` | `mrtd`, `rtmr0`, `rtmr1`, `rtmr2` | `azure.tdx.…` |
//! | vendor `Intel`, model `TDX` | `mrtd`, `rtmr0`, `rtmr1`, `rtmr2` | `tdx.…` |
//! | vendor `TCG`, model `TPM 2.0` | 0 to 23 | `tpm.pcr…` |

mod cbor;
mod cose;
mod table;
mod tags;
mod write;

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::time::Timestamp;

pub(crate) use self::cose::{Standing, open};
pub(crate) use self::tags::read;
pub use self::write::{CorimKey, sign, unsigned};

use crate::document::Document;

/// The longest CoRIM that is read, in bytes.
pub const MAX_CORIM: usize = 256 * 1024;
/// The deepest nesting that is read.
const MAX_DEPTH: usize = 24;
/// The profile of what we write for production: the classes and keys of the table, one digest for each measurement.
pub const PROFILE: &str = "tag:trusted-container-launcher,2026:corim";
/// The same for development, which production refuses.
pub const PROFILE_DEVELOPMENT: &str = "tag:trusted-container-launcher,2026:corim-development";

/// A CoRIM that cannot be used, or part of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the CoRIM {0}")]
pub struct CorimError(pub(crate) String);

impl CorimError {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// What a CoRIM says of one series: a document, and the digest of the CoMID that it was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The reference values.
    pub document: Document,
    /// SHA-256 of the CoMID's bytes.
    pub comid: Sha256Digest,
}

/// All that a CoRIM says to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Documents, one for each CoMID with reference triples.
    pub told: Vec<Told>,
    /// What was read over: triples of other kinds, software tags.
    pub ignored: Vec<String>,
}

/// What the signature's header says, beside the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The signer's name.
    pub(crate) issuer: String,
    /// When the signature begins to count.
    pub(crate) from: Option<Timestamp>,
    /// When it ends.
    pub(crate) until: Option<Timestamp>,
}

/// Whether these bytes are CBOR of the kinds that are read here, and so neither JSON nor anything else.
#[must_use]
pub fn looks_like(bytes: &[u8]) -> bool {
    // Tags 18, and 500 to 502 of this and earlier drafts.
    matches!(bytes, [0xD2, ..] | [0xD9, 0x01, 0xF4..=0xF6, ..])
}

/// Reads a CoRIM without believing any of it: its contents, and the key id that a signature names.
///
/// # Errors
/// [`CorimError`].
pub fn show(bytes: &[u8]) -> Result<(Contents, Option<Vec<u8>>), CorimError> {
    if bytes.first() == Some(&0xD2) {
        let signed = open(bytes)?;
        let contents = read(signed.payload(), signed.meta())?;
        return Ok((contents, Some(signed.kid().to_vec())));
    }
    Ok((read(bytes, &Meta::nobody())?, None))
}

impl Meta {
    /// Of an unsigned one.
    pub(crate) fn nobody() -> Self {
        Self { issuer: "unsigned".to_owned(), from: None, until: None }
    }
}

/// The environment that a profile stands for; the base profile is production's.
fn environment(profile: Option<&str>) -> Result<Environment, CorimError> {
    match profile {
        None | Some(PROFILE) => Ok(Environment::Production),
        Some(PROFILE_DEVELOPMENT) => Ok(Environment::Development),
        Some(_) => Err(CorimError::new("is of a profile that is not known here")),
    }
}

#[cfg(test)]
mod tests;
