//! Signature policies, and what stands in the place of signatures.

use async_trait::async_trait;
use bytes::Bytes;
use image_rs_fork::{ImageError, ImagePolicy, SignaturePolicy, fetch};
use protocols::digest::Sha256Digest;
use protocols::keys::SigningKey;
use protocols::{dsse, encoding};
use registry::{
    BlobStream, Descriptor, ImageReference, ManifestBytes, Registry, RegistryError, Repository, Target, oci,
};
use serde_json::{Value, json};

use super::seeds::key;
use super::{OneLayer, Whole, runtime};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A signature policy; key files it names cannot be read.
pub fn signature_policy(bytes: &[u8]) {
    let _ = SignaturePolicy::parse_with(bytes, |_| Err(std::io::ErrorKind::NotFound.into()));
}

/// A simple signing payload and an in-toto statement, both properly signed, and a bundle as it is.
///
/// # Panics
/// When an image is taken of which they do not speak, or refused for another reason than its signatures.
pub fn signature(bytes: &[u8]) {
    let hex = Sha256Digest::of(&OneLayer::new(b"").manifest).hex();
    if taken(Signed::at_tag(bytes)) {
        assert!(contains(bytes, &hex), "the payload names the manifest");
    }
    if taken(Signed::by_bundle(bundle(bytes).to_string().as_bytes())) {
        assert!(contains(bytes, &hex), "the statement names the manifest");
    }
    if taken(Signed::by_bundle(bytes)) {
        assert!(contains(bytes, &encoding::b64(&statement())), "the only statement the key has signed elsewhere");
    }
}

/// Whether `text` is there, or may be there in escapes.
fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.contains(&b'\\') || bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn taken(registry: Signed) -> bool {
    let reference: ImageReference = "fuzz.example/app:1".parse().unwrap();
    let policy = ImagePolicy::host(SignaturePolicy::parse(&policy()).unwrap());
    let verified =
        runtime().block_on(async { fetch(&reference, &registry).await?.verify(&policy, &registry).await.map(|_| ()) });
    if let Err(error) = &verified {
        assert!(matches!(error, ImageError::Signature { .. }), "only its signatures are wrong: {error}");
    }
    verified.is_ok()
}

fn sign(message: &[u8]) -> String {
    encoding::b64(&SigningKey::sign(key(), message))
}

fn bundle(statement: &[u8]) -> Value {
    json!({
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": ""}},
        "dsseEnvelope": {
            "payload": encoding::b64(statement), "payloadType": IN_TOTO,
            "signatures": [{"sig": sign(&dsse::pae(IN_TOTO, statement))}],
        },
    })
}

fn statement() -> Vec<u8> {
    let hex = Sha256Digest::of(&OneLayer::new(b"").manifest).hex();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": hex}, "name": "fuzz.example/app:1"}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1", "predicate": {},
    });
    statement.to_string().into_bytes()
}

fn policy() -> Vec<u8> {
    let pem = encoding::b64(key().verifying_key().to_pem().unwrap().as_bytes());
    let identity = json!({"type": "matchDigest"});
    json!({"default": [{"type": "sigstoreSigned", "keyData": pem, "signedIdentity": identity}]})
        .to_string()
        .into_bytes()
}

/// A registry in memory with one image and one signature of it.
struct Signed {
    image: OneLayer,
    tag: Option<Bytes>,
    referrer: Option<Bytes>,
    blob: Bytes,
}

impl Signed {
    fn at_tag(payload: &[u8]) -> Self {
        let mut layer = Descriptor::of("application/vnd.dev.cosign.simplesigning.v1+json", payload);
        layer.annotations.insert("dev.cosignproject.cosign/signature".to_owned(), sign(payload));
        let config = Descriptor::of(oci::EMPTY, oci::EMPTY_BLOB);
        let manifest = json!({"schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": [layer]});
        let tag = Some(Bytes::from(manifest.to_string()));
        Self { image: OneLayer::new(b""), tag, referrer: None, blob: Bytes::copy_from_slice(payload) }
    }

    fn by_bundle(bundle: &[u8]) -> Self {
        let image = OneLayer::new(b"");
        let layer = Descriptor::of(BUNDLE, bundle);
        let subject = Descriptor::of(oci::MANIFEST, &image.manifest);
        let referrer = oci::artifact_manifest(BUNDLE, &layer, Some(&subject)).unwrap();
        Self { image, tag: None, referrer: Some(Bytes::from(referrer)), blob: Bytes::copy_from_slice(bundle) }
    }
}

#[async_trait]
impl Registry for Signed {
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        let bytes = match target {
            Target::Tag(tag) if tag.ends_with(".sig") => self.tag.clone(),
            Target::Digest(_) => self.referrer.clone(),
            Target::Tag(_) => Some(self.image.manifest.clone()),
        };
        let missing = || RegistryError::NotFound { host: repository.host().to_owned(), what: target.to_string() };
        let bytes = bytes.ok_or_else(missing)?;
        let digest = Sha256Digest::of(&bytes);
        Ok(ManifestBytes { bytes, media_type: oci::MANIFEST.to_owned(), digest, claimed: None })
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        if Sha256Digest::of(&self.blob) == *digest {
            return Ok(Box::new(Whole(Some(self.blob.clone()))));
        }
        self.image.blob(repository, digest, size).await
    }

    async fn referrers(&self, _: &Repository, _: &Sha256Digest, _: &str) -> Result<Vec<Descriptor>, RegistryError> {
        Ok(self.referrer.iter().map(|bytes| Descriptor::of(oci::MANIFEST, bytes)).collect())
    }
}

/// Well-formed policies.
pub(super) fn policies() -> Vec<Vec<u8>> {
    let scopes = json!({
        "default": [{"type": "reject"}],
        "transports": {
            "docker": {
                "h.example/app": [{"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "matchRepository"}}],
                "*.example": [{"type": "insecureAcceptAnything"}],
                "": [{"type": "reject"}],
            },
            "dir": {"": [{"type": "insecureAcceptAnything"}]},
        },
    });
    vec![policy(), scopes.to_string().into_bytes()]
}

/// A payload, a statement and a bundle that speak of the image.
pub(super) fn signatures() -> Vec<Vec<u8>> {
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": "fuzz.example/app"},
            "image": {"docker-manifest-digest": Sha256Digest::of(&OneLayer::new(b"").manifest)},
            "type": "cosign container image signature",
        },
        "optional": {"creator": "c", "timestamp": 1},
    });
    let payload = payload.to_string().into_bytes();
    assert!(taken(Signed::at_tag(&payload)), "the seed counts");
    let bundle = bundle(&statement()).to_string().into_bytes();
    assert!(taken(Signed::by_bundle(&bundle)), "the seed counts");
    vec![payload, statement(), bundle]
}
