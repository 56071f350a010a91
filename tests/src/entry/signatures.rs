//! Signature policies, and what stands in the place of signatures.

use async_trait::async_trait;
use bytes::Bytes;
use image_rs_fork::{ImageError, ImagePolicy, SignaturePolicy, fetch};
use protocols::digest::Sha256Digest;
use protocols::keys::SigningKey;
use protocols::time::Timestamp;
use protocols::{dsse, encoding};
use registry::{
    BlobStream, Descriptor, HttpRegistry, ImageReference, ManifestBytes, RegistriesD, Registry, RegistryConfig,
    RegistryError, Repository, Target, oci,
};
use serde_json::{Value, json};

use super::seeds::key;
use super::{OneLayer, Whole, runtime};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// A public key, and a signature by it of an image that is none of ours.
const OPENPGP_KEY: &[u8] = include_bytes!("../../data/vectors/openpgp/key.gpg");
const OPENPGP_SIGNATURES: [&[u8]; 2] = [
    include_bytes!("../../data/vectors/openpgp/skopeo-signature"),
    include_bytes!("../../data/vectors/openpgp/uncompressed-signature"),
];
const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A signature policy; key files it names cannot be read.
pub fn signature_policy(bytes: &[u8]) {
    let _ = SignaturePolicy::parse_with(bytes, |_| Err(std::io::ErrorKind::NotFound.into()));
}

/// An OpenPGP key, and an OpenPGP message in a lookaside.
///
/// # Panics
/// When an image is taken that nobody has signed.
pub fn openpgp(bytes: &[u8]) {
    let _ = SignaturePolicy::parse(&signed_by(bytes));
    let policy = SignaturePolicy::parse(&signed_by(OPENPGP_KEY)).unwrap();
    let registry = Lookaside { image: OneLayer::new(b""), signature: Bytes::copy_from_slice(bytes) };
    let reference: ImageReference = "fuzz.example/app:1".parse().unwrap();
    let policy = ImagePolicy::host(policy, Timestamp::now());
    let error = runtime().block_on(async { fetch(&reference, &registry).await?.verify(&policy, &registry).await });
    let error = error.expect_err("the key has only signed another image");
    assert!(matches!(error, ImageError::Signature { .. }), "{error}");
}

/// A `registries.d`, and where it leads.
pub fn registries_d(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(conf) = RegistriesD::parse(text) else { return };
    let config = RegistryConfig { registries_d_json: conf, ..RegistryConfig::default() };
    // Plain HTTP to a host that is not listed is refused here.
    let Ok(client) = HttpRegistry::new(config) else { return };
    for repository in ["r.example/team/app", "docker.io/app", "a.b.example:5000/app"] {
        let _ = client.lookaside(&repository.parse().unwrap());
    }
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
    let policy = ImagePolicy::host(SignaturePolicy::parse(&policy()).unwrap(), Timestamp::now());
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

fn signed_by(key: &[u8]) -> Vec<u8> {
    json!({"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": encoding::b64(key)}]})
        .to_string()
        .into_bytes()
}

/// A registry in memory with one image, and one OpenPGP signature beside it.
struct Lookaside {
    image: OneLayer,
    signature: Bytes,
}

#[async_trait]
impl Registry for Lookaside {
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        self.image.manifest(repository, target).await
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        self.image.blob(repository, digest, size).await
    }

    async fn referrers(&self, _: &Repository, _: &Sha256Digest, _: &str) -> Result<Vec<Descriptor>, RegistryError> {
        Ok(Vec::new())
    }

    async fn lookaside_signature(
        &self,
        _: &Repository,
        _: &Sha256Digest,
        number: usize,
        _: usize,
    ) -> Result<Option<Bytes>, RegistryError> {
        Ok((number == 1).then(|| self.signature.clone()))
    }
}

/// A key and signatures by it.
pub(super) fn openpgps() -> Vec<Vec<u8>> {
    [&[OPENPGP_KEY][..], &OPENPGP_SIGNATURES].concat().into_iter().map(<[u8]>::to_vec).collect()
}

/// Well-formed `registries.d` texts.
pub(super) fn registries_ds() -> Vec<Vec<u8>> {
    let text = json!({
        "default-docker": {"sigstore": "file:///var/lib/signatures", "use-sigstore-attachments": true},
        "docker": {
            "r.example/team": {"lookaside": "https://s.example/a", "lookaside-staging": "file:///s"},
            "*.example": {"lookaside": "https://other.example:8443"},
        },
    });
    vec![text.to_string().into_bytes()]
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
