//! The attestor, driven by the client agents use: sessions, histories, decisions, resources.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use kbs_client::{ClientError, Question, ReceiptState};
use protocols::environment::Environment;
use protocols::events::{Exit, ExitReason, Floor, Golden, GoldenRef, TimeSource, VerdictWord, hash_str};
use protocols::golden::PAYLOAD_TYPE;
use protocols::keys::{KeyKind, SigningKey};
use protocols::reason;
use protocols::tcl::{GoldenResource, Mode, Outcome, RecordBytes, VerdictRecord};
use protocols::time::Timestamp;

use support::guest::{Guest, question};
use support::registry::Mood;
use support::tpm::SoftTpm;
use support::{ADMIN, World, digest, image, issue};

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> &'static str {
    result.unwrap_err().code().as_str()
}

fn verdict_code(verdict: &kbs_client::VerifiedVerdict) -> &'static str {
    verdict.refusal().map_or("pass", |refusal| refusal.code.as_str())
}

#[tokio::test]
async fn a_launch_passes_and_its_log_is_receipted_in_a_chain() {
    let world = World::new().await;
    world.push_golden(&image(), 3).await;
    let client = world.client();
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&client).await.unwrap();

    let first = guest.deliver(&session).await.unwrap();
    assert_eq!((first.claims().count, first.claims().previous), (1, None));
    let verdict = guest.decide(&session, 1, &image()).await.unwrap();
    let Outcome::Pass(golden) = verdict.outcome() else { panic!("{verdict:?}") };
    assert_eq!(golden.version, 3);
    guest.push_failed(1);
    let third = guest.deliver(&session).await.unwrap();
    assert_eq!(third.claims().count, 3);

    let held = world.store().history(guest.id()).await.unwrap().unwrap();
    assert_eq!((held.state.count(), held.state.head()), (3, guest.head()));
    let kept = world.store().records(guest.id(), 0, 10).await.unwrap();
    assert_eq!(kept, guest.records.iter().map(|record| record.bytes().to_vec()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_decision_can_be_explained_by_its_id_to_administrators_alone() {
    let world = World::new().await;
    let client = world.client();
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&client).await.unwrap();
    let verdict = guest.decide(&session, 1, &image()).await.unwrap();
    assert_eq!(verdict_code(&verdict), "golden.missing");

    let path = format!("/tcl/v1/verdicts/{}", verdict.id().unwrap());
    let (status, body) = world.raw("GET", &path, &[("authorization", &format!("Bearer {ADMIN}"))], vec![]).await;
    let record: VerdictRecord = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &record.verdict), (200, verdict.claims()));
    assert_eq!(record.signed, verdict.compact());

    for headers in [vec![], vec![("authorization", "Bearer not-the-administrators-token")]] {
        let (status, body) = world.raw("GET", &path, &headers, vec![]).await;
        assert_eq!(status, 403, "{body}");
        assert!(body.contains("attestor.denied"), "{body}");
    }
    let (status, _) =
        world.raw("GET", "/tcl/v1/verdicts/none", &[("authorization", &format!("Bearer {ADMIN}"))], vec![]).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn each_refusal_is_a_signed_verdict_with_its_code() {
    let world = World::new().await;
    let client = world.client();
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&client).await.unwrap();
    let other = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
    let unknown = protocols::dsse::Envelope::sign(
        PAYLOAD_TYPE,
        protocols::golden::statement(&image(), issue(9)).payload().unwrap(),
        &other,
    );
    let expired = protocols::golden::Issue { expires: Timestamp(support::NOW), ..issue(2) };
    let production = protocols::golden::Issue { environment: Environment::Production, ..issue(2) };
    let altered = protocols::image::ImageMeasurement { config: digest("other config"), ..image() };

    for (seq, (expected, envelope)) in [
        ("golden.missing", None),
        ("golden.signer", Some(unknown.to_bytes())),
        ("golden.expired", Some(world.envelope(&image(), expired))),
        ("golden.environment", Some(world.envelope(&image(), production))),
        ("image.config", Some(world.envelope(&altered, issue(2)))),
        ("pass", Some(world.envelope(&image(), issue(2)))),
    ]
    .into_iter()
    .enumerate()
    {
        world.registry.clear();
        if let Some(envelope) = envelope {
            world.push(&image(), envelope).await;
        }
        let seq = seq as u64 + 1;
        let verdict = guest.decide(&session, seq, &image()).await.unwrap();
        assert_eq!(verdict_code(&verdict), expected);
        guest.push_failed(seq);
    }
    // What runs is judged too.
    guest.push_image(7, &image());
    let mut asked = question(7, &image());
    asked.process.args.push("--debug".into());
    assert_eq!(verdict_code(&guest.ask(&session, &asked).await.unwrap()), "policy.process");
}

#[tokio::test]
async fn an_older_golden_value_than_one_accepted_before_is_a_rollback_even_after_a_restart() {
    let mut world = World::new().await;
    world.push_golden(&image(), 5).await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    assert_eq!(verdict_code(&guest.decide(&session, 1, &image()).await.unwrap()), "pass");

    world.restart().await;
    world.registry.clear();
    world.push_golden(&image(), 4).await;
    let session = guest.attest(&world.client()).await.unwrap();
    guest.push_failed(1);
    assert_eq!(verdict_code(&guest.decide(&session, 2, &image()).await.unwrap()), "golden.rollback");

    // The mark belongs to the series, not to the guest.
    let mut second = Guest::boot(&world.tpm, 2);
    let session = second.attest(&world.client()).await.unwrap();
    assert_eq!(verdict_code(&second.decide(&session, 1, &image()).await.unwrap()), "golden.rollback");
}

#[tokio::test]
async fn a_refused_launch_does_not_raise_the_high_water_mark() {
    let world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    let altered = protocols::image::ImageMeasurement { config: digest("other config"), ..image() };
    world.push(&image(), world.envelope(&altered, issue(9))).await;
    assert_eq!(verdict_code(&guest.decide(&session, 1, &image()).await.unwrap()), "image.config");
    guest.push_failed(1);
    world.registry.clear();
    world.push_golden(&image(), 1).await;
    assert_eq!(verdict_code(&guest.decide(&session, 2, &image()).await.unwrap()), "pass");
}

#[tokio::test]
async fn history_and_receipts_survive_a_restart_of_the_attestor() {
    let mut world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    let first = guest.deliver(&session).await.unwrap();

    world.restart().await;
    guest.push_image(1, &image());
    let session = guest.attest(&world.client()).await.unwrap();
    let second = guest.deliver(&session).await.unwrap();
    assert_eq!(second.claims().previous, Some(first.hash()));
}

#[tokio::test]
async fn an_attestor_that_lost_its_store_is_found_out() {
    let mut world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    guest.deliver(&session).await.unwrap();

    std::fs::rename(world.directory.path().join("broker.redb"), world.directory.path().join("lost")).unwrap();
    world.restart().await;
    guest.push_image(1, &image());
    let session = guest.attest(&world.client()).await.unwrap();
    let gap = session.deliver(guest.delivery(&session, 1), &guest.receipts).await.unwrap_err();
    assert_eq!((gap.code(), gap.count()), (reason::LOG_GAP, Some(0)));
    // It takes the whole log, but its receipt does not follow the one this guest holds.
    assert_eq!(code(session.deliver(guest.delivery(&session, 0), &guest.receipts).await), "log.receipt");
}

#[tokio::test]
async fn the_same_head_again_gives_the_same_receipt() {
    let world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    let before = guest.receipts.clone();
    let first = guest.deliver(&session).await.unwrap();
    // As an agent does that holds the receipt, and one whose answer was lost.
    for (from, receipts) in [(1, &guest.receipts), (0, &before)] {
        let again = session.deliver(guest.delivery(&session, from), receipts).await.unwrap();
        assert_eq!(again.compact(), first.compact());
    }
}

#[tokio::test]
async fn an_agent_that_lost_answers_finds_the_receipts_between() {
    let world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    let kept = guest.receipts.clone();
    guest.deliver(&session).await.unwrap();
    for seq in 1..4 {
        guest.push_image(seq, &image());
        guest.deliver(&session).await.unwrap();
    }
    let last = guest.receipts.clone();
    // Everything after `kept` was lost; the log has grown meanwhile.
    guest.receipts = kept;
    guest.push_failed(1);
    let receipt = session.deliver(guest.delivery(&session, 4), &guest.receipts).await.unwrap();
    assert_eq!(receipt.claims().count, 5);
    assert_ne!(ReceiptState::after(&receipt), last);
    // Another guest's receipts cannot stand in for them.
    guest.receipts = guest_with_receipt(&world).await;
    assert_eq!(code(session.deliver(guest.delivery(&session, 5), &guest.receipts).await), "log.receipt");
}

async fn guest_with_receipt(world: &World) -> ReceiptState {
    let mut other = Guest::boot(&world.tpm, 9);
    let session = other.attest(&world.client()).await.unwrap();
    other.deliver(&session).await.unwrap();
    other.receipts
}

#[tokio::test]
async fn a_receipt_kept_over_a_restart_of_the_agent_goes_on() {
    let world = World::new().await;
    let client = world.client();
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&client).await.unwrap();
    let first = guest.deliver(&session).await.unwrap();

    let restored = client.attestor().restore(guest.id(), first.compact()).unwrap();
    assert_eq!(restored, guest.receipts);
    let other = Guest::boot(&world.tpm, 2).id();
    assert_eq!(code(client.attestor().restore(other, first.compact())), "log.receipt");
    let mut altered = first.compact().to_owned();
    altered.replace_range(altered.len() - 2.., "AA");
    assert_eq!(code(client.attestor().restore(guest.id(), &altered)), "attestor.signature");
}

#[tokio::test]
async fn a_shorter_history_is_a_regress_and_an_alarm() {
    let world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    let earlier = guest.clone();
    guest.push_image(1, &image());
    guest.deliver(&session).await.unwrap();

    // In the same session it may be a delivery that was late: refused, and no alarm.
    let refused = session.deliver(earlier.delivery(&session, 0), &earlier.receipts).await.unwrap_err();
    assert_eq!((refused.code(), refused.count()), (reason::LOG_REGRESS, Some(2)));
    assert!(world.store().alarms().await.unwrap().is_empty());
    // Evidence over a nonce that was given out later shows a register that went back.
    world.pass(1);
    let later = guest.attest(&world.client()).await.unwrap();
    let refused = later.deliver(earlier.delivery(&later, 0), &earlier.receipts).await.unwrap_err();
    assert_eq!((refused.code(), refused.count()), (reason::LOG_REGRESS, Some(2)));
    let alarms = world.store().alarms().await.unwrap();
    assert_eq!(alarms.len(), 1);
    assert_eq!(
        (alarms[0].guest, alarms[0].code, alarms[0].count, alarms[0].held),
        (guest.id(), reason::LOG_REGRESS, 1, 2)
    );
    // The history itself is untouched.
    guest.push_failed(1);
    guest.deliver(&session).await.unwrap();
}

#[tokio::test]
async fn a_second_history_is_a_fork_and_an_alarm() {
    let world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    let mut forked = guest.clone();
    guest.push_image(1, &image());
    guest.deliver(&session).await.unwrap();

    let other = protocols::image::ImageMeasurement { manifest: digest("another"), ..image() };
    forked.push_image(1, &other);
    let fork = session.deliver(forked.delivery(&session, 0), &forked.receipts).await;
    assert_eq!(code(fork), "log.fork");
    // Hidden behind records that are not sent, the same count has another head.
    assert_eq!(code(session.deliver(forked.delivery(&session, 2), &forked.receipts).await), "log.fork");
    // Grown beyond what is held, it does not replay.
    forked.push_failed(1);
    assert_eq!(code(session.deliver(forked.delivery(&session, 0), &forked.receipts).await), "log.fork");
    assert!(world.store().alarms().await.unwrap().iter().all(|alarm| alarm.code == reason::LOG_FORK));
    // A guest that shows only the new end of its second history raises the alarm as well.
    assert_eq!(code(session.deliver(forked.delivery(&session, 2), &forked.receipts).await), "log.replay");
    let alarms = world.store().alarms().await.unwrap();
    assert!(alarms.iter().any(|alarm| (alarm.code, alarm.guest) == (reason::LOG_REPLAY, guest.id())));
    // The same alarm again is one alarm.
    let before = world.store().alarms().await.unwrap().len();
    let _ = session.deliver(forked.delivery(&session, 0), &forked.receipts).await;
    assert_eq!(world.store().alarms().await.unwrap().len(), before);
}

#[tokio::test]
async fn records_after_a_gap_dropped_swapped_repeated_or_altered_are_refused() {
    let world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    guest.push_image(1, &image());
    guest.push_failed(1);
    guest.push_image(2, &image());

    let none = ReceiptState::none();
    let gap = session.deliver(guest.delivery(&session, 2), &none).await.unwrap_err();
    assert_eq!((gap.code(), gap.count()), (reason::LOG_GAP, Some(0)));

    let good = guest.delivery(&session, 0);
    let mut dropped = good.clone();
    dropped.records.remove(1);
    assert_eq!(code(session.deliver(dropped, &none).await), "log.malformed");
    let mut swapped = good.clone();
    swapped.records.swap(1, 3);
    assert_eq!(code(session.deliver(swapped, &none).await), "log.malformed");
    let mut repeated = good.clone();
    repeated.records[3] = repeated.records[1].clone();
    assert_eq!(code(session.deliver(repeated, &none).await), "log.malformed");
    let mut altered = good.clone();
    *altered.records[1].0.last_mut().unwrap() ^= 1;
    assert_eq!(code(session.deliver(altered, &none).await), "log.digest");
    let mut longer = good.clone();
    longer.records[1].0.push(0);
    assert_eq!(code(session.deliver(longer, &none).await), "log.malformed");
    let mut too_many = good.clone();
    too_many.records = vec![RecordBytes(vec![0]); 1025];
    assert_eq!(code(session.deliver(too_many, &none).await), "attestor.protocol");
    // Whatever was refused left nothing behind.
    assert!(world.store().history(guest.id()).await.unwrap().is_none());
    session.deliver(good, &none).await.unwrap();
}

#[tokio::test]
async fn evidence_must_be_fresh_over_exactly_this_head() {
    let world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    let old = guest.delivery(&session, 0);
    guest.push_image(1, &image());
    let good = guest.delivery(&session, 0);
    let none = ReceiptState::none();

    // A quote made for the head before.
    let stale = protocols::tcl::Delivery { evidence: old.evidence.clone(), ..good.clone() };
    assert_eq!(code(session.deliver(stale, &none).await), "evidence.nonce");
    // A head the register does not hold.
    let mut claimed = good.clone();
    claimed.log.head = protocols::register::RegisterValue::Sha256(digest("wished for"));
    claimed.evidence = guest.evidence(&session.binding(&claimed.log).unwrap());
    assert_eq!(code(session.deliver(claimed, &none).await), "log.replay");
    // A register that something else has extended.
    let mut extended = guest.clone();
    extended.tpm.extend(14, &[9; 32]);
    let mut delivery = guest.delivery(&session, 0);
    delivery.evidence = extended.evidence(&session.binding(&delivery.log).unwrap());
    assert_eq!(code(session.deliver(delivery, &none).await), "log.replay");
    // Another TPM.
    let mut foreign = guest.delivery(&session, 0);
    foreign.evidence = SoftTpm { pcrs: guest.tpm.pcrs, ..SoftTpm::new(2) }
        .quote(&protocols::kbs::tpm_nonce(&session.binding(&foreign.log).unwrap()));
    assert_eq!(code(session.deliver(foreign, &none).await), "evidence.ak");
    session.deliver(good, &none).await.unwrap();
}

#[tokio::test]
async fn a_guest_cannot_speak_for_another() {
    let world = World::new().await;
    let mut victim = Guest::boot(&world.tpm, 1);
    let session = victim.attest(&world.client()).await.unwrap();
    victim.deliver(&session).await.unwrap();

    // Same TPM, next boot: it claims the victim's name with a log of its own.
    let mut rogue = Guest::boot(&SoftTpm { reset_count: 6, ..world.tpm.clone() }, 2);
    rogue.push_image(1, &image());
    let claimed = protocols::tcl::LogBinding { guest: victim.id(), ..rogue.binding() };
    let challenged = rogue.challenge(&world.client()).await;
    let evidence = rogue.evidence(&challenged.binding(Some(&claimed)).unwrap());
    assert_eq!(code(challenged.attest(evidence, Some(claimed), None).await), "evidence.guest");
    // And it raises no alarm about it.
    assert!(world.store().alarms().await.unwrap().is_empty());
    // Nor can it deliver for a guest its session does not name.
    let session = rogue.attest(&world.client()).await.unwrap();
    let mut delivery = rogue.delivery(&session, 0);
    delivery.log.guest = victim.id();
    delivery.evidence = rogue.evidence(&session.binding(&delivery.log).unwrap());
    assert_eq!(code(session.deliver(delivery, &ReceiptState::none()).await), "evidence.guest");
}

/// A session made before the victim was first heard of carries the victim's name unchecked.
#[tokio::test]
async fn a_name_claimed_early_delivers_nothing() {
    let world = World::new().await;
    let mut victim = Guest::boot(&world.tpm, 1);
    let rogue = Guest::boot(&SoftTpm { reset_count: 6, ..world.tpm.clone() }, 2);
    let claimed = protocols::tcl::LogBinding { guest: victim.id(), ..rogue.binding() };
    let challenged = rogue.challenge(&world.client()).await;
    let evidence = rogue.evidence(&challenged.binding(Some(&claimed)).unwrap());
    let early = challenged.attest(evidence, Some(claimed.clone()), None).await.unwrap();

    let session = victim.attest(&world.client()).await.unwrap();
    victim.deliver(&session).await.unwrap();
    let mut delivery = rogue.delivery(&early, 0);
    delivery.log = claimed;
    delivery.evidence = rogue.evidence(&early.binding(&delivery.log).unwrap());
    assert_eq!(code(early.deliver(delivery, &ReceiptState::none()).await), "evidence.guest");
}

/// The same boot, the same TPM, a PCR that nothing has extended: a complete log that hides the first one.
#[tokio::test]
async fn a_second_history_of_one_boot_in_another_pcr_is_refused() {
    let world = World::new().await;
    let mut first = Guest::boot(&world.tpm, 1);
    let session = first.attest(&world.client()).await.unwrap();
    first.push_image(1, &image());
    first.deliver(&session).await.unwrap();

    let mut second = Guest::boot_in(15, &first.tpm, 2, Environment::Development, true);
    let session = second.attest(&world.client()).await.unwrap();
    assert_eq!(code(second.deliver(&session).await), "policy.register");
}

#[tokio::test]
async fn a_decision_is_about_the_launch_the_log_measured() {
    let world = World::new().await;
    world.push_golden(&image(), 1).await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    guest.push_image(1, &image());
    guest.deliver(&session).await.unwrap();
    let other = protocols::image::ImageMeasurement { manifest: digest("another"), ..image() };
    // Golden values and revocations are looked for where the image was pulled from, and nowhere else.
    let elsewhere = Question { reference: "registry.example/elsewhere:latest".into(), ..question(1, &image()) };
    for asked in [question(2, &image()), question(1, &other), elsewhere] {
        assert_eq!(code(guest.ask(&session, &asked).await), "attestor.denied");
    }
    assert_eq!(verdict_code(&guest.ask(&session, &question(1, &image())).await.unwrap()), "pass");
    // Once it has ended nothing is decided about it any more.
    guest.push_failed(1);
    assert_eq!(code(guest.ask(&session, &question(1, &image())).await), "attestor.denied");
}

#[tokio::test]
async fn a_decision_is_asked_for_over_a_place_that_was_receipted() {
    let world = World::new().await;
    world.push_golden(&image(), 1).await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    let early = guest.attest(&world.client()).await.unwrap();
    let asked = question(1, &image());
    assert_eq!(code(session.decide(&asked, &guest.receipts).await), "evidence.unavailable", "nothing is receipted");
    guest.push_image(1, &image());
    guest.deliver(&session).await.unwrap();
    let receipted = guest.receipts.clone();

    // Nothing has shown yet whose session the other one is: the guest in it is its own word.
    assert!(early.decide(&asked, &receipted).await.unwrap_err().session_ended());
    // An older place than the newest is still one, and any number may ask at once.
    guest.push_image(2, &image());
    guest.deliver(&session).await.unwrap();
    let second = question(2, &image());
    let (one, two) = tokio::join!(session.decide(&asked, &receipted), session.decide(&second, &guest.receipts));
    assert_eq!((verdict_code(&one.unwrap()), verdict_code(&two.unwrap())), ("pass", "pass"));

    // Another guest's receipt, and one of this guest that another attestor gave.
    let other = guest_with_receipt(&world).await;
    assert_eq!(code(session.decide(&asked, &other).await), "evidence.guest");
    let elsewhere = World::new().await;
    let mut copy = Guest { receipts: ReceiptState::none(), ..guest.clone() };
    copy.push_failed(2);
    let there = copy.attest(&elsewhere.client()).await.unwrap();
    copy.deliver(&there).await.unwrap();
    let gap = session.decide(&asked, &copy.receipts).await.unwrap_err();
    assert_eq!((gap.code(), gap.count()), (reason::LOG_GAP, Some(guest.receipts.count())));
}

/// A log may say that this attestor passed a launch only where it did, with the golden value it did it with.
#[tokio::test]
async fn a_pass_that_was_never_given_is_refused_and_an_alarm() {
    let world = World::new().await;
    world.push_golden(&image(), 1).await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    let verdict = guest.decide(&session, 1, &image()).await.unwrap();
    let Outcome::Pass(golden) = verdict.outcome().clone() else { panic!("{verdict:?}") };
    let held = guest.clone();
    let pass = |seq, golden: GoldenRef| Golden {
        seq,
        manifest: image().manifest,
        mode: Mode::Remote,
        verdict: VerdictWord::Pass,
        golden: Some(golden),
        floor: Floor::Attestor,
        time_source: TimeSource::Attestor,
    };
    // Another golden value than the one that decided; then a launch that nobody asked about.
    guest.push(pass(1, GoldenRef { payload: digest("another"), ..golden.clone() }));
    assert_eq!(code(guest.deliver(&session).await), "attestor.verdict");
    guest = held.clone();
    guest.push_image(2, &image());
    guest.push(pass(2, golden.clone()));
    assert_eq!(code(guest.deliver(&session).await), "attestor.verdict");
    let alarms = world.store().alarms().await.unwrap();
    assert!(alarms.len() == 2 && alarms.iter().all(|alarm| alarm.code == reason::ATTESTOR_VERDICT), "{alarms:?}");
    // The pass that was given may stand in the log, and so may one of the guest's own in local mode.
    guest = held;
    guest.push(pass(1, golden.clone()));
    guest.push_image(2, &image());
    guest.push(Golden { mode: Mode::Local, ..pass(2, golden) });
    guest.deliver(&session).await.unwrap();
}

/// What runs without a golden value is only what policy lists.
#[tokio::test]
async fn the_pause_container_runs_only_from_a_bundle_that_policy_lists() {
    let bundle = Guest::boot(&World::new().await.tpm, 1).push_pause(1);
    let listing = async |environment: &str, listed: Option<protocols::digest::Sha256Digest>| {
        let listed = listed.map(|digest| format!("\npause = [\"{digest}\"]")).unwrap_or_default();
        let registers = "registers = [\"tpm-listed\"]";
        World::edited(tempfile::tempdir().unwrap(), environment, |text| {
            text.replace(registers, &format!("{registers}{listed}"))
        })
        .await
    };
    let cases = [
        ("development", None, true),
        ("development", Some(bundle), true),
        ("development", Some(digest("another")), false),
        ("production", None, false),
        ("production", Some(bundle), true),
    ];
    for (environment, listed, runs) in cases {
        let world = listing(environment, listed).await;
        let (client, mut guest) = match environment {
            "development" => (world.client(), Guest::boot(&world.tpm, 1)),
            _ => {
                let guest = Guest::boot_as(&world.tpm, 1, Environment::Production, false);
                (world.client_pinning(&world.key_pem, Environment::Production), guest)
            }
        };
        let session = guest.attest(&client).await.unwrap();
        guest.push_pause(1);
        let receipted = guest.deliver(&session).await;
        if runs {
            receipted.unwrap();
            guest.push_pod(1);
            guest.deliver(&session).await.unwrap();
            continue;
        }
        assert_eq!(code(receipted), "policy.pause", "{environment} {listed:?}");
        // One that was created all the same is never receipted; one that failed before goes down in the history.
        let mut created = guest.clone();
        created.push_pod(1);
        created.push(Exit { seq: Some(1), cid_h: hash_str("pod"), status: Some(0), reason: ExitReason::Exited });
        assert_eq!(code(created.deliver(&session).await), "policy.pause");
        guest.push_failed(1);
        guest.deliver(&session).await.unwrap();
    }
}

/// The registry goes back to no list, or to an older one that has not expired: the attestor remembers.
#[tokio::test]
async fn what_was_revoked_once_stays_revoked_whatever_the_registry_shows() {
    let mut world = World::new().await;
    let list = |version, revoked| support::revocations(version, revoked, &world.signer);
    let (older, newer) = (list(1, vec![]), {
        let golden = protocols::golden::statement(&image(), issue(1)).payload().unwrap();
        list(2, vec![protocols::digest::Sha256Digest::of(&golden)])
    });
    world.push_golden(&image(), 1).await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    world.registry.push_revocations(support::REFERENCE, &older).await;
    assert_eq!(verdict_code(&guest.decide(&session, 1, &image()).await.unwrap()), "pass");
    world.registry.push_revocations(support::REFERENCE, &newer).await;
    assert_eq!(verdict_code(&guest.decide(&session, 2, &image()).await.unwrap()), "golden.revoked");
    world.registry.push_revocations(support::REFERENCE, &older).await;
    assert_eq!(verdict_code(&guest.decide(&session, 3, &image()).await.unwrap()), "golden.revoked");
    world.registry.withhold_revocations();
    world.restart().await;
    let session = guest.attest(&world.client()).await.unwrap();
    assert_eq!(verdict_code(&guest.decide(&session, 4, &image()).await.unwrap()), "golden.revoked");
    // The cure is a higher version.
    world.push_golden(&image(), 2).await;
    assert_eq!(verdict_code(&guest.decide(&session, 5, &image()).await.unwrap()), "pass");
}

/// Decisions are stored: what a guest writes into one is bounded.
#[tokio::test]
async fn a_guest_cannot_fill_the_audit_records() {
    let world = World::new().await;
    world.push_golden(&image(), 1).await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    guest.push_image(1, &image());
    let long = Question { reference: format!("registry.example/{}", "a".repeat(500)), ..question(1, &image()) };
    assert_eq!(code(guest.ask(&session, &long).await), "attestor.protocol");

    let mut asked = question(1, &image());
    asked.process.args = vec!["\u{1}".repeat(100_000)];
    let verdict = guest.ask(&session, &asked).await.unwrap();
    assert_eq!(verdict_code(&verdict), "policy.process");
    assert!(verdict.compact().len() < 16 * 1024, "{}", verdict.compact().len());
}

/// The clock runs: a paused one jumps while the store's writer, a thread of its own, is waited for.
#[tokio::test]
async fn a_registry_that_is_down_or_stalled_is_golden_unavailable_and_nothing_is_accepted() {
    let world = World::new().await;
    world.push_golden(&image(), 1).await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    for (seq, mood) in [(1, Mood::Down), (2, Mood::Stalled)] {
        world.registry.set(mood);
        let verdict = guest.decide(&session, seq, &image()).await.unwrap();
        let refusal = verdict.refusal().unwrap();
        assert_eq!((refusal.code, refusal.code.class()), (reason::GOLDEN_UNAVAILABLE, reason::Class::Unavailable));
        assert_eq!(refusal.source, reason::Source::Attestor);
        guest.push_failed(seq);
    }
}

#[tokio::test]
async fn golden_values_stored_as_a_resource_serve_agents_and_stand_in_for_the_registry() {
    let world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    assert_eq!(session.golden(&image().manifest).await.unwrap(), None);

    let resource =
        GoldenResource { envelopes: vec![RecordBytes(world.envelope(&image(), issue(1)))], revocations: None };
    let path = format!("/kbs/v0/resource/{}", GoldenResource::path(&image().manifest));
    let admin = format!("Bearer {ADMIN}");
    let body = serde_json::to_vec(&resource).unwrap();
    let (status, _) = world.raw("POST", &path, &[("authorization", &admin)], b"junk".to_vec()).await;
    assert_eq!(status, 401);
    let (status, answer) = world.raw("POST", &path, &[("authorization", &admin)], body).await;
    assert_eq!((status, answer.as_str()), (200, ""));

    assert_eq!(session.golden(&image().manifest).await.unwrap(), Some(resource));
    world.registry.set(Mood::Down);
    assert_eq!(verdict_code(&guest.decide(&session, 1, &image()).await.unwrap()), "pass");
}

#[tokio::test]
async fn a_resource_is_released_to_an_attested_session_and_a_missing_one_named() {
    let world = World::new().await;
    let admin = format!("Bearer {ADMIN}");
    let (path, two) = ("/kbs/v0/resource/default/key/one", "/kbs/v0/resource/default/key/two");
    for headers in [vec![], vec![("authorization", "Bearer wrong")]] {
        let (status, body) = world.raw("POST", path, &headers, b"secret".to_vec()).await;
        assert_eq!(status, 401, "{body}");
    }
    assert_eq!(world.raw("POST", path, &[("authorization", &admin)], b"secret".to_vec()).await.0, 200);
    let (status, body) = world.raw("POST", "/kbs/v0/resource/a/../b", &[("authorization", &admin)], vec![]).await;
    assert_eq!(status, 404, "{body}");

    let guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    assert_eq!(session.resource("default/key/one").await.unwrap().as_slice(), b"secret");
    assert_eq!(code(session.resource("default/key/two").await), "attestor.not_found");
    assert_eq!(world.raw("POST", two, &[("authorization", &admin)], b"other".to_vec()).await.0, 200);
    assert_eq!(session.resource("default/key/two").await.unwrap().as_slice(), b"other");
    for (headers, expected) in [(vec![], 401), (vec![("authorization", admin.as_str())], 200)] {
        assert_eq!(world.raw("DELETE", two, &headers, vec![]).await.0, expected);
    }
    assert_eq!(code(session.resource("default/key/two").await), "attestor.not_found");
    assert_eq!(world.raw("DELETE", two, &[("authorization", &admin)], vec![]).await.0, 404);
    world.pass(300);
    let ended = session.resource("default/key/one").await.unwrap_err();
    assert!(ended.session_ended() && ended.code() == reason::ATTESTOR_SESSION);
}

#[tokio::test]
async fn a_session_that_ran_out_is_attested_again() {
    let world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    let now = Timestamp(support::NOW);
    assert!(!session.expired(now.plus(299)) && session.expired(now.plus(300)));
    world.pass(300);
    let delivery = guest.delivery(&session, 0);
    assert!(session.deliver(delivery, &guest.receipts).await.unwrap_err().session_ended());
    let session = guest.attest(&world.client()).await.unwrap();
    guest.deliver(&session).await.unwrap();
}

#[tokio::test]
async fn a_challenge_expires_and_is_used_once() {
    let world = World::new().await;
    let guest = Guest::boot(&world.tpm, 1);
    let log = guest.binding();
    let challenged = guest.challenge(&world.client()).await;
    world.pass(120);
    let evidence = guest.evidence(&challenged.binding(Some(&log)).unwrap());
    assert_eq!(code(challenged.attest(evidence, Some(log), None).await), "attestor.session");
}

#[tokio::test]
async fn evidence_over_another_nonce_key_or_head_is_refused() {
    let world = World::new().await;
    let client = world.client();
    let guest = Guest::boot(&world.tpm, 1);
    let log = guest.binding();
    let other = guest.challenge(&client).await;
    let wrong = guest.evidence(&other.binding(Some(&log)).unwrap());
    assert_eq!(code(guest.challenge(&client).await.attest(wrong, Some(log.clone()), None).await), "evidence.nonce");

    let challenged = guest.challenge(&client).await;
    let unbound = guest.evidence(&challenged.binding(None).unwrap());
    assert_eq!(code(challenged.attest(unbound, Some(log.clone()), None).await), "evidence.nonce");

    let stranger = Guest::boot(&SoftTpm::new(7), 1);
    assert_eq!(code(stranger.attest(&client).await), "evidence.ak");

    let mut kind = log.clone();
    kind.kind = protocols::register::RegisterKind::Software;
    let challenged = guest.challenge(&client).await;
    let evidence = guest.evidence(&challenged.binding(Some(&kind)).unwrap());
    assert_eq!(code(challenged.attest(evidence, Some(kind), None).await), "policy.register");
}

#[tokio::test]
async fn initdata_must_be_what_the_evidence_is_bound_to() {
    let world = World::new().await;
    let client = world.client();
    let body = "algorithm = \"sha256\"\nversion = \"0.1.0\"\n".to_owned();
    let init_data = |format: &str, body: &str| protocols::kbs::InitData { format: format.into(), body: body.into() };
    let mut guest = Guest::boot(&world.tpm, 1);
    guest.tpm.extend(8, digest(&body).as_bytes());
    for (expected, shown) in [
        ("", init_data("toml", &body)),
        ("evidence.initdata", init_data("toml", &format!("{body}#"))),
        ("evidence.initdata", init_data("json", &body)),
        ("evidence.initdata", init_data("toml", "=")),
        ("evidence.initdata_algorithm", init_data("toml", &body.replace("256", "384"))),
    ] {
        let log = guest.binding();
        let challenged = guest.challenge(&client).await;
        let evidence = guest.evidence(&challenged.binding(Some(&log)).unwrap());
        let attested = challenged.attest(evidence, Some(log), Some(shown)).await;
        assert_eq!(attested.map_or_else(|error| error.code().as_str(), |_| ""), expected);
    }
}

#[tokio::test]
async fn production_refuses_what_is_simulated_or_of_development() {
    let world = World::of("production").await;
    let client = world.client_pinning(&world.key_pem, Environment::Production);
    for (environment, simulated) in [(Environment::Development, false), (Environment::Production, true)] {
        let mut guest = Guest::boot_as(&world.tpm, 1, environment, simulated);
        let session = guest.attest(&client).await.unwrap();
        assert_eq!(code(guest.deliver(&session).await), "policy.environment");
    }
    let mut guest = Guest::boot_as(&world.tpm, 1, Environment::Production, false);
    let session = guest.attest(&client).await.unwrap();
    guest.deliver(&session).await.unwrap();
}

#[tokio::test]
async fn a_production_agent_accepts_no_development_attestor() {
    let world = World::new().await;
    world.push_golden(&image(), 1).await;
    let client = world.client_pinning(&world.key_pem, Environment::Production);
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&client).await.unwrap();
    assert_eq!(code(guest.decide(&session, 1, &image()).await), "policy.environment");
}

#[tokio::test]
async fn answers_by_another_key_than_the_pinned_one_are_refused() {
    let world = World::new().await;
    world.push_golden(&image(), 1).await;
    let other = SigningKey::generate(KeyKind::EcdsaP256).unwrap().verifying_key().to_pem().unwrap();
    let client = world.client_pinning(&other, Environment::Development);
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&client).await.unwrap();
    assert_eq!(code(guest.deliver(&session).await), "attestor.signature");
    assert_eq!(code(guest.decide(&session, 1, &image()).await), "attestor.signature");
}

#[tokio::test]
async fn deliveries_at_the_same_time_end_in_one_history() {
    let world = World::new().await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    guest.deliver(&session).await.unwrap();
    guest.push_image(1, &image());
    let deliveries = (0..6).map(|_| session.deliver(guest.delivery(&session, 1), &guest.receipts));
    let receipts = futures_util::future::join_all(deliveries).await;
    let first = receipts[0].as_ref().unwrap().compact().to_owned();
    assert!(receipts.iter().all(|receipt| receipt.as_ref().unwrap().compact() == first));
}
