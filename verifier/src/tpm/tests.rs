mod selection;

use p256::pkcs8::EncodePublicKey as _;
use protocols::encoding::un_b64;
use protocols::tpm::TpmError;

use super::quote::{values as pcrs, verifies};
use super::testing::{NONCE, Quote, key, spki};
use super::{EnrolledAk, Enrolment, Environment, Refusal, Sha256Digest, Signature, TpmClaims, TpmEvidence, TpmPolicy};
use crate::Trace;
use protocols::tpm::{Attest, pcr_digest};

const VECTOR: &str = include_str!("../../../tests/data/vectors/tpm/tpm_evidence.json");

fn policy(simulated: bool, environment: Environment) -> TpmPolicy {
    TpmPolicy {
        aks: vec![EnrolledAk { spki_der: spki(&key(1)), simulated, enrolment: Enrolment::Listed }],
        pcr: 14,
        environment,
    }
}

fn run(evidence: &TpmEvidence) -> Result<TpmClaims, Refusal> {
    verify_tpm(evidence, &NONCE, &policy(false, Environment::Production))
}

fn verify_tpm(evidence: &TpmEvidence, nonce: &[u8; 32], policy: &TpmPolicy) -> Result<TpmClaims, Refusal> {
    super::verify_tpm(evidence, nonce, policy, &mut Trace::off())
}

fn word(result: Result<TpmClaims, Refusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
}

#[test]
fn a_good_quote_gives_its_claims() {
    let claims = run(&Quote::good().signed(&key(1))).unwrap();
    assert_eq!(claims.pcrs().len(), 24);
    assert_eq!(claims.pcr(14), Some(Sha256Digest::new([14; 32])));
    assert_eq!(claims.pcr(24), None);
    assert_eq!((claims.clock(), claims.reset_count(), claims.restart_count()), (1_234_567, 89, 7));
    assert_eq!(claims.firmware_version(), 0x2019_1023_0016_3636);
    assert_eq!(claims.ak_spki(), spki(&key(1)));
    assert!(!claims.simulated());
}

type Change = fn(&mut Quote);

/// Each signed by the enrolled key: the signature alone proves nothing.
#[test]
fn a_signed_quote_that_says_something_else_is_refused() {
    let cases: [(&str, &str, Change); 10] = [
        ("good", "pass", |_| {}),
        ("made outside the TPM", "evidence.malformed", |q| q.magic = 0xFF54_4348),
        ("a certification instead of a quote", "evidence.malformed", |q| q.kind = 0x8017),
        ("another nonce", "evidence.nonce", |q| q.extra_data[31] ^= 1),
        ("a nonce cut short", "evidence.nonce", |q| q.extra_data.truncate(31)),
        ("a longer nonce", "evidence.nonce", |q| q.extra_data.push(0)),
        ("no nonce", "evidence.nonce", |q| q.extra_data.clear()),
        ("digest of other values", "evidence.pcr", |q| q.digest[0] ^= 1),
        ("digest cut short", "evidence.pcr", |q| q.digest.truncate(31)),
        ("other values presented", "evidence.pcr", |q| q.pcrs[14] = Sha256Digest::of(b"x").hex()),
    ];
    for (name, expected, change) in cases {
        let mut quote = Quote::good();
        change(&mut quote);
        assert_eq!(word(run(&quote.signed(&key(1)))), expected, "{name}");
    }
}

#[test]
fn values_that_are_not_24_plain_digests_are_refused() {
    let cases: [(&str, Change); 6] = [
        ("23 values", |q| drop(q.pcrs.pop())),
        ("25 values", |q| q.pcrs.push("00".repeat(32))),
        ("upper case", |q| q.pcrs[10] = q.pcrs[10].to_uppercase()),
        ("31 bytes", |q| q.pcrs[0] = "00".repeat(31)),
        ("a prefix", |q| q.pcrs[0] = format!("0x{}", "00".repeat(31))),
        ("no hex", |q| q.pcrs[0] = "zz".repeat(32)),
    ];
    for (name, change) in cases {
        let mut quote = Quote::good();
        quote.pcrs[10] = "ab".repeat(32);
        change(&mut quote);
        assert_eq!(word(run(&quote.signed(&key(1)))), "evidence.malformed", "{name}");
    }
}

#[test]
fn values_swapped_between_two_registers_are_refused() {
    let mut quote = Quote::good();
    quote.pcrs.swap(14, 15);
    assert_eq!(word(run(&quote.signed(&key(1)))), "evidence.pcr");
}

#[test]
fn only_enrolled_keys_count_and_the_evidence_enrols_nothing() {
    let stranger = Quote::good().signed(&key(2));
    assert_eq!(word(run(&stranger)), "evidence.ak");
    let none = TpmPolicy { aks: vec![], pcr: 14, environment: Environment::Development };
    assert_eq!(word(verify_tpm(&Quote::good().signed(&key(1)), &NONCE, &none)), "evidence.ak");
    // A stranger's quote under the enrolled key's name.
    let renamed = TpmEvidence { ak_public: spki(&key(1)), ..stranger };
    assert_eq!(word(run(&renamed)), "evidence.signature");
    let mut longer = Quote::good().signed(&key(1));
    longer.ak_public.push(0);
    assert_eq!(word(run(&longer)), "evidence.ak");
}

#[test]
fn a_simulated_key_counts_in_development_only_and_is_named() {
    let evidence = Quote::good().signed(&key(1));
    let production = verify_tpm(&evidence, &NONCE, &policy(true, Environment::Production));
    assert_eq!(word(production), "policy.environment");
    let claims = verify_tpm(&evidence, &NONCE, &policy(true, Environment::Development)).unwrap();
    assert!(claims.simulated());
}

#[test]
fn no_bit_of_quote_or_signature_can_be_changed() {
    let good = Quote::good().signed(&key(1));
    for place in 0..good.tpm_quote.message.len() * 8 {
        let mut flipped = good.clone();
        flipped.tpm_quote.message[place / 8] ^= 1 << (place % 8);
        assert!(run(&flipped).is_err(), "message bit {place}");
    }
    for place in 0..good.tpm_quote.signature.len() * 8 {
        let mut flipped = good.clone();
        flipped.tpm_quote.signature[place / 8] ^= 1 << (place % 8);
        assert!(run(&flipped).is_err(), "signature bit {place}");
    }
}

#[test]
fn bytes_after_quote_or_signature_are_refused() {
    let good = Quote::good().signed(&key(1));
    let mut longer = good.clone();
    longer.tpm_quote.message.push(0);
    assert_eq!(word(run(&longer)), "evidence.malformed");
    let mut longer = good;
    longer.tpm_quote.signature.push(0);
    assert_eq!(word(run(&longer)), "evidence.malformed");
}

/// Published evidence of a software TPM with an RSA key. Its extraData are 64 bytes, a digest padded with zeros:
/// everything passes but the nonce, whose length we fix at 32.
fn published() -> (TpmEvidence, TpmPolicy) {
    let evidence: TpmEvidence = serde_json::from_str(VECTOR).unwrap();
    let ak = EnrolledAk { spki_der: evidence.ak_public.clone(), simulated: true, enrolment: Enrolment::Listed };
    (evidence, TpmPolicy { aks: vec![ak], pcr: 14, environment: Environment::Development })
}

#[test]
fn published_rsa_evidence_is_read_and_its_signature_and_values_verify() {
    let (evidence, policy) = published();
    let quote = &evidence.tpm_quote;
    let attest = Attest::parse(&quote.message).unwrap();
    assert!(verifies(&evidence.ak_public, &quote.message, &Signature::parse(&quote.signature).unwrap()));
    assert!(attest.selects_all_sha256());
    assert_eq!(attest.pcr_digest, pcr_digest(&pcrs(&quote.pcrs).unwrap()).as_bytes());

    let prefix: [u8; 32] = *attest.extra_data.first_chunk().unwrap();
    assert_eq!(
        word(verify_tpm(&evidence, &prefix, &policy)),
        "evidence.nonce",
        "the start of a nonce is not the nonce"
    );
    let stranger = TpmPolicy { aks: vec![], ..policy };
    assert_eq!(word(verify_tpm(&evidence, &prefix, &stranger)), "evidence.ak");
}

#[test]
fn published_rsa_evidence_is_refused_when_altered() {
    let (evidence, policy) = published();
    for place in [40, 48, 112, 176] {
        let mut flipped = evidence.clone();
        flipped.tpm_quote.message[place] ^= 1;
        assert_eq!(word(verify_tpm(&flipped, &NONCE, &policy)), "evidence.signature", "message byte {place}");
    }
    for place in 6..evidence.tpm_quote.signature.len() {
        let mut flipped = evidence.clone();
        flipped.tpm_quote.signature[place] ^= 1;
        assert_eq!(word(verify_tpm(&flipped, &NONCE, &policy)), "evidence.signature", "signature byte {place}");
    }
}

/// An ECDSA signature under an RSA key, an RSASSA one under an EC key, and keys of no kind we verify.
#[test]
fn a_signature_of_another_scheme_than_the_keys_is_refused() {
    let (rsa, _) = published();
    let ecdsa = Quote::good().signed(&key(1));
    let mixed = TpmEvidence { ak_public: rsa.ak_public.clone(), ..ecdsa.clone() };
    let enrolled = |spki_der: &[u8]| TpmPolicy {
        aks: vec![EnrolledAk { spki_der: spki_der.to_vec(), simulated: false, enrolment: Enrolment::Listed }],
        pcr: 14,
        environment: Environment::Production,
    };
    assert_eq!(word(verify_tpm(&mixed, &NONCE, &enrolled(&mixed.ak_public))), "evidence.signature");
    let signature = rsa.tpm_quote.signature.clone();
    let mut mixed = ecdsa.clone();
    mixed.tpm_quote.signature = signature;
    assert_eq!(word(run(&mixed)), "evidence.signature");
    // P-384 as SPKI, and bytes that are no key at all.
    let p384 = p384::ecdsa::SigningKey::from_slice(&[1; 48]).unwrap();
    let p384 = p384.verifying_key().to_public_key_der().unwrap().into_vec();
    for ak_public in [p384, un_b64("AAAA").unwrap()] {
        let other = TpmEvidence { ak_public, ..ecdsa.clone() };
        assert_eq!(word(verify_tpm(&other, &NONCE, &enrolled(&other.ak_public))), "evidence.signature");
    }
}

#[test]
fn a_refusal_names_what_was_wrong() {
    let mut quote = Quote::good();
    quote.magic = 0;
    let refusal = run(&quote.signed(&key(1))).unwrap_err();
    assert_eq!(refusal.actual, TpmError::Value("TPMS_ATTEST magic").to_string());
    assert!(refusal.to_string().starts_with("NOT verified: evidence.malformed TPM quote"));
}
