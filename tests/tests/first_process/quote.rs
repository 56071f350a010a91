//! What somebody outside can tell of a machine by its TPM alone: a quote over a nonce of theirs, which another tool
//! verifies too, and registers that are what the exported log replays to.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use integration_tests::Tee;
use integration_tests::command::{Seen, run, tclctl, tool};
use integration_tests::image::Recipe;
use integration_tests::process::binary;
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::kbs::{TpmEvidence, tpm_nonce};
use protocols::tpm::{Attest, Signature};
use serde_json::Value;

use super::scene::Scene;

const CHALLENGE: &str = "8f1d0c4be2a35976605948372615f0e9d8c7b6a5943322110f1e2d3c4b5a6978";

struct Files(PathBuf);

impl Files {
    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }
}

#[test]
fn a_machines_quote_over_a_nonce_from_outside_verifies_with_openssl_too_and_is_what_its_log_replays_to() {
    let mut scene = Scene::new(Tee::Tpm);
    let image = scene.world.push(&Recipe::new("echo launched"), "app", "1");
    let _ = scene.world.sign(&image, 1);
    let reference = scene.world.reference(&image);
    let text = scene.initdata();
    let guest = scene.guest_with_tpm("", &text).program(&binary("tclctl")).processor_time(Duration::from_secs(400));
    let script = scene.prologue()
        + "export TCL_AGENT=unix:///run/tcl/agent.sock\n"
        + &format!("echo == run; tclctl run --mode remote {reference} 2>/told || cat /told\n")
        + &format!("echo == evidence; tclctl --json evidence --challenge {CHALLENGE}\n")
        + "echo == log; tclctl log export /exported >/told && base64 /exported
         echo == end; sleep 5; kill 1";
    let ended = guest.run(&script);
    assert_eq!(ended.section("run").first(), Some(&"launched"), "{}\n{}", ended.output, ended.console);
    let told: Value = serde_json::from_str(&ended.section("evidence").concat()).unwrap();
    assert_eq!((&told["tee"], &told["simulated"]), (&"tpm".into(), &false.into()));

    let files = Files(scene.world.path("outside"));
    fs::create_dir_all(&files.0).unwrap();
    let broker: toml::Table = fs::read_to_string(scene.world.path("broker.toml")).unwrap().parse().unwrap();
    let key = files.put("ak.pem", broker["tpm"]["ak"][0]["key"].as_str().unwrap());
    let nonce = hex::decode(CHALLENGE).unwrap();
    let bound = tpm_nonce(&Sha384Digest::of_parts(&[b"tcl-evidence-v1", &nonce]));

    let evidence = files.put("evidence.json", told["evidence"].to_string());
    let verify = |nonce: &[u8]| -> Seen {
        let (nonce, mut command) =
            (hex::encode(nonce), tclctl(&["evidence", "verify", "--tee", "tpm", "--at", "2026-01-02"]));
        command.args(["--evidence", &evidence, "--ak", &key, "--nonce", &nonce]);
        run(command)
    };
    let _ = verify(&bound).ok();
    let refused = verify(&[7; 32]);
    assert!(refused.status == 77 && refused.stderr.contains("evidence.nonce"), "{refused:#?}");

    let evidence: TpmEvidence = serde_json::from_value(told["evidence"].clone()).unwrap();
    let mut message = evidence.tpm_quote.message;
    let attest = Attest::parse(&message).unwrap();
    assert_eq!(attest.extra_data, bound);
    let raw = Signature::parse(&evidence.tpm_quote.signature).unwrap().ecdsa_raw().unwrap();
    let der = p256::ecdsa::Signature::from_slice(&raw).unwrap().to_der();
    let signature = files.put("signature", der.as_bytes());
    let openssl = |message: &[u8]| {
        let message = files.put("message", message);
        tool("openssl", &["dgst", "-sha256", "-verify", &key, "-signature", &signature, &message])
    };
    assert!(openssl(&message).ok().stdout.contains("Verified OK"));
    *message.last_mut().unwrap() ^= 1;
    assert_ne!(openssl(&message).status, 0);

    let pcrs: Vec<u8> = evidence.tpm_quote.pcrs.iter().flat_map(|pcr| hex::decode(pcr).unwrap()).collect();
    assert_eq!(pcrs.len(), 24 * 32);
    assert_eq!(attest.pcr_digest, Sha256Digest::of(&pcrs).as_bytes(), "the quote is of the registers shown");
    let log = base64::engine::general_purpose::STANDARD.decode(ended.section("log").concat()).unwrap();
    let log = files.put("guest.log", log);
    let replay =
        |register: &str| run(tclctl(&["log", "verify", "--file", &log, "--register", &format!("sha256:{register}")]));
    let told = replay(&evidence.tpm_quote.pcrs[14]).ok().stdout;
    assert!(told.contains(&format!("replay    sha256:{}", evidence.tpm_quote.pcrs[14])), "{told}");
    let refused = replay(&evidence.tpm_quote.pcrs[8]);
    assert!(refused.status == 77 && refused.stderr.contains("log.replay"), "{refused:#?}");
    let initdata = protocols::tpm::initdata_pcr(&Sha256Digest::of(text.as_bytes()));
    assert_eq!(evidence.tpm_quote.pcrs[8], initdata.hex(), "what it was launched with is in a register of its own");
}
