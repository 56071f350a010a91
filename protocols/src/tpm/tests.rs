use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::pkcs8::EncodePublicKey as _;
use proptest::prelude::*;

use super::*;
use crate::kbs::TpmEvidence;

fn real() -> TpmEvidence {
    serde_json::from_str(include_str!("../../../tests/data/vectors/tpm/tpm_evidence.json")).unwrap()
}

fn pcrs(evidence: &TpmEvidence) -> Vec<Sha256Digest> {
    evidence.tpm_quote.pcrs.iter().map(|pcr| format!("sha256:{pcr}").parse().unwrap()).collect()
}

#[test]
fn the_real_quote_reads_as_published() {
    let evidence = real();
    let attest = Attest::parse(&evidence.tpm_quote.message).unwrap();
    assert!(attest.selects_all_sha256());
    assert_eq!(attest.pcr_digest, pcr_digest(&pcrs(&evidence)).as_bytes());
    assert_eq!(attest.qualified_signer.len(), 34);
    assert_eq!(attest.qualified_signer[..2], ALG_SHA256.to_be_bytes());
    assert_eq!(attest.extra_data.len(), 64);
    assert!(attest.clock_info.reset_count > 0 && attest.clock_info.restart_count == 0 && attest.clock_info.safe);
}

#[test]
fn the_real_signature_verifies_over_the_message() {
    let evidence = real();
    let Signature::Rsassa(signature) = Signature::parse(&evidence.tpm_quote.signature).unwrap() else {
        panic!("an RSASSA signature")
    };
    // SubjectPublicKeyInfo of a 2048-bit key: 24 bytes before the RSAPublicKey.
    let key = ring::signature::UnparsedPublicKey::new(
        &ring::signature::RSA_PKCS1_2048_8192_SHA256,
        &evidence.ak_public[24..],
    );
    key.verify(&evidence.tpm_quote.message, &signature).unwrap();
}

#[test]
fn an_rsa_public_area_becomes_the_published_spki() {
    let evidence = real();
    let modulus = evidence.ak_public[33..33 + 256].to_vec();
    for exponent in [0u32, 65537] {
        let mut area = vec![0x00, 0x01, 0x00, 0x0B, 0, 5, 0, 0x72, 0, 0, 0, 0x10, 0, 0x14, 0, 0x0B, 8, 0];
        area.extend_from_slice(&exponent.to_be_bytes());
        area.extend_from_slice(&[1, 0]);
        area.extend_from_slice(&modulus);
        let public = Public::parse(&area).unwrap();
        assert_eq!(public, Public::Rsassa { modulus: modulus.clone(), exponent: 65537 });
        assert_eq!(public.to_spki_der().unwrap(), evidence.ak_public);
        every_prefix_is_refused(&area, |bytes| Public::parse(bytes).is_ok());
    }
}

fn ecc_area(x: &[u8], y: &[u8]) -> Vec<u8> {
    let mut area = public::ak_template();
    area.truncate(area.len() - 4);
    for coordinate in [x, y] {
        area.extend_from_slice(&u16::try_from(coordinate.len()).unwrap().to_be_bytes());
        area.extend_from_slice(coordinate);
    }
    area
}

#[test]
fn an_ecc_public_area_becomes_an_spki_also_without_leading_zeros() {
    let mut short = 0;
    for seed in 1..=1000u16 {
        let mut scalar = [7u8; 32];
        scalar[..2].copy_from_slice(&seed.to_be_bytes());
        let key = p256::SecretKey::from_slice(&scalar).unwrap().public_key();
        let point = key.to_sec1_point(false);
        let (x, y) = point.as_bytes()[1..].split_at(32);
        let trimmed: Vec<u8> = x.iter().copied().skip_while(|b| *b == 0).collect();
        short += usize::from(trimmed.len() < 32);
        let public = Public::parse(&ecc_area(&trimmed, y)).unwrap();
        assert_eq!(public.to_spki_der().unwrap(), key.to_public_key_der().unwrap().as_bytes());
    }
    assert!(short > 0, "no x began with a zero byte");
}

#[test]
fn a_key_that_signs_what_it_is_given_is_no_attestation_key() {
    let good = ecc_area(&[1; 32], &[2; 32]);
    assert!(Public::parse(&good).is_ok());
    assert_eq!(Public::parse(&good).unwrap().to_spki_der(), Err(TpmError::Value("TPMS_ECC_POINT")), "not on the curve");
    // Attributes are bytes 4..8: restricted, fixedTPM, fixedParent, sensitiveDataOrigin, sign off; decrypt on.
    for bit in [16, 1, 4, 5, 18, 17] {
        let mut other = good.clone();
        other[7 - bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Public::parse(&other), Err(TpmError::Value("TPMT_PUBLIC attributes")), "bit {bit}");
    }
}

fn every_prefix_is_refused(bytes: &[u8], reads: impl Fn(&[u8]) -> bool) {
    for end in 0..bytes.len() {
        assert!(!reads(&bytes[..end]), "{end} of {} bytes", bytes.len());
    }
    assert!(!reads(&[bytes, &[0]].concat()), "a trailing byte");
    assert!(reads(bytes));
}

#[test]
fn cut_or_lengthened_structures_are_refused() {
    let evidence = real();
    every_prefix_is_refused(&evidence.tpm_quote.message, |bytes| Attest::parse(bytes).is_ok());
    every_prefix_is_refused(&evidence.tpm_quote.signature, |bytes| Signature::parse(bytes).is_ok());
}

#[test]
fn only_a_quote_made_inside_a_tpm_is_read() {
    let good = real().tpm_quote.message;
    for (place, what) in [(0, "TPMS_ATTEST magic"), (3, "TPMS_ATTEST magic"), (5, "TPMS_ATTEST type")] {
        let mut other = good.clone();
        other[place] ^= 1;
        assert_eq!(Attest::parse(&other), Err(TpmError::Value(what)));
    }
}

#[test]
fn only_one_selection_of_all_sha256_pcrs_counts() {
    let good = Attest::parse(&real().tpm_quote.message).unwrap();
    let all = PcrSelection::all_sha256();
    let selected = |pcr_select: Vec<PcrSelection>| Attest { pcr_select, ..good.clone() }.selects_all_sha256();
    assert!(selected(vec![all.clone()]));
    assert!(!selected(vec![]));
    assert!(!selected(vec![all.clone(), all.clone()]));
    assert!(!selected(vec![PcrSelection { hash: 0x000C, ..all.clone() }]));
    assert!(!selected(vec![PcrSelection { select: vec![0xFF, 0xBF, 0xFF], ..all.clone() }]));
    assert!(!selected(vec![PcrSelection { select: vec![0xFF, 0xFF, 0xFF, 0], ..all }]));
}

#[test]
fn an_ecdsa_signature_is_padded_to_fixed_length() {
    let bytes = [&[0, 0x18, 0, 0x0B, 0, 2, 1, 2, 0, 32][..], &[3; 32]].concat();
    let raw = Signature::parse(&bytes).unwrap().ecdsa_raw().unwrap();
    assert_eq!(raw[..32], [&[0; 30][..], &[1, 2]].concat());
    assert_eq!(raw[32..], [3; 32]);
    every_prefix_is_refused(&bytes, |bytes| Signature::parse(bytes).is_ok());
    let sha384 = [&[0, 0x18, 0, 0x0C, 0, 2, 1, 2, 0, 32][..], &[3; 32]].concat();
    assert_eq!(Signature::parse(&sha384), Err(TpmError::Value("TPMT_SIGNATURE")));
}

#[test]
fn commands_are_the_bytes_of_the_specification() {
    let digest = Sha256Digest::new([0xAB; 32]);
    let extend = [
        &[0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82, 0, 0, 0, 14][..],
        &[0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0],
        &[0, 0, 0, 1, 0, 0x0B],
        &[0xAB; 32],
    ]
    .concat();
    assert_eq!(pcr_extend(14, &digest).bytes(), extend);
    let read = [0x80, 0x01, 0, 0, 0, 20, 0, 0, 0x01, 0x7E, 0, 0, 0, 1, 0, 0x0B, 3, 0, 0x40, 0];
    assert_eq!(pcr_read([0, 0x40, 0]).bytes(), read);
    assert_eq!(flush_context(0x8000_0001).bytes(), [0x80, 0x01, 0, 0, 0, 14, 0, 0, 0x01, 0x65, 0x80, 0, 0, 1]);
    for bytes in [create_primary_ak().bytes(), quote(0x8000_0000, &[0; 32]).bytes(), read_clock().bytes()] {
        assert_eq!(usize::try_from(u32::from_be_bytes(bytes[2..6].try_into().unwrap())).unwrap(), bytes.len());
    }
}

#[test]
fn answers_are_read_exactly() {
    let plain = |code: u32, body: &[u8]| {
        let size = u32::try_from(10 + body.len()).unwrap().to_be_bytes();
        [&[0x80, 0x01][..], &size, &code.to_be_bytes(), body].concat()
    };
    let one = [&[0, 0, 0, 7, 0, 0, 0, 1, 0, 0x0B, 3, 0, 0x40, 0, 0, 0, 0, 1, 0, 32][..], &[9; 32]].concat();
    let values = PcrValues { update_counter: 7, values: vec![(14, Sha256Digest::new([9; 32]))] };
    let read = pcr_read([0, 0x40, 0]);
    assert_eq!(read.answer(&plain(0, &one)), Ok(values));
    for end in 0..one.len() {
        assert!(read.answer(&plain(0, &one[..end])).is_err(), "{end}");
    }
    assert_eq!(read.answer(&plain(0x922, &[])), Err(TpmError::Code(RC_RETRY)));
    assert!(read.answer(&plain(0x922, &[])).unwrap_err().is_transient());
    assert!(!read.answer(&plain(0x101, &[])).unwrap_err().is_transient());

    let mut wrong_size = plain(0, &one);
    wrong_size[5] += 1;
    assert_eq!(read.answer(&wrong_size), Err(TpmError::Value("response size")));

    let session = |body: &[u8]| [&[0x80, 0x02][..], &plain(0, body)[2..]].concat();
    let extend = pcr_extend(14, &Sha256Digest::new([0; 32]));
    assert_eq!(extend.answer(&session(&[0, 0, 0, 0, 0, 0, 1, 0, 0])), Ok(()));
    assert_eq!(extend.answer(&session(&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0])), Err(TpmError::Trailing("TPM2_PCR_Extend")));
    assert_eq!(extend.answer(&plain(0, &[0, 0, 0, 0, 0, 0, 1, 0, 0])), Err(TpmError::Value("response tag")));
    assert_eq!(extend.answer(&plain(0x907, &[])), Err(TpmError::Code(0x907)), "PCR of another locality");
}

#[test]
fn a_stream_reader_learns_the_size_within_bounds() {
    let header = |size: u32| {
        let [a, b, c, d] = size.to_be_bytes();
        answer_size(&[0x80, 0x01, a, b, c, d, 0, 0, 0, 0])
    };
    assert_eq!(header(10), Ok(10));
    assert_eq!(header(4096), Ok(4096));
    for size in [0, 9, 4097, u32::MAX] {
        assert!(header(size).is_err(), "{size}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Attest::parse(&bytes);
        let _ = Signature::parse(&bytes);
        let _ = Public::parse(&bytes);
        let _ = pcr_read([0xFF, 0, 0]).answer(&bytes);
        let _ = pcr_extend(14, &Sha256Digest::new([0; 32])).answer(&bytes);
        let _ = create_primary_ak().answer(&bytes);
        let _ = quote(0, &[0; 32]).answer(&bytes);
        let _ = read_clock().answer(&bytes);
        let _ = transient_handles().answer(&bytes);
    }

    #[test]
    fn a_flipped_quote_is_refused_or_differs(bit in 0usize..145 * 8) {
        let message = real().tpm_quote.message;
        let good = Attest::parse(&message).unwrap();
        let mut other = message.clone();
        if let Some(byte) = other.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
            prop_assert_ne!(Attest::parse(&other), Ok(good));
        }
    }

    #[test]
    fn answers_of_the_right_frame_do_not_panic(tag in 0x8001u16..=0x8002, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let size = u32::try_from(body.len() + 10).unwrap();
        let bytes = [&tag.to_be_bytes()[..], &size.to_be_bytes(), &[0; 4], &body].concat();
        let _ = pcr_read([0xFF, 0, 0]).answer(&bytes);
        let _ = create_primary_ak().answer(&bytes);
        let _ = quote(0, &[0; 32]).answer(&bytes);
        let _ = read_clock().answer(&bytes);
        let _ = transient_handles().answer(&bytes);
    }
}
