//! The log's writer against real registers: what is written, resumed, refused and poisoned.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::path::Path;
use std::sync::Arc;

use attester::event_log::DirIo;
use attester::fault::{Fault, FaultyAttester, FaultyIo};
use attester::{Attester, AttesterError, EventLog, InitFacts, Opened, Poison, SevAttester};
use common::{By, Swtpm, facts, simulated};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::environment::Environment;
use protocols::event_log::{self, LogError, MAX_RECORDS, Record};
use protocols::events::{Event, Exit, ExitReason, Failed, PullImage, Seal, Started, hash_str};
use protocols::kbs::{SnpEvidence, TpmEvidence};
use protocols::reason;
use protocols::register::{HashAlg, RegisterValue};
use protocols::snp::Report;
use protocols::tpm::Attest;

fn started(seq: u64) -> Event {
    Started { seq }.into()
}

fn exit(seq: u64) -> Event {
    Exit { seq: Some(seq), cid_h: hash_str("c"), status: Some(0), reason: ExitReason::Exited }.into()
}

/// A directory that is the guest's `/run`: the log, and the simulated chip's state.
struct Run {
    dir: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn attester(&self) -> SevAttester {
        simulated(self.dir.path())
    }

    fn log_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("log")
    }

    fn open(&self) -> Opening {
        EventLog::open(&self.log_dir(), Arc::new(self.attester()), &facts())
    }

    fn file(&self) -> std::path::PathBuf {
        self.log_dir().join("log")
    }
}

fn operations(log: &EventLog) -> Vec<String> {
    log.records().iter().map(|record| record.operation().to_owned()).collect()
}

/// What every log must be, whatever happened: strictly parseable, and its replay the register.
fn agrees(log: &EventLog) {
    let exported = log.export();
    let records = event_log::parse(&exported).unwrap();
    let info = log.attester().register();
    let start = log.attester().register_start().unwrap();
    let replay = event_log::replay(start, info.mr, &records).unwrap();
    assert_eq!(replay, log.attester().read_register().unwrap());
    let binding = log.binding().unwrap();
    assert_eq!((binding.head, binding.count), (replay, log.count()));
    assert_eq!(records, log.records());
    for (place, record) in records.iter().enumerate() {
        let event = Event::of(record, place).unwrap();
        assert_eq!(matches!(event, Event::Init(_)), place == 0);
    }
}

#[test]
fn a_fresh_log_begins_with_init() {
    let run = Run::new();
    let facts = InitFacts { initdata: Some(Sha256Digest::of(b"initdata").into()), ..facts() };
    let (log, opened) = EventLog::open(&run.log_dir(), Arc::new(run.attester()), &facts).unwrap();
    assert_eq!(opened, Opened::Fresh);
    let Event::Init(init) = Event::of(&log.records()[0], 0).unwrap() else { panic!("Init comes first") };
    assert_eq!(init.reg0, HashAlg::Sha384.zero());
    assert_eq!(init.initdata, facts.initdata);
    assert_eq!((init.agent_h, init.config), (facts.agent_h, facts.config));
    assert!(init.simulated && init.environment == Environment::Development && init.boot_nonce != [0; 32]);
    assert_eq!(log.guest().unwrap(), log.attester().guest(&init.boot_nonce).unwrap());
    agrees(&log);
    drop(log);
    for initdata in [None, Some(Sha256Digest::of(b"other").into())] {
        let facts = InitFacts { initdata, ..facts.clone() };
        let refused = EventLog::open(&run.log_dir(), Arc::new(run.attester()), &facts).unwrap_err();
        assert_eq!(refused.code().as_str(), "evidence.initdata", "a history has one initdata");
    }
    let (log, opened) = EventLog::open(&run.log_dir(), Arc::new(run.attester()), &facts).unwrap();
    assert_eq!(opened, Opened::Resumed);

    let other = Run::new();
    let (other, _) = other.open().unwrap();
    assert_ne!(other.guest().unwrap(), log.guest().unwrap());
}

#[test]
fn a_record_is_in_register_and_file_when_record_returns() {
    let run = Run::new();
    let (log, _) = run.open().unwrap();
    for seq in 1..=5 {
        let appended = log.record(exit(seq)).unwrap();
        assert_eq!((appended.place, appended.count), (seq, seq + 1));
        assert_eq!(appended.head, log.attester().read_register().unwrap());
        let mut stored = std::fs::read(run.file()).unwrap();
        stored.extend_from_slice(&event_log::END_MARK);
        assert_eq!(stored, log.export());
        assert!(!run.log_dir().join("wal").exists());
    }
    assert_eq!(log.records_from(4).len(), 2);
    assert_eq!(log.records_from(4)[1], log.records()[5].bytes());
    assert!(log.records_from(6).is_empty() && log.records_from(u64::MAX).is_empty());
    agrees(&log);
}

#[test]
fn a_restarted_agent_resumes_with_restart() {
    let run = Run::new();
    let (log, _) = run.open().unwrap();
    let guest = log.guest().unwrap();
    log.record(started(1)).unwrap();
    drop(log);
    let facts = InitFacts { config: Sha256Digest::of(b"other"), ..facts() };
    let (log, opened) = EventLog::open(&run.log_dir(), Arc::new(run.attester()), &facts).unwrap();
    assert_eq!(opened, Opened::Resumed);
    assert_eq!(operations(&log), ["Init", "Started", "Restart"]);
    let Event::Restart(restart) = Event::of(&log.records()[2], 2).unwrap() else { panic!("Restart") };
    assert_eq!((restart.n, restart.config), (2, facts.config));
    assert_eq!(log.guest().unwrap(), guest, "the same boot is the same guest");
    agrees(&log);
}

#[test]
fn the_log_on_a_tpm_equals_what_tpm2_pcrread_says() {
    for by in [By::Unix, By::Tcp] {
        let swtpm = Swtpm::start(by);
        let dir = tempfile::tempdir().unwrap();
        let (log, opened) = EventLog::open(dir.path(), Arc::new(swtpm.attester()), &facts()).unwrap();
        assert_eq!(opened, Opened::Fresh);
        log.record(started(1)).unwrap();
        log.record(exit(1)).unwrap();
        agrees(&log);
        assert_eq!(swtpm.pcrread(14), log.binding().unwrap().head);
        drop(log);
        let (log, opened) = EventLog::open(dir.path(), Arc::new(swtpm.attester()), &facts()).unwrap();
        assert_eq!(opened, Opened::Resumed);
        agrees(&log);
        let records = event_log::parse(&log.export()).unwrap();
        assert!(records.iter().all(|r| r.mr() == 14 && r.digest().alg() == HashAlg::Sha256));
        assert_eq!(event_log::replay(HashAlg::Sha256.zero(), 14, &records), Some(swtpm.pcrread(14)));
    }
}

#[test]
fn a_foreign_extend_poisons_now_and_after_a_restart() {
    let swtpm = Swtpm::start(By::Unix);
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = EventLog::open(dir.path(), Arc::new(swtpm.attester()), &facts()).unwrap();
    swtpm.foreign_extend(14);
    let foreign = swtpm.pcrread(14);
    let refused = log.record(started(1)).unwrap_err();
    assert_eq!(refused.code(), reason::LOG_POISONED);
    assert_eq!(swtpm.pcrread(14), foreign, "a poisoned register is not extended any more");
    assert!(log.is_poisoned());
    assert_eq!(log.record(exit(1)).unwrap_err().code(), reason::LOG_POISONED);
    assert_eq!(log.binding().unwrap_err().code(), reason::LOG_POISONED);
    assert_eq!(log.attest(|_| Sha384Digest::of(b"")).unwrap_err().code(), reason::LOG_POISONED);
    drop(log);
    let (log, opened) = EventLog::open(dir.path(), Arc::new(swtpm.attester()), &facts()).unwrap();
    assert!(matches!(opened, Opened::Poisoned(Poison::Replay { register, .. }) if register == foreign));
    assert_eq!(log.record(started(1)).unwrap_err().code(), reason::LOG_POISONED);
    assert_eq!(log.guest().unwrap_err().code(), reason::LOG_POISONED);
    assert_eq!(operations(&log), ["Init"], "what was logged can still be read");
}

#[test]
fn a_foreign_extend_is_found_before_anything_is_quoted() {
    let swtpm = Swtpm::start(By::Unix);
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = EventLog::open(dir.path(), Arc::new(swtpm.attester()), &facts()).unwrap();
    log.attest(|_| Sha384Digest::of(b"")).unwrap();
    swtpm.foreign_extend(14);
    assert_eq!(log.attest(|_| Sha384Digest::of(b"")).unwrap_err().code(), reason::LOG_POISONED);
    assert!(log.is_poisoned());
}

#[test]
fn a_tpm_that_was_reset_poisons() {
    let swtpm = Swtpm::start(By::Unix);
    let dir = tempfile::tempdir().unwrap();
    drop(EventLog::open(dir.path(), Arc::new(swtpm.attester()), &facts()).unwrap());
    let swtpm = swtpm.reboot();
    let (_, opened) = EventLog::open(dir.path(), Arc::new(swtpm.attester()), &facts()).unwrap();
    assert!(matches!(opened, Opened::Poisoned(Poison::Replay { .. })));
}

#[test]
fn a_register_that_moved_before_the_first_record_is_refused() {
    let swtpm = Swtpm::start(By::Unix);
    swtpm.foreign_extend(14);
    let dir = tempfile::tempdir().unwrap();
    let refused = EventLog::open(dir.path(), Arc::new(swtpm.attester()), &facts()).unwrap_err();
    assert_eq!(refused.code(), reason::REGISTER_START);
    assert!(!dir.path().join("log").exists());
}

#[test]
fn a_deleted_log_is_no_fresh_start() {
    let run = Run::new();
    drop(run.open().unwrap());
    std::fs::remove_file(run.file()).unwrap();
    assert_eq!(run.open().unwrap_err().code(), reason::REGISTER_START);
}

#[test]
fn nothing_is_launched_after_seal_not_even_by_a_restarted_agent() {
    let run = Run::new();
    let (log, _) = run.open().unwrap();
    log.record(Seal { n: 1, reason: "shutdown".to_owned() }).unwrap();
    let launch = || PullImage { digest: Sha256Digest::of(b"m"), image: "i".to_owned() };
    let refuses = |log: &EventLog| {
        let before = log.count();
        assert!(log.is_sealed());
        assert_eq!(log.record(started(1)).unwrap_err().code(), reason::LOG_SEALED);
        assert_eq!(log.record(launch()).unwrap_err().code(), reason::LOG_SEALED);
        assert_eq!(log.count(), before);
    };
    refuses(&log);
    log.record(exit(1)).unwrap();
    log.record(Failed { seq: 1, code: reason::LOG_SEALED }).unwrap();
    drop(log);
    let (log, opened) = run.open().unwrap();
    assert_eq!(opened, Opened::Resumed);
    refuses(&log);
    agrees(&log);
}

#[test]
fn only_opening_records_init_and_restart() {
    let run = Run::new();
    let (log, _) = run.open().unwrap();
    let init = Event::of(&log.records()[0], 0).unwrap();
    assert_eq!(log.record(init).unwrap_err().code(), reason::LOG_MALFORMED);
    assert_eq!(log.count(), 1);
    agrees(&log);
}

#[test]
fn an_event_that_cannot_be_a_record_changes_nothing() {
    let run = Run::new();
    let (log, _) = run.open().unwrap();
    let register = log.attester().read_register().unwrap();
    let long = PullImage { digest: Sha256Digest::of(b"m"), image: "i".repeat(9000) };
    assert!(matches!(log.record(long).unwrap_err(), AttesterError::Event(LogError::Malformed { .. })));
    assert_eq!(log.attester().read_register().unwrap(), register);
    log.record(exit(1)).unwrap();
    agrees(&log);
}

#[test]
fn a_log_has_one_writer() {
    let run = Run::new();
    let (log, _) = run.open().unwrap();
    assert_eq!(run.open().unwrap_err().code(), reason::LOG_WRITE);
    drop(log);
    run.open().unwrap();
}

#[test]
fn environments_do_not_mix() {
    let run = Run::new();
    let production = InitFacts { environment: Environment::Production, ..facts() };
    let open = |facts: &InitFacts| EventLog::open(&run.log_dir(), Arc::new(run.attester()), facts);
    assert_eq!(open(&production).unwrap_err().code(), reason::POLICY_ENVIRONMENT);
    assert!(!run.file().exists());
    open(&facts()).unwrap();
}

#[test]
fn the_log_of_another_register_is_refused() {
    let run = Run::new();
    drop(run.open().unwrap());
    // The same bytes beside another guest's register, and beside a TPM.
    let other = Run::new();
    std::fs::create_dir(other.log_dir()).unwrap();
    std::fs::copy(run.file(), other.file()).unwrap();
    let (_, opened) = other.open().unwrap();
    assert!(matches!(opened, Opened::Poisoned(Poison::Replay { .. })));
    let swtpm = Swtpm::start(By::Unix);
    let (_, opened) = EventLog::open(&other.log_dir(), Arc::new(swtpm.attester()), &facts()).unwrap();
    assert!(matches!(opened, Opened::Poisoned(Poison::Foreign("a record of another register"))));
}

#[test]
fn an_extend_refused_is_not_recorded_and_the_log_stays_usable() {
    for read_too in [false, true] {
        let run = Run::new();
        let attester = Arc::new(FaultyAttester::new(run.attester()));
        let (log, _) = EventLog::open(&run.log_dir(), Arc::clone(&attester) as Arc<dyn Attester>, &facts()).unwrap();
        log.record(started(1)).unwrap();
        attester.refuse_extend_after(0);
        if read_too {
            // The register answers once before the extend, then not any more.
            attester.refuse_read_after(1);
        }
        let before = log.export();
        assert_eq!(log.record(started(2)).unwrap_err().code(), reason::REGISTER_EXTEND);
        assert_eq!(log.export(), before);
        assert!(!log.is_poisoned());
        assert_eq!(run.log_dir().join("wal").exists(), read_too, "resolved as soon as the register can be read");
        if read_too {
            assert_eq!(log.binding().unwrap_err().code(), reason::REGISTER_UNAVAILABLE);
        }
        attester.repair();
        log.record(started(3)).unwrap();
        assert_eq!(log.count(), 3);
        assert!(!run.log_dir().join("wal").exists());
        agrees(&log);
    }
}

#[test]
fn an_extend_whose_answer_is_lost_is_recorded_once() {
    for read_too in [false, true] {
        let run = Run::new();
        let attester = Arc::new(FaultyAttester::new(run.attester()));
        let (log, _) = EventLog::open(&run.log_dir(), Arc::clone(&attester) as Arc<dyn Attester>, &facts()).unwrap();
        attester.lose_answer_after(0);
        if read_too {
            attester.refuse_read_after(1);
            assert_eq!(log.record(started(1)).unwrap_err().code(), reason::REGISTER_EXTEND);
            attester.repair();
        } else {
            log.record(started(1)).unwrap();
            attester.repair();
        }
        log.record(exit(1)).unwrap();
        assert_eq!(operations(&log), ["Init", "Started", "Exit"]);
        agrees(&log);
    }
}

#[test]
fn evidence_refused_leaves_the_log_usable() {
    let run = Run::new();
    let attester = Arc::new(FaultyAttester::new(run.attester()));
    let (log, _) = EventLog::open(&run.log_dir(), Arc::clone(&attester) as Arc<dyn Attester>, &facts()).unwrap();
    attester.refuse_evidence_after(1);
    log.attest(|_| Sha384Digest::of(b"")).unwrap();
    assert_eq!(log.attest(|_| Sha384Digest::of(b"")).unwrap_err().code(), reason::EVIDENCE_UNAVAILABLE);
    log.record(started(1)).unwrap();
    agrees(&log);
}

type Opening = Result<(EventLog, Opened), AttesterError>;

/// Opens with file operations that fail at operation `at`.
fn faulty(run: &Run, at: u64, fault: Fault) -> (Arc<FaultyIo<DirIo>>, Opening) {
    let io = Arc::new(FaultyIo::new(DirIo::open_exclusive(&run.log_dir()).unwrap(), at, fault));
    let opened = EventLog::open_with(Box::new(Arc::clone(&io)), Arc::new(run.attester()), &facts());
    (io, opened)
}

/// Opening a fresh log: begin it, then one record of write-ahead, append, remove.
const FRESH: u64 = 4;

#[test]
fn a_full_disk_before_the_extend_leaves_the_log_usable() {
    let run = Run::new();
    let (io, opened) = faulty(&run, FRESH, Fault::Refuse);
    let (log, _) = opened.unwrap();
    let register = log.attester().read_register().unwrap();
    assert_eq!(log.record(started(1)).unwrap_err().code(), reason::LOG_WRITE);
    assert_eq!(log.attester().read_register().unwrap(), register, "nothing is extended that cannot be logged");
    assert!(!log.is_poisoned());
    agrees(&log);
    io.repair();
    log.record(started(2)).unwrap();
    assert_eq!(log.count(), 2);
    agrees(&log);
}

#[test]
fn a_full_disk_after_the_extend_is_made_good_or_told() {
    for fault in [Fault::Refuse, Fault::Short(1), Fault::Short(60), Fault::Short(10_000)] {
        let run = Run::new();
        let (io, opened) = faulty(&run, FRESH + 1, fault);
        let (log, _) = opened.unwrap();
        let refused = log.record(started(1)).unwrap_err();
        assert!(matches!(refused, AttesterError::LogWrite { step: "append to the log", .. }), "{refused}");
        // The register is ahead of the log: nothing may be said about the log meanwhile.
        assert_eq!(log.binding().unwrap_err().code(), reason::LOG_WRITE);
        assert_eq!(log.attest(|_| Sha384Digest::of(b"")).unwrap_err().code(), reason::LOG_WRITE);
        assert_eq!(log.record(started(2)).unwrap_err().code(), reason::LOG_WRITE);
        io.repair();
        log.record(started(3)).unwrap();
        assert_eq!(operations(&log), ["Init", "Started", "Started"]);
        agrees(&log);
    }
}

/// Opens and records three events until something fails; gives the events that were promised.
fn until_it_fails(opened: Opening) -> Vec<Event> {
    let mut promised = Vec::new();
    if let Ok((log, _)) = opened {
        for event in [started(1), exit(1), Failed { seq: 2, code: reason::LOG_WRITE }.into()] {
            match log.record(event.clone()) {
                Ok(_) => promised.push(event),
                Err(_) => break,
            }
        }
    }
    promised
}

#[test]
fn a_process_killed_at_any_step_is_resumed_exactly() {
    let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::Short(0), Fault::Short(1), Fault::Short(100)];
    for fault in faults {
        for at in 0..=FRESH + 9 {
            let run = Run::new();
            let (_, opened) = faulty(&run, at, fault);
            let promised = until_it_fails(opened);
            let (log, opened) = run.open().unwrap_or_else(|error| panic!("{fault:?} at {at}: {error}"));
            assert!(!log.is_poisoned(), "{fault:?} at {at}: {opened:?}");
            agrees(&log);
            let events: Vec<Event> =
                log.records().iter().enumerate().map(|(place, record)| Event::of(record, place).unwrap()).collect();
            let ours: Vec<&Event> =
                events.iter().filter(|event| !matches!(event, Event::Init(_) | Event::Restart(_))).collect();
            // All that was promised, in order, and at most the one that was under way.
            assert!(ours.len() <= promised.len() + 1, "{fault:?} at {at}: {ours:?}");
            assert!(ours.iter().zip(&promised).all(|(found, promise)| *found == promise), "{fault:?} at {at}");
            assert!(ours.len() >= promised.len(), "{fault:?} at {at}: {promised:?} were promised");
            // And the log goes on.
            log.record(exit(9)).unwrap();
            agrees(&log);
        }
    }
}

#[test]
fn a_process_killed_twice_is_still_resumed() {
    for first in FRESH..FRESH + 3 {
        for second in 0..6 {
            let run = Run::new();
            until_it_fails(faulty(&run, first, Fault::CrashAfter).1);
            until_it_fails(faulty(&run, second, Fault::CrashAfter).1);
            let (log, opened) = run.open().unwrap();
            assert!(!log.is_poisoned(), "{first} then {second}: {opened:?}");
            agrees(&log);
        }
    }
}

#[test]
fn a_process_killed_at_any_step_is_resumed_on_a_tpm() {
    for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::Short(30)] {
        for at in FRESH..FRESH + 3 {
            let swtpm = Swtpm::start(By::Unix);
            let dir = tempfile::tempdir().unwrap();
            let io = FaultyIo::new(DirIo::open_exclusive(dir.path()).unwrap(), at, fault);
            let opened = EventLog::open_with(Box::new(io), Arc::new(swtpm.attester()), &facts());
            let promised = until_it_fails(opened);
            let (log, opened) = EventLog::open(dir.path(), Arc::new(swtpm.attester()), &facts()).unwrap();
            assert_eq!(opened, Opened::Resumed, "{fault:?} at {at}");
            assert!(usize::try_from(log.count()).unwrap() >= promised.len() + 2);
            agrees(&log);
            assert_eq!(swtpm.pcrread(14), log.binding().unwrap().head);
        }
    }
}

/// A log of three records whose process was killed after the extend and within the append of a fourth.
fn torn(size: usize) -> Run {
    let run = Run::new();
    let (log, _) = run.open().unwrap();
    log.record(started(1)).unwrap();
    log.record(exit(1)).unwrap();
    drop(log);
    // Resuming records Restart: its append is cut.
    let (_, opened) = faulty(&run, 1, Fault::Short(size));
    assert!(opened.is_err());
    assert!(run.log_dir().join("wal").exists());
    run
}

#[test]
fn a_torn_tail_is_repaired_only_with_its_write_ahead_record() {
    for size in [1, 17, 100] {
        let repaired = torn(size);
        let (log, opened) = repaired.open().unwrap();
        assert_eq!(opened, Opened::Resumed);
        assert_eq!(operations(&log), ["Init", "Started", "Exit", "Restart", "Restart"]);
        agrees(&log);

        let without = torn(size);
        std::fs::remove_file(without.log_dir().join("wal")).unwrap();
        let (log, opened) = without.open().unwrap();
        assert!(matches!(opened, Opened::Poisoned(Poison::Malformed(_))), "{opened:?}");
        assert_eq!(operations(&log), ["Init", "Started", "Exit"]);
    }
}

#[test]
fn a_torn_tail_with_another_byte_is_not_repaired() {
    let run = torn(50);
    let mut bytes = std::fs::read(run.file()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(run.file(), bytes).unwrap();
    assert!(matches!(run.open().unwrap().1, Opened::Poisoned(Poison::Malformed(_))));
}

#[test]
fn a_torn_tail_beside_a_register_that_never_moved_poisons() {
    // Appending begins after the extend: this state cannot come from a crash.
    let run = torn(50);
    let log = std::fs::read(run.file()).unwrap();
    let records = {
        let mut rest = &log[event_log::header().len()..];
        let mut records = Vec::new();
        while let Ok((record, used)) = Record::parse(rest, 0) {
            records.push(record);
            rest = &rest[used..];
        }
        records
    };
    set_register(run.dir.path(), event_log::replay(HashAlg::Sha384.zero(), 4, &records).unwrap());
    assert!(matches!(run.open().unwrap().1, Opened::Poisoned(Poison::Replay { .. })));
}

#[test]
fn an_altered_write_ahead_record_is_never_believed() {
    let original = torn(0);
    let wal = std::fs::read(original.log_dir().join("wal")).unwrap();
    let log = std::fs::read(original.file()).unwrap();
    for place in 0..wal.len() {
        let mut other = wal.clone();
        other[place] ^= 0x10;
        std::fs::write(original.log_dir().join("wal"), other).unwrap();
        let (_, opened) = original.open().unwrap();
        // The register was extended, and nothing else tells with what.
        assert!(matches!(opened, Opened::Poisoned(_)), "byte {place}: {opened:?}");
        assert_eq!(std::fs::read(original.file()).unwrap(), log, "a poisoned log is not touched");
    }
    for end in 0..wal.len() {
        std::fs::write(original.log_dir().join("wal"), &wal[..end]).unwrap();
        assert!(matches!(original.open().unwrap().1, Opened::Poisoned(_)), "cut at {end}");
    }
    std::fs::write(original.log_dir().join("wal"), wal).unwrap();
    assert_eq!(original.open().unwrap().1, Opened::Resumed);
}

#[test]
fn a_write_ahead_record_cannot_be_planted() {
    // A process killed between write-ahead record and extend leaves one that is extended at the next start:
    // from another boot, or from another place of the same log, it is refused.
    let other = Run::new();
    until_it_fails(faulty(&other, FRESH, Fault::CrashAfter).1);
    for (records, what) in
        [(0, "it stands at another place"), (1, "it differs from the last record"), (2, "it stands at another place")]
    {
        let victim = Run::new();
        let (log, _) = victim.open().unwrap();
        (0..records).for_each(|seq| assert!(log.record(exit(seq)).is_ok()));
        drop(log);
        std::fs::copy(other.log_dir().join("wal"), victim.log_dir().join("wal")).unwrap();
        assert_eq!(victim.open().unwrap().1, Opened::Poisoned(Poison::Wal(what)), "{records}");
    }

    let alone = Run::new();
    std::fs::create_dir(alone.log_dir()).unwrap();
    std::fs::copy(other.log_dir().join("wal"), alone.log_dir().join("wal")).unwrap();
    assert!(matches!(alone.open().unwrap().1, Opened::Poisoned(Poison::Wal("there is no log"))));
}

#[test]
fn any_flipped_byte_of_the_log_poisons() {
    let run = Run::new();
    let (log, _) = run.open().unwrap();
    log.record(started(1)).unwrap();
    log.record(exit(1)).unwrap();
    drop(log);
    let good = std::fs::read(run.file()).unwrap();
    for place in 0..good.len() {
        for bit in [0, 3, 7] {
            let mut other = good.clone();
            other[place] ^= 1 << bit;
            std::fs::write(run.file(), &other).unwrap();
            let (log, opened) = run.open().unwrap();
            assert!(matches!(opened, Opened::Poisoned(_)), "byte {place} bit {bit}: {opened:?}");
            assert_eq!(log.record(started(2)).unwrap_err().code(), reason::LOG_POISONED);
        }
    }
    std::fs::write(run.file(), good).unwrap();
    assert_eq!(run.open().unwrap().1, Opened::Resumed);
}

#[test]
fn cut_lengthened_dropped_repeated_and_swapped_records_poison() {
    let run = Run::new();
    let (log, _) = run.open().unwrap();
    log.record(started(1)).unwrap();
    log.record(exit(1)).unwrap();
    let records = log.records();
    drop(log);
    let good = std::fs::read(run.file()).unwrap();
    let poisons = |bytes: &[u8], what: &str| {
        std::fs::write(run.file(), bytes).unwrap();
        let (_, opened) = run.open().unwrap();
        assert!(matches!(opened, Opened::Poisoned(_)), "{what}: {opened:?}");
    };
    for end in 0..good.len() {
        poisons(&good[..end], &format!("cut at {end}"));
    }
    poisons(&[good.as_slice(), &[0]].concat(), "a byte more");
    poisons(&[good.as_slice(), &event_log::END_MARK].concat(), "an end mark, which only exports have");
    let log_of = |order: &[usize]| {
        let mut bytes = event_log::header();
        order.iter().for_each(|place| bytes.extend_from_slice(records[*place].bytes()));
        bytes
    };
    assert_eq!(log_of(&[0, 1, 2]), good);
    for order in
        [&[0, 1][..], &[0, 2], &[1, 2], &[0, 2, 1], &[1, 0, 2], &[0, 1, 2, 2], &[0, 1, 1, 2], &[0, 0, 1, 2], &[]]
    {
        poisons(&log_of(order), &format!("{order:?}"));
    }
    std::fs::write(run.file(), good).unwrap();
    assert_eq!(run.open().unwrap().1, Opened::Resumed);
}

/// A log of `count` records beside a register that agrees with it.
fn long_log(run: &Run, count: usize) {
    drop(run.open().unwrap());
    let mut bytes = std::fs::read(run.file()).unwrap();
    let info = run.attester().register();
    let mut value = run.attester().read_register().unwrap();
    let record: Record = exit(1).record(info.mr, info.alg).unwrap();
    for _ in 1..count {
        bytes.extend_from_slice(record.bytes());
        value = value.extend(&record.digest()).unwrap();
    }
    std::fs::write(run.file(), bytes).unwrap();
    set_register(run.dir.path(), value);
}

fn set_register(state: &Path, value: RegisterValue) {
    std::fs::write(state.join("simulated-snp/register"), value.as_bytes()).unwrap();
}

#[test]
fn a_full_log_takes_no_record() {
    let run = Run::new();
    long_log(&run, MAX_RECORDS - 1);
    let (log, opened) = run.open().unwrap();
    assert_eq!((opened, log.count()), (Opened::Resumed, 65_536));
    let register = log.attester().read_register().unwrap();
    assert_eq!(log.record(exit(2)).unwrap_err().code(), reason::LOG_FULL);
    assert_eq!(log.attester().read_register().unwrap(), register);
    assert_eq!(event_log::parse(&log.export()).unwrap().len(), 65_536);
    drop(log);
    assert_eq!(run.open().unwrap_err().code(), reason::LOG_FULL);
}

#[test]
fn evidence_and_binding_describe_one_log_while_others_record() {
    let swtpm = Swtpm::start(By::Unix);
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = EventLog::open(dir.path(), Arc::new(swtpm.attester()), &facts()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let log = &log;
            scope.spawn(move || {
                for seq in 0..20 {
                    log.record(exit(thread * 100 + seq)).unwrap();
                }
            });
        }
        for _ in 0..10 {
            let mut shown = None;
            let (evidence, binding) = log
                .attest(|binding| {
                    shown = Some(binding.clone());
                    Sha384Digest::of(binding.head.as_bytes())
                })
                .unwrap();
            assert_eq!(shown.as_ref(), Some(&binding));
            let evidence: TpmEvidence = serde_json::from_value(evidence).unwrap();
            assert_eq!(format!("sha256:{}", evidence.tpm_quote.pcrs[14]), binding.head.to_string());
            let attest = Attest::parse(&evidence.tpm_quote.message).unwrap();
            assert_eq!(attest.extra_data, Sha384Digest::of(binding.head.as_bytes()).as_bytes()[..32]);
        }
    });
    assert_eq!(log.count(), 61);
    let places: Vec<u64> = (0..61).collect();
    assert_eq!(log.records_from(0).len(), places.len());
    agrees(&log);
    assert_eq!(swtpm.pcrread(14), log.binding().unwrap().head);
}

#[test]
fn a_software_registers_head_travels_in_report_data() {
    let run = Run::new();
    let (log, _) = run.open().unwrap();
    let (evidence, binding) = log.attest(|binding| Sha384Digest::of(binding.head.as_bytes())).unwrap();
    let evidence: SnpEvidence = serde_json::from_value(evidence).unwrap();
    let report = Report::from_json(&evidence.attestation_report).unwrap();
    let fields = report.fields();
    assert_eq!(fields.report_data[..48], *Sha384Digest::of(binding.head.as_bytes()).as_bytes());
    assert_eq!(fields.report_data[48..], [0; 16]);
    assert_eq!(fields.report_id, *binding.guest.as_bytes());
}
