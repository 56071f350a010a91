//! The event log's bytes: against an independent implementation's records, and against every alteration.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use proptest::prelude::*;
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::environment::Environment;
use protocols::event_log::{self, END_MARK, LogError, MAX_TEXT, Record};
use protocols::events::{Event, Failed, Init, Seal, Started, hash_list};
use protocols::reason;
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use serde_json::json;

fn init() -> Event {
    Init {
        v: 1,
        boot_nonce: [7; 32],
        register_kind: RegisterKind::TpmListed,
        reg0: HashAlg::Sha256.zero(),
        agent: "0.1.0".to_owned(),
        agent_h: Sha256Digest::of(b"agent"),
        initdata: None,
        config: Sha256Digest::of(b"config"),
        environment: Environment::Development,
        simulated: true,
    }
    .into()
}

fn sample() -> Vec<Record> {
    [
        init(),
        Started { seq: 1 }.into(),
        Failed { seq: 2, code: reason::GOLDEN_MISSING }.into(),
        Seal { n: 3, reason: "shutdown".into() }.into(),
    ]
    .iter()
    .map(|event| event.record(14, HashAlg::Sha256).unwrap())
    .collect()
}

#[test]
fn digest_covers_the_same_bytes_as_in_a_real_guests_log() {
    let real = include_bytes!("../../tests/data/vectors/eventlog/aael-two-records.bin");
    // The first record's text has no JSON, so we refuse it; its digest is checked before and must have held.
    assert_eq!(Record::parse(real, 0).unwrap_err(), LogError::Malformed { record: 0, what: "the content is not JSON" });
    let second = &real[4 + 4 + 4 + 2 + 48 + 4 + 8 + 36..];
    assert_eq!(
        Record::parse(second, 1).unwrap_err(),
        LogError::Malformed { record: 1, what: "the content is not canonical JSON" }
    );
    let mut altered = second.to_vec();
    *altered.last_mut().unwrap() ^= 1;
    assert_eq!(Record::parse(&altered, 1).unwrap_err(), LogError::Digest { record: 1 });

    // Written by us with the same words, the event part is byte-identical up to canonical form.
    let ours = Record::encode(4, HashAlg::Sha384, "coco.com", "some-operation", &json!({"key": "value"})).unwrap();
    assert_eq!(ours.bytes()[..14], second[..14]);
}

#[test]
fn a_record_has_exactly_the_documented_bytes() {
    let record = Record::encode(14, HashAlg::Sha256, "d", "op", &json!({"b": 1, "a": "x"})).unwrap();
    let mut event = Vec::new();
    event.extend_from_slice(b"LEAA");
    let text = br#"d op {"a":"x","b":1}"#;
    event.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
    event.extend_from_slice(text);
    let mut expected = vec![14, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0x0B, 0];
    expected.extend_from_slice(Sha256Digest::of(&event).as_bytes());
    expected.extend_from_slice(&u32::try_from(event.len()).unwrap().to_le_bytes());
    expected.extend_from_slice(&event);
    assert_eq!(record.bytes(), expected);
}

#[test]
fn the_header_declares_both_algorithms() {
    let header = event_log::header();
    assert_eq!(header.len(), 4 + 4 + 20 + 4 + 24 + 4 + 8 + 1);
    assert_eq!(&header[28..32], &37u32.to_le_bytes());
    assert_eq!(&header[56..], &[2, 0, 0, 0, 0x0B, 0, 32, 0, 0x0C, 0, 48, 0, 0]);
}

#[test]
fn export_parses_back_to_the_same_records_and_typed_events() {
    let records = sample();
    let parsed = event_log::parse(&event_log::export(&records)).unwrap();
    assert_eq!(parsed, records);
    assert_eq!(Event::of(&parsed[0], 0).unwrap(), init());
    assert_eq!(Event::of(&parsed[2], 2).unwrap(), Failed { seq: 2, code: reason::GOLDEN_MISSING }.into());
}

#[test]
fn replay_is_the_extend_rule_from_the_given_start() {
    let records = sample();
    let mut expected = [0u8; 32];
    for record in &records {
        expected = *Sha256Digest::of_parts(&[&expected, record.digest().as_bytes()]).as_bytes();
    }
    let replayed = event_log::replay(HashAlg::Sha256.zero(), 14, &records).unwrap();
    assert_eq!(replayed, RegisterValue::Sha256(Sha256Digest::new(expected)));
    assert_eq!(event_log::replay(HashAlg::Sha256.zero(), 13, &records), None, "another register's records");
    assert_eq!(event_log::replay(HashAlg::Sha384.zero(), 14, &records), None, "another algorithm's register");
}

#[test]
fn text_outside_the_format_is_refused_when_written() {
    let refused = |domain: &str, operation: &str, content| {
        Record::encode(4, HashAlg::Sha384, domain, operation, &content).unwrap_err()
    };
    refused("", "op", json!({}));
    refused("two words", "op", json!({}));
    refused("d", "", json!({}));
    refused("d", "op", json!({"a": 1.5}));
    refused("d", "op", json!({"a": 1u64 << 53}));
    refused("d", "op", json!({"a": "\u{e9}"}));
    refused("d", "op", json!({"a": "x".repeat(MAX_TEXT)}));
}

#[test]
fn unknown_events_and_unknown_fields_are_refused() {
    let unknown = Record::encode(14, HashAlg::Sha256, protocols::events::DOMAIN, "Invented", &json!({})).unwrap();
    assert!(Event::of(&unknown, 0).is_err());
    let foreign = Record::encode(14, HashAlg::Sha256, "elsewhere", "Started", &json!({"seq": 1})).unwrap();
    assert!(Event::of(&foreign, 0).is_err());
    let extra =
        Record::encode(14, HashAlg::Sha256, protocols::events::DOMAIN, "Started", &json!({"seq": 1, "x": 1})).unwrap();
    assert!(Event::of(&extra, 0).is_err());
}

#[test]
fn bytes_after_the_end_mark_are_refused() {
    let mut bytes = event_log::export(&sample());
    bytes.extend_from_slice(&END_MARK);
    assert!(event_log::parse(&bytes).is_err());
    bytes.truncate(bytes.len() - 12);
    assert!(event_log::parse(&bytes).is_err(), "half an end mark");
}

#[test]
fn lists_that_join_to_the_same_text_hash_differently() {
    assert_ne!(hash_list(&["ab", "c"]), hash_list(&["a", "bc"]));
    assert_ne!(hash_list(&["a", ""]), hash_list(&["a"]));
    assert_eq!(hash_list::<&str>(&[]), Sha384Digest::of(b""));
}

proptest! {
    #[test]
    fn any_flipped_bit_is_refused_or_changes_the_register(place in 0usize..2000, bit in 0u8..8) {
        let records = sample();
        let mut bytes = event_log::export(&records);
        bytes.truncate(bytes.len() - END_MARK.len());
        let place = place % bytes.len();
        bytes[place] ^= 1 << bit;
        if let Ok(parsed) = event_log::parse(&bytes) {
            let before = event_log::replay(HashAlg::Sha256.zero(), 14, &records);
            let after = event_log::replay(HashAlg::Sha256.zero(), 14, &parsed);
            // Only a record's register number can change and still parse; replay then has no value.
            prop_assert_ne!(before, after);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = event_log::parse(&bytes);
        let mut with_header = event_log::header();
        with_header.extend_from_slice(&bytes);
        let _ = event_log::parse(&with_header);
        let _ = Record::parse(&bytes, 0);
    }

    #[test]
    fn every_string_content_round_trips(text in "[ -~]{0,200}", number in 0u64..(1 << 53)) {
        let record = Record::encode(4, HashAlg::Sha384, "d", "op", &json!({"text": text, "n": number})).unwrap();
        let (parsed, used) = Record::parse(record.bytes(), 0).unwrap();
        prop_assert_eq!(used, record.bytes().len());
        prop_assert_eq!(parsed, record);
    }
}
