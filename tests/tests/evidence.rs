//! `tclctl evidence` on published vectors and on simulated evidence, offline.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::process::Command;

use integration_tests::command::{Seen, run};
use integration_tests::process::binary;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/vectors");
const AT: &str = "2025-06-20";

fn tclctl(arguments: &[&str]) -> Seen {
    let mut command = Command::new(binary("tclctl"));
    command.args(arguments).current_dir(VECTORS);
    run(command)
}

fn verify(tee: &str, arguments: &[&str]) -> Seen {
    tclctl(&[&["evidence", "verify", "--tee", tee, "--at", AT], arguments].concat())
}

/// Refused with this code, which the last printed check names too.
#[track_caller]
fn refused(seen: &Seen, code: &str, check: &str) {
    assert_eq!(seen.status, 77, "{seen:#?}");
    let line = seen.stderr.lines().last().unwrap();
    assert!(line.starts_with(&format!("NOT verified: {code} ")), "{seen:#?}");
    let made: Vec<&str> = seen.stdout.lines().filter(|line| !line.starts_with("not checked")).collect();
    assert!(made.last().unwrap().contains(check), "{seen:#?}");
    assert_eq!(made.iter().filter(|line| line.starts_with("REFUSED")).count(), 1, "{seen:#?}");
    assert!(!seen.stdout.contains("\nverified"), "{seen:#?}");
}

#[track_caller]
fn passed(seen: &Seen, unchecked: &[&str]) {
    assert_eq!(seen.status, 0, "{seen:#?}");
    let absent: Vec<&str> = seen.stdout.lines().filter(|line| line.starts_with("not checked")).collect();
    assert_eq!(absent.len(), unchecked.len(), "{seen:#?}");
    for (line, name) in absent.iter().zip(unchecked) {
        assert!(line.contains(name), "{name}: {seen:#?}");
        assert!(!seen.stdout.lines().any(|l| l.starts_with("passed") && l.contains(&format!("  {name}  "))), "{name}");
    }
}

const SNP: &[&str] = &["--report", "snp/test-report.bin", "--vek", "snp/test-vcek.der"];
const TCBS: [&str; 4] = ["current TCB", "reported TCB", "committed TCB", "launch TCB"];

#[test]
fn a_real_snp_report_passes_and_what_was_not_given_is_named() {
    let seen = verify("snp", SNP);
    passed(&seen, &[&TCBS[..], &["measurement", "revocation", "report data", "HOST_DATA"]].concat());
    assert!(seen.stdout.contains("expected"), "{seen:#?}");
    let told = tclctl(&[&["--json", "evidence", "verify", "--tee", "snp", "--at", AT], SNP].concat()).ok().json();
    assert_eq!((&told["verified"], &told["simulated"]), (&true.into(), &false.into()));
    let claims = &told["claims"];
    let given = |name: &str| claims[name].as_str().unwrap().to_owned();
    // With everything that an asker knows, nothing but the revocation list is left.
    let shown = tclctl(&["--json", "evidence", "show", "--tee", "snp", "snp/test-report.bin"]).ok().json();
    let data = shown["evidence"]["report_data"].as_str().unwrap().to_owned();
    let (measurement, host_data, chip) = (given("measurement"), given("host_data"), given("chip_id"));
    let asked = [
        SNP,
        &["--report-data", &data, "--measurement", &measurement, "--host-data", &host_data, "--chip", &chip],
        &["--minimum-tcb", "bootloader=3,tee=0,snp=8,microcode=115"],
    ]
    .concat();
    passed(&verify("snp", &asked), &["revocation"]);
}

#[test]
fn a_real_snp_report_is_refused_for_each_thing_that_does_not_fit() {
    let with = |more: &[&str]| verify("snp", &[SNP, more].concat());
    let zeros = |bytes: usize| "00".repeat(bytes);
    let vek = verify("snp", &["--report", "snp/test-report.bin", "--vek", "snp/test-vcek-invalid-new.der"]);
    refused(&vek, "evidence.chain", "chain");
    refused(&with(&["--report-data", &zeros(64)]), "evidence.nonce", "report data");
    refused(&with(&["--measurement", &zeros(48)]), "evidence.measurement", "measurement");
    refused(&with(&["--host-data", &"11".repeat(32)]), "evidence.initdata", "HOST_DATA");
    refused(&with(&["--minimum-tcb", "bootloader=3,tee=0,snp=9,microcode=115"]), "evidence.tcb", "current TCB");
    refused(&with(&["--chip", &zeros(64)]), "evidence.chip", "chip");
    refused(&with(&["--vmpl", "1"]), "evidence.vmpl", "VMPL");
    for at in ["2023-01-01", "2030-01-25T00:00:00Z"] {
        let seen = tclctl(&[&["evidence", "verify", "--tee", "snp", "--at", at], SNP].concat());
        refused(&seen, "evidence.chain", "chain");
    }
    let seen = with(&["--crl", "snp/test-vcek.der"]);
    assert_eq!(seen.status, 77);
    assert!(seen.stderr.contains("evidence.crl"), "{seen:#?}");
    // Not a report, and arguments that cannot be meant.
    let other = verify("snp", &["--report", "snp/test-vcek.der", "--vek", "snp/test-vcek.der"]);
    refused(&other, "evidence.malformed", "report");
    for more in [&["--report-data", "00"][..], &["--minimum-tcb", "9"], &["--chip", "zz"]] {
        assert_eq!(with(more).status, 64, "{more:?}");
    }
    assert_eq!(verify("snp", &["--vek", "snp/test-vcek.der"]).status, 64);
    assert_eq!(verify("snp", &["--report", "none", "--vek", "none"]).status, 74);
    assert_eq!(tclctl(&[&["evidence", "verify", "--tee", "snp", "--at", "noon"], SNP].concat()).status, 64);
}

#[test]
fn real_azure_evidence_passes_and_another_nonce_does_not() {
    let paravisor = ["measurement", "revocation"];
    let newest = verify("az-snp-vtpm", &["--evidence", "az-snp-vtpm/evidence-v2.json"]);
    passed(&newest, &[&TCBS[..], &paravisor, &["nonce", "PCR values"]].concat());
    let nonce = "982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef";
    let asked = ["--evidence", "az-snp-vtpm/evidence-v2.json", "--nonce", nonce];
    passed(&verify("az-snp-vtpm", &asked), &[&TCBS[..], &paravisor, &["PCR values"]].concat());
    let challenge = hex::encode("challenge");
    let oldest = ["--evidence", "az-snp-vtpm/evidence-v0.json", "--nonce", &challenge];
    passed(&verify("az-snp-vtpm", &oldest), &[&TCBS[..], &paravisor, &["user data", "PCR values"]].concat());
    let seen = verify("az-snp-vtpm", &["--evidence", "az-snp-vtpm/evidence-v2.json", "--nonce", &challenge]);
    refused(&seen, "evidence.nonce", "nonce");

    let tdx = ["--evidence", "az-tdx-vtpm/evidence-v1.json", "--nonce", &challenge];
    // What the vTPM says passes, and is worth nothing before the TD quote is verified: here is no collateral for it.
    let seen = verify("az-tdx-vtpm", &tdx);
    refused(&seen, "evidence.collateral", "TD collateral");
    assert!(seen.stdout.lines().any(|line| line.starts_with("passed") && line.contains("PCR digest")), "{seen:#?}");
    let other = [&tdx[..], &["--collateral", "tdx/tdx_quote_collateral.json"]].concat();
    // The quote is judged as every TD's is, and Azure starts this one without SEPT_VE_DISABLE.
    refused(&verify("az-tdx-vtpm", &other), "evidence.policy", "pending pages");
    // Where that is accepted, what is left is collateral of its own kind of platform, which is not published.
    let without = [&other[..], &["--without-sept-ve-disable"]].concat();
    refused(&verify("az-tdx-vtpm", &without), "evidence.collateral", "collateral");
    refused(
        &verify("az-tdx-vtpm", &["--evidence", "az-tdx-vtpm/evidence-v1.json", "--nonce", "00"]),
        "evidence.nonce",
        "nonce",
    );
    let other = verify("az-snp-vtpm", &["--evidence", "az-tdx-vtpm/evidence-v1.json"]);
    assert!(other.status == 77 && other.stderr.contains("evidence.malformed"), "{other:#?}");
    let shown =
        tclctl(&["--json", "evidence", "show", "--tee", "az-snp-vtpm", "az-snp-vtpm/evidence-v2.json"]).ok().json();
    assert_eq!(shown["verified"], false);
    assert_eq!(shown["evidence"]["hardware"]["snp"]["version"], 3);
}

#[test]
fn a_tpms_evidence_is_worth_what_its_key_is() {
    let evidence = ["--evidence", "tpm/tpm_evidence.json"];
    refused(&verify("tpm", &evidence), "evidence.ak", "attestation key");
    let value: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{VECTORS}/tpm/tpm_evidence.json")).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ak = dir.path().join("ak.pem");
    let spki = value["ak_public"].as_str().unwrap();
    std::fs::write(&ak, format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n")).unwrap();
    let trusted = [&evidence[..], &["--ak", ak.to_str().unwrap()]].concat();
    passed(&verify("tpm", &trusted), &["nonce", "PCR values"]);
    refused(&verify("tpm", &[&trusted[..], &["--nonce", "00"]].concat()), "evidence.nonce", "nonce");
    let _ = tclctl(&["evidence", "show", "--tee", "tpm", "tpm/tpm_evidence.json"]).ok();
}

#[test]
fn no_file_of_another_kind_is_evidence() {
    for tee in ["az-snp-vtpm", "az-tdx-vtpm", "tpm"] {
        for file in ["snp/test-report.bin", "snp/README.md", "openpgp/key.gpg"] {
            let seen = verify(tee, &["--evidence", file]);
            assert!(seen.status == 77 && seen.stderr.contains("evidence.malformed"), "{tee} {file}: {seen:#?}");
        }
    }
}

#[test]
fn simulated_evidence_is_made_from_text_and_counts_nowhere_but_where_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let text = format!(
        "product = \"turin\"\nversion = 5\nprovider = \"Example\"\npolicy = [\"smt\"]\nreport_data = \"{}\"\n\
         tcb = {{ fmc = 2, bootloader = 3, tee = 1, snp = 9, microcode = 77 }}\n",
        "44".repeat(64)
    );
    let make = |text: &str, folder: &str| {
        std::fs::write(path("text"), text).unwrap();
        tclctl(&["evidence", "simulate", &path("text"), &path(folder)])
    };
    let seen = make(&text, "good").ok();
    assert!(seen.stdout.contains("SIMULATED"), "{seen:#?}");
    let verify = |folder: &str, more: &[&str]| {
        let files = [path(folder) + "/report.bin", path(folder) + "/vek.der", path(folder) + "/chain.pem"];
        let now = protocols::time::Timestamp::now().to_string();
        let arguments = ["evidence", "verify", "--tee", "snp", "--at", &now, "--report", &files[0], "--vek", &files[1]];
        tclctl(&[&arguments[..], &["--chain", &files[2]], more].concat())
    };
    let minimum = "fmc=2,bootloader=3,tee=1,snp=9,microcode=77";
    let development = ["--allow-simulated", "--provider", "Example", "--minimum-tcb", minimum];
    let seen = verify("good", &development);
    assert!(seen.status == 0 && seen.stdout.lines().last().unwrap().ends_with("SIMULATED"), "{seen:#?}");
    refused(&verify("good", &["--provider", "Example"]), "policy.environment", "environment");
    refused(&verify("good", &["--allow-simulated"]), "evidence.chip", "provider");

    let _ = make(&text.replace("[\"smt\"]", "[\"debug\"]"), "debug").ok();
    refused(&verify("debug", &development), "evidence.debug", "debugging");
    assert_eq!(make(&text, "good").status, 74, "never over an installation that is there");
    for wrong in [text.replace("turin", "rome"), format!("more = 1\n{text}"), text.replace("4444", "44")] {
        assert_eq!(make(&wrong, "wrong").status, 64, "{wrong}");
    }
}
