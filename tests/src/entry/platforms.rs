//! What platforms' evidence is made of: Azure's reports, AMD's certificates and lists.

use protocols::azure::{AzureSnpEvidence, AzureTdxEvidence};
use protocols::hcl::{Hardware, HclReport};
use protocols::snp::{read_certificates, write_certificates};
use serde_json::Value;
use verifier::snp::{Product, TcbVersion, TrustedArk, amd_root};

/// An HCL report, and the JSON of Azure's evidence: what is read is written back as the same JSON.
///
/// # Panics
/// When evidence changes on the way.
pub fn azure(bytes: &[u8]) {
    if let Ok(report) = HclReport::parse(bytes) {
        let _ = (report.attestation_key(), report.user_data(), report.report_data());
        if let Hardware::Tdx(report) = report.hardware() {
            let _ = protocols::tdx::parse_local(report);
        }
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    if let Ok(evidence) = AzureSnpEvidence::from_json(&value)
        && evidence.version > 0
    {
        assert_eq!(AzureSnpEvidence::from_json(&evidence.to_json()), Ok(evidence));
    }
    if let Ok(evidence) = AzureTdxEvidence::from_json(&value) {
        assert_eq!(evidence.to_json(), value);
    }
}

/// A host's certificate table, a certificate, a revocation list.
///
/// # Panics
/// When a table changes on the way.
pub fn endorsement(bytes: &[u8]) {
    if let Ok(read) = read_certificates(bytes) {
        assert_eq!(read_certificates(&write_certificates(&read)), Ok(read));
    }
    let none = TcbVersion::default();
    let _ = TrustedArk::from_ders([bytes], false, none);
    if let Ok(root) = amd_root(Product::Milan, none) {
        let _ = root.with_crl(bytes);
    }
}

pub(super) mod seeds {
    use protocols::kbs::SnpCertificate;

    use super::super::seeds::file;
    use super::{AzureSnpEvidence, Value, write_certificates};

    pub(in super::super) fn azures() -> Vec<Vec<u8>> {
        let texts = ["az-snp-vtpm/evidence-v0.json", "az-snp-vtpm/evidence-v2.json", "az-tdx-vtpm/evidence-v1.json"];
        let mut seeds: Vec<Vec<u8>> = texts.into_iter().map(file).collect();
        let newest: Value = serde_json::from_slice(&file("az-snp-vtpm/evidence-v2.json")).unwrap();
        seeds.push(AzureSnpEvidence::from_json(&newest).unwrap().hcl_report);
        seeds
    }

    pub(in super::super) fn endorsements() -> Vec<Vec<u8>> {
        let vcek = file("snp/test-vcek.der");
        let table = write_certificates(&[SnpCertificate { cert_type: "VCEK".to_owned(), data: vcek.clone() }]);
        // An empty list without a signature: the way into the reader of lists.
        let list = b"\x30\x1c\x30\x16\x02\x01\x01\x30\x03\x06\x01\x2a\x30\x00\x17\x0d240101000000Z\x30\x00\x03\x01\x00"
            .to_vec();
        vec![vcek, table, list]
    }
}
