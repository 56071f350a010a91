//! Encrypted layers: what skopeo encrypts is read, what we encrypt skopeo reads, and nothing altered is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use image_rs_fork::ocicrypt::{DecryptionKey, KeyRing, LayerEncryptor, RecipientKey, Recipients, WrappingKey, key_id};
use image_rs_fork::registry::{Descriptor, Registry as _, RegistryPush as _, Target, oci};
use image_rs_fork::{ImageError, ImagePolicy, KeyProvider, Limits, MeasuredImage, NoKeys, NoProgress, fetch, pull};
use protocols::digest::Sha256Digest;
use protocols::encoding::{b64, un_b64};
use protocols::reason::{self, Code};
use protocols::time::Timestamp;
use serde_json::{Value, json};
use support::image::{self, LayerBlob, gzip, plain, zstd};
use support::tar::{archive, file};
use support::{World, names};

const ENC: &str = "org.opencontainers.image.enc.";

/// A pair of PEM files made by openssl.
struct Pair {
    folder: tempfile::TempDir,
}

impl Pair {
    /// `RSA`, or a curve.
    fn new(kind: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let how = match kind {
            "RSA" => "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048".to_owned(),
            curve => format!("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:{curve}"),
        };
        openssl(folder.path(), &format!("{how} -out private.pem"));
        openssl(folder.path(), "pkey -in private.pem -pubout -out public.pem");
        Self { folder }
    }

    fn private(&self) -> PathBuf {
        self.folder.path().join("private.pem")
    }

    fn public(&self) -> PathBuf {
        self.folder.path().join("public.pem")
    }

    fn ring(&self) -> KeyRing {
        let mut ring = KeyRing::default();
        ring.add_private(DecryptionKey::from_pem(&std::fs::read_to_string(self.private()).unwrap()).unwrap());
        ring
    }

    fn recipients(&self) -> Recipients {
        let mut recipients = Recipients::default();
        let public = std::fs::read_to_string(self.public()).unwrap();
        recipients.add_public(RecipientKey::from_pem(&public).unwrap());
        recipients
    }
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = output.expect("openssl must be installed (Debian package openssl)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `skopeo copy` between two tags of the world's repository.
fn skopeo(world: &World, arguments: &[String], from: &str, to: &str) -> Result<(), String> {
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"])
        .args(arguments)
        .args([from, to].map(|tag| format!("docker://{}:{tag}", world.repository)))
        .output()
        .expect("skopeo must be installed (Debian package skopeo)");
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// One layer of each compression, larger than a chunk of the stream.
fn layers() -> Vec<LayerBlob> {
    let noise: Vec<u8> = (0..400_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let tar = |name: &str| archive([file(name, &noise)]);
    vec![gzip(&tar("a")), zstd(&tar("b")), plain(&tar("c"))]
}

async fn pull_with(world: &World, tag: &str, keys: &dyn KeyProvider) -> Result<MeasuredImage, ImageError> {
    let reference = world.reference(tag);
    let verified = fetch(&reference, &world.client)
        .await?
        .verify(
            &ImagePolicy::host(image_rs_fork::SignaturePolicy::insecure_accept_anything(), Timestamp::now()),
            &world.client,
        )
        .await?;
    pull(verified, &world.client, &world.store, keys, &Limits::default(), &NoProgress).await
}

async fn manifest(world: &World, tag: &str) -> Value {
    let found = world.client.manifest(&world.repository, &Target::Tag(tag.to_owned())).await.unwrap();
    serde_json::from_slice(&found.bytes).unwrap()
}

/// Encrypts layers and pushes them with the config of the unencrypted image.
async fn push_encrypted(world: &World, tag: &str, layers: &[LayerBlob], recipients: &Recipients) -> Value {
    let mut pushed = Vec::new();
    for layer in layers {
        let mut blob = layer.blob.clone();
        let mut encryptor = LayerEncryptor::new(&Sha256Digest::of(&blob)).unwrap();
        blob.chunks_mut(65_537).for_each(|piece| encryptor.apply(piece));
        let media_type = format!("{}+encrypted", layer.media_type);
        let mut descriptor = world.client.push_blob(&world.repository, &media_type, blob.into()).await.unwrap();
        descriptor.annotations = encryptor.finish(recipients).unwrap();
        pushed.push(descriptor);
    }
    let config = Bytes::from(image::config(layers, image::architecture()));
    let config = world.client.push_blob(&world.repository, "application/vnd.oci.image.config.v1+json", config).await;
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config.unwrap(), "layers": pushed });
    push(world, tag, &manifest).await;
    manifest
}

async fn push(world: &World, tag: &str, manifest: &Value) {
    let _ = image::push_document(&world.client, &world.repository, tag, oci::MANIFEST, manifest).await;
}

#[tokio::test]
async fn what_skopeo_encrypts_is_read_with_the_private_key_alone() {
    let world = World::new();
    image::push(&world.client, &world.repository, "v1", &layers()).await;
    let pairs = ["RSA", "P-256", "P-384", "P-521"].map(Pair::new);
    let stranger = Pair::new("P-256");
    let key = |pair: &Pair| ["--encryption-key".to_owned(), format!("jwe:{}", pair.public().display())];
    for pair in &pairs {
        skopeo(&world, &key(pair), "v1", "enc").unwrap();
        assert!(manifest(&world, "enc").await["layers"][0]["mediaType"].as_str().unwrap().ends_with("+encrypted"));
        let error = pull_with(&world, "enc", &NoKeys).await.unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_KEY, "{error}");
        let error = pull_with(&world, "enc", &stranger.ring()).await.unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_KEY, "{error}");
        let image = pull_with(&world, "enc", &pair.ring()).await.unwrap();
        assert_eq!(image.measurement().layers, layers().iter().map(|layer| layer.diff_id).collect::<Vec<_>>());
        // Stored now, and still nobody's without the key.
        assert_eq!(pull_with(&world, "enc", &NoKeys).await.unwrap_err().code(), reason::IMAGE_KEY);
    }
    // For all of them at once, in the general form.
    skopeo(&world, &pairs.each_ref().map(key).concat(), "v1", "all").unwrap();
    for pair in &pairs {
        pull_with(&world, "all", &pair.ring()).await.unwrap();
    }
    // The same as the image that was never encrypted.
    let clear = pull_with(&world, "v1", &NoKeys).await.unwrap();
    let encrypted = pull_with(&world, "all", &pairs[0].ring()).await.unwrap();
    assert_eq!(clear.measurement().rootfs, encrypted.measurement().rootfs);
}

#[tokio::test]
async fn what_we_encrypt_skopeo_reads_back_to_the_same_blobs() {
    let world = World::new();
    for kind in ["RSA", "P-256", "P-384", "P-521"] {
        let pair = Pair::new(kind);
        push_encrypted(&world, "enc", &layers(), &pair.recipients()).await;
        pull_with(&world, "enc", &pair.ring()).await.unwrap();
        let key = ["--decryption-key".to_owned(), pair.private().display().to_string()];
        skopeo(&world, &key, "enc", "dec").unwrap();
        let decrypted = manifest(&world, "dec").await;
        let digests: Vec<_> = decrypted["layers"].as_array().unwrap().iter().map(|l| l["digest"].clone()).collect();
        let expected: Vec<_> = layers().iter().map(|layer| Sha256Digest::of(&layer.blob).to_string()).collect();
        // skopeo compresses what was not.
        assert_eq!(digests[..2], expected[..2], "{kind}");
        assert!(!decrypted.to_string().contains("+encrypted"), "{kind}");
    }
}

#[tokio::test]
async fn keys_are_read_from_the_files_openssl_writes() {
    let world = World::new();
    let pair = Pair::new("RSA");
    push_encrypted(&world, "rsa", &layers()[..1], &pair.recipients()).await;
    openssl(pair.folder.path(), "rsa -in private.pem -traditional -out private.pem");
    pull_with(&world, "rsa", &pair.ring()).await.unwrap();
    let pair = Pair::new("P-384");
    // Parameters first, then a SEC1 key.
    openssl(pair.folder.path(), "ecparam -name secp384r1 -genkey -out private.pem");
    openssl(pair.folder.path(), "ec -in private.pem -pubout -out public.pem");
    push_encrypted(&world, "ec", &layers()[..1], &pair.recipients()).await;
    pull_with(&world, "ec", &pair.ring()).await.unwrap();
}

#[tokio::test]
async fn a_key_brokers_key_opens_what_it_wrapped_and_no_other_does() {
    let world = World::new();
    let path = key_id("kbs:///default/image-kek/1").unwrap();
    let mut recipients = Recipients::default();
    recipients.add_wrapping(path.clone(), WrappingKey::new(&[7; 32]).unwrap());
    push_encrypted(&world, "enc", &layers(), &recipients).await;
    let ring = |path: &str, key: &[u8; 32]| {
        let mut ring = KeyRing::default();
        ring.add_wrapping(key_id(path).unwrap(), WrappingKey::new(key).unwrap());
        ring
    };
    for (path, key) in [("kbs:///default/image-kek/1", [8; 32]), ("kbs:///default/image-kek/2", [7; 32])] {
        let error = pull_with(&world, "enc", &ring(path, &key)).await.unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_KEY, "{error}");
    }
    pull_with(&world, "enc", &ring("kbs:///default/image-kek/1", &[7; 32])).await.unwrap();
}

/// Replaces a layer's blob by an altered one whose digest and size the manifest has.
async fn replace_blob(world: &World, manifest: &mut Value, at: usize, alter: impl FnOnce(&mut Vec<u8>)) {
    let layer = &mut manifest["layers"][at];
    let descriptor: Descriptor = serde_json::from_value(layer.clone()).unwrap();
    let mut blob = world.client.small_blob(&world.repository, &descriptor, 1 << 30).await.unwrap();
    alter(&mut blob);
    let pushed = world.client.push_blob(&world.repository, &descriptor.media_type, blob.into()).await.unwrap();
    layer["digest"] = json!(pushed.digest);
    layer["size"] = json!(pushed.size);
}

/// Edits the public options of the first layer.
fn edit_public(manifest: &mut Value, edit: impl FnOnce(&mut Value)) {
    let annotation = &mut manifest["layers"][0]["annotations"][format!("{ENC}pubopts")];
    let mut public: Value = serde_json::from_slice(&un_b64(annotation.as_str().unwrap()).unwrap()).unwrap();
    edit(&mut public);
    *annotation = b64(public.to_string().as_bytes()).into();
}

#[track_caller]
fn refused(pulled: Result<MeasuredImage, ImageError>, code: Code, attack: &str) {
    let error = pulled.expect_err(attack);
    assert_eq!(error.code(), code, "{attack}: {error}");
}

#[tokio::test]
async fn altered_ciphertext_is_refused_whatever_it_unpacks_to() {
    let world = World::new();
    let pair = Pair::new("P-256");
    let honest = push_encrypted(&world, "v1", &layers(), &pair.recipients()).await;
    let (tag, ring) = ("attack", pair.ring());
    for layer in 0..3 {
        let last = usize::try_from(honest["layers"][layer]["size"].as_u64().unwrap()).unwrap() - 1;
        for place in [0, last / 2, last] {
            let mut manifest = honest.clone();
            replace_blob(&world, &mut manifest, layer, |blob| blob[place] ^= 1).await;
            push(&world, tag, &manifest).await;
            refused(pull_with(&world, tag, &ring).await, reason::IMAGE_DECRYPT, "flipped byte");
        }
        let mut manifest = honest.clone();
        replace_blob(&world, &mut manifest, layer, |blob| blob.truncate(last)).await;
        push(&world, tag, &manifest).await;
        refused(pull_with(&world, tag, &ring).await, reason::IMAGE_DECRYPT, "truncated");
        let mut manifest = honest.clone();
        replace_blob(&world, &mut manifest, layer, |blob| blob.push(0)).await;
        push(&world, tag, &manifest).await;
        refused(pull_with(&world, tag, &ring).await, reason::IMAGE_DECRYPT, "byte appended");
        // Without the manifest's help it is the blob that is wrong.
        let hex = honest["layers"][layer]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        let stored = world.server.blob_file(&hex);
        let blob = std::fs::read(&stored).unwrap();
        let mut altered = blob.clone();
        altered[0] ^= 1;
        std::fs::write(&stored, &altered).unwrap();
        refused(pull_with(&world, "v1", &ring).await, reason::IMAGE_BLOB_DIGEST, "flipped at rest");
        std::fs::write(&stored, &blob).unwrap();
    }
    // Honest layers beneath an attacked one may be kept; the attacked were not.
    assert_eq!(names(&world.home.path().join("store/layers")).len(), 2);
    pull_with(&world, "v1", &ring).await.unwrap();
}

#[tokio::test]
async fn altered_annotations_are_refused() {
    let world = World::new();
    let pair = Pair::new("P-256");
    let honest = push_encrypted(&world, "v1", &layers(), &pair.recipients()).await;
    let jwe = format!("{ENC}keys.jwe");
    type Attack = (&'static str, Code, Box<dyn Fn(&mut Value)>);
    let name = jwe.clone();
    let attacks: [Attack; 12] = [
        (
            "annotations swapped between layers",
            reason::IMAGE_DECRYPT,
            Box::new(|m| {
                let first = m["layers"][0]["annotations"].take();
                m["layers"][0]["annotations"] = m["layers"][1]["annotations"].take();
                m["layers"][1]["annotations"] = first;
            }),
        ),
        (
            "keys swapped between layers",
            reason::IMAGE_DECRYPT,
            Box::new(move |m| {
                let other = m["layers"][1]["annotations"][&name].clone();
                m["layers"][0]["annotations"][&name] = other;
            }),
        ),
        ("HMAC stripped", reason::IMAGE_DECRYPT, Box::new(|m| edit_public(m, |p| p["hmac"] = "".into()))),
        (
            "no HMAC",
            reason::IMAGE_DECRYPT,
            Box::new(|m| edit_public(m, |p| drop(p.as_object_mut().unwrap().remove("hmac")))),
        ),
        ("another HMAC", reason::IMAGE_DECRYPT, Box::new(|m| edit_public(m, |p| p["hmac"] = b64(&[0; 32]).into()))),
        ("another cipher", reason::IMAGE_DECRYPT, Box::new(|m| edit_public(m, |p| p["cipher"] = "AES_256_CTR".into()))),
        (
            "a nonce of its own",
            reason::IMAGE_DECRYPT,
            Box::new(|m| {
                edit_public(m, |p| p["cipheroptions"] = json!({ "nonce": b64(&[0; 16]) }));
            }),
        ),
        (
            "no public options",
            reason::IMAGE_DECRYPT,
            Box::new(|m| {
                m["layers"][0]["annotations"].as_object_mut().unwrap().remove(&format!("{ENC}pubopts"));
            }),
        ),
        (
            "no keys",
            reason::IMAGE_DECRYPT,
            Box::new(|m| {
                m["layers"][0]["annotations"].as_object_mut().unwrap().remove(&format!("{ENC}keys.jwe"));
            }),
        ),
        (
            "a huge annotation",
            reason::IMAGE_DECRYPT,
            Box::new(|m| {
                m["layers"][0]["annotations"][format!("{ENC}keys.jwe")] = "A".repeat(200_000).into();
            }),
        ),
        (
            "keys of an unknown scheme",
            reason::IMAGE_KEY,
            Box::new(|m| {
                let annotations = m["layers"][0]["annotations"].as_object_mut().unwrap();
                let keys = annotations.remove(&format!("{ENC}keys.jwe")).unwrap();
                annotations.insert(format!("{ENC}keys.pkcs7"), keys);
            }),
        ),
        (
            "an algorithm that needs no key",
            reason::IMAGE_KEY,
            Box::new(|m| {
                let none = json!({ "protected": protocols::encoding::b64url(br#"{"alg":"none","enc":"A256GCM"}"#),
                "encrypted_key": "", "iv": "", "ciphertext": b64(b"{}"), "tag": "" });
                m["layers"][0]["annotations"][format!("{ENC}keys.jwe")] = b64(none.to_string().as_bytes()).into();
            }),
        ),
    ];
    for (attack, code, alter) in attacks {
        let mut manifest = honest.clone();
        alter(&mut manifest);
        push(&world, "attack", &manifest).await;
        refused(pull_with(&world, "attack", &pair.ring()).await, code, attack);
    }
    world.nothing_stored();

    // Ciphertext shown as a plain layer is none, and the other way round.
    let mut manifest = honest.clone();
    manifest["layers"][0]["mediaType"] = image::GZIP.into();
    push(&world, "attack", &manifest).await;
    refused(pull_with(&world, "attack", &pair.ring()).await, reason::IMAGE_LAYER_FORMAT, "ciphertext as a layer");
    world.nothing_stored();
}
