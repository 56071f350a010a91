//! Verifications per second of SNP reports and TPM quotes, each beside what `openssl speed` gives in the same run
//! for the signatures that it needs: `cargo bench -p verifier --bench evidence`.

#![allow(clippy::unwrap_used, clippy::result_large_err, missing_docs)] // a program for people

use std::process::Command;
use std::time::{Duration, Instant};

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::kbs::SnpEvidence;
use protocols::snp::Report;
use protocols::time::Timestamp;
use simulated_tee::{AzureVm, Chip, Params, Pki, VtpmQuote};
use verifier::snp::{AllowedChips, ExpectedMeasurement, SnpPolicy, TrustedArk, VerifiedVek, verify_report, verify_snp};
use verifier::{AzurePolicy, Trace, UserData, verify_azure_snp};

const FOR: Duration = Duration::from_secs(3);

fn rate(mut run: impl FnMut()) -> f64 {
    run();
    let started = Instant::now();
    let mut times = 0u32;
    while started.elapsed() < FOR {
        run();
        times += 1;
    }
    f64::from(times) / started.elapsed().as_secs_f64()
}

/// Verifications per second, the last column of `openssl speed`.
fn openssl(algorithm: &str) -> f64 {
    let output = Command::new("openssl").args(["speed", "-seconds", "3", algorithm]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().last().and_then(|line| line.split_whitespace().last()).unwrap().parse().unwrap()
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::create_for(&dir.path().join("pki"), &Chip::random().unwrap()).unwrap();
    let policy = SnpPolicy {
        roots: vec![TrustedArk::from_ders([pki.ark_der()], true, pki.chip().tcb).unwrap()],
        measurements: ExpectedMeasurement::Listed(vec![[0x5A; 48]]),
        vmpl: 0,
        chips: AllowedChips::AnyChip,
        providers: Vec::new(),
        environment: Environment::Development,
    };
    let now = Timestamp::now();
    let params = Params::new([1; 64], [2; 32], [3; 32]);
    let report = pki.report(&params).unwrap();
    let certificates = pki.certificates();
    let evidence = SnpEvidence { attestation_report: report.to_json(), cert_chain: Some(certificates.clone()) };
    let mut off = Trace::off();

    let (p384, rsa4096, rsa2048) = (openssl("ecdsap384"), openssl("rsa4096"), openssl("rsa2048"));
    println!("openssl speed, verifications/s: ecdsap384 {p384:.0}, rsa4096 {rsa4096:.0}, rsa2048 {rsa2048:.0}");
    let of = |rate: f64, limit: f64| format!("{rate:.0}/s, {:.2} of what openssl allows ({limit:.0}/s)", rate / limit);

    let full = rate(|| drop(verify_snp(&evidence, &[1; 64], &policy, now, &mut off).unwrap()));
    println!("SNP, whole chain, from JSON: {}", of(full, 1.0 / (1.0 / p384 + 2.0 / rsa4096)));
    let key = report.fields().signing_key().unwrap();
    let vek = VerifiedVek::verify(&certificates, key, &policy, now, &mut off).unwrap();
    let cached = rate(|| {
        let report = Report::parse(report.to_bytes()).unwrap();
        drop(verify_report(report, &vek, &[1; 64], &policy, now, &mut Trace::off()).unwrap());
    });
    println!("SNP, VEK verified before: {}", of(cached, p384));

    let (vm, pcrs) = (AzureVm::new().unwrap(), [Sha256Digest::new([0; 32]); 24]);
    let mut user_data = [0; 64];
    user_data.iter_mut().take(48).for_each(|byte| *byte = 7);
    let evidence = vm.evidence(&pki, &params, &vm.claims(&user_data), &VtpmQuote::new(&[7; 48], &pcrs)).unwrap();
    let ders = [pki.ark_der(), pki.ask_der()];
    let roots = vec![TrustedArk::from_ders(ders, true, pki.chip().tcb).unwrap()];
    let azure = AzurePolicy { snp: SnpPolicy { roots, ..policy }, user_data: UserData::Nonce };
    let mut off = Trace::off();
    let whole = rate(|| drop(verify_azure_snp(&evidence, &[7; 48], &azure, now, &mut off).unwrap()));
    println!("Azure, vTPM and SNP: {}", of(whole, 1.0 / (1.0 / p384 + 1.0 / rsa4096 + 1.0 / rsa2048)));
}
