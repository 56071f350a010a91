//! What platforms' evidence is made of: Azure's reports, AMD's certificates and lists.

use endorsements::{PlatformName, VekName, answers};
use protocols::azure::{AzureSnpEvidence, AzureTdxEvidence, read_certification, read_td_quote};
use protocols::hcl::{Hardware, HclReport};
use protocols::snp::{REPORT_SIZE, Report, read_certificates, write_certificates};
use protocols::tdx::{LOCAL_REPORT_SIZE, Quote, parse_local};
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
            let _ = parse_local(report);
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

/// What the instance metadata service answers, and the TD report that it is asked about: what is read of it is written
/// again.
///
/// # Panics
/// When a TD report, or a quote, changes on the way.
pub fn metadata_service(bytes: &[u8]) {
    let _ = read_certification(bytes);
    if let Ok(quote) = read_td_quote(bytes)
        && let Ok(parsed) = Quote::parse(&quote)
    {
        assert_eq!(parsed.encode(), quote);
    }
    if let Some(report) = bytes.first_chunk::<LOCAL_REPORT_SIZE>()
        && let Ok(report) = parse_local(report)
    {
        assert_eq!(parse_local(&report.to_local()).as_ref(), Ok(&report));
    }
}

/// Whose endorsement a report or quote needs, and what services answer: names are those of plain files.
///
/// # Panics
/// When a name would lead elsewhere than into its directory.
pub fn service_answer(bytes: &[u8]) {
    let plain =
        |name: &str| assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)), "{name}");
    if let Some(report) = bytes.first_chunk::<REPORT_SIZE>()
        && let Ok(report) = Report::parse(report)
        && let Ok(name) = VekName::of(&report, Some(Product::Milan))
    {
        plain(&name.file());
        let _ = name.path();
    }
    if let Ok(quote) = Quote::parse(bytes)
        && let Ok(name) = PlatformName::of(&quote)
    {
        plain(&name.file());
    }
    for name in ["tcbInfo", "enclaveIdentity"] {
        if let Ok((text, _)) = answers::signed(bytes, name) {
            assert!(serde_json::from_str::<Value>(&text).is_ok());
        }
    }
    assert!(answers::list(bytes).bytes().all(|byte| byte.is_ascii_hexdigit()));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = answers::decoded(text);
    }
    let _ = verifier::TdxCollateral::parse(bytes);
}

pub(super) mod seeds {
    use protocols::kbs::SnpCertificate;

    use super::super::seeds::file;
    use super::{AzureSnpEvidence, AzureTdxEvidence, Value, write_certificates};

    pub(in super::super) fn azures() -> Vec<Vec<u8>> {
        let texts = ["az-snp-vtpm/evidence-v0.json", "az-snp-vtpm/evidence-v2.json", "az-tdx-vtpm/evidence-v1.json"];
        let mut seeds: Vec<Vec<u8>> = texts.into_iter().map(file).collect();
        let newest: Value = serde_json::from_slice(&file("az-snp-vtpm/evidence-v2.json")).unwrap();
        seeds.push(AzureSnpEvidence::from_json(&newest).unwrap().hcl_report);
        seeds
    }

    pub(in super::super) fn metadata_answers() -> Vec<Vec<u8>> {
        let evidence: Value = serde_json::from_slice(&file("az-tdx-vtpm/evidence-v1.json")).unwrap();
        let evidence = AzureTdxEvidence::from_json(&evidence).unwrap();
        let quote = serde_json::json!({ "quote": protocols::encoding::b64url(&evidence.td_quote) });
        let certificate = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
        let certification = serde_json::json!({ "vcekCert": certificate });
        let report = evidence.hcl_report.iter().copied().skip(0x20).take(1024).collect();
        vec![quote.to_string().into_bytes(), certification.to_string().into_bytes(), report]
    }

    pub(in super::super) fn service_answers() -> Vec<Vec<u8>> {
        let collateral = file("tdx/tdx_quote_collateral.json");
        let json: Value = serde_json::from_slice(&collateral).unwrap();
        let text = |name: &str| json.get(name).and_then(Value::as_str).unwrap().to_owned();
        let signed = format!("{{\"tcbInfo\":{},\"signature\":\"{}\"}}", text("tcb_info"), text("tcb_info_signature"));
        let chain = text("tcb_info_issuer_chain").replace('\n', "%0A").replace(' ', "%20");
        let list = text("root_ca_crl");
        vec![
            collateral,
            signed.into_bytes(),
            chain.into_bytes(),
            list.into_bytes(),
            file("snp/test-report.bin"),
            file("tdx/tdx_quote"),
        ]
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
