use protocols::azure::{AzureSnpEvidence, AzureTdxEvidence};
use protocols::digest::Sha256Digest;
use protocols::kbs::{SnpCertificate, SnpEvidence, TpmEvidence};
use protocols::register::HashAlg;
use protocols::snp::{REPORT_SIZE, Report};
use protocols::time::Timestamp;
use protocols::tpm::Attest;
use simulated_tee::tdx::{Body, CollateralFacts, Platform};
use verifier::{
    AllowedChips, AzureHardware, AzurePolicy, AzureTdxPolicy, EnrolledAk, Enrolment, ExpectedMeasurement, SeptVe,
    SnpPolicy, TcbVersion, TdxCollateral, TdxMeasurements, TdxPolicy, TdxRoot, TpmPolicy, Trace, UserData, amd_roots,
    verify_azure_snp, verify_azure_tdx, verify_snp, verify_tpm,
};

use super::*;
use crate::rego::MAX_TEXT;

/// 2026-01-02.
const NOW: Timestamp = Timestamp(1_767_312_000);

fn snp_policy() -> SnpPolicy {
    let any = TcbVersion::default();
    SnpPolicy {
        roots: amd_roots(any, any, any).unwrap(),
        measurements: ExpectedMeasurement::AnyMeasurement,
        vmpl: 0,
        chips: AllowedChips::AnyChip,
        providers: Vec::new(),
        environment: Environment::Development,
    }
}

/// A real Milan chip's report.
fn snp() -> EvidenceClaims {
    let bytes: [u8; REPORT_SIZE] = *include_bytes!("../../../../tests/data/vectors/snp/test-report.bin");
    let vcek = include_bytes!("../../../../tests/data/vectors/snp/test-vcek.der").to_vec();
    let report = Report::parse(&bytes).unwrap();
    let report_data = report.fields().report_data;
    let certificates = vec![SnpCertificate { cert_type: "VCEK".into(), data: vcek }];
    let evidence = SnpEvidence { attestation_report: report.to_json(), cert_chain: Some(certificates) };
    EvidenceClaims::Snp(Box::new(verify_snp(&evidence, &report_data, &snp_policy(), NOW, &mut Trace::off()).unwrap()))
}

/// A simulated chip's report.
fn simulated() -> EvidenceClaims {
    let directory = tempfile::tempdir().unwrap();
    let pki = simulated_tee::Pki::create(directory.path()).unwrap();
    let report = pki.report(&simulated_tee::Params::new([1; 64], [2; 32], [3; 32])).unwrap();
    let evidence = SnpEvidence { attestation_report: report.to_json(), cert_chain: Some(pki.certificates()) };
    let roots =
        vec![verifier::TrustedArk::from_ders([pki.ark_der(), pki.ask_der()], true, TcbVersion::default()).unwrap()];
    let policy = SnpPolicy { roots, ..snp_policy() };
    let claims = verify_snp(&evidence, &[1; 64], &policy, Timestamp::now(), &mut Trace::off()).unwrap();
    EvidenceClaims::Snp(Box::new(claims))
}

fn tpm() -> EvidenceClaims {
    enrolled(Enrolment::Listed)
}

fn enrolled(enrolment: Enrolment) -> EvidenceClaims {
    let text = include_str!("../../../../tests/data/vectors/tpm/tpm_evidence.json");
    let evidence: TpmEvidence = serde_json::from_str(text).unwrap();
    let nonce = Attest::parse(&evidence.tpm_quote.message).unwrap().extra_data;
    let ak = EnrolledAk { spki_der: evidence.ak_public.clone(), simulated: false, enrolment };
    let policy = TpmPolicy { aks: vec![ak], pcr: 14, environment: Environment::Production };
    EvidenceClaims::Tpm(Box::new(verify_tpm(&evidence, &nonce, &policy, &mut Trace::off()).unwrap()))
}

fn azure() -> EvidenceClaims {
    let text = include_str!("../../../../tests/data/vectors/az-snp-vtpm/evidence-v2.json");
    let evidence = AzureSnpEvidence::from_json(&serde_json::from_str(text).unwrap()).unwrap();
    let nonce = Attest::parse(&evidence.quote.message).unwrap().extra_data;
    let policy = AzurePolicy { snp: snp_policy(), user_data: UserData::Nonce };
    let claims = verify_azure_snp(&evidence, &nonce, &policy, NOW, &mut Trace::off()).unwrap();
    EvidenceClaims::Azure(Box::new(claims))
}

/// A simulated Azure VM on TDX, of a TCB that has this status.
fn azure_td(status: &'static str) -> EvidenceClaims {
    let (platform, vm) = (Platform::new(NOW).unwrap(), simulated_tee::AzureVm::new().unwrap());
    let mut facts = CollateralFacts::new(&platform, NOW);
    facts.levels.iter_mut().for_each(|level| level.status = status);
    let claims = vm.claims(&[0; 64]).to_string();
    let params = simulated_tee::tdx::Params::new(Body::V4, simulated_tee::claims_data(claims.as_bytes()));
    let quote = simulated_tee::VtpmQuote::new(b"nonce", &[Sha256Digest::new([7; 32]); 24]);
    let td_quote = platform.quote(&params).unwrap().encode();
    let evidence: AzureTdxEvidence = vm.td_evidence_of(&params.report, td_quote, claims.as_bytes(), &quote);
    let tdx = TdxPolicy {
        roots: vec![TdxRoot::from_der(&platform.root_der(), true).unwrap()],
        collateral: vec![TdxCollateral::parse(platform.collateral(&facts).as_bytes()).unwrap()],
        statuses: vec![verifier::tdx::TcbStatus::UpToDate, verifier::tdx::TcbStatus::SWHardeningNeeded],
        advisories: vec![],
        minimum_evaluation: 1,
        measurements: TdxMeasurements::ANY,
        environment: Environment::Development,
    };
    let policy = AzureTdxPolicy { tdx, sept_ve: SeptVe::Required, user_data: UserData::AnyUserData };
    let claims = verify_azure_tdx(&evidence, b"nonce", &policy, NOW, &mut Trace::off()).unwrap();
    EvidenceClaims::Azure(Box::new(claims))
}

fn built_in() -> AppraisalPolicy {
    AppraisalPolicy::compile(BUILT_IN).unwrap()
}

fn tee(claims: &EvidenceClaims) -> Tee {
    match claims {
        EvidenceClaims::Snp(_) => Tee::Snp,
        EvidenceClaims::Tdx(_) => Tee::Tdx,
        EvidenceClaims::Tpm(_) => Tee::Tpm,
        EvidenceClaims::Sample(_) => Tee::Sample,
        EvidenceClaims::Azure(claims) => match claims.hardware() {
            AzureHardware::Snp(_) => Tee::AzSnpVtpm,
            AzureHardware::Tdx(_) => Tee::AzTdxVtpm,
        },
    }
}

/// What the evidence measured under these names, as if somebody had expected it.
fn expecting(claims: &EvidenceClaims, names: &[&str]) -> References {
    let mut references = References::default();
    for (name, value) in claims::measured(claims) {
        if names.contains(&name.as_str()) {
            references.add(&name, &value).unwrap();
        }
    }
    assert_eq!(references.values().len(), names.len());
    references
}

fn init(claims: &EvidenceClaims) -> Init {
    Init {
        v: 1,
        boot_nonce: [1; 32],
        register_kind: claims.told().unwrap(),
        reg0: HashAlg::Sha384.zero(),
        agent: "0.1.0".into(),
        agent_h: Sha256Digest::of(b"agent"),
        initdata: None,
        config: Sha256Digest::of(b"configuration"),
        environment: Environment::Production,
        simulated: claims.simulated(),
    }
}

struct Asked {
    claims: EvidenceClaims,
    init: Option<Init>,
    registers: Vec<RegisterKind>,
    references: References,
    environment: Environment,
}

impl Asked {
    /// What production expects of it is what it is.
    fn expected(claims: EvidenceClaims, names: &[&str]) -> Self {
        Self {
            references: expecting(&claims, names),
            init: Some(init(&claims)),
            registers: claims.register().into_iter().collect(),
            claims,
            environment: Environment::Production,
        }
    }

    fn by(&self, policy: &AppraisalPolicy) -> Result<TrustVector, Refusal> {
        let question = Question {
            tee: tee(&self.claims),
            claims: &self.claims,
            init: self.init.as_ref(),
            registers: &self.registers,
            references: &self.references,
            environment: self.environment,
        };
        let appraisal = policy.appraise(&question)?;
        let submod = appraisal.ear().submods.get(COMPONENT).unwrap();
        assert_eq!((submod.status, submod.vector.tier()), (appraisal.status(), appraisal.status()));
        let bytes = serde_json::to_vec(appraisal.ear()).unwrap();
        assert_eq!(Ear::from_json(&bytes).as_ref(), Ok(appraisal.ear()));
        Ok(submod.vector)
    }

    fn refused(&self, policy: &AppraisalPolicy) -> String {
        let refusal = self.by(policy).unwrap_err();
        assert_eq!(refusal.code, reason::EVIDENCE_APPRAISAL);
        refusal.actual
    }
}

const AFFIRMED: TrustVector = TrustVector {
    instance_identity: 2,
    configuration: 2,
    executables: 3,
    file_system: 0,
    hardware: 2,
    runtime_opaque: 2,
    storage_opaque: 0,
    sourced_data: 0,
};

#[test]
fn production_affirms_exactly_what_is_expected_of_each_platform() {
    let policy = built_in();
    assert_eq!(Asked::expected(snp(), &["snp.measurement"]).by(&policy).unwrap(), AFFIRMED);
    let azure_names = ["azure.measurement", "tpm.pcr4", "tpm.pcr11"];
    assert_eq!(Asked::expected(azure(), &azure_names).by(&policy).unwrap(), AFFIRMED);
    let visible = TrustVector { runtime_opaque: 0, ..AFFIRMED };
    assert_eq!(Asked::expected(tpm(), &["tpm.pcr4"]).by(&policy).unwrap(), visible);
    let without_log = Asked { init: None, ..Asked::expected(snp(), &["snp.measurement"]) };
    assert_eq!(without_log.by(&policy).unwrap(), TrustVector { configuration: 3, ..AFFIRMED });
}

/// The platform is simulated, so that what a real one would get is asked of the policy alone.
#[test]
fn of_azures_tds_paravisor_and_boot_are_expected_and_the_tcb_is_graded() {
    let tds = reference_values::names::AZURE_TDX;
    let names = [tds.as_slice(), &["tpm.pcr4", "tpm.pcr11"]].concat();
    let development = |claims, names: &[&str]| {
        Asked { environment: Environment::Development, ..Asked::expected(claims, names) }.by(&built_in()).unwrap()
    };
    let known = development(azure_td("UpToDate"), &names);
    assert_eq!((known.executables, known.hardware, known.configuration), (3, 32, 2));
    for some in [&tds[..], &names[1..], &names[4..]] {
        assert_eq!(development(azure_td("UpToDate"), some).executables, 33, "{some:?}");
    }
    let real = BUILT_IN.replace("not input.simulated", "true");
    let graded = |status| {
        let asked = Asked { environment: Environment::Development, ..Asked::expected(azure_td(status), &names) };
        // Whether it is simulated decides `hardware` once more: that line is out of the way too.
        let real = real.replace("hardware := unexpected.hardware if input.simulated", "");
        asked.by(&AppraisalPolicy::compile(&real).unwrap()).unwrap().hardware
    };
    assert_eq!((graded("UpToDate"), graded("SWHardeningNeeded")), (2, 32));
}

#[test]
fn production_contraindicates_what_boots_unexpected() {
    let policy = built_in();
    for claims in [snp(), tpm(), azure()] {
        let told = Asked::expected(claims, &[]).refused(&policy);
        assert!(told.starts_with("contraindicated: what booted is not among the reference values"), "{told}");
    }
    // The paravisor alone, or the boot alone, is half of it.
    Asked::expected(azure(), &["azure.measurement"]).refused(&policy);
    Asked::expected(azure(), &["tpm.pcr4"]).refused(&policy);
    let mut other = Asked::expected(tpm(), &["tpm.pcr4"]);
    other.references.add("tpm.pcr9", &"77".repeat(32)).unwrap();
    other.refused(&policy);
    let mut another = References::default();
    another.add("snp.measurement", &"77".repeat(48)).unwrap();
    Asked { references: another, ..Asked::expected(snp(), &[]) }.refused(&policy);
}

#[test]
fn development_warns_where_production_refuses() {
    let policy = built_in();
    let development = |asked| Asked { environment: Environment::Development, ..asked };
    let unknown = development(Asked::expected(snp(), &[])).by(&policy).unwrap();
    assert_eq!(unknown, TrustVector { executables: 33, ..AFFIRMED });
    let simulated = || Asked::expected(simulated(), &["snp.measurement"]);
    let stamped = TrustVector { instance_identity: 0, hardware: 32, runtime_opaque: 0, ..AFFIRMED };
    assert_eq!(development(simulated()).by(&policy).unwrap(), stamped);
    // No verifier of production gives such claims; the policy does not rely on that.
    assert!(simulated().refused(&policy).contains("SIMULATED"));
}

/// Sample evidence over some binding.
fn sample() -> EvidenceClaims {
    let binding = protocols::digest::Sha384Digest::of(b"runtime data");
    let evidence = protocols::kbs::SampleEvidence { svn: "1".into(), report_data: binding.as_bytes().to_vec() };
    let accepted = verifier::SamplePolicy::Accepted;
    let claims = verifier::verify_sample(Tee::Sample, &evidence, &binding, accepted, Environment::Development);
    EvidenceClaims::Sample(Box::new(claims.unwrap()))
}

#[test]
fn sample_evidence_is_warned_of_in_development_and_contraindicated_in_production() {
    let asked = |environment| Asked {
        claims: sample(),
        init: None,
        registers: vec![RegisterKind::Software],
        references: References::default(),
        environment,
    };
    let warned = asked(Environment::Development).by(&built_in()).unwrap();
    let nothing = TrustVector { instance_identity: 0, file_system: 0, runtime_opaque: 0, ..AFFIRMED };
    assert_eq!(warned, TrustVector { configuration: 33, executables: 33, hardware: 32, ..nothing });
    assert!(asked(Environment::Production).refused(&built_in()).contains("SIMULATED"));
}

#[test]
fn devices_and_members_are_added_and_replace_nothing() {
    let asked = Asked { environment: Environment::Development, ..Asked::expected(snp(), &["snp.measurement"]) };
    let (policy, sample) = (built_in(), sample());
    let references = References::default();
    let appraise = |tee, claims| {
        let question = Question {
            tee,
            claims,
            init: None,
            registers: &asked.registers,
            references: &references,
            environment: Environment::Development,
        };
        policy.appraise(&question).unwrap()
    };
    let device = || appraise(Tee::SampleDevice, &sample);
    let platform = appraise(Tee::Snp, &asked.claims);
    let both = platform.clone().with_device("gpu0".to_owned(), device()).with_device(COMPONENT.to_owned(), device());
    assert_eq!(both.ear().submods.get(COMPONENT), platform.ear().submods.get(COMPONENT));
    assert_eq!(both.ear().submods.get("gpu0"), device().ear().submods.get(COMPONENT));
    assert_eq!((both.status(), both.ear().submods.len()), (Tier::Warning, 2));
    let member = platform.clone().with_member("init_data", "x".into()).with_member("snp", "forged".into());
    let evidence = |appraisal: &Appraisal| appraisal.ear().submods.get(COMPONENT).unwrap().evidence.clone();
    assert_eq!(evidence(&member).get("init_data").unwrap(), "x");
    assert_eq!(evidence(&member).get("snp"), evidence(&platform).get("snp"));
}

#[test]
fn the_logs_first_record_and_the_registers_kind_must_fit() {
    let policy = built_in();
    let expected = || Asked::expected(snp(), &["snp.measurement"]);
    let with = |change: fn(&mut Init)| {
        let mut asked = expected();
        change(asked.init.as_mut().unwrap());
        asked.refused(&policy)
    };
    with(|init| init.environment = Environment::Development);
    with(|init| init.register_kind = RegisterKind::Rtmr);
    with(|init| init.simulated = true);
    Asked { registers: vec![RegisterKind::Rtmr], ..expected() }.refused(&policy);
    Asked { registers: Vec::new(), init: None, ..expected() }.refused(&policy);
}

#[test]
fn an_endorsed_key_is_of_its_own_kind_though_its_guest_says_listed() {
    let policy = built_in();
    let visible = TrustVector { runtime_opaque: 0, ..AFFIRMED };
    let endorsed = || Asked::expected(enrolled(Enrolment::Endorsed), &["tpm.pcr4"]);
    assert_eq!(endorsed().registers, [RegisterKind::TpmEk]);
    assert_eq!(endorsed().by(&policy).unwrap(), visible);
    Asked { registers: vec![RegisterKind::TpmListed], ..endorsed() }.refused(&policy);
    Asked { registers: vec![RegisterKind::TpmEk], ..Asked::expected(tpm(), &["tpm.pcr4"]) }.refused(&policy);
    let mut boasting = endorsed();
    boasting.init.as_mut().unwrap().register_kind = RegisterKind::TpmEk;
    boasting.refused(&policy);
}

fn vector(members: &str) -> String {
    let rest = ["configuration", "executables", "file-system", "hardware", "runtime-opaque", "storage-opaque"];
    let rest: Vec<String> = rest.iter().map(|name| format!("\"{name}\": 2")).collect();
    format!("package appraisal\ntrust_vector := {{{}, \"sourced-data\": 0{members}}}\n", rest.join(", "))
}

#[test]
fn a_vector_that_is_not_whole_gives_no_session() {
    let asked = Asked::expected(snp(), &[]);
    let by = |text: &str| asked.by(&AppraisalPolicy::compile(text).unwrap());
    by(&vector(", \"instance-identity\": 2")).unwrap();
    for (text, why) in [
        (vector(""), "instance-identity"),
        (vector(", \"instance-identity\": 128"), "128"),
        (vector(", \"instance-identity\": 2.5"), "2.5"),
        (vector(", \"instance-identity\": \"2\""), "string"),
        (vector(", \"instance-identity\": 2, \"charm\": 2"), "charm"),
        ("package appraisal\ntrust_vector := 2 if input.tee == \"no\"".to_owned(), "trust_vector"),
        // Nothing asserted, or a verifier that failed, is no pass.
        (vector(", \"instance-identity\": -1"), "none"),
        (vector(", \"instance-identity\": 1"), "none"),
        (vector(", \"instance-identity\": 99"), "contraindicated"),
        (vector(", \"instance-identity\": input.nothing.at.all"), "trust_vector"),
        (vector(", \"instance-identity\": to_number(input.tee)"), "could not be evaluated"),
    ] {
        let refusal = by(&text).unwrap_err();
        assert!(refusal.actual.contains(why), "{text}: {refusal}");
    }
    let zero = vector(", \"instance-identity\": 0").replace(": 2", ": 0");
    assert!(by(&zero).unwrap_err().actual.starts_with("none"));
}

#[test]
fn a_policy_that_does_not_end_is_stopped_and_the_next_question_is_answered() {
    let endless = "package appraisal\nimport rego.v1\ntrust_vector := x if {\n\
                   input.tee\nx := {y | some i in numbers.range(1, 100000); some j in numbers.range(1, 100000); y := i * j}\n}\n";
    let asked = Asked::expected(snp(), &[]);
    match AppraisalPolicy::compile(endless) {
        Ok(policy) => {
            let told = asked.refused(&policy);
            assert!(told.contains("could not be evaluated"), "{told}");
            asked.refused(&policy);
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn an_unusable_policy_is_no_policy() {
    let long = format!("package appraisal\n# {}", "\n#".repeat(MAX_TEXT / 2));
    for (text, error) in [
        ("", "Rego"),
        ("package appraisal\ntrust_vector := {", "Rego"),
        ("package appraisal\ntrust_vector := to_number(\"x\")", "Rego"),
        ("package agent_policy\ntrust_vector := {}", "`agent_policy`"),
        ("package appraisal\ntrust_vectors := {}", "`trust_vector`"),
        (&long, "bytes"),
    ] {
        let told = AppraisalPolicy::compile(text).unwrap_err().to_string();
        assert!(told.contains(error), "{told}");
    }
}

/// The documentation's example is a policy, and means what the text says.
#[test]
fn the_documented_example_affirms_one_release_of_the_agent_alone() {
    let document = include_str!("../../../../docs/appraisal-policy.md");
    let text = document.split("```rego\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let policy = AppraisalPolicy::compile(text).unwrap();
    let asked = Asked::expected(snp(), &["snp.measurement"]);
    let affirmed = TrustVector { configuration: 3, ..AFFIRMED };
    assert_eq!(asked.by(&policy).unwrap(), affirmed);
    assert_eq!(Asked { init: None, ..Asked::expected(snp(), &["snp.measurement"]) }.by(&policy).unwrap(), affirmed);
    let mut other = Asked::expected(snp(), &["snp.measurement"]);
    other.init.as_mut().unwrap().agent = "0.1.1".into();
    assert!(other.refused(&policy).contains("another agent"));
    assert!(Asked::expected(snp(), &[]).refused(&policy).contains("another boot"));
}

#[test]
fn what_was_said_of_one_input_is_said_of_no_other_and_not_kept_without_end() {
    let text = "package appraisal\ntrust_vector := {\"instance-identity\": input.n, \"configuration\": 2, \"executables\": 2, \
                \"file-system\": 2, \"hardware\": 2, \"runtime-opaque\": 2, \"storage-opaque\": 2, \"sourced-data\": 2}\n";
    let policy = AppraisalPolicy::compile(text).unwrap();
    for _ in 0..2 {
        for n in [2, 33, 97] {
            let vector = policy.grade(json!({ "n": n })).unwrap().vector;
            assert_eq!(serde_json::to_value(vector).unwrap()["instance-identity"], n);
        }
    }
    for other in 0..=MAX_KNOWN {
        policy.grade(json!({ "n": 2, "other": other })).unwrap();
    }
    assert!(policy.said().len() <= MAX_KNOWN);
}
