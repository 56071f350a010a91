use proptest::prelude::{Strategy, prop, prop_assert, prop_assert_eq, proptest};
use protocols::digest::Sha256Digest;
use protocols::event_log;
use protocols::events::{
    Copied, CopyFile, Exec, Exit, ExitReason, Failed, GoldenRef, Launch, Pause, Provided, Restart, Seal, Started,
    VerdictWord, hash_list, hash_str,
};
use protocols::image::Layout;
use protocols::tcl::Mode;

use super::*;
use crate::testing::{
    ISSUER, SERIES, cid, copy_file, digest, exec, golden_ref, image, init, launch, pause_launch, policy, records,
};

const IMAGE: usize = 0;
const PULL: usize = 1;
const GOLDEN: usize = 2;
const LAUNCH: usize = 3;
const CREATED: usize = 4;
const STARTED: usize = 5;
const EXIT: usize = 6;

fn run(events: impl IntoIterator<Item = Event>) -> Result<LogState, Refusal> {
    check_log(&records(events))
}

/// Takes the first `count` events of launch 1, then `next`; a refusal must leave the state as it was.
fn after(count: usize, next: Event) -> &'static str {
    let mut state = run(launch(1).into_iter().take(count)).unwrap();
    let before = state.clone();
    let record = next.record(MR_RTMR3, HashAlg::Sha384).unwrap();
    match state.push(&record) {
        Ok(()) => "taken",
        Err(refusal) => {
            assert_eq!(state, before, "a refused record changed the state");
            refusal.code.as_str()
        }
    }
}

fn nth(place: usize) -> Event {
    launch(1).swap_remove(place)
}

fn restart(n: u64) -> Event {
    Restart { n, config: digest("new configuration"), agent_h: digest("new agent") }.into()
}

fn seal(n: u64) -> Event {
    Seal { n, reason: "shutdown".into() }.into()
}

fn failed(seq: u64) -> Event {
    Failed { seq, code: reason::RUNTIME_CREATE }.into()
}

fn exit(change: impl FnOnce(&mut Exit)) -> Event {
    let mut exit = Exit { seq: Some(1), cid_h: cid(1), status: Some(0), reason: ExitReason::Exited };
    change(&mut exit);
    exit.into()
}

macro_rules! changed {
    ($place:expr, $kind:ident, |$event:ident| $change:expr) => {{
        let Event::$kind(mut $event) = nth($place) else { unreachable!() };
        $change;
        Event::from($event)
    }};
}

mod attacks;
mod pods;

#[test]
fn a_whole_launch_is_taken_and_the_replay_is_the_protocols() {
    let records = records(launch(1));
    let state = check_log(&records).unwrap();
    assert_eq!(state.count(), 8);
    assert_eq!(Some(state.head()), event_log::replay(HashAlg::Sha384.zero(), MR_RTMR3, &records));
    assert_eq!((state.mr(), state.alg(), state.init()), (4, HashAlg::Sha384, &init()));
    assert_eq!(state.next_seq(), 2);
    assert!(state.open().is_empty());
    assert!(!state.sealed());
    state.ends_at(&state.head()).unwrap();
    assert_eq!(state.ends_at(&HashAlg::Sha384.zero()).unwrap_err().code, reason::LOG_REPLAY);
}

#[test]
fn each_stage_is_seen() {
    let stages = [
        (IMAGE, Stage::Measured),
        (PULL, Stage::Measured),
        (GOLDEN, Stage::Passed),
        (LAUNCH, Stage::Launched),
        (CREATED, Stage::Created),
        (STARTED, Stage::Started),
    ];
    for (last, stage) in stages {
        let state = run(launch(1).into_iter().take(last + 1)).unwrap();
        let open = &state.open()[&1];
        assert_eq!(open.stage, stage);
        let known = open.image().unwrap();
        assert_eq!((known.manifest, known.config, open.rootfs), (digest("manifest"), digest("config"), image().rootfs));
        assert_eq!(open.container.is_some(), last >= LAUNCH);
        assert_eq!(known.pulled, last >= PULL);
    }
}

#[test]
fn launches_may_be_interleaved_and_come_in_any_order() {
    let mut events = Vec::new();
    for (a, b) in launch(2).into_iter().zip(launch(1)) {
        events.extend([a, b]);
    }
    let state = run(events).unwrap();
    assert!(state.open().is_empty());
    assert_eq!(state.next_seq(), 3);
}

type ChangeInit = fn(&mut Init);

#[test]
fn the_first_record_must_be_a_sound_init() {
    let start = |change: ChangeInit, mr, alg| {
        let mut init = init();
        change(&mut init);
        check_log(&[Event::from(init).record(mr, alg).unwrap()]).map_or_else(|r| r.code.as_str(), |_| "taken")
    };
    let tpm: ChangeInit = |i| (i.register_kind, i.reg0) = (RegisterKind::TpmListed, HashAlg::Sha256.zero());
    let (s256, s384) = (HashAlg::Sha256, HashAlg::Sha384);
    let cases: [(&str, ChangeInit, u32, HashAlg, &str); 12] = [
        ("software", |_| {}, 4, s384, "taken"),
        ("version 2", |i| i.v = 2, 4, s384, "log.malformed"),
        ("software in another register", |_| {}, 3, s384, "log.malformed"),
        ("software with SHA-256", |i| i.reg0 = HashAlg::Sha256.zero(), 4, s256, "log.malformed"),
        ("start of another algorithm", |i| i.reg0 = HashAlg::Sha256.zero(), 4, s384, "log.malformed"),
        ("start that is not zero", |i| i.reg0 = HashAlg::Sha384.hash(&[b"shim"]), 4, s384, "register.start"),
        ("PCR 14", tpm, 14, s256, "taken"),
        ("PCR 0", tpm, 0, s256, "taken"),
        ("PCR 16, which can be reset", tpm, 16, s256, "log.malformed"),
        ("PCR 23, which can be reset", tpm, 23, s256, "log.malformed"),
        ("PCR with SHA-384", |i| i.register_kind = RegisterKind::TpmListed, 14, s384, "log.malformed"),
        ("RTMR 2", |i| i.register_kind = RegisterKind::Rtmr, 3, s384, "log.malformed"),
    ];
    for (name, change, mr, alg, expected) in cases {
        assert_eq!(start(change, mr, alg), expected, "{name}");
    }
    assert_eq!(check_log(&[]).unwrap_err().code, reason::LOG_MALFORMED);
    let without_init = &records(launch(1))[1..];
    assert_eq!(check_log(without_init).unwrap_err().code, reason::LOG_MALFORMED);
}

#[test]
fn records_of_another_register_algorithm_or_event_are_refused() {
    let mut state = run([]).unwrap();
    let event = nth(IMAGE);
    for (mr, alg) in [(3, HashAlg::Sha384), (4, HashAlg::Sha256)] {
        let record = event.record(mr, alg).unwrap();
        assert_eq!(state.push(&record).unwrap_err().code, reason::LOG_MALFORMED);
    }
    let strange = [
        ("example.com", "Image", serde_json::to_value(digest("x")).unwrap()),
        ("trusted-container-launcher", "Reset", serde_json::json!({})),
        ("trusted-container-launcher", "Started", serde_json::json!({"seq": 1, "extra": 2})),
        ("github.com/confidential-containers", "Image", serde_json::json!({})),
    ];
    for (domain, operation, content) in strange {
        let record = Record::encode(MR_RTMR3, HashAlg::Sha384, domain, operation, &content).unwrap();
        assert_eq!(state.push(&record).unwrap_err().code, reason::LOG_MALFORMED, "{domain} {operation}");
    }
    assert_eq!(state, run([]).unwrap());
}

/// Every event at every point of a launch: only the next one, an exit or a failure is taken.
#[test]
fn each_event_is_taken_only_where_it_may_follow() {
    let in_order = [IMAGE, PULL, GOLDEN, LAUNCH, CREATED, STARTED, EXIT];
    for taken in 0..=in_order.len() {
        for next in in_order {
            let allowed = match next {
                GOLDEN => taken == PULL || taken == GOLDEN, // with or without a PullImage
                EXIT => taken == STARTED || taken == EXIT,  // a created container may be stopped
                other => taken == other,
            };
            let expected = if allowed { "taken" } else { "log.malformed" };
            assert_eq!(after(taken, nth(next)), expected, "event {next} after {taken}");
        }
        let may_fail = taken <= STARTED;
        assert_eq!(after(taken, failed(1)), if may_fail { "taken" } else { "log.malformed" }, "Failed after {taken}");
        assert_eq!(after(taken, init().into()), "log.malformed", "a second Init");
        assert_eq!(after(taken, nth_of(2, IMAGE)), "taken", "another launch begins");
    }
}

fn nth_of(seq: u64, place: usize) -> Event {
    launch(seq).swap_remove(place)
}

#[test]
fn a_step_that_names_something_else_is_refused() {
    let other = digest("other");
    let cases: Vec<(&str, usize, Event)> = vec![
        ("PullImage of another manifest", PULL, changed!(PULL, PullImage, |e| e.digest = other)),
        ("PullImage of another reference", PULL, changed!(PULL, PullImage, |e| e.image.push('x'))),
        ("Golden of another manifest", GOLDEN, changed!(GOLDEN, Golden, |e| e.manifest = other)),
        ("pass without a golden value", GOLDEN, changed!(GOLDEN, Golden, |e| e.golden = None)),
        ("Launch of another manifest", LAUNCH, changed!(LAUNCH, Launch, |e| e.image_manifest = Some(other))),
        ("Launch of no manifest", LAUNCH, changed!(LAUNCH, Launch, |e| e.image_manifest = None)),
        ("Launch of another root file system", LAUNCH, changed!(LAUNCH, Launch, |e| e.rootfs.digest = other)),
        ("Created by another runtime", CREATED, changed!(CREATED, Created, |e| e.runtime_h = other)),
        ("Exit of another container", EXIT, exit(|e| e.cid_h = cid(2))),
        ("Exit without a number", EXIT, exit(|e| e.seq = None)),
        (
            "Exit without a number, as after a restart",
            EXIT,
            exit(|e| {
                (e.seq, e.reason) = (None, ExitReason::AgentRestart);
            }),
        ),
        ("Exit for a restart that was not", EXIT, exit(|e| e.reason = ExitReason::AgentRestart)),
        ("Exit of another launch", EXIT, exit(|e| e.seq = Some(2))),
        ("Started of another launch", STARTED, Started { seq: 2 }.into()),
    ];
    for (name, taken, event) in cases {
        assert_eq!(after(taken, event), "log.malformed", "{name}");
    }
}

#[test]
fn after_a_refused_golden_only_failed_may_follow() {
    let refused = changed!(GOLDEN, Golden, |e| {
        e.verdict = VerdictWord::Refused(reason::GOLDEN_EXPIRED);
        e.golden = None;
    });
    let prefix = || vec![nth(IMAGE), nth(PULL), refused.clone()];
    let state = run(prefix()).unwrap();
    assert_eq!(state.open()[&1].stage, Stage::Refused);
    for next in [IMAGE, PULL, GOLDEN, LAUNCH, CREATED, STARTED, EXIT] {
        let result = run(prefix().into_iter().chain([nth(next)]));
        assert_eq!(result.unwrap_err().code, reason::LOG_MALFORMED, "event {next}");
    }
    assert!(run(prefix().into_iter().chain([failed(1)])).unwrap().open().is_empty());
}

#[test]
fn a_refused_golden_raises_no_mark() {
    let refused = changed!(GOLDEN, Golden, |e| e.verdict = VerdictWord::Refused(reason::IMAGE_LAYER));
    let state = run([nth(IMAGE), refused]).unwrap();
    assert_eq!(state.high_water(&GoldenRef::series_hash(ISSUER, SERIES)), HighWater::None);
}

/// Launch `seq` up to its Golden, which passes with this version and payload.
fn passed(seq: u64, mode: Mode, version: u64, payload: &str) -> Vec<Event> {
    let mut events: Vec<_> = launch(seq).into_iter().take(GOLDEN + 1).collect();
    if let Some(Event::Golden(golden)) = events.get_mut(GOLDEN) {
        (golden.mode, golden.golden) = (mode, Some(golden_ref(version, payload)));
    }
    events
}

#[test]
fn the_high_water_mark_is_the_highest_accepted() {
    let series_h = GoldenRef::series_hash(ISSUER, SERIES);
    let mark = |events: Vec<Vec<Event>>| {
        run(events.concat()).map(|state| state.high_water(&series_h)).map_err(|refusal| refusal.code.as_str())
    };
    let accepted = |version, payload| Ok(HighWater::Accepted { version, payload: digest(payload) });
    let (local, remote) = (Mode::Local, Mode::Remote);
    assert_eq!(mark(vec![]), Ok(HighWater::None));
    assert_eq!(mark(vec![passed(1, local, 3, "a")]), accepted(3, "a"));
    assert_eq!(mark(vec![passed(1, local, 3, "a"), passed(2, local, 5, "b")]), accepted(5, "b"));
    assert_eq!(mark(vec![passed(1, local, 3, "a"), passed(2, local, 3, "a")]), accepted(3, "a"));
    assert_eq!(mark(vec![passed(1, local, 3, "a"), passed(2, local, 2, "b")]), Err("golden.rollback"));
    assert_eq!(mark(vec![passed(1, local, 3, "a"), passed(2, local, 3, "b")]), Err("golden.conflict"));
    assert_eq!(mark(vec![passed(1, remote, 5, "a"), passed(2, local, 3, "b")]), Err("golden.rollback"));
    // The attestor's own mark judged: this log's stays.
    assert_eq!(mark(vec![passed(1, local, 3, "a"), passed(2, remote, 3, "b")]), accepted(3, "a"));
    // Concurrent remote launches: the attestor judged the lower one first.
    assert_eq!(mark(vec![passed(1, remote, 5, "b"), passed(2, remote, 3, "a")]), accepted(5, "b"));
}

#[test]
fn two_open_containers_have_two_ids() {
    let twin = |seq| {
        let Event::Launch(mut launch) = nth_of(seq, LAUNCH) else { unreachable!() };
        launch.cid_h = cid(1);
        Event::from(launch)
    };
    let second = || vec![nth_of(2, IMAGE), nth_of(2, GOLDEN), twin(2)];
    let open = launch(1).into_iter().take(EXIT).chain(second());
    assert_eq!(run(open).unwrap_err().code, reason::LOG_MALFORMED);
    run(launch(1).into_iter().chain(second())).unwrap();
}

#[test]
fn a_launch_may_fail_before_its_image_is_known_and_its_number_is_used() {
    let state = run([failed(7)]).unwrap();
    assert_eq!(state.next_seq(), 8);
    for event in [failed(7), nth_of(7, IMAGE)] {
        assert_eq!(run([failed(7), event]).unwrap_err().code, reason::LOG_MALFORMED);
    }
    run([failed(7), nth_of(6, IMAGE)]).unwrap();
}

#[test]
fn restart_and_seal_name_the_records_before_them() {
    for n in [0, 3, 5, u64::from(u32::MAX)] {
        assert_eq!(after(3, restart(n)), "log.malformed");
        assert_eq!(after(3, seal(n)), "log.malformed");
    }
    assert_eq!(after(3, restart(4)), "taken");
    assert_eq!(after(3, seal(4)), "taken");
}

#[test]
fn what_was_open_at_a_restart_can_only_end() {
    for taken in 1..=EXIT {
        let prefix = || -> Vec<Event> {
            let mut events: Vec<_> = launch(1).into_iter().take(taken).collect();
            events.push(restart(events.len() as u64 + 1));
            events
        };
        let state = run(prefix()).unwrap();
        assert_eq!(state.restarts(), 1);
        assert_eq!((state.config(), state.agent_h()), (digest("new configuration"), digest("new agent")));
        assert_eq!(state.open()[&1].stage, Stage::Orphaned);
        for next in [IMAGE, PULL, GOLDEN, LAUNCH, CREATED, STARTED, EXIT] {
            assert!(run(prefix().into_iter().chain([nth(next)])).is_err(), "event {next} after a restart at {taken}");
        }
        let killed = exit(|e| (e.status, e.reason) = (None, ExitReason::AgentRestart));
        assert_eq!(
            run(prefix().into_iter().chain([killed])).is_ok(),
            taken > LAUNCH,
            "Exit after a restart at {taken}"
        );
        let found = exit(|e| (e.seq, e.status, e.reason) = (None, None, ExitReason::AgentRestart));
        let ended = run(prefix().into_iter().chain([found.clone(), found])).unwrap();
        assert_eq!(ended.open().is_empty(), taken > LAUNCH, "the container's id names its launch");
        assert!(run(prefix().into_iter().chain([failed(1)])).unwrap().open().is_empty());
        run(prefix().into_iter().chain(launch(2))).unwrap();
    }
}

#[test]
fn an_exit_of_an_unknown_container_needs_a_restart_before_it() {
    let found = || exit(|e| (e.seq, e.cid_h, e.status, e.reason) = (None, cid(9), None, ExitReason::AgentRestart));
    assert_eq!(run([found()]).unwrap_err().code, reason::LOG_MALFORMED);
    run([restart(1), found()]).unwrap();
}

#[test]
fn an_exit_without_its_number_is_refused_for_a_launch_of_this_agent() {
    let mut events = vec![restart(1)];
    events.extend(launch(1).into_iter().take(EXIT));
    events.push(exit(|e| (e.seq, e.reason) = (None, ExitReason::AgentRestart)));
    assert_eq!(run(events).unwrap_err().code, reason::LOG_MALFORMED);
}

#[test]
fn after_seal_launches_only_end() {
    let prefix = |taken: usize| -> Vec<Event> {
        let mut events: Vec<_> = launch(1).into_iter().take(taken).collect();
        events.push(seal(events.len() as u64 + 1));
        events
    };
    for next in [exec(1, 1), copy_file(), policy(None, "new"), pause_launch(2).swap_remove(0)] {
        let mut state = run(prefix(STARTED + 1)).unwrap();
        let record = next.record(MR_RTMR3, HashAlg::Sha384).unwrap();
        assert_eq!(state.push(&record).unwrap_err().code, reason::LOG_SEALED, "{next:?}");
    }
    for next in [IMAGE, PULL, GOLDEN, LAUNCH, CREATED, STARTED] {
        let mut state = run(prefix(next)).unwrap();
        assert!(state.sealed());
        let record = nth(next).record(MR_RTMR3, HashAlg::Sha384).unwrap();
        assert_eq!(state.push(&record).unwrap_err().code, reason::LOG_SEALED, "event {next}");
    }
    run(prefix(EXIT).into_iter().chain([nth(EXIT)])).unwrap();
    run(prefix(LAUNCH).into_iter().chain([failed(1)])).unwrap();
    let again = prefix(0).into_iter().chain([restart(2), seal(3)]);
    let state = run(again.clone()).unwrap();
    assert!(state.sealed());
    assert_eq!(run(again.chain([nth(IMAGE)])).unwrap_err().code, reason::LOG_SEALED, "a restart unseals nothing");
}

#[test]
fn a_full_log_takes_nothing_more() {
    let mut state = run([]).unwrap();
    for seq in 1..event_log::MAX_RECORDS as u64 {
        state.push(&failed(seq).record(MR_RTMR3, HashAlg::Sha384).unwrap()).unwrap();
    }
    assert_eq!(state.count(), 65_536);
    let record = seal(state.count()).record(MR_RTMR3, HashAlg::Sha384).unwrap();
    assert_eq!(state.push(&record).unwrap_err().code, reason::LOG_FULL);
    // What is stored after each delivery does not grow with the launches that ended.
    assert!(serde_json::to_vec(&state).unwrap().len() < 2048);
}

#[test]
fn a_tpm_log_is_taken_with_sha_256() {
    let mut init = init();
    (init.register_kind, init.reg0) = (RegisterKind::TpmListed, HashAlg::Sha256.zero());
    let events = [Event::from(init)].into_iter().chain(launch(1));
    let records: Vec<_> = events.map(|event| event.record(14, HashAlg::Sha256).unwrap()).collect();
    let state = check_log(&records).unwrap();
    assert_eq!((state.mr(), state.alg()), (14, HashAlg::Sha256));
    let head = event_log::replay(RegisterValue::Sha256(Sha256Digest::new([0; 32])), 14, &records).unwrap();
    state.ends_at(&head).unwrap();
}

/// An attestor reads and writes the state with every delivery: nothing a guest sends makes it large.
#[test]
fn a_guest_cannot_make_the_state_large() {
    let image_of = |seq: u64| launch(seq).swap_remove(IMAGE);
    let open = MAX_OPEN as u64;
    let mut state = run((0..open).map(image_of)).unwrap();
    let mut push = |event: Event| {
        let record = event.record(MR_RTMR3, HashAlg::Sha384).unwrap();
        state.push(&record).map_err(|refusal| refusal.code)
    };
    assert_eq!(push(image_of(open)), Err(reason::LOG_MALFORMED));
    push(failed(0)).unwrap();
    push(image_of(open)).unwrap();
    assert!(serde_json::to_vec(&state).unwrap().len() < 1024 * 1024);

    let golden_of = |seq: u64| {
        let Event::Golden(mut golden) = launch(seq).swap_remove(GOLDEN) else { unreachable!() };
        golden.golden.as_mut().unwrap().series_h = GoldenRef::series_hash(ISSUER, &seq.to_string());
        Event::from(golden)
    };
    let series = MAX_SERIES as u64;
    let mut events: Vec<Event> = (0..series).flat_map(|seq| [image_of(seq), golden_of(seq), failed(seq)]).collect();
    let whole = run(events.clone()).unwrap();
    assert!(serde_json::to_vec(&whole).unwrap().len() < 1024 * 1024);
    events.extend([image_of(series), golden_of(series)]);
    assert_eq!(run(events).unwrap_err().code, reason::LOG_MALFORMED);
    // A known series goes on.
    let again = [image_of(series), golden_of(0)].map(|event| match event {
        Event::Golden(mut golden) => {
            golden.seq = series;
            Event::from(golden)
        }
        other => other,
    });
    let mut whole = whole;
    for event in again {
        whole.push(&event.record(MR_RTMR3, HashAlg::Sha384).unwrap()).unwrap();
    }
}
