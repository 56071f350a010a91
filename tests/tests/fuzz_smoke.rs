//! Every function that reads hostile bytes, on fixed-seed mutations of well-formed inputs and on the stored
//! corpora: no panic, and an answer within a second. `tests/fuzz` runs the same functions without an end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::path::Path;
use std::time::{Duration, Instant};

use integration_tests::entry::{ALL, Entry};

/// Mutations for one entry function.
const ROUNDS: u32 = 4_000;

/// xorshift64: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(below.max(1)).unwrap()).unwrap()
    }
}

/// One to four of the usual edits: flips, special bytes, cuts, repeats, numbers, another seed's tail.
fn mutate(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seeds[dice.roll(seeds.len())].clone();
    for _ in 0..=dice.roll(4) {
        let place = dice.roll(bytes.len());
        match dice.roll(8) {
            0 if !bytes.is_empty() => bytes[place] ^= 1 << dice.roll(8),
            1 if !bytes.is_empty() => bytes[place] = [0, 0xFF, 0x7F, 0x80, b'0', b'"', b'/', b'\n'][dice.roll(8)],
            2 => bytes.truncate(place),
            3 => {
                let length = dice.roll(bytes.len() - place + 1).min(64);
                let part = bytes[place..place + length].to_vec();
                bytes.splice(place..place, part);
            }
            4 => {
                let length = dice.roll(bytes.len() - place + 1).min(64);
                bytes.drain(place..place + length);
            }
            5 if bytes.len() >= place + 4 => {
                let number = [0u32, 1, u32::MAX, 0x7FFF_FFFF, 0xFFFF][dice.roll(5)];
                bytes[place..place + 4].copy_from_slice(&number.to_le_bytes());
            }
            6 => bytes.insert(place, u8::try_from(dice.roll(256)).unwrap()),
            _ => {
                let other = &seeds[dice.roll(seeds.len())];
                let from = dice.roll(other.len());
                bytes.truncate(place);
                bytes.extend_from_slice(&other[from..]);
            }
        }
        bytes.truncate(256 * 1024);
    }
    bytes
}

fn smoke(name: &str) {
    let entry: &Entry = ALL.iter().find(|entry| entry.name == name).unwrap();
    let mut seeds = (entry.seeds)();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    for file in std::fs::read_dir(&corpus).into_iter().flatten() {
        seeds.push(std::fs::read(file.unwrap().path()).unwrap());
    }
    for seed in &seeds {
        (entry.read)(seed);
    }
    let mut dice = Dice(0x5EED_0000_0000_0001);
    for round in 0..ROUNDS {
        let bytes = mutate(&seeds, &mut dice);
        let started = Instant::now();
        let read = std::panic::catch_unwind(|| (entry.read)(&bytes));
        assert!(read.is_ok(), "{name}, round {round}: panic on {}", hex::encode(&bytes));
        assert!(started.elapsed() < Duration::from_secs(1), "{name}, round {round}: slow on {}", hex::encode(&bytes));
    }
}

macro_rules! smoke {
    ($($name:ident)*) => { $(#[test] fn $name() { smoke(stringify!($name)); })* };
}

smoke! { event_log golden reference manifest auth_file registries_conf credential_helper layer attest snp_report azure metadata_service endorsement service_answer enrolment tdx_quote tcg_log aael corim ear jws tar gzip zstd erofs encryption signature_policy signature openpgp registries_d uevent mount_options interface_table kata_wire kata_address create_container copy_file cgroup_files policy kbs_auth kbs_attest kbs_cookie }

#[test]
fn every_entry_function_has_a_smoke_test_and_a_fuzz_target() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut named: Vec<String> = std::fs::read_dir(targets)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    named.sort_unstable();
    let mut entries: Vec<&str> = ALL.iter().map(|entry| entry.name).collect();
    entries.sort_unstable();
    assert_eq!(named, entries);
    let source = include_str!("fuzz_smoke.rs");
    let listed = source.lines().find_map(|line| line.strip_prefix("smoke! { ")).unwrap().trim_end_matches(" }");
    let mut listed: Vec<&str> = listed.split(' ').collect();
    listed.sort_unstable();
    assert_eq!(listed, entries);
}
