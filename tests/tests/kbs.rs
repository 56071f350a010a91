//! `tclctl kbs` against the attestor, both as they are shipped: resources and passports, by a software TPM and by sample
//! evidence, and who may store them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use integration_tests::command::{Seen, run};
use integration_tests::process::{Service, address, binary};
use integration_tests::tpm::Tpm;

const PATH: &str = "default/key/one";
const TOKEN: &str = "an-administrators-token-of-enough-length";

struct Kbs {
    folder: tempfile::TempDir,
    url: String,
    _service: Service,
}

fn tclctl(folder: &Path, arguments: &[&str]) -> Seen {
    let mut command = Command::new(binary("tclctl"));
    command.args(arguments).current_dir(folder).env_remove("TCL_KBS");
    run(command)
}

impl Kbs {
    /// A development attestor with `more` at the end of its configuration.
    fn start(folder: tempfile::TempDir, more: &str) -> Self {
        let here = folder.path().display();
        let keygen = Command::new(binary("key-broker")).args(["keygen", &format!("{here}/signing.pem")]).output();
        let keygen = keygen.unwrap();
        assert!(keygen.status.success());
        let public = String::from_utf8(keygen.stdout).unwrap();
        fs::write(folder.path().join("token"), TOKEN).unwrap();
        fs::write(folder.path().join("store.key"), "5a".repeat(32)).unwrap();
        let text = format!(
            "environment = \"development\"\nlisten = \"127.0.0.1:0\"\nstore = \"{here}/broker.redb\"\n\
             store_key = {{ file = \"{here}/store.key\" }}\nsigning_key = \"{here}/signing.pem\"\nchallenge_seconds = 60\ntoken_seconds = 60\nrevocation_seconds = 0\n\
             admin_token = \"{here}/token\"\n[[signers]]\nissuer = \"a\"\nkey = \"\"\"{public}\"\"\"\nmin_version = 1\n\
             revocations = \"optional\"\n[policy]\nregisters = [\"tpm-listed\"]\n\
             [release]\nstatus = [\"affirming\", \"warning\"]\n{more}"
        );
        fs::write(folder.path().join("broker.toml"), text).unwrap();
        let mut command = Command::new(binary("key-broker"));
        command.arg("--config").arg(folder.path().join("broker.toml")).env_remove("KEY_BROKER_LOG");
        let mut service = Service::start("key-broker", &command, &folder.path().join("broker.log"));
        let address = service.wait_for(|log| address(log, "listen="));
        Self { folder, url: format!("http://{address}"), _service: service }
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Seen {
        tclctl(self.folder.path(), &[&["--json", "kbs", command, "--url", &self.url], arguments].concat())
    }

    fn store(&self, text: &str) {
        fs::write(self.folder.path().join("secret"), text).unwrap();
        let stored = self.run("put-resource", &["--admin-token", "token", "--path", PATH, "secret"]).ok().json();
        assert_eq!((&stored["path"], &stored["bytes"]), (&PATH.into(), &text.len().into()));
    }
}

/// `hello` in the output's base64.
const HELLO: &str = "aGVsbG8=";

#[test]
fn sample_evidence_is_named_stamped_and_counts_where_it_is_accepted() {
    let kbs = Kbs::start(tempfile::tempdir().unwrap(), "[sample]\naccept = true\n");
    kbs.store("hello");
    fs::write(kbs.folder.path().join("initdata"), "algorithm = \"sha384\"\n[data]\n\"a\" = \"b\"\n").unwrap();
    for more in [
        &[][..],
        &["--key", "p521"],
        &["--key", "rsa"],
        &["--sample-device"],
        &["--initdata", "initdata"],
        &["--sample-device", "--initdata", "initdata", "--key", "p521"],
    ] {
        let got = kbs.run("get-resource", &[&["--path", PATH, "--sample"], more].concat()).ok();
        assert_eq!(got.json()["resource"], HELLO, "{more:?}");
        assert!(got.stderr.contains("SIMULATED"), "{got:#?}");
    }
    kbs.run("get-resource", &["--path", "default/key/two", "--sample"]).refused_json(77, "attestor.not_found");
    // Nothing is chosen for anybody, and a device stands beside something.
    assert_eq!(kbs.run("get-resource", &["--path", PATH]).status, 64);
    assert_eq!(kbs.run("get-resource", &["--path", PATH, "--tee", "tpm", "--sample"]).status, 64);
    assert_eq!(kbs.run("attest", &["--sample-device"]).status, 64);
    assert_eq!(kbs.run("get-resource", &["--path", "../x", "--sample"]).status, 64);

    let closed = Kbs::start(tempfile::tempdir().unwrap(), "");
    closed.run("attest", &["--sample"]).refused_json(77, "evidence.policy");
}

#[test]
fn a_passport_is_for_its_owner_and_reads_later_what_was_attested_before() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = Tpm::start(folder.path());
    let device = tpm.device();
    let key = tclctl(folder.path(), &["ak", "show", "--device", &device]).ok().stdout;
    let more = format!("[[tpm.ak]]\nkey = \"\"\"{key}\"\"\"\nsimulated = true\n");
    let kbs = Kbs::start(folder, &more);
    kbs.store("hello");
    let wrote = kbs.run("attest", &["--tee", "tpm", "--device", &device, "--out", "passport"]).ok();
    assert_eq!(wrote.json()["passport"], "passport");
    assert!(wrote.stderr.contains("SIMULATED"), "{wrote:#?}");
    let passport = kbs.folder.path().join("passport");
    assert_eq!(fs::metadata(&passport).unwrap().permissions().mode() & 0o777, 0o600);
    // Nothing is written over.
    assert_eq!(kbs.run("attest", &["--tee", "tpm", "--device", &device, "--out", "passport"]).status, 74);
    drop(tpm);
    let by = ["--path", PATH, "--passport", "passport"];
    assert_eq!(kbs.run("get-resource", &by).ok().json()["resource"], HELLO);
    let wrote = kbs.run("get-resource", &[&by[..], &["--out", "got"]].concat()).ok();
    assert_eq!(wrote.json()["out"], "got");
    let got = kbs.folder.path().join("got");
    assert_eq!(fs::read(&got).unwrap(), b"hello");
    assert_eq!(fs::metadata(&got).unwrap().permissions().mode() & 0o777, 0o600);
    // The token alone opens nothing: with another key what comes is not for it.
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&passport).unwrap()).unwrap();
    text["tee_keypair"] = include_str!("../../protocols/tests/data/jwe/p256.pem").into();
    fs::write(kbs.folder.path().join("forged"), text.to_string()).unwrap();
    kbs.run("get-resource", &["--path", PATH, "--passport", "forged"]).refused_json(77, "attestor.protocol");
}

#[test]
fn only_the_administrator_stores() {
    let kbs = Kbs::start(tempfile::tempdir().unwrap(), "");
    fs::write(kbs.folder.path().join("other"), "another-token-of-enough-length-for-anybody").unwrap();
    fs::write(kbs.folder.path().join("secret"), "hello").unwrap();
    let refused = kbs.run("put-resource", &["--admin-token", "other", "--path", PATH, "secret"]);
    refused.refused_json(77, "attestor.denied");
}

#[test]
fn who_is_not_there_is_out_of_reach() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens on port 1, and the command tries again before it says so.
    let seen = tclctl(folder.path(), &["--json", "kbs", "attest", "--url", "http://127.0.0.1:1", "--sample"]);
    seen.refused_json(69, "attestor.unavailable");
    assert_eq!(tclctl(folder.path(), &["kbs", "attest", "--url", "http://192.0.2.1", "--sample"]).status, 64);
}

trait RefusedJson {
    fn refused_json(&self, status: i32, code: &str);
}

impl RefusedJson for Seen {
    /// Ended with this status and code, told as JSON on standard error.
    #[track_caller]
    fn refused_json(&self, status: i32, code: &str) {
        let line = self.stderr.lines().last().unwrap();
        let told: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((self.status, &told["refusal"]["code"]), (status, &code.into()), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
    }
}
