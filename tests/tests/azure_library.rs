//! The `azure` feature: the TPM library asks the vTPM at `/dev/tpm0` of a guest, which was prepared as the paravisor leaves
//! it, for the same as our own codec does; what either gives is judged by the one verifier.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::path::{Path, PathBuf};
use std::process::Command;

use integration_tests::command::run;
use integration_tests::process::{binary, program};
use integration_tests::tpm::Tpm;
use integration_tests::vm::Guest;
use protocols::azure::AzureSnpEvidence;
use protocols::digest::Sha384Digest;
use protocols::encoding::b64;
use protocols::environment::Environment;
use protocols::time::Timestamp;
use protocols::tpm::Attest;
use serde_json::Value;
use simulated_tee::{Params, Pki, claims_for, paravisor_report};
use verifier::{
    AllowedChips, AzurePolicy, ExpectedMeasurement, SnpPolicy, Trace, TrustedArk, UserData, verify_azure_snp,
};

const TEXT: &str = "binding";

/// Makes the attestation key, and the report over the binding that names it.
fn prepare(tpm: &Tpm, folder: &Path, pki: &Pki) {
    let path = |name: &str| folder.join(name).display().to_string();
    let tool = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(program(name));
        command.args(arguments).env("TPM2TOOLS_TCTI", format!("swtpm:path={}", tpm.socket().display()));
        let _ = run(command).ok();
    };
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";
    let kind = ["-Q", "-C", "e", "-g", "sha256", "-G", "rsa2048:rsassa-sha256:null", "-a", attributes];
    tool("tpm2_createprimary", &[&kind[..], &["-c", &path("ak.ctx")]].concat());
    tool("tpm2_evictcontrol", &["-Q", "-C", "o", "-c", &path("ak.ctx"), "0x81000003"]);
    tool("tpm2_flushcontext", &["-t"]);
    tool("tpm2_readpublic", &["-Q", "-c", "0x81000003", "-f", "der", "-o", &path("ak.der")]);
    // SubjectPublicKeyInfo of an RSA-2048 key: the modulus is after 33 bytes.
    let der = std::fs::read(path("ak.der")).unwrap();
    let mut user_data = [0; 64];
    user_data[..48].copy_from_slice(Sha384Digest::of(TEXT.as_bytes()).as_bytes());
    let params = Params::new([0; 64], [0; 32], [3; 32]);
    let report = paravisor_report(pki, &params, &claims_for(&der[33..33 + 256], &user_data)).unwrap();
    std::fs::write(path("report"), &report).unwrap();
    let size = report.len().to_string();
    tool("tpm2_nvdefine", &["-Q", "0x01400001", "-C", "o", "-s", &size, "-a", "ownerread|ownerwrite"]);
    tool("tpm2_nvwrite", &["-Q", "0x01400001", "-C", "o", "-i", &path("report")]);
}

/// The library loads this one by its name, so that nothing says it is needed.
fn device_library() -> PathBuf {
    let mut folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let file = "libtss2-tcti-device.so.0";
    folders.find_map(|folder| Some(folder.join(file)).filter(|path| path.exists())).expect("libtss2-tcti-device0")
}

#[test]
fn the_library_and_our_codec_give_the_same_evidence_of_one_vtpm() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(&folder.path().join("pki")).unwrap();
    let mut tpm = Tpm::start(folder.path());
    prepare(&tpm, folder.path(), &pki);
    let control = tpm.into_machine();
    let channel = format!("socket,id=tpm,path={}", control.display());
    let certificate = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", b64(pki.vcek_der()));
    let device = device_library();
    let ended = Guest::new()
        .modules(&["tpm_tis"])
        .program(&binary("azure_evidence"))
        .copy(device.to_str().unwrap(), &device)
        .file("/answer", serde_json::json!({ "vcekCert": certificate }).to_string())
        .qemu(&["-chardev", &channel, "-tpmdev", "emulator,id=t0,chardev=tpm", "-device", "tpm-tis,tpmdev=t0"])
        .run(&format!(
            "ip link set lo up; ip addr add 127.0.0.1/8 dev lo 2>/dev/null; azure_evidence {TEXT} /answer; sleep 2"
        ));
    let _ = ended.ok();

    let snp = SnpPolicy {
        roots: vec![TrustedArk::from_ders([pki.ark_der(), pki.ask_der()], true, pki.chip().tcb).unwrap()],
        measurements: ExpectedMeasurement::Listed(vec![[0x5A; 48]]),
        vmpl: 0,
        chips: AllowedChips::AnyChip,
        providers: Vec::new(),
        environment: Environment::Development,
    };
    let policy = AzurePolicy { snp, user_data: UserData::Nonce };
    let nonce = *Sha384Digest::of(TEXT.as_bytes()).as_bytes();
    let shown = ["codec", "library"].map(|name| {
        let value: Value = serde_json::from_str(&ended.section(name).concat()).unwrap();
        let evidence = AzureSnpEvidence::from_json(&value).unwrap();
        let claims = verify_azure_snp(&evidence, &nonce, &policy, Timestamp::now(), &mut Trace::off()).unwrap();
        // Two quotes differ in the TPM's clock alone, and so in their signatures.
        let mut attest = Attest::parse(&evidence.quote.message).unwrap();
        attest.clock_info.clock = 0;
        let AzureSnpEvidence { version, hcl_report, vcek, quote } = evidence;
        (claims.tpm().ak_spki().to_vec(), version, hcl_report, vcek, quote.pcrs, attest)
    });
    assert_eq!(shown[0], shown[1]);
}
