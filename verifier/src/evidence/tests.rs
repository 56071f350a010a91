use protocols::event_log::{MR_RTMR3, Record};
use protocols::events::{Event, Init};
use protocols::register::HashAlg;

use super::*;
use crate::azure::UserData;
use crate::log::check_log;
use crate::snp::testing::{self as snp, REPORT_ID};
use crate::tdx::SeptVe;
use crate::tdx::testing as tdx;
use crate::testing::{NOW, init, launch};
use crate::tpm::testing::{Quote, key, spki};
use crate::tpm::{EnrolledAk, Enrolment};

const PCR: u32 = 14;

fn policy(environment: Environment) -> EvidencePolicy {
    let simulated = environment == Environment::Development;
    EvidencePolicy {
        tpm: TpmPolicy {
            aks: vec![EnrolledAk { spki_der: spki(&key(1)), simulated, enrolment: Enrolment::Listed }],
            pcr: PCR,
            environment,
        },
        snp: SnpPolicy { roots: vec![snp::root(simulated)], environment, ..snp::policy() },
        azure: AzurePolicy {
            snp: SnpPolicy { roots: vec![snp::root(simulated)], environment, ..snp::policy() },
            user_data: UserData::Nonce,
        },
        azure_tdx: AzureTdxPolicy {
            tdx: TdxPolicy { environment, ..tdx::Scene::new(tdx::Body::V4).policy() },
            sept_ve: SeptVe::NotRequired,
            user_data: UserData::Nonce,
        },
        tdx: TdxPolicy { environment, ..tdx::Scene::new(tdx::Body::V4).policy() },
        sample: SamplePolicy::Refused,
        registers: vec![RegisterKind::TpmListed, RegisterKind::Software, RegisterKind::VtpmHcl, RegisterKind::Rtmr],
        environment,
    }
}

fn binding_digest() -> Sha384Digest {
    Sha384Digest::of(b"runtime data")
}

fn records(mr: u32, alg: HashAlg, init: Init) -> Vec<Record> {
    let events = [Event::from(init)].into_iter().chain(launch(1).into_iter().take(4));
    events.map(|event| event.record(mr, alg).unwrap()).collect()
}

/// Evidence over [`binding_digest`] with the log it belongs to.
struct Shown {
    claims: EvidenceClaims,
    log: LogState,
    binding: LogBinding,
    policy: EvidencePolicy,
}

impl Shown {
    fn bind(&self) -> &'static str {
        bind_log(&self.claims, &self.log, &self.binding, &self.policy)
            .map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
    }
}

fn tpm<F: FnOnce(&mut Init)>(environment: Environment, change: F) -> Shown {
    tpm_with(environment, change, |_| {})
}

fn tpm_with(environment: Environment, change: impl FnOnce(&mut Init), quoted: impl FnOnce(&mut Quote)) -> Shown {
    let simulated = environment == Environment::Development;
    let mut first =
        Init { register_kind: RegisterKind::TpmListed, reg0: HashAlg::Sha256.zero(), environment, simulated, ..init() };
    change(&mut first);
    let log = check_log(&records(PCR, HashAlg::Sha256, first)).unwrap();
    let mut quote = Quote::good();
    quote.extra_data = kbs::tpm_nonce(&binding_digest()).to_vec();
    let RegisterValue::Sha256(head) = log.head() else { unreachable!() };
    quote.set_pcr(14, head);
    quoted(&mut quote);
    let policy = policy(environment);
    let evidence = serde_json::to_value(quote.signed(&key(1))).unwrap();
    let claims = verify_evidence(Tee::Tpm, &evidence, &binding_digest(), &policy, NOW).unwrap();
    let binding = LogBinding {
        alg: HashAlg::Sha256,
        count: log.count(),
        guest: GuestId::of_tpm(&spki(&key(1)), 89, &log.init().boot_nonce),
        head: log.head(),
        kind: RegisterKind::TpmListed,
    };
    Shown { claims, log, binding, policy }
}

fn snp<F: FnOnce(&mut Init)>(environment: Environment, change: F) -> Shown {
    let simulated = environment == Environment::Development;
    let initdata = Some(Sha256Digest::new(snp::fields().host_data).into());
    let mut first = Init { initdata, environment, simulated, ..init() };
    change(&mut first);
    let log = check_log(&records(MR_RTMR3, HashAlg::Sha384, first)).unwrap();
    let mut fields = snp::fields();
    fields.report_data = kbs::report_data(&binding_digest());
    let vcek = snp::Spec::vcek(&snp::TCB, &snp::CHIP).signed(&snp::keys().ask);
    let evidence = serde_json::to_value(snp::evidence(&snp::signed(fields), vcek)).unwrap();
    let policy = policy(environment);
    let claims = verify_evidence(Tee::Snp, &evidence, &binding_digest(), &policy, NOW).unwrap();
    let binding = LogBinding {
        alg: HashAlg::Sha384,
        count: log.count(),
        guest: GuestId::new(REPORT_ID),
        head: log.head(),
        kind: RegisterKind::Software,
    };
    Shown { claims, log, binding, policy }
}

/// A simulated TD, since there is no other, in development.
fn tdx(change: impl FnOnce(&mut Init), quoted: impl FnOnce(&mut tdx::Params)) -> Shown {
    let mut first = Init { register_kind: RegisterKind::Rtmr, ..init() };
    change(&mut first);
    let log = check_log(&records(MR_RTMR3, HashAlg::Sha384, first)).unwrap();
    let mut scene = tdx::Scene::new(tdx::Body::V5Report15);
    scene.params.report.report_data = kbs::report_data(&binding_digest());
    let RegisterValue::Sha384(head) = log.head() else { unreachable!() };
    scene.params.report.rtmr[3] = *head.as_bytes();
    quoted(&mut scene.params);
    let policy = policy(Environment::Development);
    let evidence = serde_json::to_value(TdxEvidence { cc_eventlog: None, quote: scene.shown() }).unwrap();
    let claims = verify_evidence(Tee::Tdx, &evidence, &binding_digest(), &policy, tdx::NOW).unwrap();
    let binding = LogBinding {
        alg: HashAlg::Sha384,
        count: log.count(),
        guest: GuestId::of_tdx(&[[0x10; 48], [0x11; 48], [0x12; 48]], &log.init().boot_nonce),
        head: log.head(),
        kind: RegisterKind::Rtmr,
    };
    Shown { claims, log, binding, policy }
}

#[test]
fn a_td_and_its_log_give_the_guest() {
    let same = |_: &mut tdx::Params| {};
    let shown = tdx(|_| {}, same);
    assert_eq!(bind_log(&shown.claims, &shown.log, &shown.binding, &shown.policy), Ok(shown.binding.guest));
    assert!(shown.claims.simulated());
    // The register is in the quote, and the log must lead to it.
    assert_eq!(tdx(|_| {}, |params| params.report.rtmr[3][0] ^= 1).bind(), "log.replay");
    let other = tdx(|init| init.agent = "another".into(), same);
    let mut rewritten = tdx(|_| {}, same);
    (rewritten.log, rewritten.binding) = (other.log, other.binding);
    assert_eq!(rewritten.bind(), "log.replay");
    let mut unnamed = tdx(|_| {}, same);
    unnamed.policy.registers = vec![RegisterKind::Software, RegisterKind::TpmListed];
    assert_eq!(unnamed.bind(), "policy.register");
    let software = |init: &mut Init| init.register_kind = RegisterKind::Software;
    assert_eq!(tdx(software, same).bind(), "policy.register", "a weaker kind than the platform has");
    assert_eq!(tdx(|init| init.simulated = false, same).bind(), "policy.environment");
    let mut other_boot = tdx(|_| {}, same);
    other_boot.binding.guest = GuestId::of_tdx(&[[0x10; 48], [0x11; 48], [0x12; 48]], &[8; 32]);
    assert_eq!(other_boot.bind(), "evidence.guest");
}

#[test]
fn a_tds_initdata_is_mrconfigid_whole() {
    let digest = Sha384Digest::of(b"initdata");
    let bound = |params: &mut tdx::Params| params.report.mr_config_id = *digest.as_bytes();
    let named = |init: &mut Init| init.initdata = Some(digest.into());
    assert_eq!(tdx(named, bound).bind(), "pass");
    assert_eq!(tdx(named, |_| {}).bind(), "evidence.initdata");
    assert_eq!(tdx(|_| {}, bound).bind(), "evidence.initdata");
    // A shorter digest is not padded.
    let short = Sha256Digest::of(b"initdata");
    let padded = |params: &mut tdx::Params| {
        params.report.mr_config_id = [0; 48];
        params.report.mr_config_id[..32].copy_from_slice(short.as_bytes());
    };
    assert_eq!(tdx(|init| init.initdata = Some(short.into()), padded).bind(), "evidence.initdata");
}

#[test]
fn evidence_and_log_give_the_guest() {
    for environment in [Environment::Production, Environment::Development] {
        let shown = tpm(environment, |_| {});
        assert_eq!(bind_log(&shown.claims, &shown.log, &shown.binding, &shown.policy), Ok(shown.binding.guest));
        assert_eq!(shown.claims.simulated(), environment == Environment::Development);
        let shown = snp(environment, |_| {});
        assert_eq!(bind_log(&shown.claims, &shown.log, &shown.binding, &shown.policy), Ok(GuestId::new(REPORT_ID)));
        assert_eq!(shown.claims.simulated(), environment == Environment::Development);
    }
}

type Change = fn(&mut Shown);

#[test]
fn each_fault_of_a_binding_has_its_code() {
    let changes: [(&str, &str, Change); 10] = [
        ("another kind in the binding", "policy.register", |s| s.binding.kind = RegisterKind::Rtmr),
        ("a kind that policy does not name", "policy.register", |s| s.policy.registers = vec![RegisterKind::Rtmr]),
        ("no kinds in policy", "policy.register", |s| s.policy.registers.clear()),
        ("one record more", "log.replay", |s| s.binding.count += 1),
        ("one record less", "log.replay", |s| s.binding.count -= 1),
        ("another head", "log.replay", |s| s.binding.head = s.binding.head.extend(&s.binding.head).unwrap()),
        ("another algorithm", "log.replay", |s| {
            s.binding.alg = if s.binding.alg == HashAlg::Sha256 { HashAlg::Sha384 } else { HashAlg::Sha256 };
        }),
        ("another guest", "evidence.guest", |s| s.binding.guest = GuestId::new([1; 32])),
        ("guest of another boot", "evidence.guest", |s| {
            s.binding.guest = GuestId::of_tpm(&spki(&key(1)), 89, &[8; 32]);
        }),
        ("guest of an earlier reset", "evidence.guest", |s| {
            s.binding.guest = GuestId::of_tpm(&spki(&key(1)), 88, &[7; 32]);
        }),
    ];
    for (name, expected, change) in changes {
        for mut shown in [tpm(Environment::Production, |_| {}), snp(Environment::Production, |_| {})] {
            change(&mut shown);
            assert_eq!(shown.bind(), expected, "{name}");
        }
    }
}

#[test]
fn a_log_that_the_quoted_pcr_does_not_hold_is_refused() {
    // A log, binding and all, that was rewritten after the quote.
    let other = tpm(Environment::Production, |init| init.agent = "another".into());
    let mut shown = tpm(Environment::Production, |_| {});
    (shown.log, shown.binding) = (other.log, other.binding);
    assert_eq!(shown.bind(), "log.replay");
    // The same records in a register other than the quoted one that holds them.
    let first = Init {
        register_kind: RegisterKind::TpmListed,
        reg0: HashAlg::Sha256.zero(),
        environment: Environment::Production,
        simulated: false,
        ..init()
    };
    shown = tpm(Environment::Production, |_| {});
    shown.log = check_log(&records(13, HashAlg::Sha256, first)).unwrap();
    shown.policy.tpm.pcr = 13;
    assert_eq!(shown.bind(), "log.replay");
}

/// One boot has one log: a second one in a PCR that nothing has extended yet is complete, quoted and refused.
#[test]
fn a_second_log_of_one_boot_in_another_pcr_is_refused() {
    let shown = tpm(Environment::Production, |_| {});
    for pcr in [0, 13, 15] {
        let policy = EvidencePolicy { tpm: TpmPolicy { pcr, ..shown.policy.tpm.clone() }, ..shown.policy.clone() };
        let refusal = bind_log(&shown.claims, &shown.log, &shown.binding, &policy).unwrap_err();
        assert_eq!(refusal.code, reason::POLICY_REGISTER, "{pcr}");
    }
}

#[test]
fn the_first_record_names_the_initdata_that_the_evidence_is_bound_to() {
    let other = Some(Sha256Digest::of(b"initdata").into());
    assert_eq!(snp(Environment::Production, |init| init.initdata = other).bind(), "evidence.initdata");
    assert_eq!(snp(Environment::Production, |init| init.initdata = None).bind(), "evidence.initdata");
    assert_eq!(tpm(Environment::Production, |init| init.initdata = other).bind(), "evidence.initdata");
    let pcr = Sha256Digest::of_parts(&[&[0; 32], Sha256Digest::of(b"initdata").as_bytes()]);
    let bound = tpm_with(Environment::Production, |init| init.initdata = other, |quote| quote.set_pcr(8, pcr));
    assert_eq!(bound.bind(), "pass");
    let longer = Some(Sha384Digest::of(b"initdata").into());
    assert_eq!(snp(Environment::Production, |init| init.initdata = longer).bind(), "evidence.initdata");
    assert_eq!(tpm(Environment::Production, |init| init.initdata = longer).bind(), "evidence.initdata");
}

/// Whose log it is is told before anything of the log's content: nobody learns of another guest's.
#[test]
fn another_guest_is_told_before_the_logs_state() {
    for mut shown in [tpm(Environment::Production, |_| {}), snp(Environment::Production, |_| {})] {
        assert_eq!(guest_of(&shown.claims, shown.log.init()), shown.binding.guest);
        shown.binding.guest = GuestId::new([1; 32]);
        shown.binding.count += 1;
        assert_eq!(shown.bind(), "evidence.guest");
    }
}

#[test]
fn a_kind_the_evidence_does_not_stand_behind_is_refused() {
    for kind in [RegisterKind::TpmEk, RegisterKind::VtpmHcl, RegisterKind::VtpmSvsm] {
        let mut shown = tpm(Environment::Production, |init| init.register_kind = kind);
        shown.binding.kind = kind;
        shown.policy.registers.push(kind);
        assert_eq!(shown.bind(), "policy.register", "{kind}");
    }
    let mut shown = snp(Environment::Production, |init| init.register_kind = RegisterKind::Rtmr);
    shown.binding.kind = RegisterKind::Rtmr;
    shown.policy.registers.push(RegisterKind::Rtmr);
    assert_eq!(shown.bind(), "policy.register");
    // A TPM's log shown with an SNP report, and the other way round.
    let (a, b) = (tpm(Environment::Production, |_| {}), snp(Environment::Production, |_| {}));
    assert_eq!(Shown { claims: b.claims.clone(), ..tpm(Environment::Production, |_| {}) }.bind(), "policy.register");
    assert_eq!(Shown { claims: a.claims, ..b }.bind(), "policy.register");
}

#[test]
fn the_first_record_and_the_evidence_agree_on_what_is_simulated() {
    for make in [tpm::<fn(&mut Init)>, snp::<fn(&mut Init)>] {
        let hidden = make(Environment::Development, |init| init.simulated = false);
        assert_eq!(hidden.bind(), "policy.environment", "simulated, and the log hides it");
        let boasted = make(Environment::Production, |init| init.simulated = true);
        assert_eq!(boasted.bind(), "policy.environment", "real, and the log calls it simulated");
        let development = make(Environment::Production, |init| init.environment = Environment::Development);
        assert_eq!(development.bind(), "policy.environment", "a development guest before a production attestor");
        let mut later = make(Environment::Development, |_| {});
        later.policy.environment = Environment::Production;
        assert_eq!(later.bind(), "policy.environment", "simulated claims before a production attestor");
        let mut later = make(Environment::Development, |init| init.environment = Environment::Production);
        later.policy.environment = Environment::Production;
        assert_eq!(later.bind(), "policy.environment", "the same of a guest that calls itself production");
        let production = make(Environment::Development, |init| init.environment = Environment::Production);
        assert_eq!(production.bind(), "pass", "a production guest before a development attestor");
    }
}

#[test]
fn evidence_of_other_tees_or_shapes_is_refused() {
    let policy = policy(Environment::Development);
    let run = |tee, evidence: &Value| {
        verify_evidence(tee, evidence, &binding_digest(), &policy, NOW).unwrap_err().code.as_str()
    };
    assert_eq!(run(Tee::Sample, &serde_json::json!({})), "evidence.policy");
    for tee in [Tee::Tpm, Tee::Snp, Tee::AzSnpVtpm, Tee::AzTdxVtpm, Tee::Tdx] {
        for evidence in [serde_json::json!({}), serde_json::json!([]), Value::Null, serde_json::json!("x".repeat(1000))]
        {
            assert_eq!(run(tee, &evidence), "evidence.malformed", "{}", tee.as_str());
        }
    }
    let quote = serde_json::to_value(Quote::good().signed(&key(1))).unwrap();
    assert_eq!(run(Tee::Tpm, &quote), "evidence.nonce", "a quote over another binding");
    assert_eq!(run(Tee::Snp, &quote), "evidence.malformed", "a quote called a report");
    let report = serde_json::to_value(snp::good_evidence()).unwrap();
    assert_eq!(run(Tee::Snp, &report), "evidence.nonce", "a report over another binding");
}

#[test]
fn a_refusal_quotes_no_more_than_the_start_of_the_evidence() {
    let evidence = serde_json::json!({"attestation_report": {}, "cert_chain": "x".repeat(100_000)});
    let refusal =
        verify_evidence(Tee::Snp, &evidence, &binding_digest(), &policy(Environment::Development), NOW).unwrap_err();
    assert!(refusal.actual.len() <= 200);
}

#[test]
fn the_kind_of_a_tpms_register_follows_from_how_its_key_was_enrolled() {
    let mut shown = tpm(Environment::Production, |_| {});
    assert_eq!(shown.bind(), "pass");
    let mut quote = Quote::good();
    quote.extra_data = kbs::tpm_nonce(&binding_digest()).to_vec();
    let RegisterValue::Sha256(head) = shown.log.head() else { unreachable!() };
    quote.set_pcr(14, head);
    let mut policy = policy(Environment::Production);
    policy.tpm.aks[0].enrolment = Enrolment::Endorsed;
    let evidence = serde_json::to_value(quote.signed(&key(1))).unwrap();
    shown.claims = verify_evidence(Tee::Tpm, &evidence, &binding_digest(), &policy, NOW).unwrap();
    assert_eq!(shown.claims.register(), Some(RegisterKind::TpmEk));
    // Kinds are exact: a policy that names listed keys does not take the better kind either.
    assert_eq!(shown.bind(), "policy.register");
    shown.policy.registers = vec![RegisterKind::TpmEk];
    assert_eq!(shown.bind(), "pass");
    // A guest that calls itself endorsed says what it cannot know.
    let mut boasting = tpm(Environment::Production, |init| init.register_kind = RegisterKind::TpmEk);
    boasting.claims = shown.claims;
    boasting.policy.registers.push(RegisterKind::TpmEk);
    assert_eq!(boasting.bind(), "policy.register");
    // A listed key does not satisfy a policy that wants an endorsed one.
    let mut listed = tpm(Environment::Production, |_| {});
    listed.policy.registers = vec![RegisterKind::TpmEk];
    assert_eq!(listed.bind(), "policy.register");
}
