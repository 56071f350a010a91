use std::collections::BTreeMap;

use ciborium::Value;
use coset::TaggedCborSerializable as _;
use proptest::prelude::*;
use protocols::keys::{KeyKind, SigningKey};
use protocols::reason::Refusal;

use super::*;
use crate::check::{CheckedReferences, Trust};
use crate::document::TYPE;
use crate::names::{self, References};
use crate::signers::{SignerConfig, Signers};

const ISSUER: &str = "platform@example.com";

fn key(seed: u8) -> CorimKey {
    CorimKey::P256(p256::ecdsa::SigningKey::from_slice(&[seed; 32]).unwrap())
}

fn key384(seed: u8) -> CorimKey {
    CorimKey::P384(p384::ecdsa::SigningKey::from_slice(&[seed; 48]).unwrap())
}

fn signer(key: &CorimKey) -> SignerConfig {
    use p384::pkcs8::EncodePublicKey as _;
    let key = match key {
        CorimKey::P256(key) => protocols::keys::VerifyingKey::EcdsaP256(*key.verifying_key()).to_pem().unwrap(),
        CorimKey::P384(key) => key.verifying_key().to_public_key_pem(p384::pkcs8::LineEnding::LF).unwrap(),
    };
    SignerConfig { issuer: ISSUER.into(), key, min_version: 1, series: BTreeMap::new() }
}

fn document() -> Document {
    let mut values = References::default();
    for (name, size) in [
        ("snp.measurement", 48),
        ("azure.measurement", 48),
        ("tdx.mrtd", 48),
        ("tdx.rtmr2", 48),
        ("tpm.pcr0", 32),
        ("tpm.pcr23", 32),
    ] {
        values.add(name, &"0a".repeat(size)).unwrap();
        values.add(name, &"0b".repeat(size)).unwrap();
    }
    Document {
        document_type: TYPE.into(),
        issuer: ISSUER.into(),
        series: "guest-image".into(),
        version: 7,
        issued_at: Timestamp(1000),
        expires: Timestamp(2000),
        environment: Environment::Production,
        values,
    }
}

fn by(bytes: &[u8], signers: &[SignerConfig], environment: Environment) -> Result<Vec<CheckedReferences>, Refusal> {
    let signers = Signers::new(signers).unwrap();
    crate::read("a.corim", bytes, &Trust { signers: &signers, environment, unsigned: false })
}

fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> &'static str {
    result.unwrap_err().code.as_str()
}

#[test]
fn what_is_written_is_read_back_under_both_algorithms_and_the_same_document_has_the_same_bytes() {
    for key in [key(1), key384(1)] {
        for environment in [Environment::Production, Environment::Development] {
            let document = Document { environment, ..document() };
            let bytes = sign(&document, &key).unwrap();
            assert_eq!(bytes, sign(&document, &key).unwrap());
            let checked = by(&bytes, &[signer(&key)], environment).unwrap();
            assert_eq!(checked.iter().map(CheckedReferences::document).collect::<Vec<_>>(), [&document]);
            let (shown, kid) = show(&bytes).unwrap();
            assert_eq!(
                (&shown.told[0].document, kid.unwrap().as_slice()),
                (&document, key.public().keyid().as_bytes().as_slice())
            );
        }
    }
    let development = sign(&Document { environment: Environment::Development, ..document() }, &key(1)).unwrap();
    assert_eq!(code(by(&development, &[signer(&key(1))], Environment::Production)), "policy.environment");
}

#[test]
fn only_a_listed_key_under_its_own_algorithm_and_name_counts() {
    let production = Environment::Production;
    let good = sign(&document(), &key(1)).unwrap();
    let other_name = SignerConfig { issuer: "another".into(), ..signer(&key(1)) };
    let unsigned = unsigned(&document()).unwrap();
    for (bytes, signers, expected) in [
        (&good, vec![], "reference.signer"),
        (&good, vec![signer(&key(2))], "reference.signer"),
        (&good, vec![signer(&key384(1))], "reference.signer"),
        (&good, vec![other_name], "reference.signer"),
        (&unsigned, vec![signer(&key(1))], "reference.unsigned"),
    ] {
        assert_eq!(code(by(bytes, &signers, production)), expected);
    }
    let raised = SignerConfig { min_version: 8, ..signer(&key(1)) };
    assert_eq!(code(by(&good, &[raised], production)), "reference.rollback");
    // ES384's name over a P-256 signature, and the other way about.
    for key in [key(1), key384(1)] {
        let mut sign1 = coset::CoseSign1::from_tagged_slice(&sign(&document(), &key).unwrap()).unwrap();
        let swapped = if matches!(key, CorimKey::P256(_)) {
            coset::iana::Algorithm::ES384
        } else {
            coset::iana::Algorithm::ES256
        };
        sign1.protected.header.alg = Some(coset::RegisteredLabelWithPrivate::Assigned(swapped));
        sign1.protected.original_data = None;
        let message = sign1.tbs_data(&[]);
        // Signed anew over the wrong name, so that only the confusion is wrong.
        sign1.signature = resign(&key, &message);
        let bytes = sign1.to_tagged_vec().unwrap();
        assert_eq!(code(by(&bytes, &[signer(&key)], production)), "reference.signature");
    }
    // Ed25519 keys are listed for envelopes; no CoRIM counts under one.
    let ed25519 = SigningKey::generate(KeyKind::Ed25519).unwrap().verifying_key().to_pem().unwrap();
    let listed = SignerConfig { key: ed25519, ..signer(&key(1)) };
    assert_eq!(code(by(&good, &[listed], production)), "reference.signer");
}

fn resign(key: &CorimKey, message: &[u8]) -> Vec<u8> {
    use p256::ecdsa::signature::Signer as _;
    match key {
        CorimKey::P256(key) => {
            let signature: p256::ecdsa::Signature = key.sign(message);
            signature.to_bytes().to_vec()
        }
        CorimKey::P384(key) => {
            let signature: p384::ecdsa::Signature = key.sign(message);
            signature.to_bytes().to_vec()
        }
    }
}

/// With a change to the structure, signed again by the right key.
fn resigned(change: impl FnOnce(&mut coset::CoseSign1)) -> Vec<u8> {
    let mut sign1 = coset::CoseSign1::from_tagged_slice(&sign(&document(), &key(1)).unwrap()).unwrap();
    change(&mut sign1);
    sign1.protected.original_data = None;
    sign1.signature = resign(&key(1), &sign1.tbs_data(&[]));
    sign1.to_tagged_vec().unwrap()
}

fn refused(bytes: &[u8], what: &str) {
    let refusal = by(bytes, &[signer(&key(1))], Environment::Production).unwrap_err();
    assert_eq!(refusal.code.as_str(), "reference.malformed", "{refusal}");
    assert!(refusal.actual.contains(what), "{what}: {refusal}");
}

#[test]
fn a_header_that_is_not_understood_is_refused_although_it_is_signed() {
    use coset::{Label, RegisteredLabelWithPrivate, iana};
    let assigned = RegisteredLabelWithPrivate::Assigned;
    by(&resigned(|_| {}), &[signer(&key(1))], Environment::Production).unwrap();
    refused(&resigned(|s| s.protected.header.crit.push(assigned(iana::HeaderParameter::Alg))), "critical");
    refused(&resigned(|s| s.unprotected.crit.push(assigned(iana::HeaderParameter::Alg))), "critical");
    refused(
        &resigned(|s| s.protected.header.alg = Some(RegisteredLabelWithPrivate::Assigned(iana::Algorithm::EdDSA))),
        "algorithm",
    );
    refused(&resigned(|s| s.protected.header.alg = None), "algorithm");
    refused(&resigned(|s| s.unprotected.alg = s.protected.header.alg.take()), "unprotected");
    refused(&resigned(|s| s.unprotected.rest = std::mem::take(&mut s.protected.header.rest)), "unprotected");
    refused(&resigned(|s| s.protected.header.rest.clear()), "one signer");
    refused(&resigned(|s| s.protected.header.content_type = None), "content type");
    refused(&resigned(|s| s.payload = None), "payload");
    let claims = |issuer: &str| Value::Map(vec![(1.into(), issuer.into()), (4.into(), 1500.into())]);
    refused(&resigned(|s| s.protected.header.rest.push((Label::Int(15), claims("another")))), "one signer");
    // CWT claims may stand beside the meta map, or in its place, and their end counts.
    for alone in [true, false] {
        let bytes = resigned(|s| {
            if alone {
                s.protected.header.rest.clear();
            }
            s.protected.header.rest.push((Label::Int(15), claims(ISSUER)));
        });
        let checked = by(&bytes, &[signer(&key(1))], Environment::Production).unwrap();
        assert_eq!(checked[0].document(), &Document { expires: Timestamp(1500), ..document() });
    }
    // A key id is a hint: without one every listed key is tried.
    let unnamed = resigned(|s| s.protected.header.key_id.clear());
    by(&unnamed, &[signer(&key(2)), signer(&key(1))], Environment::Production).unwrap();
    let moved = resigned(|s| s.unprotected.key_id = std::mem::take(&mut s.protected.header.key_id));
    by(&moved, &[signer(&key(1))], Environment::Production).unwrap();
}

#[test]
fn no_altered_byte_is_accepted_as_something_else() {
    let good = sign(&document(), &key(1)).unwrap();
    let signers = [signer(&key(1))];
    for place in 0..good.len() {
        for bit in [1u8, 0x80] {
            let mut altered = good.clone();
            altered[place] ^= bit;
            if let Ok(checked) = by(&altered, &signers, Environment::Production) {
                panic!("byte {place}: {checked:?}");
            }
        }
        by(&good[..place], &signers, Environment::Production).unwrap_err();
    }
    by(&[good, vec![0]].concat(), &signers, Environment::Production).unwrap_err();
}

/// The CoRIM as CBOR, for changes.
fn tree() -> Value {
    ciborium::from_reader(unsigned(&document()).unwrap().as_slice()).unwrap()
}

fn bytes_of(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn member(value: &mut Value, key: i64) -> &mut Value {
    let Value::Map(members) = value else { panic!("{value:?}") };
    &mut members.iter_mut().find(|(known, _)| *known == key.into()).unwrap().1
}

fn put(value: &mut Value, key: i64, member: impl Into<Value>) {
    let Value::Map(members) = value else { panic!("{value:?}") };
    members.push((key.into(), member.into()));
}

fn at(value: &mut Value, place: usize) -> &mut Value {
    let Value::Array(items) = value else { panic!("{value:?}") };
    &mut items[place]
}

/// With a change to the CoRIM's map.
fn corim(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = tree();
    let Value::Tag(501, corim) = &mut value else { panic!() };
    change(corim);
    bytes_of(&value)
}

/// With a change to the CoMID within.
fn comid(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    corim(|corim| {
        let Value::Tag(506, tag) = at(member(corim, 1), 0) else { panic!() };
        let mut comid: Value = ciborium::from_reader(tag.as_bytes().unwrap().as_slice()).unwrap();
        change(&mut comid);
        **tag = Value::Bytes(bytes_of(&comid));
    })
}

fn triple(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    comid(|comid| change(at(member(member(comid, 4), 0), 0)))
}

fn class(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    triple(|triple| change(member(at(triple, 0), 0)))
}

fn measurement(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    triple(|triple| change(at(at(triple, 1), 0)))
}

#[test]
fn what_is_not_understood_within_a_reference_triple_refuses_the_whole() {
    let nobody = Meta::nobody();
    read(&comid(|_| {}), &nobody).unwrap();
    let text = |text: &str| Value::Text(text.into());
    let digests = |digests: Vec<Value>| measurement(|m| *member(member(m, 1), 2) = Value::Array(digests));
    let digest = |algorithm: Value, size: usize| Value::Array(vec![algorithm, Value::Bytes(vec![1; size])]);
    for (what, bytes) in [
        ("an instance", triple(|t| put(at(t, 0), 1, 1))),
        ("a group", triple(|t| put(at(t, 0), 2, 1))),
        ("no class", triple(|t| *at(t, 0) = Value::Map(vec![]))),
        ("three parts", triple(|t| *t = Value::Array(vec![Value::Null; 3]))),
        ("no measurement", triple(|t| *at(t, 1) = Value::Array(vec![]))),
        ("a measurement that is a map", triple(|t| *at(t, 1) = Value::Map(vec![]))),
        ("another vendor", class(|c| *member(c, 1) = text("Amd"))),
        ("another model", class(|c| *member(c, 2) = text("SEV"))),
        ("a layer", class(|c| put(c, 3, 1))),
        ("an index", class(|c| put(c, 4, 1))),
        ("a class-id beside", class(|c| put(c, 0, Value::Tag(37, Box::new(Value::Bytes(vec![0; 16])))))),
        (
            "an unknown class-id",
            class(|c| *c = Value::Map(vec![(0.into(), Value::Tag(37, Box::new(Value::Bytes(vec![0; 16]))))])),
        ),
        ("an OID", class(|c| *c = Value::Map(vec![(0.into(), Value::Tag(111, Box::new(Value::Bytes(vec![0; 16]))))]))),
        ("another key", measurement(|m| *member(m, 0) = text("measurements"))),
        ("a numbered key", measurement(|m| *member(m, 0) = 0.into())),
        ("no key", measurement(|m| *m = Value::Map(vec![(1.into(), member(m, 1).clone())]))),
        ("an authority", measurement(|m| put(m, 2, Value::Array(vec![])))),
        ("a version beside", measurement(|m| put(member(m, 1), 0, Value::Map(vec![])))),
        ("a minimum beside", measurement(|m| put(member(m, 1), 1, 3))),
        ("flags beside", measurement(|m| put(member(m, 1), 3, Value::Map(vec![])))),
        ("a raw value alone", measurement(|m| *member(m, 1) = Value::Map(vec![(4.into(), Value::Bytes(vec![0; 48]))]))),
        ("no digest", digests(vec![])),
        ("two digests", digests(vec![digest(7.into(), 48), digest(7.into(), 48)])),
        ("sha-256 of it", digests(vec![digest(1.into(), 32)])),
        ("another algorithm", digests(vec![digest(8.into(), 48)])),
        ("a longer digest", digests(vec![digest(7.into(), 49)])),
        ("a digest without algorithm", digests(vec![Value::Array(vec![Value::Bytes(vec![1; 48])])])),
        ("a member twice", measurement(|m| put(m, 0, "measurement"))),
        ("no tag-version", comid(|c| *member(c, 1) = Value::Map(vec![(0.into(), text("s"))]))),
        ("version 0", comid(|c| *member(member(c, 1), 1) = 0.into())),
        ("a negative version", comid(|c| *member(member(c, 1), 1) = (-1).into())),
        ("no tag-id", comid(|c| *member(c, 1) = Value::Map(vec![(1.into(), 1.into())]))),
        ("an unknown member", comid(|c| put(c, 9, 1))),
        ("no reference triples", comid(|c| *member(c, 4) = Value::Map(vec![(1.into(), Value::Array(vec![]))]))),
        (
            "reference triples that are none",
            comid(|c| *member(c, 4) = Value::Map(vec![(0.into(), Value::Array(vec![]))])),
        ),
        ("an extension", corim(|c| put(c, 6, 1))),
        ("another profile", corim(|c| *member(c, 3) = Value::Tag(32, Box::new(text("http://example.com"))))),
        ("an OID as profile", corim(|c| *member(c, 3) = Value::Tag(111, Box::new(Value::Bytes(vec![1]))))),
        ("no validity", corim(|c| *c = Value::Map(vec![(0.into(), text("i")), (1.into(), member(c, 1).clone())]))),
        ("no end", corim(|c| *member(c, 4) = Value::Map(vec![(0.into(), Value::Tag(1, Box::new(1.into())))]))),
        ("an end in fractions", corim(|c| *member(member(c, 4), 1) = Value::Tag(1, Box::new(2000.5.into())))),
        ("an end without tag", corim(|c| *member(member(c, 4), 1) = 2000.into())),
        (
            "a list of tags",
            corim(|c| *member(c, 1) = Value::Array(vec![Value::Tag(508, Box::new(Value::Bytes(vec![])))])),
        ),
        ("no tags", corim(|c| *member(c, 1) = Value::Array(vec![]))),
        ("no identity", corim(|c| *member(c, 0) = 1.into())),
    ] {
        assert!(read(&bytes, &nobody).is_err(), "{what}");
    }
}

#[test]
fn what_says_nothing_of_reference_values_is_named_and_read_over() {
    let nobody = Meta::nobody();
    let more = |change: &dyn Fn(&mut Value)| comid(|c| change(member(c, 4)));
    let found = read(&more(&|triples| put(triples, 1, Value::Array(vec![Value::Null]))), &nobody).unwrap();
    assert_eq!(found.ignored, ["triples of kind 1 in `guest-image`"]);
    assert_eq!(found.told[0].document.values, document().values);
    let software = corim(|c| {
        let Value::Array(tags) = member(c, 1) else { panic!() };
        tags.push(Value::Tag(505, Box::new(Value::Bytes(vec![0xFF]))));
    });
    assert_eq!(read(&software, &nobody).unwrap().ignored, ["a CoSWID"]);
    // Text for the algorithm, a UUID for the tag, AMD's own class, the profile as a list of one or absent.
    let snp = |id: &str| {
        let id: Vec<u8> = (0..32).step_by(2).map(|i| u8::from_str_radix(&id[i..i + 2], 16).unwrap()).collect();
        triple(|t| {
            *member(at(t, 0), 0) = Value::Map(vec![(0.into(), Value::Tag(37, Box::new(Value::Bytes(id))))]);
            let Value::Array(measurements) = at(t, 1) else { panic!() };
            for measurement in measurements {
                *member(measurement, 0) = 0.into();
                *at(at(member(member(measurement, 1), 2), 0), 0) = "sha-384".into();
            }
        })
    };
    for id in ["d05e6d1b9f464ae2a610ce3e6ee7e153", "89a7a1f0e7044faaacbd81c86df8a961"] {
        assert_eq!(read(&snp(id), &nobody).unwrap().told[0].document.values, document().values);
    }
    let named = comid(|c| *member(member(c, 1), 0) = Value::Bytes((0..16).collect()));
    assert_eq!(read(&named, &nobody).unwrap().told[0].document.series, "00010203-0405-0607-0809-0a0b0c0d0e0f");
    for profiles in [vec![PROFILE], vec![]] {
        let bytes = corim(|c| {
            let list = profiles.iter().map(|uri| Value::Tag(32, Box::new((*uri).into()))).collect();
            *member(c, 3) = Value::Array(list);
        });
        assert_eq!(read(&bytes, &nobody).is_ok(), profiles.len() == 1);
    }
}

/// A name that came later must be written, and read as the same.
#[test]
fn every_name_has_a_place() {
    let pcrs = (0..24).map(names::pcr);
    let tds = names::TDX.into_iter().chain(names::AZURE_TDX).map(str::to_owned);
    for name in [names::SNP.to_owned(), names::AZURE.to_owned()].into_iter().chain(tds).chain(pcrs) {
        let mut values = References::default();
        values.add(&name, &"0c".repeat(names::size(&name).unwrap())).unwrap();
        let told = read(&unsigned(&Document { values: values.clone(), ..document() }).unwrap(), &Meta::nobody());
        assert_eq!(told.unwrap().told[0].document.values, values, "{name}");
    }
}

#[test]
fn several_comids_are_several_documents() {
    let bytes = corim(|c| {
        let Value::Array(tags) = member(c, 1) else { panic!() };
        let other = Document { series: "other".into(), version: 2, ..document() };
        let mut value: Value = ciborium::from_reader(unsigned(&other).unwrap().as_slice()).unwrap();
        let Value::Tag(501, inner) = &mut value else { panic!() };
        let Value::Array(more) = member(inner, 1) else { panic!() };
        tags.append(more);
    });
    let told = read(&bytes, &Meta::nobody()).unwrap().told;
    let named: Vec<_> = told.iter().map(|one| (one.document.series.as_str(), one.document.version)).collect();
    assert_eq!(named, [("guest-image", 7), ("other", 2)]);
    assert_ne!(told[0].comid, told[1].comid);
}

#[test]
fn deep_or_large_input_is_refused_without_a_large_stack() {
    for byte in [0x81u8, 0xC1, 0xD8] {
        let deep = [&[0xD9, 0x01, 0xF5][..], &vec![byte; 100_000]].concat();
        assert!(read(&deep, &Meta::nobody()).is_err());
        assert!(open(&[&[0xD2][..], &vec![byte; 100_000]].concat()).is_err());
    }
    assert!(read(&vec![0; MAX_CORIM + 1], &Meta::nobody()).is_err());
    // A list that says to have 2^60 items.
    assert!(read(&[0xD9, 0x01, 0xF5, 0x9B, 0x10, 0, 0, 0, 0, 0, 0, 0], &Meta::nobody()).is_err());
}

/// `tests/data/vectors/corim`: written and signed by other libraries.
#[test]
fn what_other_libraries_sign_is_read_as_they_meant_it() {
    macro_rules! file {
        ($name:literal) => {
            include_bytes!(concat!("../../../../tests/data/vectors/corim/", $name)).as_slice()
        };
    }
    let listed = |pem: &[u8]| SignerConfig { key: String::from_utf8(pem.to_vec()).unwrap(), ..signer(&key(1)) };
    let (es256, es384) = (listed(file!("es256.pub")), listed(file!("es384.pub")));
    let digest256 = |text: &str| Sha256Digest::of(text.as_bytes()).hex();
    let digest384 = |text: &str| protocols::digest::Sha384Digest::of(text.as_bytes()).hex();
    let mut snp = References::default();
    snp.add("snp.measurement", &digest384("snp one")).unwrap();
    snp.add("snp.measurement", &digest384("snp two")).unwrap();
    let mut boot = References::default();
    boot.add("tpm.pcr4", &digest256("pcr4")).unwrap();
    boot.add("tpm.pcr11", &digest256("pcr11")).unwrap();
    boot.add("tdx.mrtd", &digest384("mrtd")).unwrap();
    for (bytes, end) in [(file!("es256.corim"), 1_798_761_600), (file!("es384.corim"), 1_830_297_600)] {
        let checked = by(bytes, &[es256.clone(), es384.clone()], Environment::Production).unwrap();
        let [first, second] = checked.as_slice() else { panic!("{checked:?}") };
        let expected = Document {
            series: "6f1c2a34-5b6d-4e7f-8a9b-0c1d2e3f4a5b".into(),
            version: 3,
            issued_at: Timestamp(1_767_225_600),
            expires: Timestamp(end),
            values: snp.clone(),
            ..document()
        };
        assert_eq!(first.document(), &expected);
        let expected = Document { series: "guest-image.uki".into(), version: 12, values: boot.clone(), ..expected };
        assert_eq!(second.document(), &expected);
        let ignored = show(bytes).unwrap().0.ignored;
        assert_eq!(ignored, ["triples of kind 2 in `6f1c2a34-5b6d-4e7f-8a9b-0c1d2e3f4a5b`", "a CoSWID"]);
    }
    let swapped = [es256, es384.clone()];
    assert_eq!(code(by(file!("es256.corim"), &[es384], Environment::Production)), "reference.signer");
    assert_eq!(code(by(file!("unsigned.corim"), &swapped, Environment::Production)), "reference.unsigned");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), place in any::<prop::sample::Index>()) {
        let _ = show(&bytes);
        let good = unsigned(&document()).unwrap();
        let cut = place.index(good.len());
        bytes.truncate(8);
        let mixed = [&good[..cut], &bytes, good.get(cut + bytes.len()..).unwrap_or_default()].concat();
        if let Ok((contents, _)) = show(&mixed) {
            for told in contents.told {
                // What is read can be written, and read again as the same.
                let again = unsigned(&told.document).unwrap();
                let mut document = show(&again).unwrap().0.told.remove(0).document;
                document.issuer = told.document.issuer.clone();
                prop_assert_eq!(document, told.document);
            }
        }
    }
}
