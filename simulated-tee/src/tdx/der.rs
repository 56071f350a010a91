//! The few DER structures a platform's certificates and revocation lists need, written by hand so that a
//! test can have a wrong one.

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use protocols::time::Timestamp;
use x509_cert::der::asn1::ObjectIdentifier;

use super::{Names, PckFacts};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0A;
const BOOLEAN: u8 = 0x01;
const UTF8_STRING: u8 = 0x0C;
const GENERALIZED_TIME: u8 = 0x18;
const UTC_TIME: u8 = 0x17;

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    match content.len() {
        0..0x80 => out.extend(length.iter().rev().take(1)),
        0x80..0x100 => out.extend([&[0x81], length.split_at(length.len() - 1).1].concat()),
        _ => out.extend([&[0x82], length.split_at(length.len() - 2).1].concat()),
    }
    out.extend_from_slice(&content);
    out
}

fn oid(text: &str) -> Vec<u8> {
    tlv(0x06, &[ObjectIdentifier::new_unwrap(text).as_bytes()])
}

fn integer(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    // The first byte decides the sign: one zero stays before a high bit.
    let skip = bytes.iter().take_while(|byte| **byte == 0).count().min(7);
    let significant = bytes.split_at(skip).1;
    match significant.first() {
        Some(first) if first & 0x80 != 0 => tlv(INTEGER, &[&[0], significant]),
        _ => tlv(INTEGER, &[significant]),
    }
}

fn name(common_name: &str) -> Vec<u8> {
    let attribute = |id, text: &str| tlv(SET, &[&tlv(SEQUENCE, &[&oid(id), &tlv(UTF8_STRING, &[text.as_bytes()])])]);
    tlv(SEQUENCE, &[&attribute("2.5.4.3", common_name), &attribute("2.5.4.10", "SIMULATED")])
}

/// UTCTime to 2049, GeneralizedTime after, as X.509 wants it.
fn time(at: Timestamp) -> Vec<u8> {
    let digits: String = at.to_string().chars().filter(char::is_ascii_digit).collect();
    match digits.strip_prefix("20") {
        Some(short) if digits.as_str() < "2050" => tlv(UTC_TIME, &[short.as_bytes(), b"Z"]),
        _ => tlv(GENERALIZED_TIME, &[digits.as_bytes(), b"Z"]),
    }
}

fn extension(id: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(BOOLEAN, &[&[0xFF]]) } else { Vec::new() };
    tlv(SEQUENCE, &[&oid(id), &critical, &tlv(OCTET_STRING, &[value])])
}

fn algorithm() -> Vec<u8> {
    tlv(SEQUENCE, &[&oid("1.2.840.10045.4.3.2")])
}

fn signed(tbs: &[u8], key: &SigningKey) -> Vec<u8> {
    let signature: DerSignature = key.sign(tbs);
    tlv(SEQUENCE, &[tbs, &algorithm(), &tlv(BIT_STRING, &[&[0], signature.as_bytes()])])
}

/// 04, x, y of a public key.
pub(super) fn point(key: &SigningKey) -> Vec<u8> {
    key.verifying_key().to_sec1_point(false).as_bytes().to_vec()
}

/// A validity, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub from: Timestamp,
    /// Last moment.
    pub to: Timestamp,
}

/// What makes a certificate.
pub(super) struct Spec<'s> {
    pub(super) names: Names,
    pub(super) serial: u64,
    pub(super) validity: Validity,
    pub(super) key: &'s SigningKey,
    pub(super) authority: bool,
    /// DER of the SGX extension, for a PCK certificate.
    pub(super) sgx: Option<Vec<u8>>,
}

pub(super) fn certificate(spec: &Spec<'_>, signer: &SigningKey) -> Vec<u8> {
    let spki = tlv(
        SEQUENCE,
        &[
            &tlv(SEQUENCE, &[&oid("1.2.840.10045.2.1"), &oid("1.2.840.10045.3.1.7")]),
            &tlv(BIT_STRING, &[&[0], &point(spec.key)]),
        ],
    );
    let authority: &[u8] = if spec.authority { &[0x01, 0x01, 0xFF] } else { &[] };
    // keyCertSign and cRLSign, or digitalSignature.
    let usage: &[u8] = if spec.authority { &[0x01, 0x06] } else { &[0x07, 0x80] };
    let mut extensions = extension("2.5.29.19", true, &tlv(SEQUENCE, &[authority]));
    extensions.extend(extension("2.5.29.15", true, &tlv(BIT_STRING, &[usage])));
    if let Some(sgx) = &spec.sgx {
        extensions.extend(extension("1.2.840.113741.1.13.1", false, sgx));
    }
    let tbs = tlv(
        SEQUENCE,
        &[
            &tlv(0xA0, &[&integer(2)]),
            &integer(spec.serial),
            &algorithm(),
            &name(spec.names.issuer),
            &tlv(SEQUENCE, &[&time(spec.validity.from), &time(spec.validity.to)]),
            &name(spec.names.subject),
            &spki,
            &tlv(0xA3, &[&tlv(SEQUENCE, &[&extensions])]),
        ],
    );
    signed(&tbs, signer)
}

/// A revocation list of version 2.
pub(super) fn crl(issuer: &str, validity: Validity, revoked: &[u64], signer: &SigningKey) -> Vec<u8> {
    let entries: Vec<u8> =
        revoked.iter().flat_map(|serial| tlv(SEQUENCE, &[&integer(*serial), &time(validity.from)])).collect();
    // An empty list is left out.
    let entries = if entries.is_empty() { Vec::new() } else { tlv(SEQUENCE, &[&entries]) };
    let extensions = tlv(SEQUENCE, &[&extension("2.5.29.20", false, &integer(1))]);
    let tbs = tlv(
        SEQUENCE,
        &[
            &integer(1),
            &algorithm(),
            &name(issuer),
            &time(validity.from),
            &time(validity.to),
            &entries,
            &tlv(0xA0, &[&extensions]),
        ],
    );
    signed(&tbs, signer)
}

/// The SGX extension of a PCK certificate (Intel SGX PCK Certificate and CRL Profile, section 1.3.5).
pub(super) fn sgx_extension(facts: &PckFacts) -> Vec<u8> {
    let id = |suffix: &str| oid(&format!("1.2.840.113741.1.13.1.{suffix}"));
    let entry = |suffix: &str, value: &[u8]| tlv(SEQUENCE, &[&id(suffix), value]);
    let octets = |bytes: &[u8]| tlv(OCTET_STRING, &[bytes]);
    let mut tcb: Vec<u8> = (1..=16)
        .zip(facts.cpu_svn)
        .flat_map(|(number, svn)| entry(&format!("2.{number}"), &integer(svn.into())))
        .collect();
    tcb.extend(entry("2.17", &integer(facts.pce_svn.into())));
    tcb.extend(entry("2.18", &octets(&facts.cpu_svn)));
    let flag = |number, value: u8| entry(&format!("7.{number}"), &tlv(BOOLEAN, &[&[value]]));
    tlv(
        SEQUENCE,
        &[
            &entry("1", &octets(&facts.ppid)),
            &entry("2", &tlv(SEQUENCE, &[&tcb])),
            &entry("3", &octets(&[0, 0])),
            &entry("4", &octets(&facts.fmspc)),
            &entry("5", &tlv(ENUMERATED, &[&[1]])),
            &entry("6", &octets(&facts.ppid)),
            &entry("7", &tlv(SEQUENCE, &[&flag(1, 0xFF), &flag(2, 0), &flag(3, 0xFF)])),
        ],
    )
}
