//! KBS messages against traffic captured from a real client and server.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use protocols::encoding::{b64, un_b64};
use protocols::kbs::{Attestation, Challenge, Request, TeePubKey, VERSION, report_data, tpm_nonce};
use serde_json::json;

const ATTEST: &str = r#"{"init-data":null,"runtime-data":{"nonce":"nyPHQrcFJaEtIg76hzfbl0owXtuYkVkRCJVI5KWbE9k=","tee-pubkey":{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"RqnYyYln4RT2hA5688MOoRDortnIcteezHtjKYnqwAc","y":"SmPpY489tjsM1NqrGCt4V54RwU3z_tAuNEoIFehHtWk"}},"tee-evidence":{"primary_evidence":{"report_data":"aDPXi8iTIrHTrlb3gfdU0loBLVcfgT6Tq+6XYGuojDlTXXJqJ0Agl2jqXeZH3GA9","svn":"1"},"additional_evidence":""}}"#;

#[test]
fn a_real_clients_report_data_is_our_binding() {
    let attestation: Attestation = serde_json::from_str(ATTEST).unwrap();
    let digest = attestation.runtime_data.digest(&attestation.tee_evidence.additional_evidence).unwrap();
    let real = attestation.tee_evidence.primary_evidence["report_data"].as_str().unwrap();
    assert_eq!(b64(digest.as_bytes()), real);
    assert_eq!(report_data(&digest)[..48], *digest.as_bytes());
    assert_eq!(report_data(&digest)[48..], [0; 16]);
    assert_eq!(tpm_nonce(&digest)[..], un_b64(real).unwrap()[..32]);
}

#[test]
fn bodies_are_written_as_a_real_client_writes_them() {
    let attestation: Attestation = serde_json::from_str(ATTEST).unwrap();
    assert_eq!(serde_json::to_string(&attestation).unwrap(), ATTEST);
    let request = r#"{"version":"0.4.0","tee":"sample","extra-params":{"supported-hash-algorithms":["sha256"]}}"#;
    let read: Request = serde_json::from_str(request).unwrap();
    assert_eq!(read.version, VERSION);
    assert_eq!(serde_json::to_string(&read).unwrap(), request);
    let challenge = r#"{"nonce":"AA==","extra-params":""}"#;
    assert_eq!(serde_json::to_string(&serde_json::from_str::<Challenge>(challenge).unwrap()).unwrap(), challenge);
}

#[test]
fn unknown_key_members_are_not_hashed() {
    let key: TeePubKey =
        serde_json::from_value(json!({"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"a","y":"b","use":"enc"}))
            .unwrap();
    assert_eq!(
        serde_json::to_value(&key).unwrap(),
        json!({"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"a","y":"b"})
    );
}

#[test]
fn the_request_needs_its_extra_params() {
    assert!(serde_json::from_str::<Request>(r#"{"version":"0.4.0","tee":"tpm"}"#).is_err());
}
