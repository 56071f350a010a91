use std::path::PathBuf;

use clap::Parser as _;
use protocols::environment::Environment;
use protocols::golden::{Issue, PAYLOAD_TYPE, statement};
use protocols::image::{ImageProcess, Layout, Platform, RootfsMeasurement};
use protocols::keys::{KeyKind, SigningKey};

use super::*;
use crate::cli::{Cli, Command};

/// Files of a launch that passes.
struct Files {
    directory: tempfile::TempDir,
    payload: Sha256Digest,
}

impl Files {
    fn new() -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap(), payload: Sha256Digest::of(b"") };
        let digest = |text: &str| Sha256Digest::of(text.as_bytes());
        let image = ImageMeasurement {
            manifest: digest("manifest"),
            config: digest("config"),
            layers: vec![digest("layer")],
            rootfs: RootfsMeasurement { layout: Layout::TreeV1, digest: digest("rootfs") },
            platform: Platform { os: "linux".into(), architecture: "amd64".into(), variant: None },
            process: ImageProcess { args: vec!["/app".into()], env: vec![], user: String::new(), cwd: "/".into() },
        };
        let issue = Issue {
            name: "registry.example/app".into(),
            issuer: "release@example.com".into(),
            series: "app".into(),
            version: 6,
            issued_at: Timestamp(1000),
            expires: Timestamp(2000),
            environment: Environment::Production,
            process: None,
        };
        let key = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        let payload = statement(&image, issue).payload().unwrap();
        let pem = key.verifying_key().to_pem().unwrap();
        files.write("image.json", &serde_json::to_vec(&json!([{ "measurement": image, "more": 1 }])).unwrap());
        let signers = format!(
            "listen = \"anything else\"\n[[signers]]\nissuer = \"release@example.com\"\nkey = '''{pem}'''\n\
             min_version = 1\nrevocations = \"optional\"\n"
        );
        files.write("broker.toml", signers.as_bytes());
        let digest = Sha256Digest::of(&payload);
        files.write("golden.json", &Envelope::sign(PAYLOAD_TYPE, payload, &key).to_bytes());
        Self { payload: digest, ..files }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The arguments after `appraise --offline`, in which names of files stand for their paths.
    fn appraise(&self, arguments: &[&str]) -> Result<(), Failure> {
        let named = |argument: &&str| match argument.ends_with(".json") || argument.ends_with(".toml") {
            true => self.path(argument).display().to_string(),
            false => (*argument).to_owned(),
        };
        let all = ["tclctl", "appraise", "--offline"].map(str::to_owned).into_iter();
        let cli = Cli::try_parse_from(all.chain(arguments.iter().map(named))).expect("arguments");
        let Command::Appraise(arguments) = cli.command else { panic!("another command") };
        appraise(&arguments, &Output::new(true))
    }

    /// The launch at second 1500, with more arguments.
    fn at(&self, time: &str, more: &[&str]) -> String {
        let usual =
            ["--measurement", "image.json", "--signers", "broker.toml", "--golden", "golden.json", "--at", time];
        match self.appraise(&[&usual, more].concat()) {
            Ok(()) => "pass".into(),
            Err(Failure::Coded { refusal, .. }) => {
                assert_eq!(refusal.source, Source::Command);
                refusal.code.to_string()
            }
            Err(other) => panic!("{other}"),
        }
    }
}

const TIME: &str = "1970-01-01T00:25:00Z";

#[test]
fn files_alone_decide_as_a_launch_is_decided() {
    let files = Files::new();
    let mark = |version: u64, payload: Sha256Digest| format!("{version}:{payload}");
    assert_eq!(files.at(TIME, &[]), "pass");
    assert_eq!(files.at("1970-01-01T00:33:20Z", &[]), "golden.expired");
    assert_eq!(files.at(TIME, &["--environment", "development"]), "golden.environment");
    let (same, other) = (mark(6, files.payload), mark(6, Sha256Digest::of(b"other")));
    assert_eq!(files.at(TIME, &["--high-water", &same]), "pass");
    assert_eq!(files.at(TIME, &["--high-water", &other]), "golden.conflict");
    assert_eq!(files.at(TIME, &["--high-water", &mark(7, files.payload)]), "golden.rollback");
    files.write("process.json", br#"{"args":["/app","-x"],"env":[],"user":"","cwd":"/","mounts":[]}"#);
    assert_eq!(files.at(TIME, &["--process", "process.json"]), "policy.process");
    files.write("golden.json", b"{}");
    assert_eq!(files.at(TIME, &[]), "golden.malformed");
}

#[test]
fn refusals_end_with_77_and_what_cannot_be_read_with_64() {
    let files = Files::new();
    let base = ["--measurement", "image.json", "--signers", "broker.toml"];
    assert_eq!(files.appraise(&base).unwrap_err().status(), 77, "no golden value at all");
    let with = |more: &[&str]| files.appraise(&[&base, more].concat()).unwrap_err().status();
    assert_eq!(with(&["--at", "yesterday"]), 64);
    assert_eq!(with(&["--high-water", "seven"]), 64);
    assert_eq!(with(&["--golden", "nowhere.json"]), 74);
    files.write("question.json", b"{}");
    assert_eq!(files.appraise(&["question.json"]).unwrap_err().status(), 64);
    // Nothing is decided halfway: a question is whole, or its parts are given.
    assert!(Cli::try_parse_from(["tclctl", "appraise", "--offline"]).is_err());
    assert!(Cli::try_parse_from(["tclctl", "appraise", "q.json"]).is_err());
    assert!(Cli::try_parse_from(["tclctl", "appraise", "--offline", "q.json", "--golden", "g"]).is_err());
}
