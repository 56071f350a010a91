use protocols::keys::{KeyKind, SigningKey};

use super::*;
use crate::document::TYPE;
use crate::names;
use crate::signers::SignerConfig;

const ISSUER: &str = "platform@example.com";

fn key(seed: u8) -> SigningKey {
    SigningKey::EcdsaP256(p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap())
}

fn signer(key: &SigningKey, issuer: &str) -> SignerConfig {
    let key = key.verifying_key().to_pem().unwrap();
    SignerConfig { issuer: issuer.into(), key, min_version: 1, series: BTreeMap::new() }
}

fn document(version: u64) -> Document {
    let mut values = References::default();
    values.add(names::SNP, &format!("{version:02x}").repeat(48)).unwrap();
    Document {
        document_type: TYPE.into(),
        issuer: ISSUER.into(),
        series: "guest-image".into(),
        version,
        issued_at: Timestamp(1000),
        expires: Timestamp(2000),
        environment: Environment::Production,
        values,
    }
}

fn envelope(document: &Document, key: &SigningKey) -> Vec<u8> {
    Envelope::sign(PAYLOAD_TYPE, document.payload().unwrap(), key).to_bytes()
}

fn by(bytes: &[u8], signers: &[SignerConfig], environment: Environment) -> Result<CheckedReferences, Refusal> {
    let signers = Signers::new(signers).unwrap();
    let mut read = read("a.json", bytes, &Trust { signers: &signers, environment, unsigned: false })?;
    assert_eq!(read.len(), 1);
    Ok(read.remove(0))
}

fn checked(document: &Document) -> CheckedReferences {
    by(&envelope(document, &key(1)), &[signer(&key(1), ISSUER)], Environment::Production).unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.unwrap_err().code.as_str()
}

#[test]
fn what_a_listed_signer_signed_in_its_name_counts_until_it_expires() {
    for key in [key(1), SigningKey::generate(KeyKind::Ed25519).unwrap()] {
        let bytes = envelope(&document(7), &key);
        assert_eq!(bytes, envelope(&document(7), &key), "the same content, the same bytes");
        for environment in [Environment::Production, Environment::Development] {
            let checked = by(&bytes, &[signer(&key, ISSUER)], environment).unwrap();
            assert_eq!(checked.document(), &document(7));
            let accepted = checked.accept(&HighWater::None).unwrap();
            assert_eq!(accepted.values(Timestamp(1999)).unwrap(), &document(7).values);
            assert_eq!(code(accepted.values(Timestamp(2000))), "reference.expired");
            assert_eq!(code(accepted.values(Timestamp(999))), "reference.expired");
            let changes = [0, 999, 1000, 1999, 2000].map(|now| accepted.changes(Timestamp(now)).map(|time| time.0));
            assert_eq!(changes, [Some(1000), Some(1000), Some(2000), Some(2000), None]);
        }
    }
}

#[test]
fn every_other_file_is_refused_with_its_code() {
    let listed = [signer(&key(1), ISSUER)];
    let good = envelope(&document(7), &key(1));
    let text = String::from_utf8(good.clone()).unwrap();
    let production = Environment::Production;
    let of = |bytes: &[u8]| code(by(bytes, &listed, production));
    let signed = |payload: &str, payload_type: &str| {
        Envelope::sign(payload_type, payload.as_bytes().to_vec(), &key(1)).to_bytes()
    };
    let payload = String::from_utf8(document(7).payload().unwrap()).unwrap();
    let development = Document { environment: Environment::Development, ..document(7) };
    let floor = |min_version| [SignerConfig { min_version, ..signer(&key(1), ISSUER) }];
    for (got, expected) in [
        (of(b""), "reference.malformed"),
        (of(b"{}"), "reference.malformed"),
        (of(&text.as_bytes()[..text.len() - 1]), "reference.malformed"),
        (of(&signed(&payload, "application/vnd.in-toto+json")), "reference.malformed"),
        (of(&signed(&format!("{payload} "), PAYLOAD_TYPE)), "reference.malformed"),
        (of(&signed("{}", PAYLOAD_TYPE)), "reference.malformed"),
        (of(payload.as_bytes()), "reference.unsigned"),
        (of(&envelope(&document(7), &key(2))), "reference.signer"),
        (of(&envelope(&Document { issuer: "another".into(), ..document(7) }, &key(1))), "reference.signer"),
        (code(by(&good, &[], production)), "reference.signer"),
        (code(by(&good, &[signer(&key(1), "another")], production)), "reference.signer"),
        (of(&envelope(&development, &key(1))), "policy.environment"),
        (code(by(&good, &floor(8), production)), "reference.rollback"),
        (code(by(&good, &[signer(&key(2), ISSUER), floor(8)[0].clone()], production)), "reference.rollback"),
    ] {
        assert_eq!(got, expected);
    }
    by(&good, &floor(7), production).unwrap();
    by(&envelope(&development, &key(1)), &listed, Environment::Development).unwrap();
}

#[test]
fn no_altered_byte_of_what_is_signed_is_accepted() {
    let listed = [signer(&key(1), ISSUER)];
    let good = Envelope::parse(&envelope(&document(7), &key(1))).unwrap();
    for place in 0..good.payload.len() {
        let mut altered = good.clone();
        altered.payload[place] ^= 1;
        assert_eq!(code(by(&altered.to_bytes(), &listed, Environment::Production)), "reference.signature", "{place}");
    }
    let mut beside = good.clone();
    beside.signatures.insert(0, protocols::dsse::EnvelopeSignature { sig: vec![0; 64], ..good.signatures[0].clone() });
    by(&beside.to_bytes(), &listed, Environment::Production).unwrap();
}

#[test]
fn without_a_signature_only_a_named_file_counts_and_in_development_alone() {
    let signers = Signers::default();
    let bytes = serde_json::to_vec_pretty(&document(7)).unwrap();
    for (environment, unsigned, expected) in [
        (Environment::Development, true, None),
        (Environment::Development, false, Some("reference.unsigned")),
        (Environment::Production, true, Some("reference.unsigned")),
        (Environment::Production, false, Some("reference.unsigned")),
    ] {
        let result = read("a.json", &bytes, &Trust { signers: &signers, environment, unsigned });
        assert_eq!(result.as_ref().err().map(|refusal| refusal.code.as_str()), expected);
        for checked in result.into_iter().flatten() {
            // Nobody answers for the issuer it names: it must not raise that issuer's versions.
            assert_eq!((checked.series(), checked.signer()), (None, None));
            let later = HighWater::Accepted { version: 9, payload: Sha256Digest::of(b"") };
            checked.accept(&later).unwrap();
        }
    }
    // A file that may be unsigned and is signed is held to its signature.
    let trust = Trust { signers: &signers, environment: Environment::Development, unsigned: true };
    assert_eq!(code(read("a.json", &envelope(&document(7), &key(1)), &trust)), "reference.signer");
}

#[test]
fn versions_only_go_up_and_one_version_has_one_content() {
    let mark = |version, of: &Document| HighWater::Accepted { version, payload: checked(of).payload() };
    let other = Document { expires: Timestamp(3000), ..document(7) };
    for (before, expected) in [
        (HighWater::None, None),
        (mark(6, &document(6)), None),
        (mark(7, &document(7)), None),
        (mark(7, &other), Some("reference.conflict")),
        (mark(8, &document(8)), Some("reference.rollback")),
    ] {
        let result = checked(&document(7)).accept(&before);
        assert_eq!(result.err().map(|refusal| refusal.code.as_str()), expected, "{before:?}");
    }
    let versions = |documents: &[&Document]| {
        let found = highest(documents.iter().map(|document| checked(document)).collect())?;
        Ok::<_, Refusal>(found.iter().map(|one| one.document().version).collect::<Vec<_>>())
    };
    let another = Document { series: "other".into(), ..document(1) };
    assert_eq!(versions(&[&document(6), &document(7), &document(5), &another, &document(7)]).unwrap().len(), 2);
    assert_eq!(versions(&[&document(6), &document(7), &document(5)]).unwrap(), [7]);
    assert_eq!(code(versions(&[&document(7), &other])), "reference.conflict");
    assert_eq!(versions(&[&document(7), &other, &document(8)]).unwrap(), [8]);
}
