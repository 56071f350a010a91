//! OCI layouts as skopeo writes them, and as nobody should.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

#[path = "../../tests/support/docker_registry.rs"]
mod docker_registry;

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use docker_registry::DockerRegistry;
use protocols::digest::Sha256Digest;
use protocols::reason;
use registry::oci::{self, Document};
use registry::{
    Descriptor, HttpRegistry, OciLayout, Registry as _, RegistryConfig, RegistryPush as _, Repository, Target, golden,
};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A registry with one image `app:v1`, and its manifest.
async fn pushed() -> (DockerRegistry, Descriptor) {
    let server = DockerRegistry::start();
    let client = HttpRegistry::new(RegistryConfig { plain_http: vec![server.host()], ..RegistryConfig::default() });
    let (client, repository) = (client.unwrap(), repository(&server));
    // An empty archive.
    let tar = vec![0u8; 1024];
    let layer = client.push_blob(&repository, LAYER, Bytes::from(tar)).await.unwrap();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["{}"]}},"config":{{}}}}"#,
        layer.digest
    );
    let config = client.push_blob(&repository, CONFIG, Bytes::from(config)).await.unwrap();
    let manifest =
        serde_json::json!({"schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": [layer]});
    let bytes = Bytes::from(manifest.to_string());
    let descriptor = Descriptor::of(oci::MANIFEST, &bytes);
    client.push_manifest(&repository, &Target::Tag("v1".to_owned()), oci::MANIFEST, bytes).await.unwrap();
    (server, descriptor)
}

fn repository(server: &DockerRegistry) -> Repository {
    format!("{}/app", server.host()).parse().unwrap()
}

fn skopeo(arguments: &[&str]) {
    let output = Command::new("skopeo").args(arguments).output().expect("skopeo must be installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn copied(server: &DockerRegistry, dir: &Path, name: &str) {
    let (from, to) = (format!("docker://{}/app:v1", server.host()), format!("oci:{}{name}", dir.display()));
    skopeo(&["copy", "--preserve-digests", "--src-tls-verify=false", &from, &to]);
}

#[tokio::test]
async fn a_layout_of_skopeo_is_read_by_name_by_digest_and_by_being_alone() {
    let (server, image) = pushed().await;
    let dir = tempfile::tempdir().unwrap();
    copied(&server, dir.path(), ":team/app:v1");
    let layout = OciLayout::open(dir.path()).unwrap();
    let reference = layout.reference(None).unwrap();
    assert_eq!(reference.digest(), Some(&image.digest));
    assert_eq!(layout.reference(Some("team/app:v1")).unwrap(), reference);
    let found = layout.manifest(reference.repository(), &reference.target()).await.unwrap();
    assert_eq!(found.descriptor(), image);
    let Document::Manifest(manifest) = Document::parse(&found.bytes).unwrap() else { panic!() };
    let layer = &manifest.layers[0];
    assert_eq!(layout.small_blob(reference.repository(), layer, 1 << 20).await.unwrap(), vec![0u8; 1024]);

    copied(&server, dir.path(), ":v2");
    let layout = OciLayout::open(dir.path()).unwrap();
    let error = layout.reference(Some("v3")).unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_NOT_FOUND);
    assert!(error.to_string().contains("team/app:v1, v2"), "{error}");
    assert_eq!(layout.reference(None).unwrap_err().code(), reason::IMAGE_NOT_FOUND, "two images: which?");
}

#[tokio::test]
async fn golden_values_lie_beside_the_image() {
    let (server, image) = pushed().await;
    let dir = tempfile::tempdir().unwrap();
    copied(&server, dir.path(), ":v1");
    let envelope = b"envelope";
    let layer = Descriptor::of(protocols::golden::ENVELOPE_MEDIA_TYPE, envelope);
    let artifact = oci::artifact_manifest(protocols::golden::ARTIFACT_TYPE, &layer, Some(&image)).unwrap();
    let blobs = dir.path().join("blobs/sha256");
    std::fs::write(blobs.join(layer.digest.hex()), envelope).unwrap();
    std::fs::write(blobs.join(Sha256Digest::of(&artifact).hex()), &artifact).unwrap();
    let path = dir.path().join("index.json");
    let mut index: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let entry = serde_json::to_value(Descriptor::of(oci::MANIFEST, &artifact)).unwrap();
    index["manifests"].as_array_mut().unwrap().push(entry);
    std::fs::write(&path, index.to_string()).unwrap();

    let layout = OciLayout::open(dir.path()).unwrap();
    let repository = "r.example/app".parse().unwrap();
    let stored = golden::fetch(&layout, &repository, &image.digest).await.unwrap();
    assert_eq!(stored.envelopes, [envelope.to_vec()]);
    let other = golden::fetch(&layout, &repository, &Sha256Digest::of(b"other")).await.unwrap();
    assert!(other.envelopes.is_empty());
}

#[tokio::test]
async fn what_is_not_a_plain_file_of_the_right_size_is_not_read() {
    let (server, image) = pushed().await;
    let dir = tempfile::tempdir().unwrap();
    copied(&server, dir.path(), ":v1");
    let layout = OciLayout::open(dir.path()).unwrap();
    let repository: Repository = "r.example/app".parse().unwrap();
    let blob = dir.path().join("blobs/sha256").join(image.digest.hex());
    let error = layout.blob(&repository, &image.digest, image.size + 1).await.err().unwrap();
    assert_eq!(error.code(), reason::IMAGE_BLOB_SIZE, "{error}");

    let elsewhere = dir.path().join("elsewhere");
    std::fs::rename(&blob, &elsewhere).unwrap();
    let missing = layout.blob(&repository, &image.digest, image.size).await.err().unwrap();
    assert_eq!(missing.code(), reason::IMAGE_NOT_FOUND, "{missing}");
    std::os::unix::fs::symlink(&elsewhere, &blob).unwrap();
    let link = layout.manifest(&repository, &Target::Digest(image.digest)).await.unwrap_err();
    assert!(link.to_string().contains("symbolic link"), "{link}");
    std::fs::remove_file(&blob).unwrap();
    let status = Command::new("mkfifo").arg(&blob).status().unwrap();
    assert!(status.success());
    let fifo = layout.manifest(&repository, &Target::Digest(image.digest)).await.unwrap_err();
    assert!(fifo.to_string().contains("regular file"), "{fifo}");

    std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    assert!(OciLayout::open(dir.path()).is_err());
    assert_eq!(OciLayout::open(&dir.path().join("absent")).unwrap_err().code(), reason::IMAGE_NOT_FOUND);
}
