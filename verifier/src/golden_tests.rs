use protocols::dsse::{Envelope, EnvelopeSignature};
use protocols::golden::{
    GoldenValue, Issue, PAYLOAD_TYPE, REVOCATION_PREDICATE_TYPE, RevocationList, STATEMENT_TYPE, Statement, statement,
};
use protocols::keys::{KeyKind, SigningKey};

use super::*;
use crate::signers::SignerConfig;
use crate::testing::{EXPIRES, ISSUED, ISSUER, NOW, digest, envelope, image, issue, key, signer, signers};

const OTHER: &str = "other@example.com";

fn run(envelopes: &[Vec<u8>]) -> Result<AuthenticatedGolden, Refusal> {
    authenticate(&image().manifest, envelopes, None, &signers(), NOW)
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.unwrap_err().code.as_str()
}

fn resigned(payload: Vec<u8>) -> Vec<u8> {
    Envelope::sign(PAYLOAD_TYPE, payload, &key(1)).to_bytes()
}

fn altered(change: impl FnOnce(&mut Statement<GoldenValue>)) -> Vec<u8> {
    let mut statement = statement(&image(), issue(3));
    change(&mut statement);
    resigned(statement.payload().unwrap())
}

fn wrong_signature() -> Vec<u8> {
    let mut envelope = Envelope::parse(&envelope(&key(1), issue(3))).unwrap();
    envelope.payload = statement(&image(), issue(4)).payload().unwrap();
    envelope.to_bytes()
}

fn other_subject() -> Vec<u8> {
    let mut other = image();
    other.manifest = digest("another manifest");
    resigned(statement(&other, issue(3)).payload().unwrap())
}

fn malformed() -> Vec<u8> {
    b"{}".to_vec()
}

fn unknown_signer() -> Vec<u8> {
    envelope(&key(9), issue(3))
}

fn payload_digest(envelope: &[u8]) -> Sha256Digest {
    Sha256Digest::of(&Envelope::parse(envelope).unwrap().payload)
}

fn list(key: &SigningKey, issuer: &str, expires: Timestamp, revoked: Vec<Sha256Digest>) -> Vec<u8> {
    let statement = Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: vec![],
        predicate_type: REVOCATION_PREDICATE_TYPE.to_owned(),
        predicate: RevocationList { issuer: issuer.to_owned(), version: 1, issued_at: ISSUED, expires, revoked },
    };
    Envelope::sign(PAYLOAD_TYPE, statement.payload().unwrap(), key).to_bytes()
}

fn required() -> TrustedSigners {
    TrustedSigners::new(vec![SignerConfig { revocations: RevocationRule::Required, ..signer(&key(1), ISSUER) }])
        .unwrap()
}

/// Key 1 as the usual issuer, key 2 as another one.
fn two_issuers() -> TrustedSigners {
    TrustedSigners::new(vec![signer(&key(1), ISSUER), signer(&key(2), OTHER)]).unwrap()
}

#[test]
fn one_good_envelope_is_the_golden_value() {
    let stored = envelope(&key(1), issue(3));
    let golden = run(std::slice::from_ref(&stored)).unwrap();
    assert_eq!(golden.value(), &statement(&image(), issue(3)).predicate);
    assert_eq!(golden.subject(), image().manifest);
    assert_eq!(golden.issuer(), ISSUER);
    let reference = golden.reference();
    assert_eq!(reference.payload, payload_digest(&stored));
    assert_eq!(reference.signer.hex(), key(1).verifying_key().keyid());
    assert_eq!(reference.version, 3);
    assert_eq!(reference.series_h, GoldenRef::series_hash(ISSUER, crate::testing::SERIES));
}

#[test]
fn ed25519_signs_as_well() {
    let key = SigningKey::generate(KeyKind::Ed25519).unwrap();
    let signers = TrustedSigners::new(vec![signer(&key, ISSUER)]).unwrap();
    authenticate(&image().manifest, &[envelope(&key, issue(1))], None, &signers, NOW).unwrap();
}

#[test]
fn each_fault_alone_has_its_code() {
    let cases: Vec<(&str, &str, Vec<Vec<u8>>)> = vec![
        ("nothing stored", "golden.missing", vec![]),
        ("payload exchanged under the signature", "golden.signature", vec![wrong_signature()]),
        ("key that is not pinned", "golden.signer", vec![unknown_signer()]),
        ("pinned key under another name", "golden.signer", vec![altered(|s| s.predicate.issuer = OTHER.into())]),
        ("another manifest", "golden.subject", vec![other_subject()]),
        ("not an envelope", "golden.malformed", vec![malformed()]),
        ("empty blob", "golden.malformed", vec![vec![]]),
        (
            "another payload type",
            "golden.malformed",
            vec![Envelope::sign("text/plain", statement(&image(), issue(3)).payload().unwrap(), &key(1)).to_bytes()],
        ),
        (
            "payload with a space in it",
            "golden.malformed",
            vec![{
                let payload = statement(&image(), issue(3)).payload().unwrap();
                resigned([payload.as_slice(), b" "].concat())
            }],
        ),
        ("another statement type", "golden.malformed", vec![altered(|s| s.statement_type = "x".into())]),
        ("a revocation list", "golden.malformed", vec![list(&key(1), ISSUER, EXPIRES, vec![])]),
        ("two subjects", "golden.malformed", vec![altered(|s| s.subject.push(s.subject[0].clone()))]),
        ("version 0", "golden.malformed", vec![altered(|s| s.predicate.version = 0)]),
        ("expiry before issue", "golden.malformed", vec![altered(|s| s.predicate.expires = ISSUED)]),
    ];
    for (name, expected, envelopes) in cases {
        assert_eq!(code(run(&envelopes)), expected, "{name}");
    }
}

#[test]
fn the_most_telling_refusal_is_shown_whatever_the_order() {
    let ranked = [
        ("golden.signature", wrong_signature()),
        ("golden.subject", other_subject()),
        ("golden.malformed", malformed()),
        ("golden.signer", unknown_signer()),
    ];
    for first in 0..ranked.len() {
        let rest: Vec<_> = ranked[first..].iter().map(|(_, envelope)| envelope.clone()).collect();
        for turn in 0..rest.len() {
            let mut turned = rest.clone();
            turned.rotate_left(turn);
            assert_eq!(code(run(&turned)), ranked[first].0);
            turned.reverse();
            assert_eq!(code(run(&turned)), ranked[first].0);
        }
    }
}

#[test]
fn two_faults_of_one_kind_read_the_same_in_any_order() {
    let (a, b) = (b"{\"a\":1}".to_vec(), b"[]".to_vec());
    assert_eq!(run(&[a.clone(), b.clone()]), run(&[b, a]));
}

#[test]
fn garbage_added_to_the_registry_changes_nothing() {
    let good = envelope(&key(1), issue(3));
    let alone = run(std::slice::from_ref(&good)).unwrap();
    for place in 0..5 {
        let mut envelopes = vec![wrong_signature(), other_subject(), malformed(), unknown_signer()];
        envelopes.insert(place, good.clone());
        assert_eq!(run(&envelopes).unwrap(), alone);
    }
}

#[test]
fn a_bad_signature_added_beside_a_good_one_changes_nothing() {
    let mut envelope = Envelope::parse(&envelope(&key(1), issue(3))).unwrap();
    let keyid = key(1).verifying_key().keyid();
    envelope.signatures.insert(0, EnvelopeSignature { keyid, sig: vec![0; 70] });
    envelope.signatures.push(EnvelopeSignature { keyid: "x".into(), sig: vec![] });
    run(&[envelope.to_bytes()]).unwrap();
}

#[test]
fn the_highest_version_counts_in_any_order() {
    let versions = [2, 7, 5].map(|version| envelope(&key(1), issue(version)));
    for turn in 0..3 {
        let mut turned = versions.to_vec();
        turned.rotate_left(turn);
        assert_eq!(run(&turned).unwrap().value().version, 7);
    }
}

#[test]
fn an_expired_highest_version_is_not_replaced_by_a_lower_one() {
    let expired = Issue { expires: NOW, ..issue(2) };
    let golden = run(&[envelope(&key(1), issue(1)), envelope(&key(1), expired)]).unwrap();
    assert_eq!(golden.value().version, 2);
}

#[test]
fn one_version_with_two_contents_conflicts() {
    let other = Issue { expires: EXPIRES.plus(1), ..issue(3) };
    let envelopes = [envelope(&key(1), issue(3)), envelope(&key(1), other)];
    assert_eq!(code(run(&envelopes)), "golden.conflict");
    let reversed = [envelopes[1].clone(), envelopes[0].clone()];
    assert_eq!(run(&envelopes), run(&reversed));
}

#[test]
fn a_higher_version_cures_a_conflict() {
    let other = Issue { expires: EXPIRES.plus(1), ..issue(3) };
    let envelopes = [envelope(&key(1), issue(3)), envelope(&key(1), other), envelope(&key(1), issue(4))];
    assert_eq!(run(&envelopes).unwrap().value().version, 4);
}

#[test]
fn a_conflict_in_another_series_refuses_too() {
    let series = |series: &str, seconds| {
        let issue = Issue { series: series.into(), expires: EXPIRES.plus(seconds), ..issue(3) };
        envelope(&key(1), issue)
    };
    assert_eq!(code(run(&[series("a", 0), series("b", 0), series("b", 1)])), "golden.conflict");
}

#[test]
fn the_same_content_stored_twice_or_signed_by_two_keys_is_no_conflict() {
    let signers = TrustedSigners::new(vec![signer(&key(1), ISSUER), signer(&key(2), ISSUER)]).unwrap();
    let envelopes = [envelope(&key(2), issue(3)), envelope(&key(1), issue(3)), envelope(&key(1), issue(3))];
    let golden = authenticate(&image().manifest, &envelopes, None, &signers, NOW).unwrap();
    assert_eq!(golden.reference().signer.hex(), key(1).verifying_key().keyid());
}

#[test]
fn the_first_series_in_good_standing_is_taken() {
    let in_series = |key: &SigningKey, issuer: &str, series: &str, expires| {
        envelope(key, Issue { issuer: issuer.into(), series: series.into(), expires, ..issue(3) })
    };
    let (a, b) = (in_series(&key(1), ISSUER, "a", EXPIRES), in_series(&key(1), ISSUER, "b", EXPIRES));
    let expired = in_series(&key(1), ISSUER, "a", NOW);
    let other = in_series(&key(2), OTHER, "0", EXPIRES);
    let pick = |envelopes: &[Vec<u8>], list: Option<&[u8]>, signers: &TrustedSigners| {
        let golden = authenticate(&image().manifest, envelopes, list, signers, NOW).unwrap();
        (golden.issuer().to_owned(), golden.value().series.clone())
    };
    let usual = |series: &str| (ISSUER.to_owned(), series.to_owned());
    assert_eq!(pick(&[b.clone(), a.clone()], None, &two_issuers()), usual("a"));
    assert_eq!(pick(&[b.clone(), expired], None, &two_issuers()), usual("b"));
    assert_eq!(pick(&[other.clone(), b.clone()], None, &two_issuers()), usual("b"));
    let revoked = list(&key(1), ISSUER, EXPIRES, vec![payload_digest(&a)]);
    assert_eq!(pick(&[a.clone(), b.clone()], Some(&revoked), &two_issuers()), usual("b"));
    let floor = SignerConfig { series: [("a".to_owned(), 4)].into(), ..signer(&key(1), ISSUER) };
    let floor = TrustedSigners::new(vec![floor]).unwrap();
    assert_eq!(pick(&[a.clone(), b], None, &floor), usual("b"));
    let revoked = list(&key(1), ISSUER, EXPIRES, vec![payload_digest(&a)]);
    assert_eq!(pick(&[a, other], Some(&revoked), &two_issuers()), (OTHER.to_owned(), "0".to_owned()));
}

#[test]
fn a_revoked_highest_version_refuses_and_is_not_replaced() {
    let (old, new) = (envelope(&key(1), issue(1)), envelope(&key(1), issue(2)));
    let revoked = list(&key(1), ISSUER, EXPIRES, vec![digest("something else"), payload_digest(&new)]);
    let run = |envelopes: &[Vec<u8>]| authenticate(&image().manifest, envelopes, Some(&revoked), &signers(), NOW);
    assert_eq!(code(run(&[old.clone(), new.clone()])), "golden.revoked");
    assert_eq!(run(&[old, new, envelope(&key(1), issue(3))]).unwrap().value().version, 3);
}

#[test]
fn revocation_lists_are_never_ignored() {
    let good = envelope(&key(1), issue(3));
    let revoked = vec![payload_digest(&good)];
    let tampered = {
        let mut envelope = Envelope::parse(&list(&key(1), ISSUER, EXPIRES, revoked.clone())).unwrap();
        envelope.payload = Envelope::parse(&list(&key(1), ISSUER, EXPIRES, vec![])).unwrap().payload;
        envelope.to_bytes()
    };
    let (optional, required) = (two_issuers(), required());
    let cases: Vec<(&str, &TrustedSigners, Option<Vec<u8>>, &str)> = vec![
        ("none, optional", &optional, None, "pass"),
        ("none, required", &required, None, "golden.unavailable"),
        ("current and empty", &required, Some(list(&key(1), ISSUER, EXPIRES, vec![])), "pass"),
        ("expired, optional", &optional, Some(list(&key(1), ISSUER, NOW, vec![])), "pass"),
        ("expired, required", &required, Some(list(&key(1), ISSUER, NOW, vec![])), "golden.unavailable"),
        ("revoked", &optional, Some(list(&key(1), ISSUER, EXPIRES, revoked.clone())), "golden.revoked"),
        ("revoked by an expired list", &optional, Some(list(&key(1), ISSUER, NOW, revoked.clone())), "golden.revoked"),
        (
            "revoked by an expired list, required",
            &required,
            Some(list(&key(1), ISSUER, NOW, revoked.clone())),
            "golden.revoked",
        ),
        (
            "another issuer's list revokes nothing",
            &optional,
            Some(list(&key(2), OTHER, EXPIRES, revoked.clone())),
            "pass",
        ),
        (
            "a list under another's name",
            &optional,
            Some(list(&key(2), ISSUER, EXPIRES, revoked.clone())),
            "golden.unavailable",
        ),
        ("unknown signer", &optional, Some(list(&key(9), ISSUER, EXPIRES, vec![])), "golden.unavailable"),
        ("tampered", &optional, Some(tampered), "golden.unavailable"),
        ("not an envelope", &optional, Some(b"{}".to_vec()), "golden.unavailable"),
        ("a golden value", &optional, Some(good.clone()), "golden.unavailable"),
        (
            "another payload type",
            &optional,
            Some({
                let payload = Envelope::parse(&list(&key(1), ISSUER, EXPIRES, vec![])).unwrap().payload;
                Envelope::sign("text/plain", payload, &key(1)).to_bytes()
            }),
            "golden.unavailable",
        ),
    ];
    for (name, signers, list, expected) in cases {
        let result = authenticate(&image().manifest, std::slice::from_ref(&good), list.as_deref(), signers, NOW);
        assert_eq!(result.map_or_else(|refusal| refusal.code.as_str(), |_| "pass"), expected, "{name}");
    }
}

#[test]
fn no_byte_of_an_envelope_can_be_changed() {
    let good = envelope(&key(1), issue(3));
    for place in 0..good.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut flipped = good.clone();
            flipped[place] ^= bit;
            assert!(run(&[flipped]).is_err(), "byte {place} ^ {bit:#x}");
        }
    }
}

#[test]
fn no_byte_of_payload_or_signature_can_be_changed() {
    let good = Envelope::parse(&envelope(&key(1), issue(3))).unwrap();
    for place in 0..good.payload.len() {
        let mut flipped = good.clone();
        flipped.payload[place] ^= 1;
        assert_eq!(code(run(&[flipped.to_bytes()])), "golden.signature", "payload byte {place}");
    }
    for place in 0..good.signatures[0].sig.len() {
        let mut flipped = good.clone();
        flipped.signatures[0].sig[place] ^= 1;
        assert_eq!(code(run(&[flipped.to_bytes()])), "golden.signature", "signature byte {place}");
    }
}
