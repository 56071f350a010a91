//! Golden values made and stored by hand, so that a test can store what `tclctl` would never write.
//!
//! Storing follows the OCI distribution specification 1.1 and uses plain `curl`: a blob, a manifest with a
//! `subject`, and the fallback tag's index.

use protocols::digest::Sha256Digest;
use protocols::dsse::Envelope;
use protocols::golden::{ARTIFACT_TYPE, ENVELOPE_MEDIA_TYPE, GoldenValue, PAYLOAD_TYPE, Statement};
use protocols::keys::SigningKey;
use serde_json::{Value, json};

use crate::command::{curl, run, tclctl};
use crate::image::Image;

/// OCI image manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The statement `tclctl golden push` would sign for an image, to be changed by a test.
///
/// # Panics
/// When `tclctl measure` fails or its output is not a golden value.
#[must_use]
pub fn measured(registry: &str, image: &Image, arguments: &[&str]) -> Statement<GoldenValue> {
    let reference = format!("{registry}/{}:{}@{}", image.repository, image.tag, image.manifest);
    let mut all = vec!["measure", "--plain-http", registry, &reference];
    all.extend(arguments);
    let payload = run(tclctl(&all)).ok().stdout;
    Statement::<GoldenValue>::parse(payload.trim_end().as_bytes()).unwrap()
}

/// Signs a statement as it is.
///
/// # Panics
/// When it has no canonical form.
#[must_use]
pub fn sign(statement: &Statement<GoldenValue>, key: &SigningKey) -> Vec<u8> {
    Envelope::sign(PAYLOAD_TYPE, statement.payload().unwrap(), key).to_bytes()
}

/// Uploads a blob.
///
/// # Panics
/// When the registry refuses it.
pub fn upload(registry: &str, repository: &str, bytes: &[u8]) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let begin = format!("http://{registry}/v2/{repository}/blobs/uploads/");
    let (status, headers) = curl(&["-X", "POST", "-D", "-", "-o", "/dev/null", &begin]);
    assert_eq!(status, 202);
    let headers = String::from_utf8(headers).unwrap();
    let location = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    });
    let mut location = location.unwrap();
    if location.starts_with('/') {
        location = format!("http://{registry}{location}");
    }
    let digest = Sha256Digest::of(bytes).to_string();
    let glue = if location.contains('?') { '&' } else { '?' };
    let (status, body) = curl(&[
        "-X",
        "PUT",
        "-H",
        "content-type: application/octet-stream",
        "--data-binary",
        &format!("@{}", file.path().display()),
        &format!("{location}{glue}digest={digest}"),
    ]);
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    json!({"digest": digest, "size": bytes.len()})
}

/// Puts a manifest or index under a tag or digest and gives its descriptor.
///
/// # Panics
/// When the registry refuses it.
pub fn put_manifest(registry: &str, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let digest = Sha256Digest::of(bytes).to_string();
    let reference = if reference.is_empty() { &digest } else { reference };
    let (status, body) = curl(&[
        "-X",
        "PUT",
        "-H",
        &format!("content-type: {media_type}"),
        "--data-binary",
        &format!("@{}", file.path().display()),
        &format!("http://{registry}/v2/{repository}/manifests/{reference}"),
    ]);
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
    json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
}

/// Gets a manifest by tag or digest.
#[must_use]
pub fn get_manifest(registry: &str, repository: &str, reference: &str) -> Option<Vec<u8>> {
    let (status, body) = curl(&[
        "-H",
        &format!("accept: {MANIFEST_TYPE}"),
        "-H",
        &format!("accept: {INDEX_TYPE}"),
        &format!("http://{registry}/v2/{repository}/manifests/{reference}"),
    ]);
    (status == 200).then_some(body)
}

/// The tag that stands in for the referrers API.
#[must_use]
pub fn fallback_tag(manifest: &str) -> String {
    manifest.replace(':', "-")
}

/// Stores an envelope as a referrer of `subject` through the fallback tag, beside what is there.
///
/// # Panics
/// When the registry refuses it.
pub fn attach(registry: &str, repository: &str, subject: &str, envelope: &[u8]) {
    let mut blob = upload(registry, repository, envelope);
    blob["mediaType"] = ENVELOPE_MEDIA_TYPE.into();
    let mut config = upload(registry, repository, b"{}");
    config["mediaType"] = "application/vnd.oci.empty.v1+json".into();
    let image = get_manifest(registry, repository, subject).unwrap();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": config,
        "layers": [blob],
        "subject": {"mediaType": MANIFEST_TYPE, "digest": subject, "size": image.len()},
    });
    let mut entry = put_manifest(registry, repository, "", MANIFEST_TYPE, manifest.to_string().as_bytes());
    entry["artifactType"] = ARTIFACT_TYPE.into();
    let tag = fallback_tag(subject);
    let mut entries = get_manifest(registry, repository, &tag)
        .map(|index| serde_json::from_slice::<Value>(&index).unwrap()["manifests"].as_array().unwrap().clone())
        .unwrap_or_default();
    entries.push(entry);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries});
    put_manifest(registry, repository, &tag, INDEX_TYPE, index.to_string().as_bytes());
}

/// Forgets every referrer of a manifest.
///
/// # Panics
/// When the registry refuses it.
pub fn detach_all(registry: &str, repository: &str, subject: &str) {
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []});
    put_manifest(registry, repository, &fallback_tag(subject), INDEX_TYPE, index.to_string().as_bytes());
}
