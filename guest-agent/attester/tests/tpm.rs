//! The TPM backend against a real swtpm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use attester::{Attester as _, AttesterConfig, AttesterError, TpmAddress, TpmAttester};
use common::{By, Swtpm};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::environment::Environment;
use protocols::guest::GuestId;
use protocols::kbs::{self, TpmEvidence};
use protocols::reason;
use protocols::register::{HashAlg, RegisterKind, RegisterValue};
use protocols::tpm::{self, Attest, Signature};

fn evidence(attester: &TpmAttester, binding: &Sha384Digest) -> TpmEvidence {
    serde_json::from_value(attester.evidence(binding).unwrap()).unwrap()
}

fn pcrs(evidence: &TpmEvidence) -> Vec<Sha256Digest> {
    evidence.tpm_quote.pcrs.iter().map(|pcr| format!("sha256:{pcr}").parse().unwrap()).collect()
}

/// What a verifier checks of a quote, by another implementation of the signature.
fn verified(evidence: &TpmEvidence, binding: &Sha384Digest) -> Attest {
    let attest = Attest::parse(&evidence.tpm_quote.message).unwrap();
    let signature = Signature::parse(&evidence.tpm_quote.signature).unwrap().ecdsa_raw().unwrap();
    // The uncompressed point is the last 65 bytes of a P-256 SubjectPublicKeyInfo.
    let point = &evidence.ak_public[evidence.ak_public.len() - 65..];
    ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point)
        .verify(&evidence.tpm_quote.message, &signature)
        .unwrap();
    assert!(attest.selects_all_sha256());
    assert_eq!(attest.extra_data, kbs::tpm_nonce(binding));
    assert_eq!(attest.pcr_digest, tpm::pcr_digest(&pcrs(evidence)).as_bytes());
    attest
}

#[test]
fn extends_and_quotes_over_unix_and_tcp() {
    for by in [By::Unix, By::Tcp] {
        let swtpm = Swtpm::start(by);
        let attester = swtpm.attester();
        let info = attester.register();
        assert_eq!(
            (info.kind, info.mr, info.alg, info.simulated),
            (RegisterKind::TpmListed, 14, HashAlg::Sha256, true)
        );
        assert_eq!(attester.read_register().unwrap(), attester.register_start().unwrap());

        let digest = HashAlg::Sha256.hash(&[b"an event"]);
        attester.extend(&digest).unwrap();
        let expected = HashAlg::Sha256.zero().extend(&digest).unwrap();
        assert_eq!(attester.read_register().unwrap(), expected);
        assert_eq!(swtpm.pcrread(14), expected, "{by:?}");

        let binding = Sha384Digest::of(b"binding");
        let evidence = evidence(&attester, &binding);
        verified(&evidence, &binding);
        assert_eq!(evidence.ak_public, attester.ak_spki_der());
        assert_eq!(pcrs(&evidence)[14].as_bytes(), expected.as_bytes());
        assert_eq!(attester.boot_pcr(14).unwrap().map(RegisterValue::Sha256), Some(expected));
        assert_eq!(attester.boot_pcr(17).unwrap(), Some(Sha256Digest::new([0xFF; 32])));
        assert!(attester.boot_pcr(24).is_err());
    }
}

#[test]
fn only_the_configured_pcr_moves() {
    let swtpm = Swtpm::start(By::Unix);
    let attester = TpmAttester::open(swtpm.address.clone(), 11).unwrap();
    attester.extend(&HashAlg::Sha256.hash(&[b"x"])).unwrap();
    assert_ne!(swtpm.pcrread(11), HashAlg::Sha256.zero());
    assert_eq!(swtpm.pcrread(14), HashAlg::Sha256.zero());
}

#[test]
fn a_pcr_that_can_be_reset_is_never_the_register() {
    let swtpm = Swtpm::start(By::Unix);
    for pcr in [16, 17, 20, 22, 23, 24, u32::MAX] {
        let refused = TpmAttester::open(swtpm.address.clone(), pcr).unwrap_err();
        assert!(matches!(refused, AttesterError::Config { .. }), "PCR {pcr}: {refused}");
    }
    assert!(TpmAttester::open(swtpm.address.clone(), 15).is_ok());
}

#[test]
fn a_digest_of_another_algorithm_extends_nothing() {
    let swtpm = Swtpm::start(By::Unix);
    let refused = swtpm.attester().extend(&HashAlg::Sha384.hash(&[b"x"])).unwrap_err();
    assert_eq!(refused.code(), reason::REGISTER_EXTEND);
    assert_eq!(swtpm.pcrread(14), HashAlg::Sha256.zero());
}

#[test]
fn the_same_tpm_has_the_same_key_and_each_boot_is_another_guest() {
    let swtpm = Swtpm::start(By::Unix);
    let first = swtpm.attester();
    let binding = Sha384Digest::of(b"b");
    let clock = verified(&evidence(&first, &binding), &binding).clock_info;
    let nonce = [7; 32];
    let guest = first.guest(&nonce).unwrap();
    // The verifier derives the identity from the quote alone.
    assert_eq!(guest, GuestId::of_tpm(first.ak_spki_der(), clock.reset_count, &nonce));
    assert_ne!(guest, first.guest(&[8; 32]).unwrap());

    let swtpm = swtpm.reboot();
    let second = swtpm.attester();
    assert_eq!(second.ak_spki_der(), first.ak_spki_der());
    assert_ne!(second.guest(&nonce).unwrap(), guest, "the reset count tells boots apart");

    let other = Swtpm::start(By::Unix);
    assert_ne!(other.attester().ak_spki_der(), first.ak_spki_der());
}

#[test]
fn objects_of_a_process_that_died_are_cleared_away() {
    let swtpm = Swtpm::start(By::Unix);
    let attester = swtpm.attester();
    let TpmAddress::Unix(path) = &swtpm.address else { panic!("by unix") };
    let mut stream = UnixStream::connect(path).unwrap();
    let mut refused = false;
    for _ in 0..10 {
        stream.write_all(tpm::create_primary_ak().bytes()).unwrap();
        let answer = read_answer(&mut stream);
        refused |= tpm::create_primary_ak().answer(&answer) == Err(tpm::TpmError::Code(tpm::RC_OBJECT_MEMORY));
    }
    assert!(refused, "the TPM has room for more objects than expected");
    drop(stream);
    let binding = Sha384Digest::of(b"b");
    verified(&evidence(&attester, &binding), &binding);
}

#[test]
fn many_callers_share_one_tpm() {
    let swtpm = Arc::new(Swtpm::start(By::Tcp));
    // Two attesters, as an agent and a person's command would be.
    let attesters = [Arc::new(swtpm.attester()), Arc::new(swtpm.attester())];
    std::thread::scope(|scope| {
        for number in 0..8u8 {
            let attester = Arc::clone(&attesters[usize::from(number % 2)]);
            scope.spawn(move || {
                for round in 0..5u8 {
                    let binding = Sha384Digest::of(&[number, round]);
                    verified(&evidence(&attester, &binding), &binding);
                    assert!(attester.read_register().is_ok());
                }
            });
        }
    });
}

#[test]
fn a_missing_or_lost_tpm_is_unavailable_and_nothing_weaker_is_used() {
    let dir = tempfile::tempdir().unwrap();
    for address in [TpmAddress::Unix(dir.path().join("none")), TpmAddress::Device(dir.path().join("tpm0"))] {
        let error = TpmAttester::open(address, 14).unwrap_err();
        assert_eq!(error.code(), reason::REGISTER_UNAVAILABLE);
    }
    let mut swtpm = Swtpm::start(By::Tcp);
    let attester = swtpm.attester();
    swtpm.stop();
    assert_eq!(attester.read_register().unwrap_err().code(), reason::REGISTER_UNAVAILABLE);
    assert_eq!(attester.extend(&HashAlg::Sha256.zero()).unwrap_err().code(), reason::REGISTER_EXTEND);
    assert_eq!(attester.evidence(&Sha384Digest::of(b"")).unwrap_err().code(), reason::EVIDENCE_UNAVAILABLE);
    assert_eq!(attester.guest(&[0; 32]).unwrap_err().code(), reason::EVIDENCE_UNAVAILABLE);
}

#[test]
fn simulated_tpms_are_refused_in_production() {
    let swtpm = Swtpm::start(By::Unix);
    let dir = tempfile::tempdir().unwrap();
    let config = AttesterConfig::Tpm { device: swtpm.address.clone(), pcr: 14 };
    let refused = attester::open(&config, Environment::Production, dir.path()).unwrap_err();
    assert_eq!(refused.code(), reason::POLICY_ENVIRONMENT);
    assert_eq!(attester::open(&config, Environment::Development, dir.path()).unwrap().tee(), kbs::Tee::Tpm);
}

fn read_answer(stream: &mut UnixStream) -> Vec<u8> {
    let mut header = [0; 10];
    if stream.read_exact(&mut header).is_err() {
        return Vec::new();
    }
    let mut answer = header.to_vec();
    answer.resize(tpm::answer_size(&header).unwrap(), 0);
    stream.read_exact(&mut answer[10..]).unwrap();
    answer
}

/// A relay to the swtpm that may meddle: given a command and a way to the TPM, it gives the answer.
fn relay(
    swtpm: &Swtpm,
    mut meddle: impl FnMut(&[u8], &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> + Send + 'static,
) -> (TpmAddress, tempfile::TempDir) {
    let TpmAddress::Unix(real) = swtpm.address.clone() else { panic!("by unix") };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relay.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let tpm = std::cell::RefCell::new(UnixStream::connect(&real).unwrap());
            loop {
                let command = read_answer(&mut client);
                if command.is_empty() {
                    break;
                }
                let ask = |command: &[u8]| {
                    tpm.borrow_mut().write_all(command).unwrap();
                    read_answer(&mut tpm.borrow_mut())
                };
                if client.write_all(&meddle(&command, &ask)).is_err() {
                    break;
                }
            }
        }
    });
    (TpmAddress::Unix(path), dir)
}

fn code(command: &[u8]) -> u32 {
    u32::from_be_bytes(command[6..10].try_into().unwrap())
}

fn refusal(code: u32) -> Vec<u8> {
    [&[0x80, 0x01, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
}

#[test]
fn a_tpm_that_says_retry_or_testing_is_asked_again() {
    let swtpm = Swtpm::start(By::Unix);
    let mut count = 0;
    let (address, _dir) = relay(&swtpm, move |command, ask| {
        count += 1;
        match count % 3 {
            0 => ask(command),
            1 => refusal(tpm::RC_RETRY),
            _ => refusal(tpm::RC_TESTING),
        }
    });
    let attester = TpmAttester::open(address, 14).unwrap();
    attester.extend(&HashAlg::Sha256.hash(&[b"once"])).unwrap();
    let once = HashAlg::Sha256.zero().extend(&HashAlg::Sha256.hash(&[b"once"])).unwrap();
    assert_eq!(attester.read_register().unwrap(), once);
    let binding = Sha384Digest::of(b"b");
    verified(&evidence(&attester, &binding), &binding);
}

#[test]
fn an_extend_that_only_claims_success_is_refused() {
    let swtpm = Swtpm::start(By::Unix);
    let (address, _dir) = relay(&swtpm, |command, ask| {
        if code(command) == 0x182 {
            // A well-formed answer of an extend that was never made.
            return [&[0x80, 0x02, 0, 0, 0, 19][..], &[0; 4], &[0, 0, 0, 0, 0, 0, 1, 0, 0]].concat();
        }
        ask(command)
    });
    let attester = TpmAttester::open(address, 14).unwrap();
    let refused = attester.extend(&HashAlg::Sha256.hash(&[b"x"])).unwrap_err();
    assert_eq!(refused.code(), reason::REGISTER_EXTEND);
}

#[test]
fn a_quote_that_races_an_extend_is_made_again() {
    let swtpm = Swtpm::start(By::Unix);
    let mut races = 3;
    let (address, _dir) = relay(&swtpm, move |command, ask| {
        // Something else extends between the reading of the PCRs and their quote.
        if code(command) == 0x158 && races > 0 {
            races -= 1;
            let extend = tpm::pcr_extend(10, &Sha256Digest::of(&[races]));
            extend.answer(&ask(extend.bytes())).unwrap();
        }
        ask(command)
    });
    let attester = TpmAttester::open(address, 14).unwrap();
    let binding = Sha384Digest::of(b"b");
    verified(&evidence(&attester, &binding), &binding);
    assert_ne!(swtpm.pcrread(10), HashAlg::Sha256.zero());
}

#[test]
fn pcrs_that_never_hold_still_are_no_evidence() {
    let swtpm = Swtpm::start(By::Unix);
    let (address, _dir) = relay(&swtpm, |command, ask| {
        if code(command) == 0x158 {
            let extend = tpm::pcr_extend(10, &Sha256Digest::of(b"restless"));
            extend.answer(&ask(extend.bytes())).unwrap();
        }
        ask(command)
    });
    let attester = TpmAttester::open(address, 14).unwrap();
    let error = attester.evidence(&Sha384Digest::of(b"b")).unwrap_err();
    assert_eq!(error.code(), reason::EVIDENCE_UNAVAILABLE);
}

#[test]
fn garbage_from_a_tpm_is_an_error_never_a_value() {
    let swtpm = Swtpm::start(By::Unix);
    let mut round = 0u8;
    let (address, _dir) = relay(&swtpm, move |command, ask| {
        round = round.wrapping_add(1);
        let mut answer = ask(command);
        match round % 4 {
            0 => answer.extend_from_slice(&[0; 4]),
            1 => answer[2..6].copy_from_slice(&u32::MAX.to_be_bytes()),
            2 => answer[2..6].copy_from_slice(&9u32.to_be_bytes()),
            _ => answer[0] ^= 1,
        }
        answer
    });
    for _ in 0..8 {
        let code = TpmAttester::open(address.clone(), 14).unwrap_err().code();
        assert!(code == reason::REGISTER_UNAVAILABLE || code == reason::EVIDENCE_UNAVAILABLE, "{code}");
    }
}

#[test]
fn the_register_starts_where_the_firmware_left_it() {
    let swtpm = Swtpm::start(By::Unix);
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("binary_bios_measurements");
    let event = Sha256Digest::of(b"MokList");
    std::fs::write(&log, firmware_log(14, &event)).unwrap();
    let attester = TpmAttester::open_with_firmware_log(swtpm.address.clone(), 14, Some(log.clone())).unwrap();
    let start = HashAlg::Sha256.zero().extend(&RegisterValue::Sha256(event)).unwrap();
    assert_eq!(attester.register_start().unwrap(), start);
    attester.extend(&RegisterValue::Sha256(event)).unwrap();
    assert_eq!(attester.read_register().unwrap(), start);

    std::fs::write(&log, b"not a log").unwrap();
    assert_eq!(attester.register_start().unwrap_err().code(), reason::REGISTER_UNAVAILABLE);
    std::fs::remove_file(&log).unwrap();
    assert_eq!(attester.register_start().unwrap(), HashAlg::Sha256.zero());
}

fn firmware_log(pcr: u32, digest: &Sha256Digest) -> Vec<u8> {
    let spec =
        [b"Spec ID Event03\0".as_slice(), &[0, 0, 0, 0, 0, 2, 0, 2], &[1, 0, 0, 0, 0x0B, 0, 32, 0], &[0]].concat();
    let size = u32::try_from(spec.len()).unwrap().to_le_bytes();
    let event =
        [&pcr.to_le_bytes()[..], &[13, 0, 0, 0, 1, 0, 0, 0, 0x0B, 0], digest.as_bytes(), &[1, 0, 0, 0, 0]].concat();
    [&[0, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &size, &spec, &event].concat()
}

#[test]
fn initdata_is_measured_once_into_a_register_of_its_own() {
    let swtpm = Swtpm::start(By::Unix);
    let attester = swtpm.attester();
    let (digest, other) = (Sha256Digest::of(b"initdata"), Sha256Digest::of(b"other"));
    assert_eq!(attester.initdata_bound(), None, "a TPM is launched with none");
    attester.bind_initdata(&digest.into()).unwrap();
    let expected = RegisterValue::Sha256(tpm::initdata_pcr(&digest));
    assert_eq!(swtpm.pcrread(8), expected);
    assert_eq!(swtpm.pcrread(14), HashAlg::Sha256.zero());
    // An agent that is started again finds it measured; another initdata is not measured on top.
    swtpm.attester().bind_initdata(&digest.into()).unwrap();
    let refused = attester.bind_initdata(&other.into()).unwrap_err();
    assert_eq!(refused.code(), reason::EVIDENCE_INITDATA);
    assert_eq!(swtpm.pcrread(8), expected);

    let own = TpmAttester::open(swtpm.address.clone(), tpm::INITDATA_PCR).unwrap();
    assert!(matches!(own.bind_initdata(&digest.into()), Err(AttesterError::Config { .. })), "the log's own register");
}
