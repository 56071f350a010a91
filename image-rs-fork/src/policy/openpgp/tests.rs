//! Bytes that GnuPG and skopeo wrote, and what a changed byte of them means.

mod made;

use proptest::prelude::*;
use protocols::time::Timestamp;

use super::super::Rejection;
use super::super::payload::{OPENPGP, Payload};
use super::{Certificate, Message};

const KEY: &[u8] = include_bytes!("../../../../tests/data/vectors/openpgp/key.gpg");
const COMPRESSED: &[u8] = include_bytes!("../../../../tests/data/vectors/openpgp/skopeo-signature");
const PLAIN: &[u8] = include_bytes!("../../../../tests/data/vectors/openpgp/uncompressed-signature");

fn now() -> Timestamp {
    Timestamp::parse("2027-01-01T00:00:00Z").unwrap()
}

fn key() -> Certificate {
    let mut keys = Certificate::parse_all(KEY).unwrap();
    assert_eq!(keys.len(), 1);
    keys.remove(0)
}

fn open(bytes: &[u8]) -> Result<Vec<u8>, Rejection> {
    let message = Message::parse(bytes).map_err(Rejection::Unreadable)?;
    key().open(&message, now()).map(<[u8]>::to_vec)
}

#[test]
fn what_gnupg_and_skopeo_wrote_says_what_they_signed() {
    assert_eq!(key().fingerprint(), "0e3b2c21d584cc34eec416d5c4838d5fc7bdb8ee");
    let text = open(PLAIN).unwrap();
    assert_eq!(open(COMPRESSED).unwrap(), text);
    let payload = Payload::parse(&text, OPENPGP).unwrap();
    assert!(payload.reference.ends_with("/team/app:v1"), "{payload:?}");
}

#[test]
fn before_the_key_was_made_nothing_was_signed() {
    let message = Message::parse(PLAIN).unwrap();
    let early = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
    assert!(matches!(key().open(&message, early), Err(Rejection::Expired(_))));
}

#[test]
fn a_changed_byte_is_refused_or_changes_nothing_that_was_signed() {
    let text = open(PLAIN).unwrap();
    let start = PLAIN.windows(text.len()).position(|it| it == text).unwrap();
    let mut without_meaning = Vec::new();
    for at in 0..PLAIN.len() {
        let mut changed = PLAIN.to_vec();
        changed[at] ^= 1;
        if let Ok(read) = open(&changed) {
            assert_eq!(read, text, "byte {at}");
            without_meaning.push(at);
        }
    }
    // Not signed: the announcement before the text, the text's form and time, the hint at the key behind it, and how
    // many leading zeros the numbers have.
    let signed = start..start + text.len();
    assert!(without_meaning.iter().all(|at| !signed.contains(at)), "{without_meaning:?}");
    assert!(without_meaning.len() < 40, "{without_meaning:?}");
    for at in 0..COMPRESSED.len() {
        let mut changed = COMPRESSED.to_vec();
        changed[at] ^= 1;
        if let Ok(read) = open(&changed) {
            assert_eq!(read, text, "byte {at}");
        }
    }
}

#[test]
fn a_changed_key_is_refused_or_the_same_key() {
    let message = Message::parse(PLAIN).unwrap();
    for at in 0..KEY.len() {
        let mut changed = KEY.to_vec();
        changed[at] ^= 1;
        for found in Certificate::parse_all(&changed).into_iter().flatten() {
            if found.open(&message, now()).is_ok() {
                assert_eq!(found.fingerprint(), key().fingerprint(), "byte {at}");
            }
        }
    }
    // A cut file is no key without its restrictions.
    for length in 0..KEY.len() {
        assert!(Certificate::parse_all(&KEY[..length]).is_err(), "{length} bytes");
    }
    assert!(Certificate::parse_all(PLAIN).is_err());
}

proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..400, cut in 0usize..400) {
        let _ = Message::parse(&bytes);
        let _ = Certificate::parse_all(&bytes);
        for whole in [KEY, PLAIN] {
            let mut mixed = whole.get(..at.min(whole.len())).unwrap_or_default().to_vec();
            mixed.extend_from_slice(&bytes);
            mixed.extend_from_slice(whole.get(cut.min(whole.len())..).unwrap_or_default());
            let _ = Certificate::parse_all(&mixed);
            if let Ok(text) = open(&mixed) {
                prop_assert!(text == open(PLAIN).unwrap());
            }
        }
    }
}
