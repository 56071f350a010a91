//! Reading and pushing against a real registry that has no referrers API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

#[path = "../../tests/support/docker_registry.rs"]
mod docker_registry;

use bytes::Bytes;
use docker_registry::{DockerRegistry, USER};
use protocols::digest::Sha256Digest;
use protocols::golden::ARTIFACT_TYPE;
use protocols::reason;
use registry::oci::{self, Document};
use registry::{Descriptor, HttpRegistry, Registry as _, RegistryConfig, RegistryError, RegistryPush as _};
use registry::{Repository, Target, golden};

fn client(server: &DockerRegistry, auth: Option<&str>) -> HttpRegistry {
    let auth_file = auth.map(|auth| {
        let path = server.dir().join("auth.json");
        std::fs::write(&path, auth.replace("HOST", &server.host())).unwrap();
        path
    });
    HttpRegistry::new(RegistryConfig { plain_http: vec![server.host()], auth_file, ..RegistryConfig::default() })
        .unwrap()
}

fn repository(server: &DockerRegistry, name: &str) -> Repository {
    format!("{}/{name}", server.host()).parse().unwrap()
}

/// Pushes a manifest with one layer, which is all a subject needs to be.
async fn push_image(client: &HttpRegistry, repository: &Repository) -> Descriptor {
    let config = client.push_blob(repository, "application/vnd.oci.image.config.v1+json", Bytes::from("{}")).await;
    let layer = client.push_blob(repository, "application/vnd.oci.image.layer.v1.tar", Bytes::from("layer")).await;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        oci::MANIFEST,
        serde_json::to_string(&config.unwrap()).unwrap(),
        serde_json::to_string(&layer.unwrap()).unwrap()
    );
    let descriptor = Descriptor::of(oci::MANIFEST, manifest.as_bytes());
    let tag = Target::Tag("v1".to_owned());
    client.push_manifest(repository, &tag, oci::MANIFEST, Bytes::from(manifest)).await.unwrap();
    descriptor
}

#[tokio::test]
async fn golden_values_and_revocations_come_back_byte_for_byte() {
    let server = DockerRegistry::start();
    let (client, repository) = (client(&server, None), repository(&server, "team/app"));
    let image = push_image(&client, &repository).await;
    let none = golden::fetch(&client, &repository, &image.digest).await.unwrap();
    assert_eq!(none, golden::GoldenStorage::default());

    let first = golden::push(&client, &repository, &image, b"first envelope").await.unwrap();
    let again = golden::push(&client, &repository, &image, b"first envelope").await.unwrap();
    assert_eq!(first, again, "the same envelope makes the same artifact");
    golden::push(&client, &repository, &image, b"second envelope").await.unwrap();
    golden::push_revocations(&client, &repository, b"old list").await.unwrap();
    golden::push_revocations(&client, &repository, b"new list").await.unwrap();

    let stored = golden::fetch(&client, &repository, &image.digest).await.unwrap();
    assert_eq!(stored.envelopes, [b"first envelope".to_vec(), b"second envelope".to_vec()]);
    assert_eq!(stored.revocations.as_deref(), Some(&b"new list"[..]));
    let other = Sha256Digest::of(b"another image");
    assert!(golden::fetch(&client, &repository, &other).await.unwrap().envelopes.is_empty());
}

#[tokio::test]
async fn the_fallback_index_is_an_oci_index_that_other_tools_read() {
    let server = DockerRegistry::start();
    let (client, repository) = (client(&server, None), repository(&server, "app"));
    let image = push_image(&client, &repository).await;
    let artifact = golden::push(&client, &repository, &image, b"envelope").await.unwrap();
    let tag = Target::Tag(format!("sha256-{}", image.digest.hex()));
    let index = client.manifest(&repository, &tag).await.unwrap();
    let Document::Index(index) = Document::parse(&index.bytes).unwrap() else { panic!("not an index") };
    assert_eq!(index.manifests, std::slice::from_ref(&artifact));
    assert_eq!(artifact.artifact_type.as_deref(), Some(ARTIFACT_TYPE));
    let other_type = client.referrers(&repository, &image.digest, "application/x").await.unwrap();
    assert!(other_type.is_empty(), "the index is filtered by type");
}

#[tokio::test]
async fn an_envelope_altered_in_the_registry_is_an_error() {
    let server = DockerRegistry::start();
    let (client, repository) = (client(&server, None), repository(&server, "app"));
    let image = push_image(&client, &repository).await;
    golden::push(&client, &repository, &image, b"envelope").await.unwrap();
    let file = server.blob_file(&Sha256Digest::of(b"envelope").hex());
    std::fs::write(&file, b"Envelope").unwrap();
    let error = golden::fetch(&client, &repository, &image.digest).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_BLOB_DIGEST, "{error}");
    std::fs::write(&file, b"envelop").unwrap();
    let error = golden::fetch(&client, &repository, &image.digest).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_BLOB_SIZE, "{error}");
}

#[tokio::test]
async fn an_artifact_manifest_altered_in_the_registry_is_an_error() {
    let server = DockerRegistry::start();
    let (client, repository) = (client(&server, None), repository(&server, "app"));
    let image = push_image(&client, &repository).await;
    let artifact = golden::push(&client, &repository, &image, b"envelope").await.unwrap();
    let file = server.blob_file(&artifact.digest.hex());
    let altered = std::fs::read_to_string(&file).unwrap().replace("golden", "silver");
    std::fs::write(&file, altered).unwrap();
    let error = golden::fetch(&client, &repository, &image.digest).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_BLOB_DIGEST, "{error}");
}

#[tokio::test]
async fn a_registry_that_goes_away_is_not_taken_for_an_absence() {
    let mut server = DockerRegistry::start();
    let (client, repository) = (client(&server, None), repository(&server, "app"));
    let image = push_image(&client, &repository).await;
    server.stop();
    let error = golden::fetch(&client, &repository, &image.digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn basic_authentication_needs_the_right_password() {
    let server = DockerRegistry::start_with_password();
    let repository = repository(&server, "app");
    let right = protocols::encoding::b64(format!("{}:{}", USER.0, USER.1).as_bytes());
    let auth = format!(r#"{{"auths":{{"HOST":{{"auth":"{right}"}}}}}}"#);
    let allowed = client(&server, Some(&auth));
    push_image(&allowed, &repository).await;
    let tag = Target::Tag("v1".to_owned());
    allowed.manifest(&repository, &tag).await.unwrap();

    let wrong = client(&server, Some(r#"{"auths":{"HOST":{"username":"tester","password":"pass"}}}"#));
    let error = wrong.manifest(&repository, &tag).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_DENIED, "{error}");
    let anonymous = client(&server, None).manifest(&repository, &tag).await.unwrap_err();
    assert_eq!(anonymous.code(), reason::IMAGE_DENIED, "{anonymous}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = DockerRegistry::start();
    let (client, repository) = (client(&server, None), repository(&server, "app"));
    let error = client.manifest(&repository, &Target::Tag("v1".to_owned())).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_NOT_FOUND, "{error}");
    let error = client.blob(&repository, &Sha256Digest::of(b"x"), 1).await.err().unwrap();
    assert_eq!(error.code(), reason::IMAGE_NOT_FOUND, "{error}");
}

#[tokio::test]
async fn plain_http_is_never_tried_for_a_host_that_is_not_listed() {
    let server = DockerRegistry::start();
    let client = HttpRegistry::new(RegistryConfig::default()).unwrap();
    let error = client.manifest(&repository(&server, "app"), &Target::Tag("v1".to_owned())).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_PLAIN_HTTP, "{error}");
}

#[tokio::test]
async fn tls_needs_a_root_that_the_configuration_names() {
    let server = DockerRegistry::start_with_tls();
    let repository = repository(&server, "app");
    let roots = vec![server.dir().join("ca.pem")];
    let trusting = HttpRegistry::new(RegistryConfig { roots, ..RegistryConfig::default() }).unwrap();
    let image = push_image(&trusting, &repository).await;
    assert_eq!(trusting.manifest(&repository, &Target::Tag("v1".to_owned())).await.unwrap().digest, image.digest);

    let stranger = HttpRegistry::new(RegistryConfig::default()).unwrap();
    let error = stranger.manifest(&repository, &Target::Tag("v1".to_owned())).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(error.code(), reason::IMAGE_REGISTRY);

    for root in ["absent.pem", "key.pem"] {
        let roots = vec![server.dir().join(root)];
        assert!(HttpRegistry::new(RegistryConfig { roots, ..RegistryConfig::default() }).is_err());
    }
}

#[test]
fn a_file_with_another_digest_than_the_configuration_says_is_refused() {
    let server = DockerRegistry::start_with_tls();
    let (auth, root) = (server.dir().join("auth.json"), server.dir().join("ca.pem"));
    std::fs::write(&auth, r#"{"auths":{}}"#).unwrap();
    let digest = |path: &std::path::Path| Sha256Digest::of(&std::fs::read(path).unwrap());
    let config = RegistryConfig {
        auth_file: Some(auth.clone()),
        roots: vec![root.clone()],
        file_digests: [(auth.clone(), digest(&auth)), (root.clone(), digest(&root))].into(),
        ..RegistryConfig::default()
    };
    assert_eq!(config.undigested_file(), None);
    HttpRegistry::new(config.clone()).unwrap();
    for path in [&auth, &root] {
        let before = std::fs::read(path).unwrap();
        std::fs::write(path, [&before[..], b"\n"].concat()).unwrap();
        let refused = HttpRegistry::new(config.clone()).unwrap_err();
        assert!(refused.to_string().contains("file_digests says"), "{refused}");
        std::fs::write(path, &before).unwrap();

        let mut without = config.clone();
        without.file_digests.remove(path);
        assert_eq!(without.undigested_file(), Some(path.as_path()));
    }
    let mut other = config;
    other.file_digests.insert("/no/such/file".into(), Sha256Digest::of(b""));
    assert!(HttpRegistry::new(other).unwrap_err().to_string().contains("neither auth_file nor one of roots"));
}
