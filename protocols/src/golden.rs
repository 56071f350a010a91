//! The golden value (RATS: Reference Value): an in-toto Statement v1 about one platform manifest.
//!
//! The payload is canonical JSON: the same image, process policy, issuer, series, version, times and
//! environment give the same bytes. It travels in a DSSE envelope ([`crate::dsse`]), stored as an
//! OCI 1.1 referrer of the manifest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256Digest;
use crate::environment::Environment;
use crate::image::{ImageMeasurement, Layout, Platform};
use crate::jcs::{self, JcsError};
use crate::time::Timestamp;

/// `_type` of an in-toto Statement v1.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// `predicateType` of a golden value.
pub const PREDICATE_TYPE: &str = "urn:trusted-container-launcher:golden-value:v1";
/// `predicateType` of a revocation list.
pub const REVOCATION_PREDICATE_TYPE: &str = "urn:trusted-container-launcher:revocations:v1";
/// DSSE payload type of both.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// `artifactType` of the OCI manifest that holds golden values.
pub const ARTIFACT_TYPE: &str = "application/vnd.trusted-container-launcher.golden.v1+json";
/// `artifactType` of the OCI manifest that holds a revocation list.
pub const REVOCATION_ARTIFACT_TYPE: &str = "application/vnd.trusted-container-launcher.revocations.v1+json";
/// Media type of the envelope's blob.
pub const ENVELOPE_MEDIA_TYPE: &str = "application/vnd.dsse.envelope.v1+json";
/// The tag, in the image's repository, of the newest revocation list.
pub const REVOCATION_TAG: &str = "tcl-revocations";

/// What a launch's argument vector may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum ArgsRule {
    /// Exactly these arguments.
    Exact(Vec<String>),
    /// These arguments first, then any.
    Prefix(Vec<String>),
}

/// Bounds on the process a launch may run. Absent from the predicate means: the image's own
/// arguments, environment and user, and no mounts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessPolicy {
    /// One of these must match; none listed means the image's own arguments only.
    #[serde(default)]
    pub args: Vec<ArgsRule>,
    /// `NAME=value` exactly, or `NAME=*`, beyond the image's own entries.
    #[serde(default)]
    pub env: Vec<String>,
    /// Users as written; none listed means the image's own only.
    #[serde(default)]
    pub user: Vec<String>,
    /// Working directories beyond the image's own.
    #[serde(default)]
    pub cwd: Vec<String>,
    /// Mount destinations that may be asked for.
    #[serde(default)]
    pub mounts: Vec<String>,
}

/// The environment that Kubernetes gives every container of a pod: where its API server is.
const KUBERNETES_ENV: [&str; 8] = [
    "KUBERNETES_PORT=*",
    "KUBERNETES_PORT_443_TCP=*",
    "KUBERNETES_PORT_443_TCP_ADDR=*",
    "KUBERNETES_PORT_443_TCP_PORT=*",
    "KUBERNETES_PORT_443_TCP_PROTO=*",
    "KUBERNETES_SERVICE_HOST=*",
    "KUBERNETES_SERVICE_PORT=*",
    "KUBERNETES_SERVICE_PORT_HTTPS=*",
];
/// Where Kubernetes mounts the token of a pod's service account.
const KUBERNETES_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl ProcessPolicy {
    /// Allows besides what Kubernetes adds to every container: the API server's address in the environment, and the
    /// mount of the service account's token. All of it is the host's word.
    #[must_use]
    pub fn for_kubernetes(mut self) -> Self {
        let add = |list: &mut Vec<String>, entry: &str| {
            if !list.iter().any(|known| known == entry) {
                list.push(entry.to_owned());
            }
        };
        for entry in KUBERNETES_ENV {
            add(&mut self.env, entry);
        }
        add(&mut self.mounts, KUBERNETES_MOUNT);
        self
    }
}

/// The signed content of a golden value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenValue {
    /// Digest of the image's config blob.
    pub config: Sha256Digest,
    /// DiffIDs, lowest layer first.
    pub layers: Vec<Sha256Digest>,
    /// Root file system digest for every layout known when it was signed.
    pub rootfs: BTreeMap<Layout, Sha256Digest>,
    /// The platform of the manifest.
    pub platform: Platform,
    /// Bounds on the process; absent means the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessPolicy>,
    /// Who answers for it; must be the name the measured configuration gives the signing key.
    pub issuer: String,
    /// Versions are monotonic within (issuer, series).
    pub series: String,
    /// At least 1; only goes up within its series.
    pub version: u64,
    /// When it was issued; defaults to the image config's `created`.
    #[serde(rename = "issuedAt")]
    pub issued_at: Timestamp,
    /// From this second on it is refused.
    pub expires: Timestamp,
    /// Where it may be used.
    pub environment: Environment,
}

/// One subject of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// The repository the manifest was measured in; information only.
    pub name: String,
    /// `{"sha256": "<64 hex>"}`.
    pub digest: BTreeMap<String, String>,
}

/// An in-toto Statement v1 with predicate `P`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement<P> {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// Exactly one.
    pub subject: Vec<Subject>,
    /// [`PREDICATE_TYPE`] or [`REVOCATION_PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// The content.
    pub predicate: P,
}

/// A revocation list: golden values (by payload digest) that no longer count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationList {
    /// Who answers for it.
    pub issuer: String,
    /// Only goes up.
    pub version: u64,
    /// When it was issued.
    #[serde(rename = "issuedAt")]
    pub issued_at: Timestamp,
    /// From this second on the list is stale.
    pub expires: Timestamp,
    /// SHA-256 of the payloads of revoked golden values.
    pub revoked: Vec<Sha256Digest>,
}

/// The statement's bytes do not make a golden value.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// Not JSON of the expected form.
    #[error("not a golden value statement: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but not in canonical form, so that other bytes would mean the same.
    #[error("the statement is not canonical JSON")]
    NotCanonical,
    /// Another type of statement or predicate.
    #[error("statement or predicate type {0} is not ours")]
    Type(String),
    /// Not exactly one subject with exactly one SHA-256 digest.
    #[error("the statement must have one subject with one sha256 digest")]
    Subject,
    /// A field is outside its range.
    #[error("{0}")]
    Range(&'static str),
}

/// Everything besides the image that goes into a golden value.
#[derive(Debug, Clone)]
pub struct Issue {
    /// The subject's name: `registry/repository`.
    pub name: String,
    /// Who answers for it.
    pub issuer: String,
    /// The series; see [`default_series`].
    pub series: String,
    /// At least 1.
    pub version: u64,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Where it may be used.
    pub environment: Environment,
    /// Bounds on the process.
    pub process: Option<ProcessPolicy>,
}

/// `repository/platform/tag line`: the default series of an image.
#[must_use]
pub fn default_series(repository: &str, platform: &Platform, tag: &str) -> String {
    format!("{repository} {platform} {tag}")
}

/// The statement to sign for an image that was measured in one layout.
#[must_use]
pub fn statement(image: &ImageMeasurement, issue: Issue) -> Statement<GoldenValue> {
    statement_in(image, BTreeMap::new(), issue)
}

/// The statement to sign for an image with its root file system's digest in several layouts: guests of each of them
/// can launch it.
#[must_use]
pub fn statement_in(
    image: &ImageMeasurement,
    mut rootfs: BTreeMap<Layout, Sha256Digest>,
    issue: Issue,
) -> Statement<GoldenValue> {
    rootfs.insert(image.rootfs.layout, image.rootfs.digest);
    Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: vec![Subject {
            name: issue.name,
            digest: BTreeMap::from([("sha256".to_owned(), image.manifest.hex())]),
        }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: GoldenValue {
            config: image.config,
            layers: image.layers.clone(),
            rootfs,
            platform: image.platform.clone(),
            process: issue.process,
            issuer: issue.issuer,
            series: issue.series,
            version: issue.version,
            issued_at: issue.issued_at,
            expires: issue.expires,
            environment: issue.environment,
        },
    }
}

impl<P: Serialize> Statement<P> {
    /// The canonical bytes that are signed.
    ///
    /// # Errors
    /// [`JcsError`] when the predicate has no canonical form.
    pub fn payload(&self) -> Result<Vec<u8>, JcsError> {
        jcs::canonical(self)
    }

    /// The one subject's digest.
    ///
    /// # Errors
    /// [`GoldenError::Subject`] unless there is exactly one subject with exactly one SHA-256 digest.
    pub fn subject_digest(&self) -> Result<Sha256Digest, GoldenError> {
        let [subject] = self.subject.as_slice() else { return Err(GoldenError::Subject) };
        if subject.digest.len() != 1 {
            return Err(GoldenError::Subject);
        }
        let hex = subject.digest.get("sha256").ok_or(GoldenError::Subject)?;
        format!("sha256:{hex}").parse().map_err(|_| GoldenError::Subject)
    }
}

impl Statement<GoldenValue> {
    /// Reads a payload strictly: known fields, canonical bytes, ranges.
    ///
    /// # Errors
    /// [`GoldenError`] says what is wrong.
    pub fn parse(payload: &[u8]) -> Result<Self, GoldenError> {
        let statement: Self = parse_canonical(payload, PREDICATE_TYPE)?;
        statement.subject_digest()?;
        let golden = &statement.predicate;
        if golden.version == 0 || golden.version >= 1 << 53 {
            return Err(GoldenError::Range("version must be between 1 and 2^53 - 1"));
        }
        if golden.issuer.is_empty() || golden.series.is_empty() {
            return Err(GoldenError::Range("issuer and series must not be empty"));
        }
        if golden.expires <= golden.issued_at {
            return Err(GoldenError::Range("expiry must be after issue"));
        }
        Ok(statement)
    }
}

impl Statement<RevocationList> {
    /// Reads a revocation list's payload strictly.
    ///
    /// # Errors
    /// [`GoldenError`] says what is wrong.
    pub fn parse(payload: &[u8]) -> Result<Self, GoldenError> {
        parse_canonical(payload, REVOCATION_PREDICATE_TYPE)
    }
}

fn parse_canonical<P>(payload: &[u8], predicate_type: &str) -> Result<Statement<P>, GoldenError>
where
    P: Serialize + for<'de> Deserialize<'de>,
{
    let statement: Statement<P> = serde_json::from_slice(payload)?;
    if statement.statement_type != STATEMENT_TYPE {
        return Err(GoldenError::Type(statement.statement_type));
    }
    if statement.predicate_type != predicate_type {
        return Err(GoldenError::Type(statement.predicate_type));
    }
    match statement.payload() {
        Ok(bytes) if bytes == payload => Ok(statement),
        _ => Err(GoldenError::NotCanonical),
    }
}
