//! The attestor's audit log as an auditor meets it: `tclctl audit` against the real attestor, and against one whose store
//! was put back in time.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use std::fs;

use integration_tests::command::{ADMIN_TOKEN_FILE, Seen, run, tclctl};
use integration_tests::image::Recipe;
use integration_tests::process::binary;
use integration_tests::world::World;

struct Auditor<'w> {
    world: &'w World,
    key: String,
}

impl<'w> Auditor<'w> {
    fn new(world: &'w World) -> Self {
        let key = world.path("attestor.pub").display().to_string();
        let mut print = std::process::Command::new(binary("key-broker"));
        print.arg("--config").arg(world.path("broker.toml")).arg("--print-key");
        fs::write(&key, run(print).ok().stdout).unwrap();
        Self { world, key }
    }

    fn asked(&self, form: &[&str], words: &[&str]) -> Seen {
        let (url, token) = (self.world.attestor_url(), self.world.path(ADMIN_TOKEN_FILE).display().to_string());
        let at = ["--attestor", url.as_str(), "--admin-token", token.as_str()];
        run(tclctl(&[form, &["audit"], words, at.as_slice()].concat()))
    }

    fn json(&self, words: &[&str]) -> serde_json::Value {
        self.asked(&["--json"], words).ok().json()
    }

    fn verified(&self, words: &[&str]) -> serde_json::Value {
        self.json(&[&["verify", "--key", self.key.as_str()], words].concat())
    }

    fn refuses(&self, words: &[&str]) {
        self.asked(&[], &[&["verify", "--key", self.key.as_str()], words].concat()).refused(77, "attestor.audit");
    }
}

#[test]
fn an_auditor_sees_every_launch_and_that_the_log_only_grew() {
    let world = World::new();
    let auditor = Auditor::new(&world);
    let state = world.path("audit.state").display().to_string();
    let before = auditor.verified(&["--state", &state]);
    assert_eq!((&before["before"], &before["entries"]), (&serde_json::Value::Null, &before["size"]));

    let unsigned = world.push(&Recipe::new("true"), "unsigned", "1");
    let id = world.refuses(&unsigned, &["--mode", "remote"], 77, "golden.missing").decision();
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &["--mode", "remote"]);
    let after = auditor.verified(&["--state", &state]);
    assert_eq!(after["before"], before["size"]);
    let shown = auditor.json(&["show"]);
    let refused = shown.as_array().unwrap().iter().find(|entry| entry["event"]["id"] == id.as_str()).unwrap();
    assert_eq!(refused["event"]["outcome"]["refused"], "golden.missing");
    assert!(shown.as_array().unwrap().iter().any(|entry| entry["event"]["outcome"] == "pass"));
    let place = refused["seq"].to_string();
    assert_eq!(&auditor.json(&["prove", &place, "--key", &auditor.key])["entry"], refused);

    // The log in a file, as an auditor keeps it; and as somebody would rather have it.
    let file = world.path("audit.jsonl").display().to_string();
    let _ = auditor.json(&["export", &file]);
    let of_file = |file: &str, key: &str| run(tclctl(&["audit", "verify", "--file", file, "--key", key]));
    let told = of_file(&file, &auditor.key).ok().stdout;
    assert!(told.starts_with(&format!("verified: {} entries", after["size"])), "{told}");
    let altered = world.path("altered.jsonl").display().to_string();
    fs::write(&altered, fs::read_to_string(&file).unwrap().replacen("golden.missing", "golden.expired", 1)).unwrap();
    of_file(&altered, &auditor.key).refused(77, "attestor.audit");
    // Another attestor's word is none of this one's.
    let other = protocols::keys::SigningKey::generate(protocols::keys::KeyKind::EcdsaP256).unwrap();
    let foreign = world.path("foreign.pub").display().to_string();
    fs::write(&foreign, other.verifying_key().to_pem().unwrap()).unwrap();
    of_file(&file, &foreign).refused(77, "attestor.audit");
}

#[test]
fn a_store_that_was_put_back_in_time_is_found_by_whoever_remembers() {
    let mut world = World::new();
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &["--mode", "remote"]);
    world.settle();
    world.kill_broker();
    let (store, kept) = (world.path("broker.redb"), world.path("kept.redb"));
    fs::copy(&store, &kept).unwrap();
    world.start_broker();
    let state = world.path("audit.state").display().to_string();
    let _ = world.accepts(&image, &["--mode", "remote"]);
    world.settle();
    let _ = Auditor::new(&world).verified(&["--state", &state]);

    world.kill_broker();
    fs::copy(&kept, &store).unwrap();
    world.start_broker();
    let auditor = Auditor::new(&world);
    auditor.refuses(&["--state", &state]);
    // By itself it is whole.
    let _ = auditor.verified(&[]);
}
