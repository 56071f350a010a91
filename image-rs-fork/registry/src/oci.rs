//! OCI descriptors, image manifests and indexes, read strictly: exact-length digests, sizes as written,
//! and no document that could be taken for both a manifest and an index.

use std::collections::BTreeMap;

use protocols::digest::Sha256Digest;
use protocols::image::Platform;
use serde::{Deserialize, Serialize};

/// Media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a Docker image manifest (schema 2).
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of the empty config of an artifact manifest.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The one content of an [`EMPTY`] blob.
pub const EMPTY_BLOB: &[u8] = b"{}";

/// The most layers, entries or annotations we read from one document.
const MAX_ENTRIES: usize = 4096;

/// A document that is not a manifest or index we can read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON of the expected form.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// JSON that breaks a rule of the specification or of ours.
    #[error("{0}")]
    Rule(String),
}

/// What one document points at: a blob or another document, by digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the bytes.
    pub media_type: String,
    /// SHA-256 of the bytes; other algorithms are refused.
    pub digest: Sha256Digest,
    /// Exact size in bytes.
    pub size: u64,
    /// Type of the artifact, in lists of referrers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Platform, in indexes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
    /// Annotations; information only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The descriptor of `bytes`.
    #[must_use]
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: Sha256Digest::of(bytes),
            size: bytes.len() as u64,
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// The platform of an index entry; members we do not use (`os.version`, …) are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescriptorPlatform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`, …
    pub os: String,
    /// CPU variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl From<&DescriptorPlatform> for Platform {
    fn from(platform: &DescriptorPlatform) -> Self {
        Self { os: platform.os.clone(), architecture: platform.architecture.clone(), variant: platform.variant.clone() }
    }
}

/// An image manifest or artifact manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// As written in the document; `None` where it names none.
    pub media_type: Option<String>,
    /// Type of the artifact, for artifact manifests.
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// The manifest this one refers to.
    pub subject: Option<Descriptor>,
}

/// A list of manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// As written in the document; `None` where it names none.
    pub media_type: Option<String>,
    /// The entries in the document's order.
    pub manifests: Vec<Descriptor>,
}

/// One of the two kinds of document. Which one is decided by the document's own members, all of which
/// its digest covers, never by a header of the registry's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An image manifest or artifact manifest.
    Manifest(Box<Manifest>),
    /// An index.
    Index(Index),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u32,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    #[serde(rename = "fsLayers")]
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads a manifest or index.
    ///
    /// # Errors
    /// [`DocumentError`] for anything else, for a document with members of both kinds, and for a
    /// `mediaType` that names the other kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let raw: Raw = serde_json::from_slice(bytes)?;
        let rule = |text: &str| DocumentError::Rule(text.to_owned());
        if raw.schema_version != 2 {
            return Err(rule("schemaVersion is not 2"));
        }
        if raw.fs_layers.is_some() {
            return Err(rule("it has fsLayers, a member of schema 1"));
        }
        let kind = raw.media_type.as_deref();
        match (raw.config, raw.layers, raw.manifests) {
            (Some(config), Some(layers), None) => {
                if !matches!(kind, None | Some(MANIFEST | DOCKER_MANIFEST)) {
                    return Err(DocumentError::Rule(format!("a manifest of media type {}", kind.unwrap_or_default())));
                }
                if layers.len() > MAX_ENTRIES {
                    return Err(rule("more than 4096 layers"));
                }
                let (media_type, artifact_type, subject) = (raw.media_type, raw.artifact_type, raw.subject);
                Ok(Self::Manifest(Box::new(Manifest { media_type, artifact_type, config, layers, subject })))
            }
            (None, None, Some(manifests)) => {
                if !matches!(kind, None | Some(INDEX | DOCKER_LIST)) {
                    return Err(DocumentError::Rule(format!("an index of media type {}", kind.unwrap_or_default())));
                }
                if manifests.len() > MAX_ENTRIES {
                    return Err(rule("more than 4096 manifests"));
                }
                Ok(Self::Index(Index { media_type: raw.media_type, manifests }))
            }
            _ => Err(rule("it is neither a manifest (config, layers) nor an index (manifests)")),
        }
    }
}

/// The bytes of an artifact manifest: empty config, one layer, and a subject where it refers to one.
/// The same arguments give the same bytes.
///
/// # Errors
/// [`protocols::jcs::JcsError`] never in practice: every member has a canonical form.
pub fn artifact_manifest(
    artifact_type: &str,
    layer: &Descriptor,
    subject: Option<&Descriptor>,
) -> Result<Vec<u8>, protocols::jcs::JcsError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Artifact<'a> {
        schema_version: u32,
        media_type: &'a str,
        artifact_type: &'a str,
        config: Descriptor,
        layers: [&'a Descriptor; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        subject: Option<Descriptor>,
    }
    // A subject is named by media type, digest and size alone, so that its index entry changes nothing.
    let subject =
        subject.map(|s| Descriptor { artifact_type: None, platform: None, annotations: BTreeMap::new(), ..s.clone() });
    protocols::jcs::canonical(&Artifact {
        schema_version: 2,
        media_type: MANIFEST,
        artifact_type,
        config: Descriptor::of(EMPTY, EMPTY_BLOB),
        layers: [layer],
        subject,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = r#"{"mediaType":"m","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;

    #[test]
    fn what_could_be_read_as_both_is_neither() {
        let parse = |json: String| Document::parse(json.as_bytes());
        let manifest = format!(r#"{{"schemaVersion":2,"config":{D},"layers":[{D}]}}"#);
        assert!(matches!(parse(manifest.clone()), Ok(Document::Manifest(_))));
        assert!(matches!(parse(format!(r#"{{"schemaVersion":2,"manifests":[{D}]}}"#)), Ok(Document::Index(_))));
        for json in [
            format!(r#"{{"schemaVersion":2,"config":{D},"layers":[{D}],"manifests":[]}}"#),
            format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","config":{D},"layers":[{D}]}}"#),
            format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","manifests":[{D}]}}"#),
            format!(r#"{{"schemaVersion":1,"config":{D},"layers":[{D}]}}"#),
            format!(r#"{{"schemaVersion":2,"fsLayers":[],"config":{D},"layers":[{D}]}}"#),
            format!(r#"{{"schemaVersion":2,"config":{D},"layers":[],"layers":[{D}]}}"#),
            format!(r#"{{"schemaVersion":2,"config":{D}}}"#),
            format!("{manifest} x"),
            manifest.replace("\"size\":0", "\"size\":-1"),
            manifest.replace("sha256:", "sha512:"),
            "[]".to_owned(),
        ] {
            assert!(parse(json.clone()).is_err(), "{json}");
        }
    }

    #[test]
    fn an_artifact_manifest_is_deterministic_and_readable() {
        let layer = Descriptor::of("l", b"envelope");
        let mut subject = Descriptor::of(MANIFEST, b"subject");
        subject.artifact_type = Some("index entry".to_owned());
        let bytes = artifact_manifest("type", &layer, Some(&subject)).unwrap();
        let Ok(Document::Manifest(manifest)) = Document::parse(&bytes) else { panic!() };
        assert_eq!(manifest.subject, Some(Descriptor::of(MANIFEST, b"subject")));
        assert_eq!(manifest.config, Descriptor::of(EMPTY, b"{}"));
        subject.artifact_type = None;
        assert_eq!(artifact_manifest("type", &layer, Some(&subject)).unwrap(), bytes);
    }
}
