//! A TPM's attestation key is enrolled by the certificate of its endorsement key, against swtpm, with tpm2-tools as the
//! other side in both directions.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use integration_tests::command::{Seen, run};
use integration_tests::process::{binary, program};
use integration_tests::tpm::Tpm;
use serde_json::{Value, json};

/// A TPM whose endorsement key has a certificate in NV, and the manufacturer's root that vouches for it.
struct Scene {
    folder: tempfile::TempDir,
    tpm: Tpm,
    ek: &'static str,
}

impl Scene {
    /// `kind` is an `--ek` of `tclctl ak request`.
    fn new(ek: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tpm = Tpm::start(folder.path());
        let scene = Self { folder, tpm, ek };
        fs::create_dir(scene.path("roots")).unwrap();
        let (algorithm, index) = if ek == "rsa2048" { ("rsa", "0x01c00002") } else { ("ecc", "0x01c0000a") };
        scene.tool("tpm2_createek", &["-G", algorithm, "-c", "ek.ctx", "-u", "ek.pem", "-f", "pem"]);
        scene.tool("tpm2_readpublic", &["-c", "ek.ctx", "-o", "ek.pub"]);
        scene.flush();
        scene
            .openssl("req -x509 -newkey rsa:2048 -nodes -keyout root.key -out roots/root.pem -subj /CN=Maker -days 30");
        scene.certify("2.23.133.8.1");
        let size = fs::metadata(scene.path("ek.der")).unwrap().len().to_string();
        let attributes = "ownerread|ownerwrite|authread|authwrite";
        scene.tool("tpm2_nvdefine", &[index, "-C", "o", "-s", &size, "-a", attributes]);
        scene.tool("tpm2_nvwrite", &[index, "-C", "o", "-i", "ek.der"]);
        scene
    }

    /// A certificate for this use, in `ek.der`.
    fn certify(&self, usage: &str) {
        let extensions = format!("basicConstraints=critical,CA:FALSE\nextendedKeyUsage={usage}\n");
        fs::write(self.path("ek.ext"), extensions).unwrap();
        self.openssl(
            "x509 -new -subj /CN=TPM -force_pubkey ek.pem -CA roots/root.pem -CAkey root.key -extfile ek.ext -days 30 \
             -outform DER -out ek.der",
        );
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new(program("openssl"));
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        let _ = run(command).ok();
    }

    fn tool(&self, name: &str, arguments: &[&str]) {
        let mut command = Command::new(program(name));
        command.args(arguments).current_dir(self.folder.path());
        command.env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.tpm.socket().display()));
        let _ = run(command).ok();
    }

    /// Nobody manages the TPM's few slots for it.
    fn flush(&self) {
        self.tool("tpm2_flushcontext", &["-t"]);
    }

    fn ak(&self, arguments: &[&str]) -> Seen {
        let mut command = Command::new(binary("tclctl"));
        command.arg("ak").args(arguments).current_dir(self.folder.path());
        run(command)
    }

    fn request(&self) -> Value {
        self.ak(&["request", "--device", &self.tpm.device(), "--ek", self.ek]).ok().json()
    }

    fn save(&self, name: &str, value: &Value) {
        fs::write(self.path(name), value.to_string()).unwrap();
    }

    /// Challenges what is in `request.json`, with the secret in `secret.json`.
    fn challenge(&self, request: &Value, roots: &str) -> Seen {
        self.save("request.json", request);
        let _ = fs::remove_file(self.path("secret.json"));
        self.ak(&["challenge", "request.json", "--roots", roots, "--secret", "secret.json", "--simulated"])
    }

    fn answer(&self, challenge: &Value) -> Seen {
        self.save("challenge.json", challenge);
        self.ak(&["answer", "challenge.json", "--device", &self.tpm.device()])
    }

    fn enroll(&self, answer: &Value) -> Seen {
        self.save("answer.json", answer);
        self.ak(&["enroll", "answer.json", "--secret", "secret.json"])
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn a_key_is_enrolled_by_its_tpms_certificate_and_the_entry_is_the_attestors() {
    for ek in ["rsa2048", "ecc-p256"] {
        let scene = Scene::new(ek);
        let challenge = scene.challenge(&scene.request(), "roots").ok().json();
        assert_eq!(fs::metadata(scene.path("secret.json")).unwrap().permissions(), mode(0o600));
        let entry = scene.enroll(&scene.answer(&challenge).ok().json()).ok().stdout.clone();
        let table: toml::Table = toml::from_str(&entry).unwrap();
        let ak = table["tpm"]["ak"][0].as_table().unwrap();
        let shown = scene.ak(&["show", "--device", &scene.tpm.device()]);
        assert_eq!(ak["key"].as_str().unwrap(), shown.ok().stdout);
        assert_eq!((ak["kind"].as_str(), ak["simulated"].as_bool()), (Some("tpm-ek"), Some(true)));
        // The transient slots are free again, whatever was asked.
        for _ in 0..4 {
            let _ = scene.answer(&challenge).ok();
        }
    }
}

fn mode(bits: u32) -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    fs::Permissions::from_mode(0o100_000 | bits)
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let scene = Scene::new("rsa2048");
    let request = scene.request();
    let challenge = scene.challenge(&request, "roots").ok().json();
    let answer = scene.answer(&challenge).ok().json();

    // A secret is never overwritten; a software TPM is enrolled as one or not at all.
    let again = scene.ak(&["challenge", "request.json", "--roots", "roots", "--secret", "secret.json", "--simulated"]);
    assert_eq!(again.status, 74, "{again:#?}");
    let real = scene.ak(&["challenge", "request.json", "--roots", "roots", "--secret", "new.json"]);
    real.refused(77, "policy.environment");
    assert!(!scene.path("new.json").exists());

    let mut other = answer.clone();
    other["secret"] = json!("00".repeat(32));
    scene.enroll(&other).refused(77, "enrol.answer");
    other["secret"] = json!("");
    scene.enroll(&other).refused(77, "enrol.answer");
    scene.enroll(&json!({"secret": 1})).refused(77, "enrol.malformed");

    // Every attribute that makes an attestation key, taken away, and a key that decrypts.
    let area = bytes(&request["ak_public"]);
    for bit in [1, 4, 5, 16, 17, 18] {
        let mut area = area.clone();
        let word = u32::from_be_bytes(area[4..8].try_into().unwrap()) ^ 1 << bit;
        area[4..8].copy_from_slice(&word.to_be_bytes());
        let mut altered = request.clone();
        altered["ak_public"] = json!(STANDARD.encode(area));
        scene.challenge(&altered, "roots").refused(77, "enrol.key");
    }
    // An attribute that no check reads changes the name, and the TPM does not open what is for another name.
    let mut named = area;
    named[6] ^= 1 << 2;
    let mut altered = request.clone();
    altered["ak_public"] = json!(STANDARD.encode(named));
    let for_another = scene.challenge(&altered, "roots").ok().json();
    scene.answer(&for_another).refused(70, "evidence.unavailable");

    // Another maker's root, none, and a certificate for another use.
    fs::create_dir(scene.path("others")).unwrap();
    scene.challenge(&request, "others").refused(77, "enrol.endorsement");
    scene.openssl("req -x509 -newkey rsa:2048 -nodes -keyout o.key -out others/o.pem -subj /CN=Maker -days 30");
    scene.challenge(&request, "others").refused(77, "enrol.endorsement");
    scene.certify("serverAuth");
    let mut server = request.clone();
    server["ek_certificate"] = json!(STANDARD.encode(fs::read(scene.path("ek.der")).unwrap()));
    scene.challenge(&server, "roots").refused(77, "enrol.endorsement");
    server["ek_certificate"] = json!("");
    scene.challenge(&server, "roots").refused(77, "enrol.endorsement");

    // Another TPM does not open it.
    let second = Scene::new("rsa2048");
    second.answer(&challenge).refused(70, "evidence.unavailable");
    let mut mixed = second.request();
    mixed["ek_certificate"] = request["ek_certificate"].clone();
    let mixed = scene.challenge(&mixed, "roots").ok().json();
    scene.answer(&mixed).refused(70, "evidence.unavailable");
    second.answer(&mixed).refused(70, "evidence.unavailable");
}

/// The credential file of tpm2-tools: magic, version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
fn credential_file(challenge: &Value) -> Vec<u8> {
    let sized = |bytes: Vec<u8>| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat();
    let head = [0xBADC_C0DE_u32.to_be_bytes(), 1u32.to_be_bytes()].concat();
    [head, sized(bytes(&challenge["credential"])), sized(bytes(&challenge["encrypted_seed"]))].concat()
}

fn challenge_of(file: &[u8], ek: &str) -> Value {
    let sized = |rest: &mut &[u8]| {
        let size = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let content = rest[2..2 + size].to_vec();
        *rest = &rest[2 + size..];
        STANDARD.encode(content)
    };
    let mut rest = &file[8..];
    let credential = sized(&mut rest);
    json!({"ek": ek, "credential": credential, "encrypted_seed": sized(&mut rest)})
}

#[test]
fn tpm2_tools_open_our_challenges_and_make_challenges_that_we_open() {
    for ek in ["rsa2048", "ecc-p256"] {
        let scene = Scene::new(ek);
        let request = scene.request();
        let challenge = scene.challenge(&request, "roots").ok().json();
        fs::write(scene.path("ours.cred"), credential_file(&challenge)).unwrap();
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";
        let scheme = "ecc256:ecdsa-sha256:null";
        scene.tool("tpm2_createprimary", &["-C", "e", "-g", "sha256", "-G", scheme, "-a", attributes, "-c", "ak.ctx"]);
        scene.flush();
        scene.tool("tpm2_startauthsession", &["--policy-session", "-S", "s.ctx"]);
        scene.tool("tpm2_policysecret", &["-S", "s.ctx", "-c", "e"]);
        let activate = ["-c", "ak.ctx", "-C", "ek.ctx", "-i", "ours.cred", "-o", "opened", "-P", "session:s.ctx"];
        scene.tool("tpm2_activatecredential", &activate);
        scene.tool("tpm2_flushcontext", &["s.ctx"]);
        scene.flush();
        let answer = json!({"secret": hex::encode(fs::read(scene.path("opened")).unwrap())});
        let _ = scene.enroll(&answer).ok();

        let secret = [7; 20];
        fs::write(scene.path("secret"), secret).unwrap();
        let name = hex::encode(protocols::tpm::object_name(&bytes(&request["ak_public"])));
        scene.tool("tpm2_makecredential", &["-u", "ek.pub", "-s", "secret", "-n", &name, "-o", "theirs.cred"]);
        scene.flush();
        let theirs = challenge_of(&fs::read(scene.path("theirs.cred")).unwrap(), ek);
        assert_eq!(scene.answer(&theirs).ok().json()["secret"], hex::encode(secret));
    }
}

#[test]
fn a_tpm_without_a_certificate_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let tpm = Tpm::start(Path::new(folder.path()));
    let mut command = Command::new(binary("tclctl"));
    command.args(["ak", "request", "--device", &tpm.device()]);
    let seen = run(command);
    seen.refused(70, "evidence.unavailable");
    assert!(seen.stderr.contains("0x01c00002"), "{seen:#?}");
}
