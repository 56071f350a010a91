//! What makes a verdict or receipt count, and each single thing that does not.

use p256::ecdsa::SigningKey;
use protocols::digest::Sha256Digest;
use protocols::events::GoldenRef;
use protocols::image::{ImageMeasurement, ImageProcess, Layout, Platform, ProcessRequest, RootfsMeasurement};
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use protocols::time::Timestamp;

use super::*;

fn digest(text: &str) -> Sha256Digest {
    Sha256Digest::of(text.as_bytes())
}

fn head(text: &str) -> RegisterValue {
    RegisterValue::Sha256(digest(text))
}

fn attestor() -> SigningKey {
    SigningKey::from_slice(&[1; 32]).unwrap()
}

fn question() -> Question {
    let process = ImageProcess { args: vec!["/app".into()], env: vec![], user: String::new(), cwd: "/".into() };
    Question {
        cid: "container-1".into(),
        seq: 4,
        reference: "registry.example/app:latest".into(),
        process: ProcessRequest::from(&process),
        image: ImageMeasurement {
            manifest: digest("manifest"),
            config: digest("config"),
            layers: vec![],
            rootfs: RootfsMeasurement { layout: Layout::TreeV1, digest: digest("rootfs") },
            platform: Platform { os: "linux".into(), architecture: "amd64".into(), variant: None },
            process,
        },
    }
}

fn log() -> LogBinding {
    LogBinding {
        alg: HashAlg::Sha256,
        count: 7,
        guest: GuestId::new([3; 32]),
        head: head("seven"),
        kind: RegisterKind::TpmListed,
    }
}

fn verdict() -> Verdict {
    let Question { cid, seq, image, process, .. } = question();
    Verdict {
        nonce: "nonce".into(),
        guest: log().guest,
        cid,
        seq,
        manifest: image.manifest,
        config: image.config,
        rootfs: image.rootfs.digest,
        process: Sha256Digest::of(&jcs::canonical(&process).unwrap()),
        outcome: Outcome::Pass(GoldenRef {
            payload: digest("payload"),
            signer: digest("signer"),
            series_h: GoldenRef::series_hash("issuer", "series"),
            version: 1,
        }),
        head: log().head,
        count: log().count,
        policy: digest("policy"),
        environment: Environment::Development,
        observe: false,
        issued_at: Timestamp(1),
        expires: Timestamp(2),
    }
}

fn check(verdict: &Verdict, environment: Environment) -> Result<VerifiedVerdict, ClientError> {
    let compact = jws::sign(VERDICT_TYP, None, verdict, &attestor()).unwrap();
    check_compact(compact, environment)
}

fn check_compact(compact: String, environment: Environment) -> Result<VerifiedVerdict, ClientError> {
    let (question, log) = (question(), log());
    let receipted = Place { guest: log.guest, count: log.count, head: log.head };
    let asked = Asked { nonce: "nonce", question: &question, receipted: &receipted, environment };
    VerifiedVerdict::check(attestor().verifying_key(), &asked, compact, Some("0a".into()))
}

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> &'static str {
    result.unwrap_err().code().as_str()
}

#[test]
fn a_verdict_about_exactly_what_was_asked_counts() {
    let checked = check(&verdict(), Environment::Development).unwrap();
    assert_eq!(checked.claims(), &verdict());
    assert_eq!((checked.refusal(), checked.id()), (None, Some("0a")));
}

#[test]
fn a_verdict_for_another_nonce_is_a_replay() {
    let replayed = Verdict { nonce: "an earlier one".into(), ..verdict() };
    assert_eq!(code(check(&replayed, Environment::Development)), "attestor.nonce");
}

#[test]
fn a_verdict_that_differs_in_any_named_field_is_about_something_else() {
    let good = verdict();
    let others = [
        ("guest", Verdict { guest: GuestId::new([4; 32]), ..good.clone() }),
        ("container", Verdict { cid: "container-2".into(), ..good.clone() }),
        ("launch", Verdict { seq: 5, ..good.clone() }),
        ("manifest", Verdict { manifest: digest("other"), ..good.clone() }),
        ("config", Verdict { config: digest("other"), ..good.clone() }),
        ("root file system", Verdict { rootfs: digest("other"), ..good.clone() }),
        ("process", Verdict { process: digest("other"), ..good.clone() }),
        ("log head", Verdict { head: head("other"), ..good.clone() }),
        ("record count", Verdict { count: 8, ..good }),
    ];
    for (field, other) in others {
        match check(&other, Environment::Development) {
            Err(ClientError::Verdict { field: named, .. }) => assert_eq!(named, field),
            otherwise => panic!("{field}: {otherwise:?}"),
        }
    }
}

#[test]
fn production_takes_no_verdict_of_a_development_attestor() {
    assert_eq!(code(check(&verdict(), Environment::Production)), "policy.environment");
    let production = Verdict { environment: Environment::Production, ..verdict() };
    assert!(check(&production, Environment::Production).is_ok());
}

#[test]
fn a_verdict_by_another_key_altered_or_of_another_type_is_refused() {
    let other = SigningKey::from_slice(&[2; 32]).unwrap();
    let compact = jws::sign(VERDICT_TYP, None, &verdict(), &other).unwrap();
    assert_eq!(code(check_compact(compact, Environment::Development)), "attestor.signature");

    let refused = Verdict { seq: 5, ..verdict() };
    let (good, bad) = [&verdict(), &refused].map(|v| jws::sign(VERDICT_TYP, None, v, &attestor()).unwrap()).into();
    let mut parts: Vec<&str> = good.split('.').collect();
    parts[1] = bad.split('.').nth(1).unwrap();
    assert_eq!(code(check_compact(parts.join("."), Environment::Development)), "attestor.signature");

    let token = jws::sign("JWT", None, &verdict(), &attestor()).unwrap();
    assert_eq!(code(check_compact(token, Environment::Development)), "attestor.protocol");
    for junk in ["", "a", "a.b.c", "..", "é.é.é"] {
        assert_eq!(code(check_compact(junk.into(), Environment::Development)), "attestor.protocol");
    }
}

#[test]
fn an_id_that_is_no_plain_word_is_dropped() {
    let compact = jws::sign(VERDICT_TYP, None, &verdict(), &attestor()).unwrap();
    let (question, log) = (question(), log());
    let receipted = Place { guest: log.guest, count: log.count, head: log.head };
    let asked =
        Asked { nonce: "nonce", question: &question, receipted: &receipted, environment: Environment::Development };
    for id in ["", "\u{1b}[2J", "a b", &"a".repeat(65)] {
        let checked =
            VerifiedVerdict::check(attestor().verifying_key(), &asked, compact.clone(), Some(id.into())).unwrap();
        assert_eq!(checked.id(), None, "{id}");
    }
}

/// A receipt for `count` records after `previous`, signed by the attestor.
fn receipt(count: u64, previous: Option<Sha256Digest>) -> String {
    let claims = Receipt {
        nonce: format!("nonce {count}"),
        guest: log().guest,
        count,
        head: head(&count.to_string()),
        previous,
        issued_at: Timestamp(count),
    };
    jws::sign(RECEIPT_TYP, None, &claims, &attestor()).unwrap()
}

fn at(count: u64) -> LogBinding {
    LogBinding { count, head: head(&count.to_string()), ..log() }
}

fn open_receipt(compact: &str) -> VerifiedReceipt {
    VerifiedReceipt::restore(attestor().verifying_key(), log().guest, compact).unwrap()
}

fn hash(compact: &str) -> Option<Sha256Digest> {
    Some(Sha256Digest::of(compact.as_bytes()))
}

#[test]
fn a_receipt_must_name_guest_count_and_head_just_sent() {
    let key = *attestor().verifying_key();
    let compact = receipt(3, None);
    assert!(VerifiedReceipt::check(&key, &at(3), compact.clone()).is_ok());
    let other_guest = LogBinding { guest: GuestId::new([9; 32]), ..at(3) };
    let other_head = LogBinding { head: head("x"), ..at(3) };
    for other in [at(4), other_guest, other_head] {
        assert_eq!(code(VerifiedReceipt::check(&key, &other, compact.clone())), "log.receipt");
    }
    let stranger = SigningKey::from_slice(&[2; 32]).unwrap();
    assert_eq!(code(VerifiedReceipt::check(stranger.verifying_key(), &at(3), compact)), "attestor.signature");
}

#[test]
fn receipts_follow_one_another_without_a_gap() {
    let first = receipt(1, None);
    let second = receipt(2, hash(&first));
    let third = receipt(5, hash(&second));
    let [one, two, three] = [&first, &second, &third].map(|compact| open_receipt(compact));
    let none = ReceiptState::none();
    let after_one = ReceiptState::after(&one);
    assert!(one.follows(&none, &[]).is_ok());
    assert!(two.follows(&after_one, &[]).is_ok());
    // The very receipt that is held, sent again.
    assert!(one.follows(&after_one, &[]).is_ok());
    // Answers were lost between.
    assert!(three.follows(&after_one, &[]).is_err());
    assert!(three.follows(&after_one, std::slice::from_ref(&two)).is_ok());
    assert!(three.follows(&after_one, &[two.clone(), three.clone()]).is_ok());
    assert!(three.follows(&none, &[one.clone(), two.clone()]).is_ok());
    for missed in [vec![two.clone()], vec![one.clone()], vec![two, one]] {
        assert!(three.follows(&none, &missed).is_err());
    }
}

#[test]
fn a_receipt_that_restarts_the_chain_or_does_not_grow_is_refused() {
    let first = receipt(3, None);
    let state = ReceiptState::after(&open_receipt(&first));
    for (count, previous) in [(4, None), (4, Some(digest("another chain"))), (3, hash(&first)), (2, hash(&first))] {
        let error = open_receipt(&receipt(count, previous)).follows(&state, &[]).unwrap_err();
        assert_eq!(error.code().as_str(), "log.receipt");
    }
    let place = state.place().unwrap();
    assert_eq!((state.count(), place.count, place.head, place.guest), (3, 3, head("3"), log().guest));
}

#[test]
fn missed_receipts_are_signed_and_of_this_guest() {
    let key = *attestor().verifying_key();
    let good = receipt(1, None);
    assert_eq!(VerifiedReceipt::missed(&key, &at(3), vec![good.clone()]).unwrap().len(), 1);
    let other = LogBinding { guest: GuestId::new([9; 32]), ..at(3) };
    assert_eq!(code(VerifiedReceipt::missed(&key, &other, vec![good.clone()])), "log.receipt");
    assert_eq!(code(VerifiedReceipt::missed(&key, &at(3), vec![good; MAX_MISSED + 1])), "attestor.protocol");
}
