use protocols::tdx::{TEE_TYPE_TDX, TdReport15, trim};
use simulated_tee::tdx::{Body, Level, Platform, Validity};

use super::testing::{NOW, REPORT_DATA, Scene, platform, policy, root, stranger};
use super::*;

const BODIES: [Body; 3] = [Body::V4, Body::V5Report10, Body::V5Report15];

fn word<T>(result: Result<T, Refusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.code.as_str(), |_| "pass")
}

#[test]
fn a_good_quote_of_every_layout_passes() {
    for body in BODIES {
        let claims = Scene::new(body).run().unwrap();
        assert_eq!((claims.tcb_status(), claims.advisories(), claims.evaluation()), ("UpToDate", &[][..], 17));
        assert_eq!((claims.mr_td(), claims.rtmr3(), claims.mr_config_id()), (&[0x7D; 48], &[0; 48], &[0; 48]));
        assert_eq!(claims.boot_rtmrs(), [[0x10; 48], [0x11; 48], [0x12; 48]]);
        assert_eq!((claims.fmspc(), claims.platform()), (b"SIMTDX", platform().pck.ppid.as_slice()));
        assert!(claims.simulated());
    }
}

fn past() -> Validity {
    Validity { from: Timestamp(NOW.0 - 9), to: Timestamp(NOW.0 - 1) }
}

fn future() -> Validity {
    Validity { from: Timestamp(NOW.0 + 1), to: Timestamp(NOW.0 + 9) }
}

/// A certificate of the stranger's in the place of one of ours.
fn replaced(place: usize, other: fn(&Platform) -> Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let mut chain = platform().chain();
    chain[place] = other(stranger());
    Some(chain)
}

fn altered(text: &mut serde_json::Value, from: &str, to: &str) {
    let changed = text.as_str().unwrap().replacen(from, to, 1);
    assert_ne!(text.as_str(), Some(changed.as_str()));
    *text = changed.into();
}

fn strangers(member: &'static str) -> serde_json::Value {
    let facts = simulated_tee::tdx::CollateralFacts::new(stranger(), NOW);
    serde_json::from_str::<serde_json::Value>(&stranger().collateral(&facts)).unwrap()[member].clone()
}

type Row = (&'static str, &'static str, fn(&mut Scene));

/// What each change of one thing alone gives, whatever the layout.
const ROWS: &[Row] = &[
    // The frame.
    ("a byte behind the quote", "evidence.malformed", |s| s.bytes = Some(|b| b.push(0))),
    ("a byte missing", "evidence.malformed", |s| s.bytes = Some(|b| b.truncate(b.len() - 1))),
    ("version 3", "evidence.malformed", |s| s.bytes = Some(|b| b[0] = 3)),
    ("an SGX quote", "evidence.malformed", |s| s.bytes = Some(|b| b[4] ^= TEE_TYPE_TDX.to_le_bytes()[0])),
    ("another key type", "evidence.malformed", |s| s.bytes = Some(|b| b[2] = 3)),
    ("another vendor", "evidence.malformed", |s| s.bytes = Some(|b| b[12] ^= 1)),
    // The TD.
    ("debug", "evidence.debug", |s| s.params.report.td_attributes.0 |= 1),
    ("a reserved debug bit", "evidence.debug", |s| s.params.report.td_attributes.0 |= 1 << 1),
    ("profiling 4", "evidence.debug", |s| s.params.report.td_attributes.0 |= 1 << 4),
    ("profiling 5", "evidence.debug", |s| s.params.report.td_attributes.0 |= 1 << 5),
    ("profiling 6", "evidence.debug", |s| s.params.report.td_attributes.0 |= 1 << 6),
    ("the last debug bit", "evidence.debug", |s| s.params.report.td_attributes.0 |= 1 << 7),
    ("migratable", "evidence.migration", |s| s.params.report.td_attributes.0 |= 1 << 29),
    ("reserved bit 8", "evidence.policy", |s| s.params.report.td_attributes.0 |= 1 << 8),
    ("reserved bit 23", "evidence.policy", |s| s.params.report.td_attributes.0 |= 1 << 23),
    ("reserved bit 40", "evidence.policy", |s| s.params.report.td_attributes.0 |= 1 << 40),
    ("no SEPT_VE_DISABLE", "evidence.policy", |s| s.params.report.td_attributes.0 = 0),
    ("service TDs later", "evidence.policy", |s| s.params.report.td_attributes.0 |= 1 << 17),
    ("Perfmon", "pass", |s| s.params.report.td_attributes.0 |= 1 << 63),
    ("other XFAM", "pass", |s| s.params.report.xfam.0 = 3),
    // The chain.
    ("no root", "evidence.chain", |s| s.policy.roots.clear()),
    ("another root", "evidence.chain", |s| {
        s.policy.roots = vec![TdxRoot::from_der(&stranger().root_der(), true).unwrap()];
    }),
    ("the root among others", "pass", |s| {
        s.policy.roots.insert(0, TdxRoot::from_der(&stranger().root_der(), true).unwrap());
    }),
    ("a chain without its root", "evidence.chain", |s| s.chain = Some(platform().chain()[..2].to_vec())),
    ("a chain without intermediate", "evidence.chain", |s| {
        s.chain = Some(vec![platform().pck_der(), platform().root_der()]);
    }),
    ("another PCK", "evidence.chain", |s| s.chain = replaced(0, Platform::pck_der)),
    ("another intermediate", "evidence.chain", |s| s.chain = replaced(1, Platform::platform_ca_der)),
    ("another root in the chain", "evidence.chain", |s| s.chain = replaced(2, Platform::root_der)),
    ("no certificate first", "evidence.chain", |s| {
        s.chain = Some(vec![vec![0x30, 0], platform().platform_ca_der(), platform().root_der()]);
    }),
    ("an intermediate in the PCK's place", "evidence.chain", |s| {
        s.chain = Some(vec![platform().platform_ca_der(), platform().root_der()]);
    }),
    ("expired PCK", "evidence.chain", |s| s.platform.pck.validity = past()),
    ("PCK of tomorrow", "evidence.chain", |s| s.platform.pck.validity = future()),
    ("expired intermediate", "evidence.chain", |s| s.platform.platform_ca = past()),
    ("another certificate of the pinned key", "evidence.chain", |s| s.platform.root = past()),
    ("revoked PCK", "evidence.revoked", |s| s.facts.crls.pck_revoked = vec![7, 0x51]),
    ("another PCK revoked", "pass", |s| s.facts.crls.pck_revoked = vec![7, 0x52]),
    ("revoked intermediate", "evidence.revoked", |s| s.facts.crls.root_revoked = vec![2]),
    ("revoked collateral signer", "evidence.collateral", |s| s.facts.crls.root_revoked = vec![3]),
    ("another enclave's signer", "evidence.chain", |s| s.params.qe_signer = [1; 32]),
    ("another enclave's product", "evidence.chain", |s| s.params.qe_product = 1),
    ("another enclave's MISCSELECT", "evidence.chain", |s| s.params.qe_misc_select = 1),
    ("a debug enclave", "evidence.chain", |s| s.params.qe_attributes[0] |= 2),
    ("another enclave's attributes", "evidence.chain", |s| s.params.qe_attributes[1] = 1),
    // Collateral.
    ("collateral of another kind", "evidence.collateral", |s| s.facts.fmspc = [9; 6]),
    ("a platform of another kind", "evidence.collateral", |s| s.platform.pck.fmspc = [9; 6]),
    ("expired TCB info", "evidence.collateral", |s| s.facts.tcb_info = past()),
    ("TCB info of tomorrow", "evidence.collateral", |s| s.facts.tcb_info = future()),
    ("expired QE identity", "evidence.collateral", |s| s.facts.qe_identity = past()),
    ("QE identity of tomorrow", "evidence.collateral", |s| s.facts.qe_identity = future()),
    ("expired root list", "evidence.collateral", |s| s.facts.crls.root = past()),
    ("root list of tomorrow", "evidence.collateral", |s| s.facts.crls.root = future()),
    ("expired PCK list", "evidence.collateral", |s| s.facts.crls.pck = past()),
    ("PCK list of tomorrow", "evidence.collateral", |s| s.facts.crls.pck = future()),
    ("expired signer", "evidence.collateral", |s| s.platform.tcb_signing = past()),
    ("altered TCB info", "evidence.collateral", |s| {
        s.collateral = Some(|c| altered(&mut c["tcb_info"], "OutOfDate", "UpToDate"));
    }),
    ("altered QE identity", "evidence.collateral", |s| {
        s.collateral = Some(|c| altered(&mut c["qe_identity"], "OutOfDate", "UpToDate"));
    }),
    ("a stranger's TCB info", "evidence.collateral", |s| {
        s.collateral = Some(|c| {
            for member in ["tcb_info", "tcb_info_signature", "tcb_info_issuer_chain"] {
                c[member] = strangers(member);
            }
        });
    }),
    ("a stranger's QE identity", "evidence.collateral", |s| {
        s.collateral = Some(|c| {
            for member in ["qe_identity", "qe_identity_signature", "qe_identity_issuer_chain"] {
                c[member] = strangers(member);
            }
        });
    }),
    ("a stranger's signature", "evidence.collateral", |s| {
        s.collateral = Some(|c| c["tcb_info_signature"] = strangers("tcb_info_signature"));
    }),
    ("a stranger's root list", "evidence.collateral", |s| {
        s.collateral = Some(|c| c["root_ca_crl"] = strangers("root_ca_crl"));
    }),
    ("a stranger's PCK list", "evidence.collateral", |s| s.collateral = Some(|c| c["pck_crl"] = strangers("pck_crl"))),
    ("the root's list for the PCK's", "evidence.collateral", |s| {
        s.collateral = Some(|c| c["pck_crl"] = c["root_ca_crl"].clone());
    }),
    ("a PCK chain beside the quote's", "pass", |s| {
        s.collateral = Some(|c| c["pck_certificate_chain"] = "another".into());
    }),
    // Signatures.
    ("QE report's signature", "evidence.signature", |s| s.quote = Some(|q| q.signature.qe_signature[5] ^= 1)),
    ("QE report", "evidence.signature", |s| s.quote = Some(|q| q.signature.qe_report.mr_enclave[0] ^= 1)),
    ("attestation key", "evidence.signature", |s| s.quote = Some(|q| q.signature.attestation_key[0] ^= 1)),
    ("authentication data", "evidence.signature", |s| s.quote = Some(|q| q.signature.authentication[0] ^= 1)),
    ("quote's signature", "evidence.signature", |s| s.quote = Some(|q| q.signature.signature[40] ^= 1)),
    ("header", "evidence.signature", |s| s.quote = Some(|q| q.header.user_data[0] ^= 1)),
    ("RTMR3 after signing", "evidence.signature", |s| s.quote = Some(|q| q.report.rtmr[3][0] ^= 1)),
    ("MRTD after signing", "evidence.signature", |s| s.quote = Some(|q| q.report.mr_td[47] ^= 1)),
    ("report data after signing", "evidence.signature", |s| s.quote = Some(|q| q.report.report_data[63] ^= 1)),
    // The TCB.
    ("older processor", "evidence.tcb", |s| s.platform.pck.cpu_svn[0] = 2),
    ("older PCE", "evidence.tcb", |s| s.platform.pck.pce_svn = 11),
    ("much older PCE", "evidence.tcb", |s| s.platform.pck.pce_svn = 1),
    ("older module", "evidence.tcb", |s| s.params.report.tee_tcb_svn[0] = 3),
    ("much older module", "evidence.tcb", |s| s.params.report.tee_tcb_svn[0] = 1),
    ("unknown module version", "evidence.tcb", |s| s.params.report.tee_tcb_svn[1] = 2),
    ("older loader", "evidence.tcb", |s| s.params.report.tee_tcb_svn[2] = 1),
    ("another module's signer", "evidence.tcb", |s| s.params.report.mr_signer_seam[0] = 1),
    ("another module's attributes", "evidence.tcb", |s| s.params.report.seam_attributes[0] = 1),
    ("older enclave", "evidence.tcb", |s| s.params.qe_isv_svn = 2),
    ("much older enclave", "evidence.tcb", |s| s.params.qe_isv_svn = 1),
    ("revoked level", "evidence.tcb", |s| s.facts.levels[0].status = "Revoked"),
    ("hardening needed", "evidence.tcb", |s| s.facts.levels[0].status = "SWHardeningNeeded"),
    ("configuration needed", "evidence.tcb", |s| s.facts.levels[0].status = "ConfigurationNeeded"),
    ("an advisory", "evidence.tcb", |s| s.facts.levels[0].advisories = vec!["INTEL-SA-00002"]),
    ("no accepted status", "evidence.tcb", |s| s.policy.statuses.clear()),
    ("older evaluation of the TCB", "evidence.tcb", |s| s.facts.tcb_evaluation = 16),
    ("older evaluation of the enclave", "evidence.tcb", |s| s.facts.qe_evaluation = 16),
    // What it is over.
    ("other report data", "evidence.nonce", |s| s.params.report.report_data[0] ^= 1),
    ("report data's last byte", "evidence.nonce", |s| s.params.report.report_data[63] ^= 1),
    ("asked for other data", "evidence.nonce", |s| s.report_data[32] ^= 1),
    // What was started.
    ("another MRTD", "evidence.measurement", |s| s.params.report.mr_td[0] ^= 1),
    ("another RTMR0", "evidence.measurement", |s| s.params.report.rtmr[0][0] ^= 1),
    ("another RTMR1", "evidence.measurement", |s| s.params.report.rtmr[1][0] ^= 1),
    ("another RTMR2", "evidence.measurement", |s| s.params.report.rtmr[2][47] ^= 1),
    ("another RTMR3", "pass", |s| s.params.report.rtmr[3][0] ^= 1),
    ("no MRTD listed", "evidence.measurement", |s| {
        s.policy.measurements.mr_td = ExpectedMeasurement::Listed(vec![]);
    }),
    ("anything may be started", "pass", |s| {
        s.params.report.mr_td = [0; 48];
        s.policy.measurements = TdxMeasurements::ANY;
    }),
    ("initdata", "pass", |s| s.params.report.mr_config_id = [1; 48]),
    ("production", "policy.environment", |s| s.policy.environment = Environment::Production),
];

#[test]
fn each_thing_changed_alone_gives_its_code() {
    for body in BODIES {
        for (name, expected, change) in ROWS {
            let mut scene = Scene::new(body);
            change(&mut scene);
            let result = scene.run();
            let actual = result.as_ref().map_or_else(|refusal| refusal.actual.clone(), |_| String::new());
            assert_eq!(word(result), *expected, "{body:?}, {name}: {actual}");
        }
    }
}

#[test]
fn what_only_report_1_5_has_is_checked_too() {
    fn with(v15: fn(&mut TdReport15), policy: fn(&mut TdxPolicy)) -> &'static str {
        let mut scene = Scene::new(Body::V5Report15);
        v15(scene.params.report.v15.as_mut().unwrap());
        policy(&mut scene.policy);
        word(scene.run())
    }
    assert_eq!(with(|v| v.mr_service_td[47] = 1, |_| ()), "evidence.policy");
    assert_eq!(with(|v| v.tee_tcb_svn2[2] = 1, |_| ()), "evidence.tcb");
    assert_eq!(with(|v| v.tee_tcb_svn2[0] = 1, |_| ()), "evidence.tcb");
    assert_eq!(with(|v| v.tee_tcb_svn2[0] = 9, |_| ()), "pass");
    // The module was replaced under the running TD: its first one still counts.
    let mut scene = Scene::new(Body::V5Report15);
    scene.params.report.tee_tcb_svn[0] = 3;
    assert_eq!(word(scene.run()), "evidence.tcb");
    scene.policy.statuses = vec![TcbStatus::TDRelaunchAdvised];
    assert_eq!(scene.run().unwrap().tcb_status(), "TDRelaunchAdvised");
}

#[test]
fn policy_may_accept_more() {
    let mut scene = Scene::new(Body::V4);
    scene.platform.pck.pce_svn = 11;
    scene.policy.statuses = vec![TcbStatus::UpToDate, TcbStatus::OutOfDate];
    assert_eq!(word(scene.run()), "evidence.tcb", "its advisory is open");
    scene.policy.advisories = vec!["INTEL-SA-00002".to_owned()];
    assert_eq!(word(scene.run()), "evidence.tcb", "another one is");
    scene.policy.advisories.push("INTEL-SA-00001".to_owned());
    let claims = scene.run().unwrap();
    assert_eq!((claims.tcb_status(), claims.advisories()), ("OutOfDate", &["INTEL-SA-00001".to_owned()][..]));
    scene.facts.levels.push(Level { pce: 0, status: "Revoked", ..scene.facts.levels[1].clone() });
    scene.platform.pck.pce_svn = 1;
    scene.policy.statuses.push(TcbStatus::Revoked);
    assert_eq!(word(scene.run()), "evidence.tcb", "a revoked platform is none, whatever policy says");
}

#[test]
fn the_newest_collateral_that_counts_is_taken() {
    let scene = Scene::new(Body::V4);
    let evidence = TdxEvidence { cc_eventlog: None, quote: scene.shown() };
    let with = |evaluation, window| {
        let mut scene = Scene::new(Body::V4);
        scene.facts.tcb_evaluation = evaluation;
        if let Some(window) = window {
            scene.facts.tcb_info = window;
        }
        scene.policy().collateral.remove(0)
    };
    let verify =
        |collateral| verify_tdx(&evidence, &REPORT_DATA, &TdxPolicy { collateral, ..policy() }, NOW, &mut Trace::off());
    assert_eq!(verify(vec![with(16, None), with(17, None), with(18, Some(past()))]).unwrap().evaluation(), 17);
    assert_eq!(word(verify(vec![with(18, Some(past()))])), "evidence.collateral");
    let refusal = verify(vec![]).unwrap_err();
    assert!(refusal.expected.contains("53494d544458"), "{}", refusal.expected);
}

#[test]
fn no_byte_of_a_quote_can_be_changed() {
    for body in [Body::V4, Body::V5Report15] {
        let scene = Scene::new(body);
        let (bytes, policy) = (scene.shown(), scene.policy());
        // Without exception: what no signature covers (sizes, types, PEM) has one form only.
        for place in 0..bytes.len() {
            let mut quote = bytes.clone();
            quote[place] ^= 1;
            let evidence = TdxEvidence { cc_eventlog: None, quote };
            assert!(
                verify_tdx(&evidence, &REPORT_DATA, &policy, NOW, &mut Trace::off()).is_err(),
                "{body:?}, byte {place}"
            );
        }
    }
}

#[test]
fn a_firmware_log_that_is_shown_leads_to_the_registers() {
    const CCEL: &[u8] = include_bytes!("../../../tests/data/vectors/eventlog/CCEL_data_ovmf");
    let log = TcgLog::parse(CCEL).unwrap();
    let replayed = |register| log.replay(register, HashAlg::Sha384).unwrap().as_bytes().try_into().unwrap();
    let check = |shown: &[u8], change: fn(&mut [[u8; 48]; 4])| {
        let mut scene = Scene::new(Body::V4);
        scene.params.report.rtmr = [replayed(1), replayed(2), replayed(3), [9; 48]];
        change(&mut scene.params.report.rtmr);
        scene.policy.measurements = TdxMeasurements::ANY;
        let evidence = TdxEvidence { cc_eventlog: Some(encoding::b64(shown)), quote: scene.shown() };
        word(verify_tdx(&evidence, &REPORT_DATA, &scene.policy(), NOW, &mut Trace::off()))
    };
    assert_eq!(check(CCEL, |_| ()), "pass");
    assert_eq!(check(&log.encode(), |rtmr| rtmr[3] = [0; 48]), "pass");
    assert_eq!(check(CCEL, |rtmr| rtmr[0][0] ^= 1), "evidence.binding");
    assert_eq!(check(CCEL, |rtmr| rtmr[1][0] ^= 1), "evidence.binding");
    assert_eq!(check(CCEL, |rtmr| rtmr[2][0] ^= 1), "evidence.binding");
    assert_eq!(check(&CCEL[..2000], |_| ()), "evidence.malformed");
    let mut other = CCEL.to_vec();
    other[0x50] ^= 1;
    assert_eq!(check(&other, |_| ()), "evidence.binding", "a digest of it");
    let scene = Scene::new(Body::V4);
    let evidence = TdxEvidence { cc_eventlog: Some("?".to_owned()), quote: scene.shown() };
    assert_eq!(
        word(verify_tdx(&evidence, &REPORT_DATA, &scene.policy(), NOW, &mut Trace::off())),
        "evidence.malformed"
    );
}

#[test]
fn the_simulated_are_refused_by_their_mark_and_by_their_root() {
    let scene = Scene::new(Body::V4);
    let evidence = TdxEvidence { cc_eventlog: None, quote: scene.shown() };
    let production = TdxPolicy { environment: Environment::Production, ..scene.policy() };
    assert_eq!(word(verify_tdx(&evidence, &REPORT_DATA, &production, NOW, &mut Trace::off())), "policy.environment");
    // The mark alone: no root is known.
    let unknown = TdxPolicy { roots: vec![], ..production };
    assert_eq!(word(verify_tdx(&evidence, &REPORT_DATA, &unknown, NOW, &mut Trace::off())), "policy.environment");
    // The root alone: Intel's own, called simulated.
    let intel = TdxRoot::from_der(TdxRoot::intel().unwrap().der(), true).unwrap();
    let named = TdxPolicy { roots: vec![intel], environment: Environment::Production, ..real_policy() };
    assert_eq!(word(verify_tdx(&real(), &real_data(), &named, THEN, &mut Trace::off())), "policy.environment");
    assert!(TdxRoot::from_der(&platform().root_der(), false).unwrap().simulated());
    // The collateral alone, for a real quote under Intel's root.
    let mut platform = platform().clone();
    platform.pck.fmspc = [0xB0, 0xC0, 0x6F, 0, 0, 0];
    let facts = simulated_tee::tdx::CollateralFacts::new(&platform, THEN);
    let mut simulated: serde_json::Value = serde_json::from_str(&platform.collateral(&facts)).unwrap();
    let intels: serde_json::Value = serde_json::from_slice(COLLATERAL).unwrap();
    simulated["pck_crl"] = intels["pck_crl"].clone();
    let collateral = vec![TdxCollateral::parse(simulated.to_string().as_bytes()).unwrap()];
    let named = TdxPolicy { collateral, ..real_policy() };
    assert_eq!(word(verify_tdx(&real(), &real_data(), &named, THEN, &mut Trace::off())), "policy.environment");
    let development = TdxPolicy { environment: Environment::Development, ..named };
    assert_eq!(word(verify_tdx(&real(), &real_data(), &development, THEN, &mut Trace::off())), "evidence.collateral");
}

#[test]
fn a_file_that_is_no_root_is_refused() {
    assert!(matches!(TdxRoot::from_der(&platform().pck_der(), true), Err(TdxRootError::Certificate(_))));
    assert!(matches!(TdxRoot::from_der(&platform().platform_ca_der(), true), Err(TdxRootError::Certificate(_))));
    assert!(matches!(TdxRoot::from_pem("", true), Err(TdxRootError::Count(0))));
    assert!(TdxRoot::from_der(&[0x30, 0], true).is_err());
    assert!(root().simulated());
}

#[test]
fn bytes_that_are_no_collateral_are_refused() {
    let good = Scene::new(Body::V4);
    let good: serde_json::Value = serde_json::from_str(&good.platform.collateral(&good.facts)).unwrap();
    let parse = |value: &serde_json::Value| TdxCollateral::parse(value.to_string().as_bytes());
    parse(&good).unwrap();
    for (member, value) in [
        ("tcb_info", "{}"),
        ("qe_identity", "[]"),
        ("root_ca_crl", "3000"),
        ("pck_crl", "zz"),
        ("tcb_info_issuer_chain", ""),
        ("qe_identity_issuer_chain", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"),
    ] {
        let mut other = good.clone();
        other[member] = value.into();
        assert!(parse(&other).is_err(), "{member}");
        other.as_object_mut().unwrap().remove(member);
        assert!(parse(&other).is_err(), "no {member}");
    }
    let mut other = good;
    altered(&mut other["tcb_info"], "53494D544458", "53494D54445");
    assert!(matches!(parse(&other), Err(CollateralError::Part { part: "fmspc", .. })));
}

const PADDED: &[u8] = include_bytes!("../../../tests/data/vectors/tdx/tdx_quote");
const COLLATERAL: &[u8] = include_bytes!("../../../tests/data/vectors/tdx/tdx_quote_collateral.json");
const DEBUG: &[u8] = include_bytes!("../../../tests/data/vectors/tdx/tdx_quote_4.dat");
/// 2025-06-20T00:00:00Z.
const THEN: Timestamp = Timestamp(1_750_377_600);

fn real() -> TdxEvidence {
    TdxEvidence { cc_eventlog: None, quote: trim(PADDED).unwrap().to_vec() }
}

fn real_data() -> [u8; 64] {
    Quote::parse(&real().quote).unwrap().report.report_data
}

fn real_policy() -> TdxPolicy {
    let report = Quote::parse(&real().quote).unwrap().report;
    let listed = |bytes| ExpectedMeasurement::Listed(vec![bytes]);
    let [rtmr0, rtmr1, rtmr2, _] = report.rtmr;
    TdxPolicy {
        roots: vec![TdxRoot::intel().unwrap()],
        collateral: vec![TdxCollateral::parse(COLLATERAL).unwrap()],
        measurements: TdxMeasurements { mr_td: listed(report.mr_td), rtmr: [rtmr0, rtmr1, rtmr2].map(listed) },
        environment: Environment::Production,
        ..policy()
    }
}

#[test]
fn a_real_quote_verifies_under_intels_root_at_its_time() {
    let check = |policy: &TdxPolicy, now| verify_tdx(&real(), &real_data(), policy, now, &mut Trace::off());
    let claims = check(&real_policy(), THEN).unwrap();
    assert_eq!((claims.tcb_status(), claims.advisories(), claims.evaluation()), ("UpToDate", &[][..], 17));
    assert_eq!(hex(claims.fmspc()), "b0c06f000000");
    assert!(!claims.simulated());

    let today = Timestamp::parse("2026-11-30T00:00:00Z").unwrap();
    assert_eq!(word(check(&real_policy(), today)), "evidence.collateral");
    let (from, to) = real_policy().collateral[0].window();
    assert_eq!(
        (from.to_string(), to.to_string()),
        ("2025-06-19T10:32:27Z".to_owned(), "2025-07-19T10:00:34Z".to_owned())
    );
    for (now, expected) in [
        (from, "pass"),
        (to, "pass"),
        (Timestamp(from.0 - 1), "evidence.collateral"),
        (Timestamp(to.0 + 1), "evidence.collateral"),
    ] {
        assert_eq!(word(check(&real_policy(), now)), expected, "{now}");
    }
    assert_eq!(word(check(&TdxPolicy { roots: vec![root()], ..real_policy() }, THEN)), "evidence.chain");
    let any = TdxPolicy { measurements: TdxMeasurements::ANY, ..real_policy() };
    assert_eq!(word(check(&any, THEN)), "policy.environment");
    assert_eq!(word(verify_tdx(&real(), &REPORT_DATA, &real_policy(), THEN, &mut Trace::off())), "evidence.nonce");
    let padded = TdxEvidence { quote: PADDED.to_vec(), ..real() };
    assert_eq!(word(verify_tdx(&padded, &real_data(), &real_policy(), THEN, &mut Trace::off())), "evidence.malformed");
}

#[test]
fn no_byte_of_a_real_quote_can_be_changed() {
    let policy = real_policy();
    for place in (0..real().quote.len()).step_by(3) {
        let mut evidence = real();
        evidence.quote[place] ^= 1;
        assert!(verify_tdx(&evidence, &real_data(), &policy, THEN, &mut Trace::off()).is_err(), "byte {place}");
    }
}

/// Everything of it is signed as it should be, and yet it is a debug TD's.
#[test]
fn a_real_debug_td_is_refused() {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    let quote = Quote::parse(DEBUG).unwrap();
    let chain: Vec<_> =
        quote.signature.pck_chain.certificates().iter().map(|der| Certificate::parse(der).unwrap()).collect();
    chain[0].check_p256_signature(&chain[1]).unwrap();
    chain[1].check_p256_signature(&chain[2]).unwrap();
    let key = [&[4][..], &quote.signature.attestation_key].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
        .verify(&quote.signed_bytes(), &quote.signature.signature)
        .unwrap();

    let evidence = TdxEvidence { cc_eventlog: None, quote: DEBUG.to_vec() };
    let refusal =
        verify_tdx(&evidence, &quote.report.report_data, &real_policy(), THEN, &mut Trace::off()).unwrap_err();
    assert_eq!(
        (refusal.code.as_str(), refusal.actual.as_str()),
        ("evidence.debug", "attributes 0x10000001 (DEBUG SEPT_VE_DISABLE)")
    );
}
