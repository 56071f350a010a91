//! The signature policy against a real registry, with signatures made by `openssl`: what is taken, and every way
//! to pass off an image that nobody signed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use bytes::Bytes;
use image_rs_fork::registry::{Descriptor, ImageReference, Registry as _, RegistryPush as _, Target, oci};
use image_rs_fork::{ImageError, ImagePolicy, Limits, MeasuredImage, SignaturePolicy, fetch};
use protocols::digest::Sha256Digest;
use protocols::encoding;
use protocols::reason;
use protocols::time::Timestamp;
use serde_json::{Value, json};
use support::image::{self, LayerBlob, gzip};
use support::signing::{
    IMAGE_SIGNATURE, Signer, attach_bundle, attach_tag, manifest_bundle, payload, push_tag, sign_tag, statement,
    statement_bundle,
};
use support::tar::{archive, file};
use support::{World, run_with};

/// A world with one image at the tag `v1`.
struct Signed {
    world: World,
    image: Descriptor,
    manifest: Vec<u8>,
}

fn layer(content: &[u8]) -> LayerBlob {
    gzip(&archive([file("f", content)]))
}

impl Signed {
    async fn new() -> Self {
        let world = World::new();
        let image = image::push(&world.client, &world.repository, "v1", &[layer(b"content")]).await;
        let manifest = std::fs::read(world.server.blob_file(&image.digest.hex())).unwrap();
        Self { world, image, manifest }
    }

    /// The name of a tag in this repository.
    fn name(&self, tag: &str) -> String {
        format!("{}:{tag}", self.world.repository)
    }

    async fn pull_as(&self, reference: &ImageReference, policy: &Value) -> Result<MeasuredImage, ImageError> {
        let policy = SignaturePolicy::parse(policy.to_string().as_bytes()).unwrap();
        run_with(policy, reference, &self.world.client, &self.world.store, &Limits::default()).await
    }

    async fn pull(&self, policy: &Value) -> Result<MeasuredImage, ImageError> {
        self.pull_as(&self.world.reference("v1"), policy).await
    }

    /// Expects a refusal whose facts contain `actual`.
    async fn refused(&self, policy: &Value, actual: &str) {
        let error = self.pull(policy).await.unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_SIGNATURE, "{error}");
        let refusal = error.refusal();
        assert!(refusal.actual.contains(actual), "{actual}: {refusal:?}");
    }

    async fn attach(&self, signatures: &[(Vec<u8>, String)]) {
        attach_tag(&self.world.client, &self.world.repository, &self.image.digest, signatures).await;
    }

    async fn bundle(&self, bundle: &Value) {
        attach_bundle(&self.world.client, &self.world.repository, &self.image, bundle).await;
    }
}

fn signed(signer: &Signer, payload: Vec<u8>) -> (Vec<u8>, String) {
    let signature = encoding::b64(&signer.sign(&payload));
    (payload, signature)
}

#[tokio::test]
async fn signatures_of_every_kind_of_key_are_taken_wherever_the_key_is_written() {
    let other = Signer::new("p256");
    for kind in ["p256", "p384", "ed25519", "2048", "4096"] {
        let signed = Signed::new().await;
        let signer = Signer::new(kind);
        let name = signed.name("v1");
        sign_tag(&signed.world.client, &signed.world.repository, &signed.image.digest, &name, &signer).await;
        for keys in [
            json!({"keyPath": signer.public()}),
            json!({"keyPaths": [other.public(), signer.public()]}),
            json!({"keyData": signer.public_base64()}),
            json!({"keyDatas": [other.public_base64(), signer.public_base64()]}),
        ] {
            let mut requirement = keys;
            requirement["type"] = "sigstoreSigned".into();
            signed.pull(&json!({"default": [requirement]})).await.unwrap_or_else(|e| panic!("{kind}: {}", e.refusal()));
        }
        signed.refused(&other.policy(None), "wrong key").await;
    }
}

#[tokio::test]
async fn what_somebody_else_signed_or_signed_of_something_else_is_refused() {
    let signed_image = Signed::new().await;
    let digest = &signed_image.image.digest;
    let (signer, stranger) = (Signer::new("p256"), Signer::new("p256"));
    let name = signed_image.name("v1");
    let good = payload(digest, &name);
    let text = String::from_utf8(good.clone()).unwrap();
    let other_digest = payload(&Sha256Digest::of(b"another image"), &name);
    let other_repository = payload(digest, &name.replace("team/app", "team/other"));
    let other_type = text.replace("cosign container image signature", "atomic container signature");
    let twice = text.replace("\"optional\":", "\"critical\":{},\"optional\":");
    let twice_inside =
        text.replace("{\"docker-manifest-digest\":", "{\"docker-manifest-digest\":\"\",\"docker-manifest-digest\":");
    let huge = text.replace("\"optional\":null", &format!("\"optional\":{{\"x\":\"{}\"}}", "y".repeat(70_000)));
    let (_, good_signature) = signed(&signer, good.clone());
    let cut = good_signature[..good_signature.len() - 8].to_owned();
    for changed in [&twice, &twice_inside, &huge, &other_type] {
        assert_ne!(*changed, text);
    }
    let cases = [
        ("signed_by_a_stranger", signed(&stranger, good.clone()), "1 signature: wrong key"),
        ("another_digest", signed(&signer, other_digest), "other digest"),
        ("another_repository", signed(&signer, other_repository), "signed as 127.0.0.1"),
        ("another_tag", signed(&signer, payload(digest, &signed_image.name("v2"))), ":v2"),
        ("a_repository_without_a_tag", signed(&signer, payload(digest, name.trim_end_matches(":v1"))), "team/app"),
        ("another_kind_of_signature", signed(&signer, other_type.into_bytes()), "atomic container signature"),
        ("a_member_twice", signed(&signer, twice.into_bytes()), "duplicate field"),
        ("a_digest_twice", signed(&signer, twice_inside.into_bytes()), "cannot be read"),
        ("a_huge_payload", signed(&signer, huge.into_bytes()), "larger than 65536 bytes"),
        ("an_altered_payload", (text.replace("null", "{}").into_bytes(), good_signature.clone()), "wrong key"),
        ("a_cut_signature", (good.clone(), cut), "wrong key"),
        ("no_base64", (good.clone(), "?".to_owned()), "without a signature"),
        ("an_empty_signature", (good.clone(), String::new()), "wrong key"),
    ];
    let policy = signer.policy(None);
    signed_image.refused(&policy, "no signature").await;
    for (case, signature, actual) in cases {
        signed_image.attach(&[signature]).await;
        let error = signed_image.pull(&policy).await.expect_err(case);
        assert_eq!(error.code(), reason::IMAGE_SIGNATURE, "{case}: {error}");
        assert!(error.refusal().actual.contains(actual), "{case}: {:?}", error.refusal());
        signed_image.world.nothing_stored();
    }
    // One that counts is enough, in whatever company.
    signed_image
        .attach(&[signed(&stranger, good.clone()), (good.clone(), "?".to_owned()), (good.clone(), good_signature)])
        .await;
    signed_image.pull(&policy).await.unwrap();
}

#[tokio::test]
async fn the_refusal_says_which_keys_would_have_counted_and_why_the_signatures_do_not() {
    let signed_image = Signed::new().await;
    let (signer, stranger) = (Signer::new("p256"), Signer::new("p256"));
    let name = signed_image.name("v1");
    let other = payload(&Sha256Digest::of(b"another image"), &name);
    signed_image.attach(&[signed(&stranger, payload(&signed_image.image.digest, &name)), signed(&signer, other)]).await;
    let refusal = signed_image.pull(&signer.policy(None)).await.unwrap_err().refusal();
    assert_eq!(refusal.subject, name);
    assert!(refusal.expected.starts_with("a sigstore signature by one of: sha256:"), "{refusal:?}");
    assert_eq!(refusal.actual, "2 signatures: wrong key, or altered; other digest");
}

#[tokio::test]
async fn what_lies_at_the_tag_in_the_place_of_signatures_is_refused() {
    let signed_image = Signed::new().await;
    let (world, digest) = (&signed_image.world, &signed_image.image.digest);
    let signer = Signer::new("p256");
    let policy = signer.policy(None);
    let good = signed(&signer, payload(digest, &signed_image.name("v1")));

    // a_thousand_layers: the good one is among them, but nobody reads so many.
    signed_image.attach(&vec![good.clone(); 1000]).await;
    signed_image.refused(&policy, "1000 signatures").await;

    let index = json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [signed_image.image]});
    push_tag(&world.client, &world.repository, digest, oci::INDEX, &index).await;
    signed_image.refused(&policy, "an index in the place of signatures").await;

    // a_blob_altered_in_the_registry
    signed_image.attach(std::slice::from_ref(&good)).await;
    signed_image.pull(&policy).await.unwrap();
    let blob = world.server.blob_file(&Sha256Digest::of(&good.0).hex());
    let mut altered = good.0.clone();
    altered[20] ^= 1;
    std::fs::write(&blob, altered).unwrap();
    signed_image.refused(&policy, "has digest").await;
    std::fs::remove_file(blob).unwrap();
    signed_image.refused(&policy, "is not at").await;
}

#[tokio::test]
async fn a_stored_layer_excuses_no_missing_signature() {
    let signed_image = Signed::new().await;
    let (world, signer) = (&signed_image.world, Signer::new("p256"));
    let name = signed_image.name("v1");
    sign_tag(&world.client, &world.repository, &signed_image.image.digest, &name, &signer).await;
    let image = signed_image.pull(&signer.policy(None)).await.unwrap();
    drop(image);
    // The signature is stripped, every layer is in the store.
    let empty = json!({"schemaVersion": 2, "mediaType": oci::MANIFEST, "layers": [],
        "config": Descriptor::of(oci::EMPTY, oci::EMPTY_BLOB)});
    world.client.push_blob(&world.repository, oci::EMPTY, Bytes::from_static(oci::EMPTY_BLOB)).await.unwrap();
    push_tag(&world.client, &world.repository, &signed_image.image.digest, oci::MANIFEST, &empty).await;
    signed_image.refused(&signer.policy(None), "no signature").await;
    // A policy that came to distrust the key is in force at once, too.
    sign_tag(&world.client, &world.repository, &signed_image.image.digest, &name, &signer).await;
    signed_image.pull(&signer.policy(None)).await.unwrap();
    signed_image.refused(&Signer::new("p256").policy(None), "wrong key").await;
    signed_image.refused(&json!({"default": [{"type": "reject"}]}), "the policy rejects it").await;
}

#[tokio::test]
async fn a_tag_that_was_moved_takes_no_signature_along() {
    let signed_image = Signed::new().await;
    let (world, signer) = (&signed_image.world, Signer::new("p256"));
    let name = signed_image.name("v1");
    sign_tag(&world.client, &world.repository, &signed_image.image.digest, &name, &signer).await;
    let evil = image::push(&world.client, &world.repository, "v1", &[layer(b"evil")]).await;
    signed_image.refused(&signer.policy(None), "no signature").await;
    // The old signature is copied to where the new image's would be.
    let old = signed(&signer, payload(&signed_image.image.digest, &name));
    attach_tag(&world.client, &world.repository, &evil.digest, &[old]).await;
    signed_image.refused(&signer.policy(None), "other digest").await;
    // By digest the signed image is still to be had.
    let pinned = format!("{}@{}", world.repository, signed_image.image.digest).parse().unwrap();
    signed_image.pull_as(&pinned, &signer.policy(None)).await.unwrap();
    let both = format!("{}:v1@{}", world.repository, signed_image.image.digest).parse().unwrap();
    signed_image.pull_as(&both, &signer.policy(None)).await.unwrap();
}

#[tokio::test]
async fn all_requirements_of_the_most_specific_scope_hold() {
    let signed_image = Signed::new().await;
    let (world, digest) = (&signed_image.world, &signed_image.image.digest);
    let (vendor, reviewer) = (Signer::new("p256"), Signer::new("ed25519"));
    let by = |signer: &Signer, identity: Value| json!({"type": "sigstoreSigned", "keyPath": signer.public(), "signedIdentity": identity});
    let remap = json!({"type": "remapIdentity", "prefix": world.server.host(), "signedPrefix": "vendor.example"});
    let both = json!([by(&vendor, remap), by(&reviewer, json!({"type": "matchRepository"}))]);
    let policy = json!({
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {
            "": [{"type": "insecureAcceptAnything"}],
            world.server.host(): [{"type": "insecureAcceptAnything"}],
            format!("{}/team", world.server.host()): both,
        }},
    });
    let by_vendor = signed(&vendor, payload(digest, "vendor.example/team/app:v1"));
    let by_reviewer = signed(&reviewer, payload(digest, &world.repository.to_string()));
    signed_image.attach(std::slice::from_ref(&by_vendor)).await;
    signed_image.refused(&policy, "wrong key").await;
    signed_image.attach(std::slice::from_ref(&by_reviewer)).await;
    signed_image.refused(&policy, "wrong key").await;
    signed_image.attach(&[by_reviewer, by_vendor]).await;
    signed_image.pull(&policy).await.unwrap();

    let reject = json!({
        "default": [{"type": "insecureAcceptAnything"}],
        "transports": {"docker": {signed_image.name("v1"): [{"type": "insecureAcceptAnything"}, {"type": "reject"}]}},
    });
    signed_image.refused(&reject, "rejects").await;
    let pinned = format!("{}@{digest}", world.repository).parse().unwrap();
    signed_image.pull_as(&pinned, &reject).await.unwrap();
}

#[tokio::test]
async fn of_an_index_either_itself_or_the_chosen_manifest_is_signed() {
    let world = World::new();
    let (client, repository) = (&world.client, &world.repository);
    let signer = Signer::new("p256");
    let mut entries = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let layers = [layer(architecture.as_bytes())];
        let config = image::config(&layers, architecture);
        let entry = image::push_with(client, repository, architecture, config, &layers).await;
        let mut entry = serde_json::to_value(entry).unwrap();
        entry["platform"] = json!({"architecture": architecture, "os": "linux"});
        entries.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": entries});
    let index = image::push_document(client, repository, "all", oci::INDEX, &index).await;
    let policy = SignaturePolicy::parse(signer.policy(None).to_string().as_bytes()).unwrap();
    let policy = ImagePolicy::host(policy, Timestamp::now());
    let verify = async || fetch(&world.reference("all"), client).await.unwrap().verify(&policy, client).await;
    let digest = |at: usize| entries[at]["digest"].as_str().unwrap().parse::<Sha256Digest>().unwrap();
    let (ours, theirs) = if image::architecture() == "amd64" { (0, 1) } else { (1, 0) };
    let name = format!("{repository}:all");

    sign_tag(client, repository, &digest(theirs), &name, &signer).await;
    assert_eq!(verify().await.unwrap_err().code(), reason::IMAGE_SIGNATURE, "another platform's signature");
    sign_tag(client, repository, &digest(ours), &name, &signer).await;
    assert_eq!(verify().await.unwrap().descriptor().digest, digest(ours));
    attach_tag(client, repository, &digest(ours), &[(b"{}".to_vec(), String::new())]).await;
    assert_eq!(verify().await.unwrap_err().code(), reason::IMAGE_SIGNATURE);
    sign_tag(client, repository, &index.digest, &name, &signer).await;
    assert_eq!(verify().await.unwrap().descriptor().digest, digest(ours));
}

#[tokio::test]
async fn bundles_speak_of_the_digest_and_of_a_name_where_they_have_one() {
    let digest_only = json!({"type": "matchDigest"});
    for (kind, hash) in [("p256", "-sha256"), ("p384", "-sha384"), ("ed25519", ""), ("2048", "-sha256")] {
        let image = Signed::new().await;
        let signer = Signer::new(kind);
        let text = statement(&image.image.digest, None, IMAGE_SIGNATURE);
        image.bundle(&statement_bundle(&signer, hash, &text)).await;
        image.pull(&signer.policy(Some(&digest_only))).await.unwrap_or_else(|e| panic!("{kind}: {}", e.refusal()));
        image.refused(&signer.policy(None), "names no repository").await;
        image.refused(&signer.policy(Some(&json!({"type": "matchRepository"}))), "names no repository").await;
        image.refused(&Signer::new("p256").policy(Some(&digest_only)), "wrong key").await;
    }
    let image = Signed::new().await;
    let signer = Signer::new("p256");
    let text = statement(&image.image.digest, Some(&image.name("v1")), IMAGE_SIGNATURE);
    image.bundle(&statement_bundle(&signer, "-sha256", &text)).await;
    image.pull(&signer.policy(None)).await.unwrap();
    image.pull(&signer.policy(Some(&json!({"type": "matchRepository"})))).await.unwrap();

    let image = Signed::new().await;
    image.bundle(&manifest_bundle(&signer, &image.manifest)).await;
    image.pull(&signer.policy(Some(&digest_only))).await.unwrap();
    image.refused(&signer.policy(None), "names no repository").await;
}

#[tokio::test]
async fn a_bundle_that_is_no_signature_of_this_image_by_this_key_is_refused() {
    let signer = Signer::new("p256");
    let other = Sha256Digest::of(b"another image");
    let image = Signed::new().await;
    let good_text = statement(&image.image.digest, None, IMAGE_SIGNATURE);
    let good = statement_bundle(&signer, "-sha256", &good_text);
    let with = |pointer: &str, value: Value| {
        let mut bundle = good.clone();
        *bundle.pointer_mut(pointer).unwrap() = value;
        bundle
    };
    let mut with_certificate = good.clone();
    with_certificate["verificationMaterial"]["certificate"] = json!({"rawBytes": ""});
    let mut two_signatures = good.clone();
    let signature = good["dsseEnvelope"]["signatures"][0].clone();
    two_signatures["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(signature);
    let twice = String::from_utf8(good_text.clone()).unwrap().replace("\"_type\":", "\"_type\":\"\",\"_type\":");
    let about_others = statement_bundle(&signer, "-sha256", &statement(&other, None, IMAGE_SIGNATURE));
    let provenance = statement(&image.image.digest, None, "https://slsa.dev/provenance/v1");
    let altered = statement(&image.image.digest, Some("x"), IMAGE_SIGNATURE);
    let cases = [
        ("another_digest", about_others, "other digest"),
        ("an_attestation", statement_bundle(&signer, "-sha256", &provenance), "no signature of an image"),
        ("an_altered_statement", with("/dsseEnvelope/payload", encoding::b64(&altered).into()), "wrong key"),
        ("another_payload_type", with("/dsseEnvelope/payloadType", "text/plain".into()), "text/plain"),
        ("another_version", with("/mediaType", "application/vnd.dev.sigstore.bundle.v0.2+json".into()), "v0.2"),
        ("a_certificate", with_certificate, "made with a certificate"),
        ("two_signatures", two_signatures, "exactly one signature"),
        ("a_member_twice", statement_bundle(&signer, "-sha256", twice.as_bytes()), "duplicate field"),
        ("another_manifest", manifest_bundle(&signer, b"another manifest"), "wrong key"),
        ("nothing", json!({}), "cannot be read"),
    ];
    let policy = signer.policy(Some(&json!({"type": "matchDigest"})));
    for (case, bundle, actual) in cases {
        let image = Signed::new().await;
        image.bundle(&bundle).await;
        let error = image.pull(&policy).await.expect_err(case);
        assert_eq!(error.code(), reason::IMAGE_SIGNATURE, "{case}: {error}");
        assert!(error.refusal().actual.contains(actual), "{case}: {:?}", error.refusal());
        image.world.nothing_stored();
    }
}

#[tokio::test]
async fn an_outage_is_no_absence_of_signatures() {
    let mut image = Signed::new().await;
    let signer = Signer::new("p256");
    let policy = SignaturePolicy::parse(signer.policy(None).to_string().as_bytes()).unwrap();
    let fetched = fetch(&image.world.reference("v1"), &image.world.client).await.unwrap();
    image.world.server.stop();
    let error = fetched.verify(&ImagePolicy::host(policy, Timestamp::now()), &image.world.client).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_REGISTRY, "{error}");
}

#[tokio::test]
async fn a_bundle_listed_for_one_image_that_refers_to_another_is_refused() {
    let image = Signed::new().await;
    let (client, repository) = (&image.world.client, &image.world.repository);
    let signer = Signer::new("p256");
    let other = image::push(client, repository, "other", &[layer(b"other")]).await;
    // The bundle itself would count; the referrer that carries it belongs to another image and is put on this list.
    let bundle = statement_bundle(&signer, "-sha256", &statement(&image.image.digest, None, IMAGE_SIGNATURE));
    attach_bundle(client, repository, &other, &bundle).await;
    let tag = Target::Tag(format!("sha256-{}", other.digest.hex()));
    let list = client.manifest(repository, &tag).await.unwrap();
    let here = Target::Tag(format!("sha256-{}", image.image.digest.hex()));
    client.push_manifest(repository, &here, oci::INDEX, list.bytes).await.unwrap();
    image.refused(&signer.policy(Some(&json!({"type": "matchDigest"}))), "refers to another manifest").await;
}
