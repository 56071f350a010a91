//! The simulated SNP backend: its evidence is what a verifier of real SNP evidence reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use attester::{Attester as _, AttesterConfig, AttesterError, SevAttester};
use common::{pki, simulated};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::environment::Environment;
use protocols::guest::GuestId;
use protocols::kbs::{self, SnpEvidence, Tee};
use protocols::reason;
use protocols::register::{HashAlg, RegisterKind};
use protocols::snp::{POLICY_DEBUG, POLICY_MIGRATE_MA, Report};
use simulated_tee::Pki;

fn report(attester: &SevAttester, binding: &Sha384Digest) -> (Report, Vec<(String, Vec<u8>)>) {
    let evidence: SnpEvidence = serde_json::from_value(attester.evidence(binding).unwrap()).unwrap();
    let chain = evidence.cert_chain.unwrap().into_iter().map(|entry| (entry.cert_type, entry.data)).collect();
    (Report::from_json(&evidence.attestation_report).unwrap(), chain)
}

#[test]
fn evidence_holds_report_and_chain() {
    let dir = tempfile::tempdir().unwrap();
    let attester = simulated(dir.path());
    let info = attester.register();
    assert_eq!((attester.tee(), info.kind, info.mr, info.alg), (Tee::Snp, RegisterKind::Software, 4, HashAlg::Sha384));
    assert!(info.simulated);
    let binding = Sha384Digest::of(b"binding");
    let (report, chain) = report(&attester, &binding);
    let fields = report.fields();
    assert_eq!(fields.report_data, kbs::report_data(&binding));
    assert_eq!(fields.host_data, [0; 32]);
    assert_eq!(fields.policy & (POLICY_DEBUG | POLICY_MIGRATE_MA), 0);
    assert_eq!((fields.vmpl, fields.report_id_ma), (0, [0xFF; 32]));
    let roots = Pki::open(pki()).unwrap();
    assert_eq!(fields.chip_id, roots.chip().id);
    let expected = [("VCEK".to_owned(), roots.vcek_der().to_vec()), ("ASK".to_owned(), roots.ask_der().to_vec())];
    assert_eq!(chain, expected);
    assert_eq!(attester.guest(&[1; 32]).unwrap(), GuestId::new(fields.report_id));
    assert_eq!(attester.boot_pcr(7).unwrap(), None);

    // The uncompressed point follows the only such BIT STRING of the VCEK.
    let vcek = roots.vcek_der();
    let at = vcek.windows(4).position(|w| w == [0x03, 0x62, 0x00, 0x04]).unwrap() + 3;
    ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P384_SHA384_FIXED, &vcek[at..at + 97])
        .verify(report.signed_bytes(), &fields.signature.to_p384().unwrap())
        .unwrap();
}

#[test]
fn initdata_is_bound_by_its_whole_digest() {
    let dir = tempfile::tempdir().unwrap();
    let initdata = dir.path().join("initdata.toml");
    std::fs::write(&initdata, "algorithm = \"sha256\"\n").unwrap();
    let attester = SevAttester::simulated(pki(), Some(&initdata), dir.path()).unwrap();
    let digest = Sha256Digest::of(b"algorithm = \"sha256\"\n");
    assert_eq!(attester.initdata_bound(), Some(digest.into()));
    attester.bind_initdata(&digest.into()).unwrap();
    let other = attester.bind_initdata(&Sha256Digest::of(b"other").into()).unwrap_err();
    assert_eq!(other.code().as_str(), "evidence.initdata");
    assert!(simulated(dir.path()).bind_initdata(&digest.into()).is_err(), "a chip that was launched with none");
    assert_eq!(report(&attester, &Sha384Digest::of(b"")).0.fields().host_data, *digest.as_bytes());

    let missing = SevAttester::simulated(pki(), Some(&dir.path().join("none")), dir.path()).unwrap_err();
    assert!(matches!(missing, AttesterError::Config { .. }), "missing initdata is never no initdata: {missing}");
}

#[test]
fn register_and_identity_last_as_long_as_the_boot() {
    let dir = tempfile::tempdir().unwrap();
    let first = simulated(dir.path());
    let digest = HashAlg::Sha384.hash(&[b"event"]);
    assert_eq!(first.read_register().unwrap(), first.register_start().unwrap());
    first.extend(&digest).unwrap();
    let expected = HashAlg::Sha384.zero().extend(&digest).unwrap();
    assert_eq!(first.read_register().unwrap(), expected);

    let again = simulated(dir.path());
    assert_eq!(again.read_register().unwrap(), expected);
    assert_eq!(again.guest(&[0; 32]).unwrap(), first.guest(&[0; 32]).unwrap());

    let other_boot = tempfile::tempdir().unwrap();
    let other = simulated(other_boot.path());
    assert_eq!(other.read_register().unwrap(), HashAlg::Sha384.zero());
    assert_ne!(other.guest(&[0; 32]).unwrap(), first.guest(&[0; 32]).unwrap());
}

#[test]
fn a_register_of_another_size_is_no_register() {
    let dir = tempfile::tempdir().unwrap();
    let attester = simulated(dir.path());
    std::fs::write(dir.path().join("simulated-snp/register"), [0; 47]).unwrap();
    assert_eq!(attester.read_register().unwrap_err().code(), reason::REGISTER_UNAVAILABLE);
    assert!(attester.extend(&HashAlg::Sha384.zero()).is_err());
    std::fs::write(dir.path().join("simulated-snp/report-id"), [0; 31]).unwrap();
    let refused = SevAttester::simulated(pki(), None, dir.path()).unwrap_err();
    assert_eq!(refused.code(), reason::REGISTER_UNAVAILABLE);
}

#[test]
fn a_digest_of_another_algorithm_extends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let attester = simulated(dir.path());
    let refused = attester.extend(&HashAlg::Sha256.zero()).unwrap_err();
    assert_eq!(refused.code(), reason::REGISTER_EXTEND);
    assert_eq!(attester.read_register().unwrap(), HashAlg::Sha384.zero());
}

#[test]
fn production_refuses_the_simulated_chip() {
    let dir = tempfile::tempdir().unwrap();
    let config = AttesterConfig::SimulatedSnp { pki: pki().to_owned(), initdata: None };
    let refused = attester::open(&config, Environment::Production, dir.path()).unwrap_err();
    assert_eq!(refused.code(), reason::POLICY_ENVIRONMENT);
    let opened = attester::open(&config, Environment::Development, dir.path()).unwrap();
    assert!(opened.register().simulated);
}

#[test]
fn without_roots_there_is_no_attester() {
    let dir = tempfile::tempdir().unwrap();
    let config = AttesterConfig::SimulatedSnp { pki: dir.path().to_owned(), initdata: None };
    assert!(attester::open(&config, Environment::Development, dir.path()).is_err());
}
