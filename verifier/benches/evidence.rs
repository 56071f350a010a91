//! Verifications per second of every kind of evidence, each as a ratio to what `openssl speed` allows in the same run for
//! the signatures that it needs, TDX to `dcap-qvl` alone: `cargo xtask bench evidence`.

#![allow(clippy::unwrap_used, clippy::result_large_err, clippy::indexing_slicing, missing_docs)] // a program for people

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use criterion::Criterion;
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::kbs::{SnpEvidence, TdxEvidence, TpmEvidence};
use protocols::snp::Report;
use protocols::time::Timestamp;
use protocols::tpm::Attest;
use simulated_tee::tdx::{Body, CollateralFacts, Params as TdxParams, Platform};
use simulated_tee::{AzureVm, Chip, Params, Pki, VtpmQuote};
use verifier::snp::{AllowedChips, ExpectedMeasurement, SnpPolicy, TrustedArk, VerifiedVek, verify_report, verify_snp};
use verifier::tdx::{TcbStatus, TdxCollateral, TdxMeasurements, TdxPolicy, TdxRoot, verify_tdx};
use verifier::{AzurePolicy, EnrolledAk, Enrolment, TpmPolicy, Trace, UserData, verify_azure_snp, verify_tpm};

/// Verifications per second, the last column of `openssl speed`.
fn openssl(algorithm: &str) -> f64 {
    let output = Command::new("openssl").args(["speed", "-seconds", "3", algorithm]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().and_then(|line| line.split_whitespace().last()).unwrap().parse().unwrap()
}

/// Runs per second, by criterion's estimate of the median.
fn rate(criterion: &mut Criterion, name: &str, mut run: impl FnMut()) -> f64 {
    criterion.bench_function(name, |bencher| bencher.iter(&mut run));
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "../target".to_owned());
    let estimates = Path::new(&target).join("criterion").join(name).join("new/estimates.json");
    let estimates: serde_json::Value = serde_json::from_slice(&std::fs::read(estimates).unwrap()).unwrap();
    1e9 / estimates["median"]["point_estimate"].as_f64().unwrap()
}

fn tell(what: &str, rate: f64, limit: f64, of: &str, wanted: f64) {
    println!("| {what} | {rate:.0} | {limit:.0} ({of}) | {:.2} | {wanted:.2} |", rate / limit);
}

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(30)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    let [p384, rsa4096, rsa2048] = ["ecdsap384", "rsa4096", "rsa2048"].map(openssl);
    let rows =
        [snp(&mut criterion, p384, rsa4096), azure(&mut criterion, [p384, rsa4096, rsa2048]), tdx(&mut criterion)];
    let tpm = tpm(&mut criterion);
    println!("openssl speed, verifications/s: ecdsap384 {p384:.0}, rsa4096 {rsa4096:.0}, rsa2048 {rsa2048:.0}\n");
    println!("| evidence | verifications/s | allowed | ratio | wanted |\n|---|---|---|---|---|");
    for (what, rate, limit, of, wanted) in rows.into_iter().flatten() {
        tell(what, rate, limit, of, wanted);
    }
    // 25,000/s where ecdsap384 shows 2,200/s.
    tell("TPM, RSA 2048", tpm, p384 * 25_000.0 / 2_200.0, "11.4 times ecdsap384", 1.0);
}

type Row = (&'static str, f64, f64, &'static str, f64);

fn snp_policy(pki: &Pki) -> SnpPolicy {
    SnpPolicy {
        roots: vec![TrustedArk::from_ders([pki.ark_der(), pki.ask_der()], true, pki.chip().tcb).unwrap()],
        measurements: ExpectedMeasurement::Listed(vec![[0x5A; 48]]),
        vmpl: 0,
        chips: AllowedChips::AnyChip,
        providers: Vec::new(),
        environment: Environment::Development,
    }
}

fn snp(criterion: &mut Criterion, p384: f64, rsa4096: f64) -> Vec<Row> {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::create_for(&dir.path().join("pki"), &Chip::random().unwrap()).unwrap();
    let roots = vec![TrustedArk::from_ders([pki.ark_der()], true, pki.chip().tcb).unwrap()];
    let policy = SnpPolicy { roots, ..snp_policy(&pki) };
    let now = Timestamp::now();
    let report = pki.report(&Params::new([1; 64], [2; 32], [3; 32])).unwrap();
    let certificates = pki.certificates();
    let evidence = SnpEvidence { attestation_report: report.to_json(), cert_chain: Some(certificates.clone()) };
    let full = rate(criterion, "snp", || {
        drop(verify_snp(&evidence, &[1; 64], &policy, now, &mut Trace::off()).unwrap());
    });
    let key = report.fields().signing_key().unwrap();
    let vek = VerifiedVek::verify(&certificates, key, &policy, now, &mut Trace::off()).unwrap();
    let cached = rate(criterion, "snp-cached", || {
        let report = Report::parse(report.to_bytes()).unwrap();
        drop(verify_report(report, &vek, &[1; 64], &policy, now, &mut Trace::off()).unwrap());
    });
    let whole = 1.0 / (1.0 / p384 + 2.0 / rsa4096);
    vec![
        ("SNP, whole chain, from JSON", full, whole, "ecdsap384 and two rsa4096", 0.75),
        ("SNP, VEK verified before", cached, p384, "ecdsap384", 0.80),
    ]
}

fn azure(criterion: &mut Criterion, [p384, rsa4096, rsa2048]: [f64; 3]) -> Vec<Row> {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::create_for(&dir.path().join("pki"), &Chip::random().unwrap()).unwrap();
    let (vm, pcrs) = (AzureVm::new().unwrap(), [Sha256Digest::new([0; 32]); 24]);
    let mut user_data = [0; 64];
    user_data[..48].fill(7);
    let params = Params::new([1; 64], [2; 32], [3; 32]);
    let evidence = vm.evidence(&pki, &params, &vm.claims(&user_data), &VtpmQuote::new(&[7; 48], &pcrs)).unwrap();
    let policy = AzurePolicy { snp: snp_policy(&pki), user_data: UserData::Nonce };
    let now = Timestamp::now();
    let whole = rate(criterion, "azure", || {
        drop(verify_azure_snp(&evidence, &[7; 48], &policy, now, &mut Trace::off()).unwrap());
    });
    let limit = 1.0 / (1.0 / p384 + 1.0 / rsa4096 + 1.0 / rsa2048);
    vec![("Azure, vTPM and SNP", whole, limit, "ecdsap384, rsa4096, rsa2048", 0.75)]
}

fn tdx(criterion: &mut Criterion) -> Vec<Row> {
    let now = Timestamp::now();
    let platform = Platform::new(now).unwrap();
    let json = platform.collateral(&CollateralFacts::new(&platform, now));
    let quote = platform.quote(&TdxParams::new(Body::V4, [0x44; 64])).unwrap().encode();
    let listed = |byte| ExpectedMeasurement::Listed(vec![[byte; 48]]);
    let policy = TdxPolicy {
        roots: vec![TdxRoot::from_der(&platform.root_der(), true).unwrap()],
        collateral: vec![TdxCollateral::parse(json.as_bytes()).unwrap()],
        statuses: vec![TcbStatus::UpToDate],
        advisories: vec![],
        minimum_evaluation: 17,
        measurements: TdxMeasurements { mr_td: listed(0x7D), rtmr: [listed(0x10), listed(0x11), listed(0x12)] },
        environment: Environment::Development,
    };
    let (verifier, collateral) =
        (QuoteVerifier::new(platform.root_der()), serde_json::from_str::<QuoteCollateralV3>(&json).unwrap());
    let alone = rate(criterion, "tdx-dcap-qvl", || drop(verifier.verify(&quote, &collateral, now.0).unwrap()));
    let evidence = TdxEvidence { cc_eventlog: None, quote };
    let ours = rate(criterion, "tdx", || {
        drop(verify_tdx(&evidence, &[0x44; 64], &policy, now, &mut Trace::off()).unwrap());
    });
    vec![("TDX", ours, alone, "dcap-qvl alone", 0.85)]
}

fn tpm(criterion: &mut Criterion) -> f64 {
    let text = include_str!("../../tests/data/vectors/tpm/tpm_evidence.json");
    let evidence: TpmEvidence = serde_json::from_str(text).unwrap();
    let nonce = Attest::parse(&evidence.tpm_quote.message).unwrap().extra_data;
    let aks = vec![EnrolledAk { spki_der: evidence.ak_public.clone(), simulated: true, enrolment: Enrolment::Listed }];
    let policy = TpmPolicy { aks, pcr: 14, environment: Environment::Development };
    rate(criterion, "tpm", || drop(verify_tpm(&evidence, &nonce, &policy, &mut Trace::off()).unwrap()))
}
