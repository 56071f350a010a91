//! An exported log that was altered in any way is refused by `tclctl log verify`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::path::PathBuf;

use integration_tests::World;
use integration_tests::command::{Seen, run, tclctl};
use protocols::event_log::{END_MARK, Record, export, header, parse};

/// A guest's log after two launches, its register, and where to put altered copies.
struct Exported {
    world: World,
    log: Vec<u8>,
    register: String,
    file: PathBuf,
}

impl Exported {
    fn new() -> Self {
        let world = World::new();
        let image = world.signed("true", "app");
        for mode in ["local", "remote"] {
            let _ = world.accepts(&image, &["--mode", mode]);
        }
        let file = world.path("exported.log");
        let _ = run(world.tclctl(&["log", "export", &file.display().to_string()])).ok();
        let register = format!("sha256:{}", world.tpm.as_ref().unwrap().pcr(14));
        Self { log: std::fs::read(&file).unwrap(), file, register, world }
    }

    fn records(&self) -> Vec<Record> {
        parse(&self.log).unwrap()
    }

    fn verify(&self, log: &[u8]) -> Seen {
        std::fs::write(&self.file, log).unwrap();
        run(tclctl(&["log", "verify", "--file", &self.file.display().to_string(), "--register", &self.register]))
    }

    #[track_caller]
    fn refused(&self, log: &[u8], what: &str) {
        let seen = self.verify(log);
        let line = seen.stderr.lines().last().unwrap_or_default();
        assert!(line.starts_with("NOT verified: log."), "{what}: {seen:#?}");
        assert_eq!((seen.status, seen.stdout.as_str()), (77, ""), "{what}");
    }
}

#[test]
fn dropped_repeated_swapped_and_cut_records_are_refused() {
    let exported = Exported::new();
    let _ = exported.verify(&exported.log).ok();
    let records = exported.records();
    assert!(records.len() > 12, "{}", records.len());
    for place in 0..records.len() {
        let mut dropped = records.clone();
        dropped.remove(place);
        exported.refused(&export(&dropped), &format!("record {place} dropped"));
        let mut repeated = records.clone();
        repeated.insert(place, records[place].clone());
        exported.refused(&export(&repeated), &format!("record {place} repeated"));
        if place > 0 {
            let mut swapped = records.clone();
            swapped.swap(place - 1, place);
            exported.refused(&export(&swapped), &format!("records {} and {place} swapped", place - 1));
        }
        exported.refused(&export(&records[..place]), &format!("cut before record {place}"));
    }
    exported.refused(&[exported.log.as_slice(), b"x"].concat(), "a byte after the end mark");
    exported.refused(b"", "nothing");
}

#[test]
fn every_flipped_byte_is_refused() {
    // The command itself for one byte of every record, its parts for every byte of the whole log: 2,000
    // processes would tell nothing more.
    let exported = Exported::new();
    let records = exported.records();
    let mut place = header().len();
    for (number, record) in records.iter().enumerate() {
        let middle = place + record.bytes().len() / 2 + number % 7;
        let mut flipped = exported.log.clone();
        flipped[middle] ^= 1 << (number % 8);
        exported.refused(&flipped, &format!("byte {middle} in record {number}"));
        place += record.bytes().len();
    }
    assert_eq!(place + END_MARK.len(), exported.log.len());

    let register = exported.register.as_str();
    let accepted = |log: &[u8]| {
        let Ok(records) = parse(log) else { return false };
        let Ok(state) = verifier::check_log(&records) else { return false };
        state.head().to_string() == register
    };
    assert!(accepted(&exported.log));
    for place in 0..exported.log.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut flipped = exported.log.clone();
            flipped[place] ^= bit;
            assert!(!accepted(&flipped), "byte {place} flipped by {bit:#x} is accepted");
        }
    }
}

#[test]
fn a_log_made_to_fit_another_register_is_refused_by_the_tpm() {
    let exported = Exported::new();
    // Someone rewrites the end of the history and computes the replay anew; the TPM cannot be rewound.
    let records = exported.records();
    let forged = export(&records[..records.len() - 1]);
    std::fs::write(&exported.file, forged).unwrap();
    let device = exported.world.tpm.as_ref().unwrap().device();
    let seen = run(tclctl(&["log", "verify", "--file", &exported.file.display().to_string(), "--pcr-device", &device]));
    seen.refused(77, "log.replay");
}

#[test]
fn another_extend_of_the_register_is_noticed() {
    let exported = Exported::new();
    exported.world.tpm.as_ref().unwrap().extend(14, &"11".repeat(32));
    exported.world.verify_log().refused(77, "log.replay");
}
