//! Hardware evidence and what firmware logged.

use protocols::cel::{self, Aael};
use protocols::environment::Environment;
use protocols::register::HashAlg;
use protocols::tcg_log::TcgLog;
use protocols::tdx::{Quote, trim};
use reference_values::{Document, Signers, Trust};

/// A TDX quote.
///
/// # Panics
/// When what was read is not what is written again.
pub fn tdx_quote(bytes: &[u8]) {
    if let Ok(quote) = Quote::parse(bytes) {
        assert_eq!(quote.encode(), bytes);
    }
    if let Ok(exact) = trim(bytes) {
        assert!(bytes.starts_with(exact));
    }
}

/// A firmware's log, of a TPM or of a TDX guest.
///
/// # Panics
/// When what was read is not what is written again.
pub fn tcg_log(bytes: &[u8]) {
    if let Ok(log) = TcgLog::parse(bytes) {
        assert!(bytes.starts_with(&log.encode()));
        for register in 0..5 {
            let _ = log.replay(register, HashAlg::Sha384);
            let _ = log.replay(register, HashAlg::Sha256);
        }
        let _ = cel::of_firmware(&log);
    }
}

/// The data of an AAEL event, of whatever writer.
///
/// # Panics
/// When the parts are not what was read.
pub fn aael(bytes: &[u8]) {
    if let Ok(Some(Aael { domain, operation, content })) = Aael::parse(bytes) {
        let text = format!("{domain} {operation} {content}");
        assert_eq!(bytes.get(8..), Some(text.as_bytes()));
    }
}

/// The claims of an attestation result, as a token carries them.
///
/// # Panics
/// When what was read is read otherwise once it is written.
pub fn ear(bytes: &[u8]) {
    if let Ok(ear) = appraisal::Ear::from_json(bytes) {
        assert_eq!(appraisal::Ear::from_json(&serde_json::to_vec(&ear).unwrap()), Ok(ear));
    }
}

/// A file of reference values, of whatever form: what a CoRIM says can be written, and is read again as the same.
///
/// # Panics
/// When it is read otherwise once it is written.
pub fn corim(bytes: &[u8]) {
    let signers = Signers::default();
    let trust = Trust { signers: &signers, environment: Environment::Development, unsigned: true };
    let _ = reference_values::read("file", bytes, &trust);
    let Ok((contents, _)) = reference_values::corim::show(bytes) else { return };
    for told in contents.told {
        let written = reference_values::corim::unsigned(&told.document).unwrap();
        if written.len() > reference_values::corim::MAX_CORIM {
            continue;
        }
        let (again, _) = reference_values::corim::show(&written).unwrap();
        let issuer = told.document.issuer.clone();
        let again: Vec<_> =
            again.told.into_iter().map(|one| Document { issuer: issuer.clone(), ..one.document }).collect();
        assert_eq!(again, [told.document]);
    }
}

pub(super) fn corims() -> Vec<Vec<u8>> {
    ["es256", "es384", "unsigned"].map(|name| file(&format!("corim/{name}.corim"))).into()
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/data/vectors/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

pub(super) fn tdx_quotes() -> Vec<Vec<u8>> {
    let padded = file("tdx/tdx_quote");
    vec![trim(&padded).unwrap().to_vec(), file("tdx/tdx_quote_4.dat"), padded]
}

pub(super) fn tcg_logs() -> Vec<Vec<u8>> {
    let mut short = file("eventlog/CCEL_data_ovmf");
    short.truncate(2200);
    vec![short, file("eventlog/CCEL_AAEL_alibabacloud")]
}

pub(super) fn aaels() -> Vec<Vec<u8>> {
    let log = TcgLog::parse(&file("eventlog/CCEL_AAEL_alibabacloud")).unwrap();
    log.events().iter().filter(|event| event.register == 4).map(|event| event.data.clone()).collect()
}

pub(super) fn ears() -> Vec<Vec<u8>> {
    let vector = r#"{"instance-identity":2,"configuration":2,"executables":3,"file-system":0,"hardware":2,"runtime-opaque":2,"storage-opaque":0,"sourced-data":0}"#;
    let submod = format!(
        r#"{{"ear.status":"affirming","ear.trustworthiness-vector":{vector},"ear.appraisal-policy-id":"p","ear.veraison.annotated-evidence":{{"snp":{{}}}}}}"#
    );
    let ear = format!(
        r#"{{"eat_profile":"{}","ear.verifier-id":{{"developer":"d","build":"b"}},"submods":{{"cpu0":{submod}}}}}"#,
        appraisal::ear::PROFILE
    );
    assert!(appraisal::Ear::from_json(ear.as_bytes()).is_ok());
    vec![ear.into_bytes()]
}
