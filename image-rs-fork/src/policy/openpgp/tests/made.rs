//! Keys and messages that no tool would write, made byte by byte and properly signed.

use ed25519_dalek::{Signer as _, SigningKey};
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use protocols::time::Timestamp;
use sha1::{Digest as _, Sha1};
use sha2::{Sha256, Sha512};

use super::super::super::Rejection;
use super::super::{Certificate, Message};

const NOW: u32 = 1_800_000_000;
const BORN: u32 = 1_700_000_000;
const TEXT: &[u8] = b"what was signed";
const ED25519: &[u8] = &[22, 9, 0x2b, 6, 1, 4, 1, 0xda, 0x47, 0x0f, 1];
const P256: &[u8] = &[19, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[0xc0 | kind, 255], u32::try_from(body.len()).unwrap().to_be_bytes().as_slice(), body].concat()
}

fn mpi(number: &[u8]) -> Vec<u8> {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let number = &number[start..];
    let zeros = number.first().map_or(0, |first| first.leading_zeros());
    let bits = u16::try_from(number.len() * 8).unwrap() - u16::try_from(zeros).unwrap();
    [bits.to_be_bytes().as_slice(), number].concat()
}

/// A length of the newer form, in as few bytes as it takes.
fn length(count: usize) -> Vec<u8> {
    if let Ok(short @ 0..=191) = u8::try_from(count) {
        return vec![short];
    }
    let [high, low] = u16::try_from(count - 192).unwrap().to_be_bytes();
    vec![high + 192, low]
}

fn subpacket(kind: u8, value: &[u8]) -> Vec<u8> {
    [length(value.len() + 1).as_slice(), &[kind], value].concat()
}

fn created(at: u32) -> Vec<u8> {
    subpacket(2, &at.to_be_bytes())
}

fn ends(kind: u8, seconds: u32) -> Vec<u8> {
    subpacket(kind, &seconds.to_be_bytes())
}

fn flags(flags: u8) -> Vec<u8> {
    subpacket(27, &[flags])
}

/// One key of ours.
struct Key {
    secret: SigningKey,
    body: Vec<u8>,
}

impl Key {
    fn new(seed: u8) -> Self {
        let secret = SigningKey::from_bytes(&[seed; 32]);
        let point = [&[0x40], secret.verifying_key().as_bytes().as_slice()].concat();
        let body = [&[4], BORN.to_be_bytes().as_slice(), ED25519, &mpi(&point)].concat();
        Self { secret, body }
    }

    /// As signatures hash it.
    fn hashed(&self) -> Vec<u8> {
        [&[0x99], u16::try_from(self.body.len()).unwrap().to_be_bytes().as_slice(), &self.body].concat()
    }

    fn id(&self) -> Vec<u8> {
        Sha1::digest(self.hashed())[12..].to_vec()
    }
}

/// A signature in the making: SHA-512, binary, of the day the keys were made.
struct Making {
    kind: u8,
    hash: u8,
    signed: Vec<u8>,
    unsigned: Vec<u8>,
}

fn making(kind: u8, signed: &[Vec<u8>]) -> Making {
    Making { kind, hash: 10, signed: signed.concat(), unsigned: Vec::new() }
}

impl Making {
    fn unsigned(self, subpackets: &[Vec<u8>]) -> Self {
        Self { unsigned: subpackets.concat(), ..self }
    }

    fn hash(self, hash: u8) -> Self {
        Self { hash, ..self }
    }

    /// Everything before the numbers, and the digest.
    fn digest(&self, algorithm: u8, parts: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        let short = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap().to_be_bytes();
        let head = [&[4, self.kind, algorithm, self.hash], short(&self.signed).as_slice(), &self.signed].concat();
        let trailer = [&[4, 0xff], u32::try_from(head.len()).unwrap().to_be_bytes().as_slice()].concat();
        let all = [parts.concat(), head.clone(), trailer].concat();
        let digest = match self.hash {
            2 => Sha1::digest(all).to_vec(),
            8 => Sha256::digest(all).to_vec(),
            _ => Sha512::digest(all).to_vec(),
        };
        ([head.as_slice(), &short(&self.unsigned), &self.unsigned, &digest[..2]].concat(), digest)
    }

    fn body(&self, key: &Key, parts: &[&[u8]]) -> Vec<u8> {
        let (head, digest) = self.digest(22, parts);
        let made = key.secret.sign(&digest).to_bytes();
        [head, mpi(&made[..32]), mpi(&made[32..])].concat()
    }

    fn by(&self, key: &Key, parts: &[&[u8]]) -> Vec<u8> {
        packet(2, &self.body(key, parts))
    }
}

fn name() -> Vec<u8> {
    packet(13, b"owner")
}

/// The owner's word on the name `owner`.
fn certified(key: &Key, making: &Making) -> Vec<u8> {
    making.by(key, &[&key.hashed(), &[0xb4, 0, 0, 0, 5], b"owner"])
}

fn usual(at: u32) -> Making {
    making(0x13, &[created(at), flags(3)])
}

/// A key file of a primary key with one name, and what stands behind it.
fn file(key: &Key, words: &[Making], behind: &[Vec<u8>]) -> Vec<u8> {
    let words: Vec<u8> = words.iter().flat_map(|word| certified(key, word)).collect();
    [packet(6, &key.body), name(), words, behind.concat()].concat()
}

fn literal(text: &[u8]) -> Vec<u8> {
    [b"b\0\0\0\0\0".as_slice(), text].concat()
}

fn one_pass() -> Vec<u8> {
    packet(4, &[3, 0, 10, 22, 0, 0, 0, 0, 0, 0, 0, 0, 1])
}

fn message(signature: &[u8]) -> Vec<u8> {
    [one_pass(), packet(11, &literal(TEXT)), signature.to_vec()].concat()
}

fn signed(key: &Key) -> Vec<u8> {
    making(0, &[created(NOW - 10)]).by(key, &[TEXT])
}

fn judge(file: &[u8], message: &[u8]) -> Result<(), Rejection> {
    judge_at(file, message, u64::from(NOW))
}

fn judge_at(file: &[u8], message: &[u8], now: u64) -> Result<(), Rejection> {
    let keys = Certificate::parse_all(file).unwrap();
    let message = Message::parse(message).map_err(Rejection::Unreadable)?;
    assert_eq!(keys[0].open(&message, Timestamp(now))?, TEXT);
    Ok(())
}

/// What a key file and a usual message by it come to.
fn judge_words(words: &[Making]) -> Result<(), Rejection> {
    let key = Key::new(1);
    judge(&file(&key, words, &[]), &message(&signed(&key)))
}

fn is_unreadable(result: Result<(), Rejection>) -> bool {
    matches!(result, Err(Rejection::Unreadable(_)))
}

fn is_expired(result: Result<(), Rejection>) -> bool {
    matches!(result, Err(Rejection::Expired(_)))
}

#[test]
fn every_length_form_holds_one_text_and_none_hides_another() {
    let key = Key::new(1);
    let file = file(&key, &[usual(BORN)], &[]);
    let body = literal(TEXT);
    let short = u8::try_from(body.len()).unwrap();
    let whole = |literal: &[u8]| [one_pass(), literal.to_vec(), signed(&key)].concat();
    for head in [vec![0xcb, short], vec![0xac, short], vec![0xad, 0, short], vec![0xae, 0, 0, 0, short]] {
        judge(&file, &whole(&[head.as_slice(), &body].concat())).unwrap_or_else(|e| panic!("{head:?}: {e}"));
    }
    // In pieces, the first of 512 bytes.
    let long = [literal(b""), vec![b'x'; 600]].concat();
    let of_long = |literal: Vec<u8>| {
        let signature = making(0, &[created(NOW)]).by(&key, &[&[b'x'; 600]]);
        let message = Message::parse(&[one_pass(), literal, signature].concat())?;
        let keys = Certificate::parse_all(&file).unwrap();
        let text = keys[0].open(&message, Timestamp(u64::from(NOW))).map_err(|e| e.to_string())?;
        Ok::<usize, String>(text.len())
    };
    let in_pieces = |kind: u8, first: u8, size: usize, body: &[u8]| {
        [&[0xc0 | kind, first], &body[..size], &length(body.len() - size), &body[size..]].concat()
    };
    let pieces = |first: u8, size: usize| in_pieces(11, first, size, &long);
    assert_eq!(of_long(pieces(0xe0 | 9, 512)), Ok(600));
    for (what, literal) in [
        ("a_first_piece_of_256_bytes", pieces(0xe0 | 8, 256)),
        ("no_last_piece", [&[0xcb, 0xe9], &long[..512]].concat()),
        ("a_piece_longer_than_the_message", [&[0xcb, 0xfe], long.as_slice()].concat()),
        ("a_length_longer_than_the_message", [&[0xcb, 255, 255, 255, 255, 255], long.as_slice()].concat()),
        ("a_text_to_the_end", [&[0xaf], long.as_slice()].concat()),
    ] {
        assert!(of_long(literal).is_err(), "{what}");
    }
    // Only what holds data may come in pieces or without a length.
    let made = making(0, &[created(NOW), subpacket(100, &[0; 600])]).body(&key, &[TEXT]);
    judge(&file, &message(&packet(2, &made))).unwrap();
    for signature in [in_pieces(2, 0xe9, 512, &made), [&[0x8b], made.as_slice()].concat()] {
        assert!(is_unreadable(judge(&file, &message(&signature))));
    }
}

#[test]
fn only_one_text_with_one_signature_in_one_compression_is_a_message() {
    use std::io::Write as _;
    let key = Key::new(1);
    let file = file(&key, &[usual(BORN)], &[]);
    let deflate = |bytes: &[u8]| {
        let mut encoder = flate2::write::DeflateEncoder::new(vec![1], flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let good = message(&signed(&key));
    let text = packet(11, &literal(TEXT));
    judge(&file, &good).unwrap();
    judge(&file, &packet(8, &deflate(&good))).unwrap();
    judge(&file, &[&[0xa3], deflate(&good).as_slice()].concat()).unwrap();
    judge(&file, &[signed(&key), text.clone()].concat()).unwrap();
    for (what, bytes) in [
        ("compression_in_compression", packet(8, &deflate(&packet(8, &deflate(&good))))),
        ("something_behind_the_compressed_message", packet(8, &[deflate(&good), b"more".to_vec()].concat())),
        ("compression_and_a_message", [packet(8, &deflate(&good)), good.clone()].concat()),
        ("uncompressed_in_a_compressed_packet", packet(8, &[&[0], good.as_slice()].concat())),
        ("an_unknown_compression", packet(8, &[&[3], good.as_slice()].concat())),
        ("a_bomb", packet(8, &deflate(&vec![0; 64 << 20]))),
        (
            "a_text_above_the_limit",
            packet(8, &deflate(&[one_pass(), packet(11, &vec![0; 70 << 10]), signed(&key)].concat())),
        ),
        ("a_detached_signature", signed(&key)),
        ("a_text_alone", text.clone()),
        ("two_texts", [one_pass(), text.clone(), text.clone(), signed(&key)].concat()),
        ("two_signatures", [one_pass(), text.clone(), signed(&key), signed(&key)].concat()),
        ("two_announcements", [one_pass(), one_pass(), text.clone(), signed(&key)].concat()),
        ("a_message_in_a_text", [one_pass(), packet(11, &good), signed(&key)].concat()),
        ("a_marker", [packet(10, b"PGP"), good.clone()].concat()),
        ("an_encrypted_packet", packet(18, &good)),
        ("a_key_in_front", [packet(6, &key.body), text.clone(), signed(&key)].concat()),
        ("noise_behind", [good.as_slice(), &[0]].concat()),
        ("a_clear_signature", b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nwhat was signed\n".to_vec()),
    ] {
        assert!(judge(&file, &bytes).is_err(), "{what}");
    }
}

#[test]
fn a_critical_notation_or_unknown_critical_subpacket_is_refused() {
    let key = Key::new(1);
    let usual_file = file(&key, &[usual(BORN)], &[]);
    for unknown in [20, 12, 31, 4, 7, 5, 6, 38, 100, 127] {
        let says = |critical: u8| making(0, &[created(NOW), subpacket(unknown | critical, b"value")]).by(&key, &[TEXT]);
        judge(&usual_file, &message(&says(0))).unwrap();
        assert!(is_unreadable(judge(&usual_file, &message(&says(0x80)))), "{unknown}");
        // About the key: the older word does not stand in for the newer one.
        let newer = making(0x13, &[created(BORN + 9), flags(3), subpacket(unknown | 0x80, b"value")]);
        assert!(is_unreadable(judge_words(&[usual(BORN), newer])), "{unknown}");
    }
    // What is known may be critical.
    let known = [subpacket(0x82, &NOW.to_be_bytes()), subpacket(0x80 | 16, &key.id())];
    judge(&usual_file, &message(&making(0, &known).by(&key, &[TEXT]))).unwrap();
}

#[test]
fn only_what_was_signed_in_a_signature_counts() {
    let key = Key::new(1);
    let usual_file = file(&key, &[usual(BORN)], &[]);
    let untimed = making(0, &[]).unsigned(&[created(NOW)]).by(&key, &[TEXT]);
    assert!(is_unreadable(judge(&usual_file, &message(&untimed))));
    let ended = making(0, &[created(NOW - 10), ends(3, 5)]).unsigned(&[ends(3, 100)]).by(&key, &[TEXT]);
    assert!(is_expired(judge(&usual_file, &message(&ended))));
    let flagless = making(0x13, &[created(BORN)]).unsigned(&[flags(3)]);
    assert_eq!(judge_words(&[flagless]), Err(Rejection::KeyUse));
    let restricted = making(0x13, &[created(BORN), flags(1)]).unsigned(&[flags(3)]);
    assert_eq!(judge_words(&[restricted]), Err(Rejection::KeyUse));
    // A word that is there twice has two meanings.
    for twice in [vec![created(NOW), created(NOW)], vec![created(NOW), ends(3, 0), ends(3, 9)]] {
        assert!(is_unreadable(judge(&usual_file, &message(&making(0, &twice).by(&key, &[TEXT])))));
    }
    let twice = making(0x13, &[created(BORN), flags(1), flags(3)]);
    assert!(Certificate::parse_all(&file(&key, &[twice], &[])).is_err());
}

#[test]
fn a_signature_of_another_type_or_hash_is_none_of_a_text() {
    let key = Key::new(1);
    let file = file(&key, &[usual(BORN)], &[]);
    for kind in [0x01, 0x02, 0x10, 0x13, 0x18, 0x19, 0x1f, 0x20, 0x40, 0x50] {
        assert!(is_unreadable(judge(&file, &message(&making(kind, &[created(NOW)]).by(&key, &[TEXT])))), "{kind}");
    }
    for hash in [0, 1, 2, 3, 11, 12, 14] {
        let signature = making(0, &[created(NOW)]).hash(hash).by(&key, &[TEXT]);
        assert!(matches!(judge(&file, &message(&signature)), Err(Rejection::Weak(_))), "{hash}");
    }
    judge(&file, &message(&making(0, &[created(NOW)]).hash(8).by(&key, &[TEXT]))).unwrap();
    assert_eq!(judge(&file, &message(&signed(&Key::new(2)))), Err(Rejection::WrongKey));
    let early = making(0, &[created(BORN - 1)]).by(&key, &[TEXT]);
    assert!(is_unreadable(judge(&file, &message(&early))), "older than the key");
}

#[test]
fn ends_are_counted_beyond_32_bits() {
    let key = Key::new(1);
    let far = making(0, &[created(u32::MAX), ends(3, u32::MAX)]).by(&key, &[TEXT]);
    let file = file(&key, &[making(0x13, &[created(BORN), flags(3), ends(9, u32::MAX)])], &[]);
    let end = u64::from(BORN) + u64::from(u32::MAX);
    judge_at(&file, &message(&far), end - 1).unwrap();
    assert!(is_expired(judge_at(&file, &message(&far), end)));
    assert!(is_expired(judge_at(&file, &message(&far), u64::MAX)));
    assert!(is_expired(judge_at(&file, &message(&far), u64::from(BORN) - 1)));
    // Zero is no end.
    judge_words(&[making(0x13, &[created(BORN), flags(3), ends(9, 0), ends(3, 0)])]).unwrap();
    let short = making(0, &[created(NOW - 10), ends(3, 10)]).by(&key, &[TEXT]);
    assert!(is_expired(judge(&file, &message(&short))), "it has ended at its end");
}

#[test]
fn the_newest_word_of_the_owner_in_force_counts() {
    let cert_only = |at: u32| making(0x13, &[created(at), flags(1)]);
    let ended = |at: u32| making(0x13, &[created(at), flags(3), ends(9, 100)]);
    judge_words(&[cert_only(BORN), usual(BORN + 9)]).unwrap();
    judge_words(&[usual(BORN + 9), cert_only(BORN)]).unwrap();
    assert_eq!(judge_words(&[usual(BORN), cert_only(BORN + 9)]), Err(Rejection::KeyUse));
    assert_eq!(judge_words(&[cert_only(BORN + 9), usual(BORN)]), Err(Rejection::KeyUse));
    assert!(is_expired(judge_words(&[usual(BORN), ended(BORN + 9)])));
    judge_words(&[ended(BORN), usual(BORN + 9)]).unwrap();
    // One that is not made yet, or has ended itself, says nothing.
    judge_words(&[usual(BORN), cert_only(NOW + 1)]).unwrap();
    judge_words(&[usual(BORN), making(0x13, &[created(BORN + 9), flags(1), ends(3, 5)])]).unwrap();
    assert!(is_expired(judge_words(&[making(0x13, &[created(BORN), flags(3), ends(3, 5)])])));
    // Of one second, the strictest.
    for words in [[usual(BORN), cert_only(BORN)], [cert_only(BORN), usual(BORN)]] {
        assert_eq!(judge_words(&words), Err(Rejection::KeyUse));
    }
    for words in [[usual(BORN), ended(BORN)], [ended(BORN), usual(BORN)]] {
        assert!(is_expired(judge_words(&words)));
    }
}

#[test]
fn a_withdrawn_name_speaks_for_nothing_and_one_that_cannot_be_judged_spoils_the_key() {
    let key = Key::new(1);
    let stranger = Key::new(2);
    let parse = |words: &[Making]| Certificate::parse_all(&file(&key, words, &[])).map(|_| ());
    let withdrawn = |subpackets: &[Vec<u8>]| making(0x30, subpackets);
    judge_words(&[usual(BORN), withdrawn(&[created(BORN + 5)]), usual(BORN + 9)]).unwrap();
    parse(&[usual(BORN), withdrawn(&[created(BORN + 5)])]).unwrap_err();
    parse(&[withdrawn(&[created(BORN + 5)]), usual(BORN)]).unwrap_err();
    parse(&[usual(BORN), withdrawn(&[])]).unwrap_err();
    let weak = || withdrawn(&[created(BORN + 5)]).hash(2);
    parse(&[usual(BORN), weak()]).unwrap_err();
    parse(&[usual(BORN), weak().unsigned(&[subpacket(16, &key.id())])]).unwrap_err();
    parse(&[usual(BORN), weak().unsigned(&[subpacket(16, &stranger.id())])]).unwrap();
    // What is said on the key alone is withdrawn in the same way.
    let direct = |making: Making| making.by(&key, &[&key.hashed()]);
    let only = |words: &[Vec<u8>]| [packet(6, &key.body), words.concat()].concat();
    let good = || direct(making(0x1f, &[created(BORN), flags(3)]));
    judge(&only(&[good()]), &message(&signed(&key))).unwrap();
    Certificate::parse_all(&only(&[good(), direct(withdrawn(&[created(BORN)]))])).unwrap_err();
    // One that only names who else may revoke takes no flag away.
    let revoker = direct(making(0x1f, &[created(BORN + 9), subpacket(12, &[0x80; 22])]));
    let named = [packet(6, &key.body), revoker, name(), certified(&key, &usual(BORN))].concat();
    judge(&named, &message(&signed(&key))).unwrap();
}

#[test]
fn a_revocation_counts_wherever_and_whenever_it_is_and_one_that_cannot_be_checked_spoils_the_key() {
    let key = Key::new(1);
    let revocation = |making: &Making, by: &Key| making.by(by, &[&key.hashed()]);
    let with = |revocation: Vec<u8>| file(&key, &[usual(BORN)], &[revocation]);
    for subpackets in [vec![], vec![created(NOW + 9)], vec![created(BORN), ends(3, 1)], vec![subpacket(0xe4, b"")]] {
        let file = with(revocation(&making(0x20, &subpackets), &key));
        assert_eq!(judge(&file, &message(&signed(&key))), Err(Rejection::Revoked));
    }
    Certificate::parse_all(&with(revocation(&making(0x20, &[created(BORN)]).hash(2), &key))).unwrap_err();
    Certificate::parse_all(&with(revocation(&making(0x20, &[created(BORN)]), &Key::new(2)))).unwrap_err();
    Certificate::parse_all(&with(making(0x28, &[created(BORN)]).by(&key, &[&key.hashed()]))).unwrap_err();
}

#[test]
fn a_subkey_signs_only_with_its_own_word_for_this_very_owner() {
    let (owner, subkey, other) = (Key::new(1), Key::new(2), Key::new(3));
    let both = [owner.hashed(), subkey.hashed()];
    let both: Vec<&[u8]> = both.iter().map(Vec::as_slice).collect();
    let message = message(&signed(&subkey));
    let behind = |bindings: &[Vec<u8>]| {
        file(&owner, &[making(0x13, &[created(BORN), flags(1)])], &[packet(14, &subkey.body), bindings.concat()])
    };
    let bind = |word: &[u8]| making(0x18, &[created(BORN), flags(2), subpacket(32, word)]);
    let agreed = |making: Making| making.body(&subkey, &both);
    let good = agreed(making(0x19, &[created(BORN)]));
    judge(&behind(&[bind(&good).by(&owner, &both)]), &message).unwrap();
    let unsigned = making(0x18, &[created(BORN), flags(2)]).unsigned(&[subpacket(32, &good)]);
    judge(&behind(&[unsigned.by(&owner, &both)]), &message).unwrap();
    for (what, word) in [
        ("another_key's", making(0x19, &[created(BORN)]).body(&other, &both)),
        ("for_another_owner", making(0x19, &[created(BORN)]).body(&subkey, &[&other.hashed(), &subkey.hashed()])),
        ("of_another_type", agreed(making(0x18, &[created(BORN)]))),
        ("by_sha1", agreed(making(0x19, &[created(BORN)]).hash(2))),
        ("with_a_critical_unknown", agreed(making(0x19, &[created(BORN), subpacket(0xe4, b"")]))),
        ("that_ends", agreed(making(0x19, &[created(BORN), ends(3, u32::MAX)]))),
        ("without_a_time", agreed(making(0x19, &[]))),
    ] {
        assert_eq!(judge(&behind(&[bind(&word).by(&owner, &both)]), &message), Err(Rejection::KeyUse), "{what}");
    }
    let wordless = making(0x18, &[created(BORN), flags(2)]).by(&owner, &both);
    assert_eq!(judge(&behind(&[wordless]), &message), Err(Rejection::KeyUse));
    assert!(is_expired(judge(&behind(&[]), &message)), "nothing binds it");
    assert!(is_expired(judge(&behind(&[bind(&good).by(&other, &both)]), &message)), "another binds it");
    assert!(is_expired(judge(&behind(&[bind(&good).hash(2).by(&owner, &both)]), &message)), "bound by SHA-1");
    // Signatures nest once and are one.
    let nested = agreed(making(0x19, &[created(BORN), subpacket(32, &good)]));
    Certificate::parse_all(&behind(&[bind(&nested).by(&owner, &both)])).unwrap_err();
    let two = making(0x18, &[created(BORN), flags(2), subpacket(32, &good), subpacket(32, &good)]);
    Certificate::parse_all(&behind(&[two.by(&owner, &both)])).unwrap_err();
    // A second copy of the subkey could hide the revocation of the first.
    let revoked = making(0x28, &[created(BORN)]).by(&owner, &both);
    let binding = bind(&good).by(&owner, &both);
    let once = behind(&[binding.clone(), revoked.clone()]);
    assert_eq!(judge(&once, &message), Err(Rejection::Revoked));
    Certificate::parse_all(&behind(&[binding, packet(14, &subkey.body), revoked])).unwrap_err();
    // Nor does a subkey outlive its owner.
    let gone = making(0x20, &[created(BORN)]).by(&owner, &[&owner.hashed()]);
    assert_eq!(judge(&behind(&[bind(&good).by(&owner, &both), gone]), &message), Err(Rejection::Revoked));
}

#[test]
fn numbers_have_one_value_in_whatever_length_and_none_out_of_range() {
    let key = Key::new(1);
    let file = file(&key, &[usual(BORN)], &[]);
    let of = |numbers: &[Vec<u8>], head: Vec<u8>| message(&packet(2, &[head, numbers.concat()].concat()));
    // A signature whose first number begins with a zero byte.
    let (head, made) = (0..)
        .map(|at| making(0, &[created(NOW - at)]).digest(22, &[TEXT]))
        .map(|(head, digest)| (head, key.secret.sign(&digest).to_bytes()))
        .find(|(_, made)| made[0] == 0)
        .unwrap();
    let full = |bits: u16, number: &[u8]| [bits.to_be_bytes().as_slice(), number].concat();
    judge(&file, &of(&[mpi(&made[..32]), mpi(&made[32..])], head.clone())).unwrap();
    judge(&file, &of(&[full(256, &made[..32]), full(256, &made[32..])], head.clone())).unwrap();
    let longer = [&[0], &made[..32]].concat();
    // Its second number and the group's order: the same to whoever does not look.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0u16;
    let beyond: Vec<u8> = made[32..]
        .iter()
        .zip(order)
        .map(|(a, b)| {
            carry = u16::from(*a) + u16::from(b) + (carry >> 8);
            carry.to_le_bytes()[0]
        })
        .collect();
    for (what, numbers) in [
        ("too_long", vec![full(264, &longer), mpi(&made[32..])]),
        ("beyond_the_order", vec![mpi(&made[..32]), mpi(&beyond)]),
        ("zeros", vec![mpi(&[]), mpi(&[])]),
        ("a_zero", vec![mpi(&made[..32]), mpi(&[])]),
        ("one_number", vec![mpi(&made[..32])]),
        ("three_numbers", vec![mpi(&made[..32]), mpi(&made[32..]), mpi(&[1])]),
        ("a_byte_behind", vec![mpi(&made[..32]), mpi(&made[32..]), vec![0]]),
        ("cut", vec![mpi(&made[..32]), full(256, &made[32..50])]),
    ] {
        assert_eq!(judge(&file, &of(&numbers, head.clone())), Err(Rejection::WrongKey), "{what}");
    }
    // A point of small order verifies what nobody has signed.
    for point in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let body = [&[4], BORN.to_be_bytes().as_slice(), ED25519, &mpi(&[&[0x40], point.as_slice()].concat())].concat();
        let weak = Key { secret: SigningKey::from_bytes(&[1; 32]), body };
        let mut one = [0; 32];
        one[0] = 1;
        let forged =
            |making: &Making, parts: &[&[u8]]| packet(2, &[making.digest(22, parts).0, mpi(&one), mpi(&[])].concat());
        let word = forged(&usual(BORN), &[&weak.hashed(), &[0xb4, 0, 0, 0, 5], b"owner"]);
        Certificate::parse_all(&[packet(6, &weak.body), name(), word].concat()).unwrap_err();
    }
}

#[test]
fn ecdsa_and_rsa_numbers_out_of_range_are_refused() {
    let secret = p256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
    let point = secret.verifying_key().to_sec1_point(false);
    let body = [&[4], BORN.to_be_bytes().as_slice(), P256, &mpi(point.as_bytes())].concat();
    let key = Key { secret: SigningKey::from_bytes(&[1; 32]), body };
    let made = |making: &Making, parts: &[&[u8]]| {
        let (head, digest) = making.digest(19, parts);
        let signature: p256::ecdsa::Signature = secret.sign_prehash(&digest).unwrap();
        (head, signature.to_bytes().to_vec())
    };
    let (head, word) = made(&usual(BORN), &[&key.hashed(), &[0xb4, 0, 0, 0, 5], b"owner"]);
    let word = packet(2, &[head, mpi(&word[..32]), mpi(&word[32..])].concat());
    let file = [packet(6, &key.body), name(), word].concat();
    let (head, made) = made(&making(0, &[created(NOW)]), &[TEXT]);
    let of = |r: &[u8], s: &[u8]| message(&packet(2, &[head.clone(), mpi(r), mpi(s)].concat()));
    judge(&file, &of(&made[..32], &made[32..])).unwrap();
    let (r, s) = made.split_at(32);
    let none: &[u8] = &[];
    for (r, s) in [(r, none), (none, s), (none, none), (r, &[0xff; 32][..]), (&[0xff; 33][..], s)] {
        assert_eq!(judge(&file, &of(r, s)), Err(Rejection::WrongKey), "{r:?} {s:?}");
    }
    for (bits, good) in [(1024, false), (2047, false), (4097, false), (8192, false), (65_528, false), (3072, true)] {
        let mut modulus = vec![0xff; usize::div_ceil(bits, 8)];
        modulus[0] >>= (8 - bits % 8) % 8;
        let body = [&[4], BORN.to_be_bytes().as_slice(), &[1], &mpi(&modulus), &mpi(&[1, 0, 1])].concat();
        let error = Certificate::parse_all(&packet(6, &body)).unwrap_err();
        assert_eq!(error.contains("RSA"), !good, "{bits}: {error}");
    }
    // An exponent with which anything is its own signature, and a modulus that is even.
    for (last, exponent) in [(0xff, 1u8), (0xfe, 3)] {
        let mut modulus = vec![0xff; 256];
        modulus[255] = last;
        let body = [&[4], BORN.to_be_bytes().as_slice(), &[1], &mpi(&modulus), &mpi(&[exponent])].concat();
        let error = Certificate::parse_all(&packet(6, &body)).unwrap_err();
        assert!(error.contains("RSA"), "{error}");
    }
}
