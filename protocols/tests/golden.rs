//! Golden values and their envelopes: reproducible bytes, strict reading, signatures.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocols::digest::Sha256Digest;
use protocols::dsse::{self, DsseError, Envelope};
use protocols::environment::Environment;
use protocols::golden::{self, ArgsRule, GoldenError, GoldenValue, Issue, PAYLOAD_TYPE, ProcessPolicy, Statement};
use protocols::image::{ImageMeasurement, ImageProcess, Layout, Platform, RootfsMeasurement};
use protocols::keys::{KeyKind, SigningKey, VerifyingKey};
use protocols::time::Timestamp;

fn image() -> ImageMeasurement {
    ImageMeasurement {
        manifest: Sha256Digest::of(b"manifest"),
        config: Sha256Digest::of(b"config"),
        layers: vec![Sha256Digest::of(b"layer 0"), Sha256Digest::of(b"layer 1")],
        rootfs: RootfsMeasurement { layout: Layout::TreeV1, digest: Sha256Digest::of(b"rootfs") },
        platform: Platform { os: "linux".into(), architecture: "amd64".into(), variant: None },
        process: ImageProcess { args: vec!["/bin/app".into()], env: vec![], user: String::new(), cwd: "/".into() },
    }
}

fn issue() -> Issue {
    Issue {
        name: "registry.example/app".into(),
        issuer: "release@example".into(),
        series: golden::default_series("registry.example/app", &image().platform, "latest"),
        version: 3,
        issued_at: Timestamp(1_700_000_000),
        expires: Timestamp(1_800_000_000),
        environment: Environment::Production,
        process: Some(ProcessPolicy {
            args: vec![ArgsRule::Prefix(vec!["/bin/app".into()])],
            ..ProcessPolicy::default()
        }),
    }
}

fn payload() -> Vec<u8> {
    golden::statement(&image(), issue()).payload().unwrap()
}

#[test]
fn the_payload_is_pinned() {
    let text = String::from_utf8(payload()).unwrap();
    assert!(text.starts_with(r#"{"_type":"https://in-toto.io/Statement/v1","predicate":{"config":"sha256:"#), "{text}");
    assert!(text.contains(r#""issuedAt":"2023-11-14T22:13:20Z""#), "{text}");
    assert!(text.contains(r#""process":{"args":[{"prefix":["/bin/app"]}]"#), "{text}");
    // The format is released: other bytes for the same input would break every signature made before.
    assert_eq!(
        Sha256Digest::of(text.as_bytes()).hex(),
        "56575b507c052cbfab481b04cb3c26c6f15d06b713e432da0d48e0528481e858"
    );
}

#[test]
fn a_payload_reads_back_and_names_its_manifest() {
    let statement = Statement::<GoldenValue>::parse(&payload()).unwrap();
    assert_eq!(statement, golden::statement(&image(), issue()));
    assert_eq!(statement.subject_digest().unwrap(), image().manifest);
}

#[test]
fn the_same_meaning_in_other_bytes_is_refused() {
    let text = String::from_utf8(payload()).unwrap();
    let spaced = text.replacen("{\"_type\"", "{ \"_type\"", 1);
    assert!(matches!(Statement::<GoldenValue>::parse(spaced.as_bytes()), Err(GoldenError::NotCanonical)));
    let duplicate = text.replacen("{\"_type\"", "{\"_type\":\"x\",\"_type\"", 1);
    assert!(Statement::<GoldenValue>::parse(duplicate.as_bytes()).is_err());
}

fn changed(change: impl FnOnce(&mut Statement<GoldenValue>)) -> Result<Statement<GoldenValue>, GoldenError> {
    let mut statement = golden::statement(&image(), issue());
    change(&mut statement);
    Statement::<GoldenValue>::parse(&statement.payload().unwrap())
}

#[test]
fn statements_outside_the_format_are_refused() {
    assert!(changed(|_| ()).is_ok());
    assert!(matches!(
        changed(|s| s.statement_type = "https://in-toto.io/Statement/v0.1".into()),
        Err(GoldenError::Type(_))
    ));
    assert!(matches!(
        changed(|s| s.predicate_type = golden::REVOCATION_PREDICATE_TYPE.into()),
        Err(GoldenError::Type(_))
    ));
    assert!(matches!(changed(|s| s.subject.clear()), Err(GoldenError::Subject)));
    assert!(matches!(changed(|s| s.subject.push(s.subject[0].clone())), Err(GoldenError::Subject)));
    assert!(matches!(
        changed(|s| s.subject[0].digest = BTreeMap::from([("sha512".into(), "00".into())])),
        Err(GoldenError::Subject)
    ));
    assert!(matches!(changed(|s| s.predicate.version = 0), Err(GoldenError::Range(_))));
    assert!(matches!(changed(|s| s.predicate.version = 1 << 53), Err(GoldenError::Range(_))));
    assert!(matches!(changed(|s| s.predicate.issuer.clear()), Err(GoldenError::Range(_))));
    assert!(matches!(changed(|s| s.predicate.expires = s.predicate.issued_at), Err(GoldenError::Range(_))));
}

#[test]
fn signatures_are_deterministic_and_fit_only_their_key() {
    for kind in [KeyKind::EcdsaP256, KeyKind::Ed25519] {
        let key = SigningKey::generate(kind).unwrap();
        let other = SigningKey::generate(kind).unwrap().verifying_key();
        let envelope = Envelope::sign(PAYLOAD_TYPE, payload(), &key);
        assert_eq!(envelope, Envelope::sign(PAYLOAD_TYPE, payload(), &key));
        assert_eq!(envelope.verify(&[&other, &key.verifying_key()]).unwrap(), 1);
        assert!(matches!(envelope.verify(&[&other]), Err(DsseError::UnknownSigner { .. })));
        assert!(matches!(envelope.verify(&[]), Err(DsseError::UnknownSigner { .. })));

        let mut renamed = envelope.clone();
        renamed.signatures[0].keyid = other.keyid();
        assert!(matches!(renamed.verify(&[&other]), Err(DsseError::BadSignature { .. })));

        let mut retyped = envelope.clone();
        retyped.payload_type = "application/json".into();
        assert!(matches!(retyped.verify(&[&key.verifying_key()]), Err(DsseError::BadSignature { .. })));

        let read = Envelope::parse(&envelope.to_bytes()).unwrap();
        assert_eq!(read, envelope);
    }
}

#[test]
fn keys_survive_pem_and_openssl_reads_them() {
    for kind in [KeyKind::EcdsaP256, KeyKind::Ed25519] {
        let key = SigningKey::generate(kind).unwrap();
        let private = key.to_pem().unwrap();
        let public = key.verifying_key().to_pem().unwrap();
        assert_eq!(SigningKey::from_pem(&private).unwrap().verifying_key(), key.verifying_key());
        assert_eq!(VerifyingKey::from_pem(&public).unwrap(), key.verifying_key());
        let mut openssl = std::process::Command::new("openssl")
            .args(["pkey", "-pubout"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut openssl.stdin.take().unwrap(), private.as_bytes()).unwrap();
        let out = openssl.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), public);
        assert!(VerifyingKey::from_pem(&private).is_err());
        assert!(SigningKey::from_pem(&public).is_err());
    }
}

#[test]
fn envelopes_outside_the_limits_are_refused() {
    let key = SigningKey::generate(KeyKind::Ed25519).unwrap();
    let mut envelope = Envelope::sign(PAYLOAD_TYPE, payload(), &key);
    envelope.signatures = vec![envelope.signatures[0].clone(); dsse::MAX_SIGNATURES + 1];
    assert!(Envelope::parse(&envelope.to_bytes()).is_err());
    envelope.signatures.clear();
    assert!(Envelope::parse(&envelope.to_bytes()).is_err());
    let big = Envelope::sign(PAYLOAD_TYPE, vec![b' '; dsse::MAX_ENVELOPE], &key);
    assert!(Envelope::parse(&big.to_bytes()).is_err());
}

#[test]
fn pae_is_the_published_example() {
    assert_eq!(
        dsse::pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

proptest! {
    #[test]
    fn any_flipped_bit_of_payload_or_signature_is_refused(place in any::<prop::sample::Index>(), bit in 0u8..8, in_signature: bool) {
        let key = SigningKey::from_pem(KEY).unwrap();
        let mut envelope = Envelope::sign(PAYLOAD_TYPE, payload(), &key);
        let bytes = if in_signature { &mut envelope.signatures[0].sig } else { &mut envelope.payload };
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        prop_assert!(envelope.verify(&[&key.verifying_key()]).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Envelope::parse(&bytes);
        let _ = Statement::<GoldenValue>::parse(&bytes);
        let _ = protocols::jws::verify::<serde_json::Value>("t", &String::from_utf8_lossy(&bytes), &p256_key());
    }
}

fn p256_key() -> p256::ecdsa::VerifyingKey {
    let VerifyingKey::EcdsaP256(key) = SigningKey::from_pem(KEY).unwrap().verifying_key() else { unreachable!() };
    key
}

/// A key for tests only.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgXoxfD73Lhsdxxx1Q\n75ptptOFGgrtfWoiDEeDKW3Mv+ihRANCAAR9U5gaTj1cKdU6muhgHHuwXty3yNFG\ny1s6vGP3AV/VIe/le1P/hJ5kVr5IRlGbcbx4XNwB+wS7ynE+H+jXyWQm\n-----END PRIVATE KEY-----\n";
