//! Signs images as cosign does, with `openssl`.
#![allow(dead_code)] // each test crate uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use image_rs_fork::registry::{Descriptor, RegistryPush, Repository, Target, oci};
use protocols::digest::Sha256Digest;
use protocols::{dsse, encoding};
use serde_json::{Value, json};

pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
pub(crate) const IMAGE_SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

/// A key pair in two files.
pub(crate) struct Signer {
    dir: tempfile::TempDir,
    ed25519: bool,
}

fn openssl(arguments: &[&str], dir: &Path) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).current_dir(dir).output().expect("openssl must be installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

impl Signer {
    /// `p256`, `p384`, `ed25519`, or an RSA modulus in bits.
    pub(crate) fn new(kind: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let bits = format!("rsa_keygen_bits:{kind}");
        let options: &[&str] = match kind {
            "p256" => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
            "p384" => &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
            "ed25519" => &["-algorithm", "ED25519"],
            _ => &["-algorithm", "RSA", "-pkeyopt", &bits],
        };
        openssl(&[&["genpkey", "-out", "key.pem"], options].concat(), dir.path());
        openssl(&["pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"], dir.path());
        Self { dir, ed25519: kind == "ed25519" }
    }

    pub(crate) fn public(&self) -> PathBuf {
        self.dir.path().join("key.pub")
    }

    pub(crate) fn public_base64(&self) -> String {
        encoding::b64(&std::fs::read(self.public()).unwrap())
    }

    pub(crate) fn sign_with(&self, hash: &str, message: &[u8]) -> Vec<u8> {
        std::fs::write(self.dir.path().join("message"), message).unwrap();
        let arguments: &[&str] = if self.ed25519 {
            &["pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", "message"]
        } else {
            &["dgst", hash, "-sign", "key.pem", "message"]
        };
        openssl(arguments, self.dir.path())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.sign_with("-sha256", message)
    }

    /// A policy that takes this key's signatures with the given `signedIdentity` and nothing else.
    pub(crate) fn policy(&self, identity: Option<&Value>) -> Value {
        let mut requirement = json!({"type": "sigstoreSigned", "keyPath": self.public()});
        if let Some(identity) = identity {
            requirement["signedIdentity"] = identity.clone();
        }
        json!({"default": [requirement]})
    }
}

pub(crate) fn payload(digest: &Sha256Digest, reference: &str) -> Vec<u8> {
    let value = json!({
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    value.to_string().into_bytes()
}

/// Puts payloads with their signatures at the tag that speaks of `digest`.
pub(crate) async fn attach_tag(
    registry: &dyn RegistryPush,
    repository: &Repository,
    digest: &Sha256Digest,
    signatures: &[(Vec<u8>, String)],
) {
    let mut layers = Vec::new();
    for (payload, signature) in signatures {
        let kind = "application/vnd.dev.cosign.simplesigning.v1+json";
        let mut layer = registry.push_blob(repository, kind, Bytes::from(payload.clone())).await.unwrap();
        layer.annotations.insert("dev.cosignproject.cosign/signature".to_owned(), signature.clone());
        layers.push(layer);
    }
    let config = Bytes::from_static(b"{\"rootfs\":{}}");
    let config = registry.push_blob(repository, "application/vnd.oci.image.config.v1+json", config).await.unwrap();
    let manifest = json!({"schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": layers});
    push_tag(registry, repository, digest, oci::MANIFEST, &manifest).await;
}

pub(crate) async fn push_tag(
    registry: &dyn RegistryPush,
    repository: &Repository,
    digest: &Sha256Digest,
    kind: &str,
    document: &Value,
) {
    let tag = Target::Tag(format!("sha256-{}.sig", digest.hex()));
    registry.push_manifest(repository, &tag, kind, Bytes::from(document.to_string())).await.unwrap();
}

/// Signs `digest` under the name `reference`.
pub(crate) async fn sign_tag(
    registry: &dyn RegistryPush,
    repository: &Repository,
    digest: &Sha256Digest,
    reference: &str,
    signer: &Signer,
) {
    let payload = payload(digest, reference);
    let signature = encoding::b64(&signer.sign(&payload));
    attach_tag(registry, repository, digest, &[(payload, signature)]).await;
}

/// An in-toto statement about `digest`, with a name where one is given.
pub(crate) fn statement(digest: &Sha256Digest, name: Option<&str>, predicate: &str) -> Vec<u8> {
    let mut subject = json!({"digest": {"sha256": digest.hex()}, "annotations": {}});
    if let Some(name) = name {
        subject["name"] = name.into();
    }
    let value = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [subject],
        "predicateType": predicate,
        "predicate": {},
    });
    value.to_string().into_bytes()
}

/// A bundle with a statement, signed.
pub(crate) fn statement_bundle(signer: &Signer, hash: &str, statement: &[u8]) -> Value {
    let kind = "application/vnd.in-toto+json";
    let signature = signer.sign_with(hash, &dsse::pae(kind, statement));
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": "aGludA=="}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": encoding::b64(statement),
            "payloadType": kind,
            "signatures": [{"sig": encoding::b64(&signature)}],
        },
    })
}

/// A bundle with a signature over the manifest itself.
pub(crate) fn manifest_bundle(signer: &Signer, manifest: &[u8]) -> Value {
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": ""}},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": encoding::b64(b"not looked at")},
            "signature": encoding::b64(&signer.sign(manifest)),
        },
    })
}

/// Stores a bundle as a referrer of `subject`.
pub(crate) async fn attach_bundle(
    registry: &dyn RegistryPush,
    repository: &Repository,
    subject: &Descriptor,
    bundle: &Value,
) {
    registry.push_blob(repository, oci::EMPTY, Bytes::from_static(oci::EMPTY_BLOB)).await.unwrap();
    let layer = registry.push_blob(repository, BUNDLE, Bytes::from(bundle.to_string())).await.unwrap();
    let manifest = oci::artifact_manifest(BUNDLE, &layer, Some(subject)).unwrap();
    registry.attach(repository, Bytes::from(manifest)).await.unwrap();
}
