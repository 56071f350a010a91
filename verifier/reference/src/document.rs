//! The document: canonical JSON (RFC 8785), so that the same content has the same bytes.
//!
//! ```json
//! {"environment":"production","expires":"2027-01-01T00:00:00Z","issuedAt":"2026-01-01T00:00:00Z",
//!  "issuer":"platform@example.com","series":"guest-image","type":"urn:trusted-container-launcher:reference-values:v1",
//!  "values":{"snp.measurement":["<96 hex>"]},"version":7}
//! ```

use protocols::environment::Environment;
use protocols::jcs::{self, JcsError};
use protocols::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::References;

/// The `type` of every document.
pub const TYPE: &str = "urn:trusted-container-launcher:reference-values:v1";
/// DSSE payload type.
pub const PAYLOAD_TYPE: &str = "application/vnd.trusted-container-launcher.reference-values.v1+json";
/// The longest document that is read, in bytes.
pub const MAX_DOCUMENT: usize = 128 * 1024;
/// The longest issuer or series, in bytes.
pub const MAX_NAME: usize = 256;
/// Versions stay exact as JSON numbers.
const VERSIONS: std::ops::Range<u64> = 1..1 << 53;

/// Reference values, who answers for them, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// [`TYPE`].
    #[serde(rename = "type")]
    pub document_type: String,
    /// Who answers for it; must be the name that configuration gives the signing key.
    pub issuer: String,
    /// Versions are monotonic within (issuer, series); a version replaces those before it whole.
    pub series: String,
    /// From 1 to 2^53 - 1.
    pub version: u64,
    /// When it was issued.
    #[serde(rename = "issuedAt")]
    pub issued_at: Timestamp,
    /// From this second on its values do not count.
    pub expires: Timestamp,
    /// Where it counts: what is of development, simulated platforms' measurements say, has no place in production.
    pub environment: Environment,
    /// At least one value.
    pub values: References,
}

/// Bytes that are no document, or a document that cannot be meant.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Longer than [`MAX_DOCUMENT`].
    #[error("{0} bytes, at most {MAX_DOCUMENT}")]
    TooLong(usize),
    /// Not JSON of the form.
    #[error("not a document of reference values: {0}")]
    Json(#[from] serde_json::Error),
    /// No canonical form.
    #[error(transparent)]
    Canonical(#[from] JcsError),
    /// JSON of the form in other bytes than the canonical ones, so that two texts would mean the same.
    #[error("the document is not canonical JSON")]
    NotCanonical,
    /// A field is outside its range.
    #[error("{0}")]
    Range(&'static str),
}

impl Document {
    /// Reads the signed bytes.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn parse(payload: &[u8]) -> Result<Self, DocumentError> {
        let document = Self::from_json(payload)?;
        if document.payload()? != payload {
            return Err(DocumentError::NotCanonical);
        }
        Ok(document)
    }

    /// Reads a document as somebody may have written it: any JSON of the form.
    ///
    /// # Errors
    /// [`DocumentError`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(DocumentError::TooLong(bytes.len()));
        }
        let document: Self = serde_json::from_slice(bytes)?;
        document.check()?;
        Ok(document)
    }

    /// The bytes that are signed.
    ///
    /// # Errors
    /// [`DocumentError::Range`] for a document that would not be read again.
    pub fn payload(&self) -> Result<Vec<u8>, DocumentError> {
        self.check()?;
        let bytes = jcs::canonical(self)?;
        if bytes.len() > MAX_DOCUMENT {
            return Err(DocumentError::TooLong(bytes.len()));
        }
        Ok(bytes)
    }

    /// Whether every field is within its range.
    pub(crate) fn check(&self) -> Result<(), DocumentError> {
        let named = |name: &str| !name.is_empty() && name.len() <= MAX_NAME && !name.chars().any(char::is_control);
        let wrong = if self.document_type != TYPE {
            "the type is not that of reference values"
        } else if !named(&self.issuer) || !named(&self.series) {
            "issuer and series must have 1 to 256 bytes without control characters"
        } else if !VERSIONS.contains(&self.version) {
            "version must be between 1 and 2^53 - 1"
        } else if self.expires <= self.issued_at {
            "expiry must be after issue"
        } else if self.values.values().is_empty() {
            "it has no value"
        } else {
            return Ok(());
        };
        Err(DocumentError::Range(wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    pub(crate) fn document() -> Document {
        let mut values = References::default();
        values.add(names::SNP, &"ab".repeat(48)).unwrap();
        values.add(names::SNP, &"0a".repeat(48)).unwrap();
        values.add("tpm.pcr4", &"01".repeat(32)).unwrap();
        Document {
            document_type: TYPE.into(),
            issuer: "platform@example.com".into(),
            series: "guest-image".into(),
            version: 7,
            issued_at: Timestamp(1_767_225_600),
            expires: Timestamp(1_798_761_600),
            environment: Environment::Production,
            values,
        }
    }

    #[test]
    fn the_same_content_has_the_same_bytes_and_other_bytes_are_refused() {
        let payload = document().payload().unwrap();
        let text = String::from_utf8(payload.clone()).unwrap();
        let head = r#"{"environment":"production","expires":"2027-01-01T00:00:00Z","issuedAt":"2026-01-01T00:00:00Z","issuer":"platform@example.com","series":"guest-image","type":"urn:trusted-container-launcher:reference-values:v1","values":{"snp.measurement":["0a0a"#;
        assert!(text.starts_with(head), "{text}");
        assert_eq!(Document::parse(&payload).unwrap(), document());
        for other in [
            text.replace("\"version\":7", "\"version\": 7"),
            format!("{text}\n"),
            text.replace(
                &format!("\"{}\",\"{}\"", "0a".repeat(48), "ab".repeat(48)),
                &format!("\"{}\",\"{}\"", "ab".repeat(48), "0a".repeat(48)),
            ),
            text.replace(&format!("\"{}\",", "0a".repeat(48)), &format!("\"{0}\",\"{0}\",", "0a".repeat(48))),
        ] {
            assert_ne!(other, text);
            assert!(matches!(Document::parse(other.as_bytes()), Err(DocumentError::NotCanonical)), "{other}");
            assert_eq!(Document::from_json(other.as_bytes()).unwrap(), document());
        }
    }

    #[test]
    fn every_field_is_needed_and_within_its_range() {
        let json = serde_json::to_value(document()).unwrap();
        let fields = json.as_object().unwrap().clone();
        assert_eq!(fields.len(), 8);
        for name in fields.keys() {
            let mut without = fields.clone();
            without.remove(name);
            Document::from_json(&serde_json::to_vec(&without).unwrap()).expect_err(name);
        }
        let wrong: [fn(&mut Document); 12] = [
            |d| d.document_type.push('2'),
            |d| d.issuer.clear(),
            |d| d.series.clear(),
            |d| d.issuer = "a\n".into(),
            |d| d.series = "s".repeat(MAX_NAME + 1),
            |d| d.version = 0,
            |d| d.version = 1 << 53,
            |d| d.expires = d.issued_at,
            |d| d.values = References::default(),
            |d| d.issued_at = d.expires.plus(1),
            |d| d.series = "\u{7f}".into(),
            |d| d.issuer = "i".repeat(MAX_NAME + 1),
        ];
        for change in wrong {
            let mut changed = document();
            change(&mut changed);
            assert!(matches!(changed.payload(), Err(DocumentError::Range(_))), "{changed:?}");
            let bytes = serde_json::to_vec(&changed).unwrap();
            assert!(matches!(Document::from_json(&bytes), Err(DocumentError::Range(_))), "{changed:?}");
        }
        for (from, to) in [
            ("snp.measurement", "snp.measurment"),
            ("tpm.pcr4", "tpm.pcr24"),
            ("0101", "01"),
            ("\"production\"", "\"staging\""),
            ("\"version\":7", "\"version\":7,\"more\":1"),
        ] {
            let text = serde_json::to_string(&document()).unwrap().replacen(from, to, 1);
            Document::from_json(text.as_bytes()).expect_err(to);
        }
        assert!(matches!(Document::from_json(&[b' '; MAX_DOCUMENT + 1]), Err(DocumentError::TooLong(_))));
    }
}
