//! `tclctl evidence detect` and `collect` against swtpm and directory trees, and what `verify` makes of collected evidence.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;
use std::path::Path;
use std::process::Command;

use integration_tests::command::{Seen, run};
use integration_tests::process::binary;
use integration_tests::tpm::Tpm;
use protocols::kbs::{SnpCertificate, SnpEvidence};
use protocols::snp::Report;
use serde_json::Value;

const CHALLENGE: &str = "00112233445566778899aabbccddeeff";
const OTHER: &str = "10112233445566778899aabbccddeeff";

fn tclctl(folder: &Path, arguments: &[&str]) -> Seen {
    let mut command = Command::new(binary("tclctl"));
    command.args(arguments).current_dir(folder);
    run(command)
}

#[test]
fn collected_evidence_verifies_offline_over_its_challenge_alone() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let tpm = Tpm::start(here);
    let device = tpm.device();
    let collect = ["evidence", "collect", "--tee", "tpm", "--device", &device, "--challenge", CHALLENGE];
    let seen = tclctl(here, &[&collect[..], &["--out", "evidence.json"]].concat()).ok();
    assert_eq!((seen.stdout.as_str(), seen.stderr.contains("SIMULATED")), ("", true), "{seen:#?}");
    fs::write(here.join("ak.pem"), tclctl(here, &["ak", "show", "--device", &device]).ok().stdout).unwrap();
    let verify = |evidence: &str, more: &[&str]| {
        let fixed =
            ["evidence", "verify", "--tee", "tpm", "--at", "2026-12-01", "--evidence", evidence, "--ak", "ak.pem"];
        tclctl(here, &[&fixed[..], more].concat())
    };
    let good = verify("evidence.json", &["--challenge", CHALLENGE, "--allow-simulated"]).ok();
    assert!(good.stdout.contains("SIMULATED") && !good.stdout.contains("not checked  nonce"), "{good:#?}");
    refuses(&verify("evidence.json", &["--challenge", OTHER, "--allow-simulated"]), "evidence.nonce");
    // The caller's own bytes are never what is quoted.
    refuses(&verify("evidence.json", &["--nonce", CHALLENGE, "--allow-simulated"]), "evidence.nonce");
    assert_eq!(verify("evidence.json", &["--challenge", CHALLENGE, "--nonce", CHALLENGE]).status, 64);
    // Without --out it is printed, and over another challenge it is other evidence.
    let printed = tclctl(here, &[&collect[..7], &[OTHER]].concat()).ok().stdout;
    fs::write(here.join("other.json"), printed).unwrap();
    let _ = verify("other.json", &["--challenge", OTHER, "--allow-simulated"]).ok();
}

#[test]
fn a_platform_that_is_not_there_is_told_with_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let collect = |more: &[&str]| tclctl(here, &[&["evidence", "collect", "--challenge", CHALLENGE], more].concat());
    for (tee, place) in [("snp", "/dev/sev-guest"), ("tdx", "tdx_guest/measurements")] {
        let seen = collect(&["--tee", tee]);
        assert_eq!(seen.status, 70, "{seen:#?}");
        assert!(seen.stderr.contains("missing: ") && seen.stderr.contains(place), "{seen:#?}");
    }
    let seen = collect(&["--tee", "tpm", "--device", "/dev/tpm-none"]);
    assert!(seen.status == 70 && seen.stderr.contains("missing: TPM (/dev/tpm-none): not there"), "{seen:#?}");
    for wrong in [
        &["--tee", "snp", "--device", "/dev/tpm0"][..],
        &["--tee", "tpm", "--vmpl", "0"],
        &["--tee", "tdx", "--imds", "http://127.0.0.1/"],
        &["--tee", "tpm", "--device", "tpm0"],
    ] {
        assert_eq!(collect(wrong).status, 64, "{wrong:?}");
    }
    assert_eq!(tclctl(here, &["evidence", "collect", "--tee", "tdx", "--challenge", "00"]).status, 64);
    assert_eq!(tclctl(here, &["evidence", "collect", "--challenge", CHALLENGE]).status, 64);
}

/// Refused with this code, after the checks that were printed.
#[track_caller]
fn refuses(seen: &Seen, code: &str) {
    let line = seen.stderr.lines().last().unwrap_or_default();
    assert!(seen.status == 77 && line.starts_with(&format!("NOT verified: {code} ")), "{seen:#?}");
}

fn platform<'v>(told: &'v Value, kind: &str) -> &'v Value {
    told["platforms"].as_array().unwrap().iter().find(|platform| platform["kind"] == kind).unwrap()
}

#[test]
fn detection_tells_each_platform_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("machine");
    let tpm = Tpm::start(folder.path());
    fs::create_dir_all(root.join("dev")).unwrap();
    fs::write(root.join("dev/sev-guest"), "").unwrap();
    let root = root.to_str().unwrap();
    let device = tpm.device();
    let asked = ["evidence", "detect", "--root", root, "--device", &device];
    let told = tclctl(folder.path(), &[&["--json"][..], &asked].concat()).ok().json();
    for (kind, usable) in [("tpm", true), ("snp", true), ("tdx", false), ("az-snp-vtpm", false), ("az-tdx-vtpm", false)]
    {
        assert_eq!(platform(&told, kind)["usable"], usable, "{kind}: {told:#}");
    }
    let text = tclctl(folder.path(), &asked).ok().stdout;
    let line = |words: &[&str]| text.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(line(&["tpm: usable"]) && line(&["found", "register", "PCR 14", &"00".repeat(32)]), "{text}");
    assert!(line(&["seen", "endorsement certificate", "0x01c00002", "none"]), "{text}");
    assert!(line(&["az-snp-vtpm: not usable"]) && line(&["MISSING", "paravisor's report", "0x01400001"]), "{text}");
    assert!(line(&["MISSING", "measurement registers", "Linux 6.16"]), "{text}");
    // Looking leaves nothing loaded and extends nothing.
    assert_eq!(tpm.pcr(14), "00".repeat(32));
    let nothing = tclctl(folder.path(), &["evidence", "detect", "--root", folder.path().to_str().unwrap()]).ok().stdout;
    assert_eq!(nothing.lines().filter(|line| line.ends_with(": not usable")).count(), 5, "{nothing}");
}

#[test]
fn an_attesters_json_is_verified_as_its_report_is() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let wanted = format!("product = \"milan\"\nreport_data = \"{}\"\n", "5a".repeat(64));
    fs::write(here.join("wanted.toml"), wanted).unwrap();
    let _ = tclctl(here, &["evidence", "simulate", "wanted.toml", "made"]).ok();
    let report = Report::parse(&fs::read(here.join("made/report.bin")).unwrap()).unwrap();
    let vcek = SnpCertificate { cert_type: "VCEK".to_owned(), data: fs::read(here.join("made/vek.der")).unwrap() };
    let evidence = |chain| SnpEvidence { attestation_report: report.to_json(), cert_chain: chain };
    fs::write(here.join("whole.json"), serde_json::to_vec(&evidence(Some(vec![vcek]))).unwrap()).unwrap();
    fs::write(here.join("bare.json"), serde_json::to_vec(&evidence(None)).unwrap()).unwrap();
    let at = protocols::time::Timestamp::now().to_string();
    let verify = |more: &[&str]| {
        let fixed =
            ["evidence", "verify", "--tee", "snp", "--at", &at, "--chain", "made/chain.pem", "--allow-simulated"];
        tclctl(here, &[&fixed[..], more].concat())
    };
    let _ = verify(&["--evidence", "whole.json"]).ok();
    let _ = verify(&["--evidence", "bare.json", "--vek", "made/vek.der"]).ok();
    assert_eq!(verify(&["--evidence", "bare.json"]).status, 64);
    refuses(&verify(&["--evidence", "whole.json", "--challenge", CHALLENGE]), "evidence.nonce");
    fs::write(here.join("cut.json"), "{\"attestation_report\": {}}").unwrap();
    refuses(&verify(&["--evidence", "cut.json"]), "evidence.malformed");
}
