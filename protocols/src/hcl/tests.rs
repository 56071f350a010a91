use serde_json::Value;

use super::*;
use crate::azure::{AzureSnpEvidence, AzureTdxEvidence};

const SNP: &str = include_str!("../../../tests/data/vectors/az-snp-vtpm/evidence-v2.json");
const TDX: &str = include_str!("../../../tests/data/vectors/az-tdx-vtpm/evidence-v1.json");

fn snp() -> Vec<u8> {
    AzureSnpEvidence::from_json(&serde_json::from_str::<Value>(SNP).unwrap()).unwrap().hcl_report
}

fn tdx() -> Vec<u8> {
    AzureTdxEvidence::from_json(&serde_json::from_str::<Value>(TDX).unwrap()).unwrap().hcl_report
}

#[test]
fn published_reports_are_read() {
    let bytes = snp();
    let report = HclReport::parse(&bytes).unwrap();
    let Hardware::Snp(hardware) = report.hardware() else { panic!("an SNP report") };
    let hardware = crate::snp::Report::parse(hardware).unwrap();
    assert_eq!(hardware.fields().report_data, report.report_data());
    assert_eq!((report.attestation_key().unwrap().0.len(), report.attestation_key().unwrap().1), (256, vec![1, 0, 1]));
    assert_eq!(report.user_data().unwrap()[..4], [0x98, 0x2F, 0x5C, 0x6E]);
    assert_eq!(report.configuration()["secure-boot"], true);

    let bytes = tdx();
    let report = HclReport::parse(&bytes).unwrap();
    let Hardware::Tdx(hardware) = report.hardware() else { panic!("a TD report") };
    assert_eq!(crate::tdx::parse_local(hardware).unwrap().report_data, report.report_data());
    assert_eq!(report.user_data().unwrap(), [0; 64]);
}

#[test]
fn each_field_of_the_header_is_checked() {
    let cases: [(&str, usize); 13] = [
        ("signature", 0),
        ("version", 4),
        ("size", 8),
        ("request type", 12),
        ("status", 16),
        ("reserved bytes", 31),
        ("size of the runtime claims", 0x4C0),
        ("runtime claims version", 0x4C4),
        ("type of the hardware report", 0x4C8),
        ("hash of the runtime claims", 0x4CC),
        ("size of the runtime claims", 0x4D0),
        ("bytes after the runtime claims", 2599),
        ("bytes after the runtime claims", 0x4D4 + 1110),
    ];
    for (what, place) in cases {
        let mut bytes = snp();
        bytes[place] ^= 0x40;
        assert_eq!(HclReport::parse(&bytes).unwrap_err(), HclError::Value(what), "{place:#x}");
    }
    let mut bytes = tdx();
    bytes[0x20 + 1024] = 1;
    assert_eq!(HclReport::parse(&bytes).unwrap_err(), HclError::Value("bytes after the TD report"));
    assert_eq!(HclReport::parse(&[0; MAX_SIZE + 1]).unwrap_err(), HclError::Size("HCL report"));
}

#[test]
fn a_report_cut_anywhere_is_refused_and_no_byte_panics() {
    let whole = snp();
    let used = 0x4D4 + 1110;
    for length in 0..used {
        assert!(HclReport::parse(&whole[..length]).is_err(), "{length}");
    }
    HclReport::parse(&whole[..used]).unwrap();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 0xFF;
        if let Ok(report) = HclReport::parse(&bytes) {
            let _ = (report.attestation_key(), report.user_data());
        }
    }
}

fn with_json(json: &str) -> Vec<u8> {
    let mut bytes = snp()[..0x4D4].to_vec();
    let size = u32::try_from(json.len()).unwrap();
    bytes[0x4D0..].copy_from_slice(&size.to_le_bytes());
    bytes[0x4C0..0x4C4].copy_from_slice(&(size + 20).to_le_bytes());
    bytes[8..12].copy_from_slice(&(0x4D4 + size).to_le_bytes());
    bytes.extend_from_slice(json.as_bytes());
    bytes
}

#[test]
fn the_attestation_key_is_one_signing_key_of_that_name() {
    let key = |kid: &str, kty: &str, ops: &str| {
        format!(r#"{{"kid":"{kid}","kty":"{kty}","key_ops":["{ops}"],"n":"AQAB","e":"AQAB"}}"#)
    };
    let of = |keys: &[String]| {
        let json = format!(r#"{{"keys":[{}],"vm-configuration":{{}},"user-data":"00"}}"#, keys.join(","));
        let bytes = with_json(&json);
        let report = HclReport::parse(&bytes).unwrap();
        report.user_data().unwrap_err();
        report.attestation_key().is_ok()
    };
    assert!(of(&[key("HCLEkPub", "RSA", "encrypt"), key("HCLAkPub", "RSA", "sign")]));
    assert!(!of(&[]));
    assert!(!of(&[key("HCLEkPub", "RSA", "sign")]));
    assert!(!of(&[key("HCLAkPub", "RSA", "encrypt")]));
    assert!(!of(&[key("HCLAkPub", "EC", "sign")]));
    assert!(!of(&[key("HCLAkPub", "RSA", "sign"), key("HCLAkPub", "RSA", "sign")]));
    for json in ["", "{}", "[]", r#"{"keys":[],"keys":[],"vm-configuration":{},"user-data":""}"#] {
        HclReport::parse(&with_json(json)).unwrap_err();
    }
}
