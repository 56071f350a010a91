mod crl;
mod table;

use protocols::snp::Signature;

use super::testing::{
    CHIP, MEASUREMENT, REPORT_DATA, REPORT_ID, Spec, TCB, basic_constraints, chip_extensions, component, entry,
    evidence, extension, fields, good_evidence, key_usage, keys, pem, policy, root, rsa_spki, signed, tlv,
};
use super::{
    Environment, ExpectedMeasurement, Fields, Refusal, Report, RootError, SnpClaims, SnpEvidence, SnpPolicy,
    TcbVersion, Timestamp, TrustedArk, amd_roots,
};
use crate::Trace;
use crate::testing::NOW;

fn verify_snp(
    evidence: &SnpEvidence,
    report_data: &[u8; 64],
    policy: &SnpPolicy,
    now: Timestamp,
) -> Result<SnpClaims, Refusal> {
    super::verify_snp(evidence, report_data, policy, now, &mut Trace::off())
}

fn word(result: Result<SnpClaims, Refusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
}

fn run(evidence: &SnpEvidence) -> Result<SnpClaims, Refusal> {
    verify_snp(evidence, &REPORT_DATA, &policy(), NOW)
}

fn vcek() -> Vec<u8> {
    Spec::vcek(&TCB, &CHIP).signed(&keys().ask)
}

/// A chip's own report, signed, with another VCEK than the good one.
fn with_vcek(change: impl FnOnce(&mut Spec)) -> SnpEvidence {
    let mut spec = Spec::vcek(&TCB, &CHIP);
    change(&mut spec);
    evidence(&signed(fields()), spec.signed(&keys().ask))
}

fn with_ask(change: impl FnOnce(&mut Spec)) -> SnpEvidence {
    let mut spec = Spec::ask();
    change(&mut spec);
    let mut evidence = good_evidence();
    evidence.cert_chain = Some(vec![entry("VCEK", vcek()), entry("ASK", spec.signed(&keys().ark))]);
    evidence
}

#[test]
fn a_good_report_gives_its_claims() {
    let claims = run(&good_evidence()).unwrap();
    assert_eq!((claims.version(), claims.policy()), (3, 0x3_0000));
    assert_eq!((claims.report_id(), claims.host_data()), (&REPORT_ID, &[0x0A; 32]));
    assert_eq!((claims.measurement(), claims.chip_id()), (&MEASUREMENT, &CHIP));
    assert_eq!(claims.reported_tcb(), TCB);
    assert_eq!(claims.report().fields().vmpl, 0);
    assert!(!claims.simulated());
}

#[test]
fn every_version_passes_and_turin_with_its_own_layout() {
    let turin_tcb = TcbVersion { fmc: Some(4), ..TCB };
    let mut turin_chip = [0; 64];
    turin_chip[..8].fill(0x71);
    let legacy = |version, cpuid: Option<u8>, mit: Option<u64>| {
        let mut fields = fields();
        fields.version = version;
        (fields.cpuid_fam_id, fields.cpuid_mod_id, fields.cpuid_step) = (cpuid.map(|_| 0x19), cpuid, cpuid);
        (fields.launch_mit_vector, fields.current_mit_vector) = (mit, mit);
        (fields, vcek())
    };
    let turin = |version, mit: Option<u64>, hardware_id: &[u8]| {
        let (mut fields, _) = legacy(version, Some(2), mit);
        fields.cpuid_fam_id = Some(0x1A);
        fields.chip_id = turin_chip;
        for tcb in
            [&mut fields.current_tcb, &mut fields.reported_tcb, &mut fields.committed_tcb, &mut fields.launch_tcb]
        {
            *tcb = turin_tcb;
        }
        (fields, Spec::vcek(&turin_tcb, hardware_id).signed(&keys().ask))
    };
    for (fields, vcek) in [
        legacy(2, None, None),
        legacy(3, Some(1), None),
        legacy(4, Some(1), None),
        legacy(5, Some(1), Some(3)),
        turin(3, None, &turin_chip[..8]),
        turin(5, Some(0), &turin_chip[..8]),
    ] {
        run(&evidence(&signed(fields), vcek)).unwrap();
    }
    let (fields, vcek) = turin(3, None, &turin_chip);
    assert_eq!(word(run(&evidence(&signed(fields), vcek))), "evidence.endorsement", "a padded hardware id");
}

#[test]
fn a_signature_whose_padding_is_not_zero_is_refused() {
    let mut fields = fields();
    fields.signature = signed(fields.clone()).fields().signature;
    fields.signature.r[71] = 1;
    assert_eq!(word(run(&evidence(&Report::new(fields.clone()).unwrap(), vcek()))), "evidence.signature");
    fields.signature = Signature::ZERO;
    assert_eq!(word(run(&evidence(&Report::new(fields).unwrap(), vcek()))), "evidence.signature");
}

#[test]
fn json_that_is_not_exactly_a_report_is_refused() {
    let good = good_evidence();
    for (name, change) in [
        ("unknown field", (|v: &mut serde_json::Value| v["extra"] = 1.into()) as fn(&mut serde_json::Value)),
        ("missing field", |v| drop(v.as_object_mut().unwrap().remove("vmpl"))),
        ("version 1", |v| v["version"] = 1.into()),
        ("version 6", |v| v["version"] = 6.into()),
        ("report data cut short", |v| drop(v["report_data"].as_array_mut().unwrap().pop())),
        ("a string", |v| *v = "report".into()),
    ] {
        let mut evidence = good.clone();
        change(&mut evidence.attestation_report);
        assert_eq!(word(run(&evidence)), "evidence.malformed", "{name}");
    }
}

#[test]
fn the_chain_must_lead_to_a_pinned_root() {
    let good = good_evidence();
    let chain =
        |entries: Vec<protocols::kbs::SnpCertificate>| SnpEvidence { cert_chain: Some(entries), ..good.clone() };
    let ask = || Spec::ask().signed(&keys().ark);
    let ark = || Spec::ark().signed(&keys().ark);
    let stranger = || keys().ask.clone(); // not the ARK's key
    let cases: Vec<(&str, &str, SnpEvidence)> = vec![
        ("no table", "evidence.chain", SnpEvidence { cert_chain: None, ..good.clone() }),
        ("empty table", "evidence.chain", chain(vec![])),
        ("no VCEK", "evidence.chain", chain(vec![entry("ASK", ask())])),
        ("no ASK", "evidence.chain", chain(vec![entry("VCEK", vcek())])),
        ("two VCEKs", "evidence.chain", chain(vec![entry("VCEK", vcek()), entry("VCEK", vcek()), entry("ASK", ask())])),
        ("a VLEK in the VCEK's place", "evidence.endorsement", chain(vec![entry("VLEK", vcek()), entry("ASK", ask())])),
        (
            "an ARK that comes along",
            "pass",
            chain(vec![entry("ARK", ark()), entry("VCEK", vcek()), entry("ASK", ask())]),
        ),
        ("any order", "pass", chain(vec![entry("ASK", ask()), entry("VCEK", vcek())])),
        ("17 certificates", "evidence.malformed", chain(vec![entry("CRL", vec![]); 17])),
        (
            "ASK signed by a stranger",
            "evidence.chain",
            chain(vec![entry("VCEK", vcek()), entry("ASK", Spec::ask().signed(&stranger()))]),
        ),
        (
            "VCEK signed by the ARK in the ASK's name",
            "evidence.chain",
            chain(vec![entry("VCEK", Spec::vcek(&TCB, &CHIP).signed(&keys().ark)), entry("ASK", ask())]),
        ),
        (
            "VCEK issued by the ARK itself",
            "evidence.chain",
            chain(vec![
                entry("VCEK", Spec { issuer: ("Test", "ARK"), ..Spec::vcek(&TCB, &CHIP) }.signed(&keys().ark)),
                entry("ASK", ask()),
            ]),
        ),
        ("garbage for a VCEK", "evidence.chain", chain(vec![entry("VCEK", vec![0x30, 0]), entry("ASK", ask())])),
        (
            "a byte after the VCEK",
            "evidence.chain",
            chain(vec![entry("VCEK", [vcek(), vec![0]].concat()), entry("ASK", ask())]),
        ),
        (
            "a garbage ASK beside the good one",
            "evidence.chain",
            chain(vec![entry("VCEK", vcek()), entry("ASK", ask()), entry("ASK", vec![])]),
        ),
        (
            "an ASK of another root beside the good one",
            "pass",
            chain(vec![entry("ASK", Spec::ask().signed(&stranger())), entry("VCEK", vcek()), entry("ASK", ask())]),
        ),
    ];
    for (name, expected, evidence) in cases {
        assert_eq!(word(run(&evidence)), expected, "{name}");
    }
    let nobody = SnpPolicy { roots: vec![], ..policy() };
    assert_eq!(word(verify_snp(&good, &REPORT_DATA, &nobody, NOW)), "evidence.chain", "no roots");
}

#[test]
fn certificates_that_do_not_fit_are_refused() {
    let p256 = p256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
    let p256 = x509_cert::spki::SubjectPublicKeyInfoOwned::from_key(p256.verifying_key()).unwrap();
    let p256 = x509_cert::der::Encode::to_der(&p256).unwrap();
    let tcb = |tcb| move |s: &mut Spec| s.extensions = chip_extensions(&tcb, &CHIP);
    let cases: Vec<(&str, &str, SnpEvidence)> = vec![
        ("good", "pass", with_vcek(|_| {})),
        ("P-256 VCEK", "evidence.chain", with_vcek(|s| s.spki = p256)),
        ("RSA VCEK", "evidence.chain", with_vcek(|s| s.spki = rsa_spki(&keys().ask))),
        (
            "another P-384 key",
            "evidence.signature",
            with_vcek(|s| {
                let other = p384::ecdsa::SigningKey::from_slice(&[8; 48]).unwrap();
                let spki = x509_cert::spki::SubjectPublicKeyInfoOwned::from_key(other.verifying_key()).unwrap();
                s.spki = x509_cert::der::Encode::to_der(&spki).unwrap();
            }),
        ),
        ("version 1 VCEK", "evidence.chain", with_vcek(|s| s.version.clear())),
        (
            "unknown critical extension",
            "evidence.chain",
            with_vcek(|s| s.extensions.push(extension("1.2.3", true, &[]))),
        ),
        ("unknown extension", "pass", with_vcek(|s| s.extensions.push(extension("1.2.3", false, &[])))),
        ("no hardware id", "evidence.endorsement", with_vcek(|s| drop(s.extensions.remove(4)))),
        ("hardware id twice", "evidence.endorsement", with_vcek(|s| s.extensions.push(s.extensions[4].clone()))),
        (
            "another hardware id",
            "evidence.endorsement",
            with_vcek(|s| s.extensions = chip_extensions(&TCB, &[0xC2; 64])),
        ),
        (
            "hardware id cut short",
            "evidence.endorsement",
            with_vcek(|s| s.extensions = chip_extensions(&TCB, &CHIP[..63])),
        ),
        ("component missing", "evidence.endorsement", with_vcek(|s| drop(s.extensions.remove(0)))),
        ("component twice", "evidence.endorsement", with_vcek(|s| s.extensions.push(component(1, 3)))),
        ("FMC of another generation", "evidence.endorsement", with_vcek(|s| s.extensions.push(component(9, 0)))),
        ("other boot loader", "evidence.endorsement", with_vcek(tcb(TcbVersion { bootloader: 4, ..TCB }))),
        ("other PSP system", "evidence.endorsement", with_vcek(tcb(TcbVersion { tee: 0, ..TCB }))),
        ("other SNP firmware", "evidence.endorsement", with_vcek(tcb(TcbVersion { snp: 9, ..TCB }))),
        ("other microcode", "evidence.endorsement", with_vcek(tcb(TcbVersion { microcode: 0xD1, ..TCB }))),
        ("expired VCEK", "evidence.chain", with_vcek(|s| s.not_after = "250101000000Z")),
        ("VCEK that is not valid yet", "evidence.chain", with_vcek(|s| s.not_before = "390101000000Z")),
        (
            "signed with another algorithm's name",
            "evidence.chain",
            with_vcek(|s| {
                s.algorithm =
                    tlv(0x30, &[&[0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C], &[5, 0]]);
            }),
        ),
        ("expired ASK", "evidence.chain", with_ask(|s| s.not_after = "250101000000Z")),
        ("ASK that is not valid yet", "evidence.chain", with_ask(|s| s.not_before = "390101000000Z")),
        ("ASK without CA", "evidence.chain", with_ask(|s| s.extensions = vec![basic_constraints(false), key_usage(4)])),
        ("ASK without constraints", "evidence.chain", with_ask(|s| s.extensions = vec![key_usage(4)])),
        (
            "ASK that may not sign certificates",
            "evidence.chain",
            with_ask(|s| {
                s.extensions = vec![basic_constraints(true), key_usage(0x80)];
            }),
        ),
        ("ASK without key usage", "pass", with_ask(|s| s.extensions = vec![basic_constraints(true)])),
        ("ASK of another name", "evidence.chain", with_ask(|s| s.subject = ("Test", "ASK 2"))),
        ("ASK in another root's name", "evidence.chain", with_ask(|s| s.issuer = ("Test", "ARK 2"))),
    ];
    for (name, expected, evidence) in cases {
        assert_eq!(word(run(&evidence)), expected, "{name}");
    }
}

#[test]
fn validity_includes_both_ends() {
    let start = Timestamp::parse("2020-01-01T00:00:00Z").unwrap();
    let end = Timestamp::parse("2040-01-01T00:00:00Z").unwrap();
    let at = |now| word(verify_snp(&good_evidence(), &REPORT_DATA, &policy(), now));
    assert_eq!(at(start), "pass");
    assert_eq!(at(end), "pass");
    assert_eq!(at(Timestamp(start.0 - 1)), "evidence.chain");
    assert_eq!(at(Timestamp(end.0 + 1)), "evidence.chain");
}

#[test]
fn the_simulated_are_refused_in_production_and_named_in_development() {
    let development = |policy: SnpPolicy| SnpPolicy { environment: Environment::Development, ..policy };
    let check = |evidence: &SnpEvidence, policy: &SnpPolicy| verify_snp(evidence, &REPORT_DATA, policy, NOW);
    let simulated_root = SnpPolicy { roots: vec![root(true)], ..policy() };
    assert_eq!(word(check(&good_evidence(), &simulated_root)), "policy.environment");
    assert!(check(&good_evidence(), &development(simulated_root)).unwrap().simulated());

    // The mark counts even where the root's configuration forgot the word, and where no root is configured.
    let marked = with_vcek(|s| s.subject = ("SIMULATED", "VCEK"));
    assert_eq!(word(check(&marked, &policy())), "policy.environment");
    assert_eq!(word(check(&marked, &SnpPolicy { roots: vec![], ..policy() })), "policy.environment");
    assert!(check(&marked, &development(policy())).unwrap().simulated());
    assert!(!check(&good_evidence(), &development(policy())).unwrap().simulated());

    let marked = Spec { issuer: ("SIMULATED", "ARK"), subject: ("SIMULATED", "ARK"), ..Spec::ark() };
    let marked = TrustedArk::from_pem(&pem(&[marked.signed(&keys().ark)]), false, TcbVersion::default()).unwrap();
    assert!(marked.simulated());
}

#[test]
fn any_measurement_is_a_development_value() {
    let any = SnpPolicy { measurements: ExpectedMeasurement::AnyMeasurement, ..policy() };
    assert_eq!(word(verify_snp(&good_evidence(), &REPORT_DATA, &any, NOW)), "policy.environment");
    let any = SnpPolicy { environment: Environment::Development, ..any };
    assert_eq!(word(verify_snp(&good_evidence(), &REPORT_DATA, &any, NOW)), "pass");
    let none = SnpPolicy { measurements: ExpectedMeasurement::Listed(vec![]), ..policy() };
    assert_eq!(word(verify_snp(&good_evidence(), &REPORT_DATA, &none, NOW)), "evidence.measurement");
}

#[test]
fn a_file_that_is_no_root_is_refused() {
    let (ark, ask) = (Spec::ark().signed(&keys().ark), Spec::ask().signed(&keys().ark));
    let read = |ders: &[Vec<u8>]| TrustedArk::from_pem(&pem(ders), false, TcbVersion::default()).map(|_| ());
    let wrong = |place, what| Err(RootError::Certificate { place, what });
    assert_eq!(read(&[ask.clone(), ark.clone()]), Ok(()));
    assert_eq!(read(&[]), Err(RootError::Ark { count: 0 }));
    assert_eq!(read(std::slice::from_ref(&ask)), Err(RootError::Ark { count: 0 }));
    assert_eq!(read(&[ark.clone(), ark.clone()]), Err(RootError::Ark { count: 2 }));
    assert_eq!(read(&[ark.clone(), vcek()]), wrong(1, "not issued by the ARK"));
    assert_eq!(read(&[Spec::ark().signed(&keys().ask)]), wrong(0, "the issuer's signature does not verify"));
    let stranger = Spec::ask().signed(&keys().ask);
    assert_eq!(read(&[ark, stranger]), wrong(1, "the issuer's signature does not verify"));
    let no_ca = Spec { extensions: vec![basic_constraints(false)], ..Spec::ark() };
    assert_eq!(read(&[no_ca.signed(&keys().ark)]), wrong(0, "the issuer is not a certificate authority"));
    assert_eq!(read(&[vec![0x30, 0]]), wrong(0, "not a DER certificate"));
    for text in ["-----BEGIN CERTIFICATE-----\nAAAA", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"] {
        TrustedArk::from_pem(text, false, TcbVersion::default()).unwrap_err();
    }
}

#[test]
fn intermediates_of_the_root_need_not_come_with_the_evidence() {
    let pem = pem(&[Spec::ark().signed(&keys().ark), Spec::ask().signed(&keys().ark)]);
    let known = TrustedArk::from_pem(&pem, false, TcbVersion::default()).unwrap();
    let policy = SnpPolicy { roots: vec![known], ..policy() };
    let alone = SnpEvidence { cert_chain: Some(vec![entry("VCEK", vcek())]), ..good_evidence() };
    verify_snp(&alone, &REPORT_DATA, &policy, NOW).unwrap();
}

const REPORT: &[u8] = include_bytes!("../../../../tests/data/vectors/snp/test-report.bin");
const VCEK: &[u8] = include_bytes!("../../../../tests/data/vectors/snp/test-vcek.der");
const OTHER_VCEK: &[u8] = include_bytes!("../../../../tests/data/vectors/snp/test-vcek-invalid-new.der");

fn amd() -> SnpPolicy {
    let none = TcbVersion::default();
    SnpPolicy { roots: amd_roots(none, none, none).unwrap(), ..policy() }
}

/// A report of a real Milan chip.
fn published(vcek: &[u8]) -> (SnpEvidence, [u8; 64], SnpPolicy) {
    let report = Report::parse(REPORT).unwrap();
    let measurements = ExpectedMeasurement::Listed(vec![report.fields().measurement]);
    let chain = vec![entry("VCEK", vcek.to_vec())];
    let evidence = SnpEvidence { attestation_report: report.to_json(), cert_chain: Some(chain) };
    (evidence, report.fields().report_data, SnpPolicy { measurements, ..amd() })
}

#[test]
fn amds_roots_are_read() {
    let roots = amd().roots;
    assert_eq!(roots.len(), 3);
    assert!(roots.iter().all(|root| !root.simulated() && root.intermediates().len() == 2));
}

#[test]
fn a_real_report_verifies_under_amds_root() {
    let (evidence, report_data, policy) = published(VCEK);
    let claims = verify_snp(&evidence, &report_data, &policy, NOW).unwrap();
    assert_eq!(claims.version(), 2);
    assert_eq!(claims.reported_tcb(), TcbVersion { fmc: None, bootloader: 3, tee: 0, snp: 8, microcode: 115 });
    assert!(!claims.simulated());

    let expired = Timestamp::parse("2030-01-25T00:00:00Z").unwrap();
    assert_eq!(word(verify_snp(&evidence, &report_data, &policy, expired)), "evidence.chain");
    assert_eq!(word(verify_snp(&evidence, &REPORT_DATA, &policy, NOW)), "evidence.nonce");
    let test_roots = SnpPolicy { roots: vec![root(false)], ..policy.clone() };
    assert_eq!(word(verify_snp(&evidence, &report_data, &test_roots, NOW)), "evidence.chain");
    let minimum = TcbVersion { snp: 9, ..TcbVersion::default() };
    let roots = amd_roots(minimum, TcbVersion::default(), TcbVersion::default()).unwrap();
    assert_eq!(word(verify_snp(&evidence, &report_data, &SnpPolicy { roots, ..policy }, NOW)), "evidence.tcb");
}

/// Published as a wrong VCEK: it carries AMD's names, and AMD's key did not sign it (openssl agrees).
#[test]
fn a_real_report_with_a_wrong_vcek_is_refused() {
    let (evidence, report_data, policy) = published(OTHER_VCEK);
    let refusal = verify_snp(&evidence, &report_data, &policy, NOW).unwrap_err();
    assert_eq!(
        (refusal.code.as_str(), refusal.actual.as_str()),
        ("evidence.chain", "the issuer's signature does not verify")
    );
}

#[test]
fn no_byte_of_a_real_report_or_vcek_can_be_changed() {
    let (evidence, report_data, policy) = published(VCEK);
    for place in (0..REPORT.len()).step_by(3) {
        let mut bytes = REPORT.to_vec();
        bytes[place] ^= 1;
        let Ok(report) = Report::parse(&bytes) else { continue };
        let flipped = SnpEvidence { attestation_report: report.to_json(), ..evidence.clone() };
        assert!(verify_snp(&flipped, &report_data, &policy, NOW).is_err(), "report byte {place:#x}");
    }
    for place in 0..VCEK.len() {
        let mut bytes = VCEK.to_vec();
        bytes[place] ^= 1;
        let flipped = SnpEvidence { cert_chain: Some(vec![entry("VCEK", bytes)]), ..evidence.clone() };
        assert!(verify_snp(&flipped, &report_data, &policy, NOW).is_err(), "VCEK byte {place:#x}");
    }
}
