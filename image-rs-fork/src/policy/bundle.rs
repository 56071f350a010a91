//! Sigstore bundles, version 0.3 (sigstore/protobuf-specs, in protobuf's JSON): a DSSE envelope around an in-toto
//! statement, or a signature over the manifest's own bytes.

use protocols::digest::Sha256Digest;
use protocols::{dsse, encoding};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::json::{Unique, given, named};
use super::key::SigstoreKey;

/// Media type of a bundle, and type of the artifact that carries one.
pub(super) const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The largest bundle we read, in bytes.
pub(super) const MAX_BUNDLE: u64 = 256 * 1024;
/// Payload type of an in-toto statement.
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Types of in-toto statements.
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// The one predicate that is a signature of an image and no attestation about it.
const PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    media_type: String,
    verification_material: Material,
    #[serde(default, deserialize_with = "given")]
    dsse_envelope: Option<Envelope>,
    #[serde(default, deserialize_with = "given")]
    message_signature: Option<MessageSignature>,
}

/// What came with the signature. The key is the policy's, so a hint is no help; times and logs are not judged.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Material {
    #[serde(default, deserialize_with = "named")]
    public_key: bool,
    #[serde(default, deserialize_with = "named")]
    certificate: bool,
    #[serde(default, deserialize_with = "named")]
    x509_certificate_chain: bool,
    #[serde(rename = "tlogEntries", default)]
    _tlog_entries: IgnoredAny,
    #[serde(rename = "timestampVerificationData", default)]
    _timestamps: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    #[serde(with = "encoding::standard")]
    payload: Vec<u8>,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    #[serde(with = "encoding::standard")]
    sig: Vec<u8>,
    #[serde(rename = "keyid", default)]
    _keyid: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MessageSignature {
    #[serde(with = "encoding::standard")]
    signature: Vec<u8>,
    // Recomputed from the manifest itself.
    #[serde(rename = "messageDigest", default)]
    _message_digest: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    #[serde(rename = "predicate", default)]
    _predicate: IgnoredAny,
}

#[derive(Debug, Deserialize)]
struct Subject {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    digest: Unique<String>,
}

/// A bundle that can be checked.
#[derive(Debug)]
pub(super) struct Bundle(Signed);

#[derive(Debug)]
enum Signed {
    Statement { message: Vec<u8>, signature: Vec<u8>, payload: Vec<u8> },
    Manifest { signature: Vec<u8> },
}

/// What a checked bundle says of one manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The subject's name; cosign writes none.
    pub(super) reference: Option<String>,
}

impl Bundle {
    /// Reads a bundle that was made with a key; one made with a certificate is refused.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|e| format!("a bundle that cannot be read: {e}"))?;
        if file.media_type != MEDIA_TYPE {
            return Err(format!("a bundle of media type `{}`", file.media_type));
        }
        let material = file.verification_material;
        if material.certificate || material.x509_certificate_chain || !material.public_key {
            return Err("a bundle made with a certificate, not with a key".to_owned());
        }
        match (file.dsse_envelope, file.message_signature) {
            (Some(Envelope { payload, payload_type, signatures }), None) => {
                if payload_type != IN_TOTO {
                    return Err(format!("a bundle with a payload of type `{payload_type}`"));
                }
                let Ok([Signature { sig, .. }]) = <[Signature; 1]>::try_from(signatures) else {
                    return Err("a bundle without exactly one signature".to_owned());
                };
                Ok(Self(Signed::Statement { message: dsse::pae(&payload_type, &payload), signature: sig, payload }))
            }
            (None, Some(MessageSignature { signature, .. })) => Ok(Self(Signed::Manifest { signature })),
            _ => Err("a bundle without exactly one of envelope and message signature".to_owned()),
        }
    }

    /// Checks the signature first and reads what it covers then.
    pub(super) fn check(
        &self,
        keys: &[SigstoreKey],
        digest: &Sha256Digest,
        manifest: &[u8],
    ) -> Result<Claim, super::Rejection> {
        let by_one_of = |message: &[u8], signature: &[u8]| keys.iter().any(|key| key.verifies(message, signature));
        match &self.0 {
            Signed::Manifest { signature } if by_one_of(manifest, signature) => Ok(Claim { reference: None }),
            Signed::Statement { message, signature, payload } if by_one_of(message, signature) => {
                let subjects = subjects(payload).map_err(super::Rejection::Unreadable)?;
                let hex = digest.hex();
                let found = subjects.into_iter().find(|s| s.digest.0.get("sha256").is_some_and(|it| *it == hex));
                found.map(|subject| Claim { reference: subject.name }).ok_or(super::Rejection::OtherDigest)
            }
            _ => Err(super::Rejection::WrongKey),
        }
    }
}

fn subjects(payload: &[u8]) -> Result<Vec<Subject>, String> {
    let statement: Statement =
        serde_json::from_slice(payload).map_err(|e| format!("a statement that cannot be read: {e}"))?;
    if !STATEMENTS.contains(&statement.kind.as_str()) {
        return Err(format!("a statement of type `{}`", statement.kind));
    }
    if statement.predicate_type != PREDICATE {
        return Err(format!("a statement about `{}`, no signature of an image", statement.predicate_type));
    }
    Ok(statement.subject)
}

#[cfg(test)]
mod tests {
    use p256::pkcs8::{EncodePublicKey as _, LineEnding};

    use super::*;

    const ARTIFACT: &[u8] = include_bytes!("../../../tests/data/vectors/sigstore/artifact.txt");

    fn check(bundle: &[u8], key: &[u8], artifact: &[u8]) -> Result<Claim, super::super::Rejection> {
        let keys = [SigstoreKey::parse(key).unwrap()];
        Bundle::parse(bundle).unwrap().check(&keys, &Sha256Digest::of(artifact), artifact)
    }

    #[test]
    fn the_bundles_of_the_conformance_suite_are_judged_as_it_says() {
        let bundle = include_bytes!("../../../tests/data/vectors/sigstore/bundle.json");
        let key = include_bytes!("../../../tests/data/vectors/sigstore/key.pub");
        assert_eq!(check(bundle, key, ARTIFACT), Ok(Claim { reference: None }));
        assert_eq!(check(bundle, key, b"another"), Err(super::super::Rejection::WrongKey));
        // The suite's wrong key is no point of its curve, so that no policy can name it.
        SigstoreKey::parse(include_bytes!("../../../tests/data/vectors/sigstore/wrong-key.pub")).unwrap_err();
        let secret = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
        let other = secret.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
        let theirs = include_bytes!("../../../tests/data/vectors/sigstore/wrong-key-bundle.json");
        for bundle in [bundle.as_slice(), theirs] {
            assert_eq!(check(bundle, other.as_bytes(), ARTIFACT), Err(super::super::Rejection::WrongKey));
        }
    }
}
