//! Signed reference values and policy files in force: by the attestor's time, versions that only go up, reloaded whole.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::sync::Arc;

use kbs_client::ClientError;
use key_broker::broker::Broker;
use key_broker::config::Config;
use protocols::dsse::Envelope;
use protocols::environment::Environment;
use protocols::keys::{KeyKind, SigningKey};
use protocols::time::Timestamp;
use reference_values::document::{PAYLOAD_TYPE, TYPE};
use reference_values::{Document, References};

use support::guest::{Guest, question};
use support::{NOW, World, image};

const PLATFORM: &str = "platform@example.com";

/// A production attestor whose only reference values are one signed document, and a guest it fits.
struct Shown {
    world: World,
    key: SigningKey,
    guest: Guest,
}

impl Shown {
    async fn new(version: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        let path = directory.path().join("reference.json");
        std::fs::write(&path, signed(&document(version, "00"), &key)).unwrap();
        let section = format!(
            "\n[reference]\nfiles = [\"{}\"]\n[[reference.signer]]\nissuer = \"{PLATFORM}\"\nkey = \"\"\"{}\"\"\"\n\
             min_version = 2\n",
            path.display(),
            key.verifying_key().to_pem().unwrap()
        );
        let edit = |text: String| text.split("[reference.values]").next().unwrap().to_owned() + &section;
        let world = World::edited(directory, "production", edit).await;
        let guest = Guest::boot_as(&world.tpm, 1, Environment::Production, false);
        Self { world, key, guest }
    }

    fn write(&self, bytes: &[u8]) {
        std::fs::write(self.world.directory.path().join("reference.json"), bytes).unwrap();
    }

    fn publish(&self, document: &Document) {
        self.write(&signed(document, &self.key));
    }

    async fn attests(&mut self) -> &'static str {
        let client = self.world.client_pinning(&self.world.key_pem, Environment::Production);
        match self.guest.attest(&client).await {
            Ok(_) => "affirming",
            Err(error) => code(&error),
        }
    }
}

fn code(error: &ClientError) -> &'static str {
    error.code().as_str()
}

/// Expects PCR 4 to be 32 times this byte.
fn document(version: u64, byte: &str) -> Document {
    let mut values = References::default();
    values.add("tpm.pcr4", &byte.repeat(32)).unwrap();
    Document {
        document_type: TYPE.into(),
        issuer: PLATFORM.into(),
        series: "guest-image".into(),
        version,
        issued_at: Timestamp(NOW - 1000),
        expires: Timestamp(NOW + 1000),
        environment: Environment::Production,
        values,
    }
}

fn signed(document: &Document, key: &SigningKey) -> Vec<u8> {
    Envelope::sign(PAYLOAD_TYPE, document.payload().unwrap(), key).to_bytes()
}

#[tokio::test]
async fn a_signed_document_counts_until_the_attestors_clock_reaches_its_end() {
    let mut shown = Shown::new(3).await;
    assert_eq!(shown.attests().await, "affirming");
    shown.world.pass(999);
    assert_eq!(shown.attests().await, "affirming");
    shown.world.pass(1);
    assert_eq!(shown.attests().await, "evidence.appraisal");
    // A later one is put in force without a restart.
    shown.publish(&Document { expires: Timestamp(NOW + 5000), ..document(4, "00") });
    shown.world.reload().await.unwrap();
    assert_eq!(shown.attests().await, "affirming");
}

#[tokio::test]
async fn a_reload_is_whole_or_nothing_and_names_what_it_changed_by_the_policys_digest() {
    let mut shown = Shown::new(3).await;
    let first = shown.world.reload().await.unwrap();
    assert_eq!(shown.world.reload().await.unwrap(), first, "the same files, the same digest");

    let good = document(4, "77");
    let stranger = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
    for (bytes, expected) in [
        (signed(&good, &stranger), "reference.signer"),
        (good.payload().unwrap(), "reference.unsigned"),
        (b"{}".to_vec(), "reference.malformed"),
        (signed(&document(1, "77"), &shown.key), "reference.rollback"),
        (signed(&document(2, "77"), &shown.key), "reference.rollback"),
        (signed(&document(3, "77"), &shown.key), "reference.conflict"),
        (signed(&Document { environment: Environment::Development, ..good.clone() }, &shown.key), "policy.environment"),
    ] {
        shown.write(&bytes);
        let told = shown.world.reload().await.unwrap_err();
        assert!(told.contains(expected), "{expected}: {told}");
        assert_eq!(shown.attests().await, "affirming", "what was in force stays");
    }
    shown.publish(&good);
    let second = shown.world.reload().await.unwrap();
    assert_ne!(first, second);
    assert_eq!(shown.attests().await, "evidence.appraisal", "another boot is expected now");

    // A policy that affirms whatever boots: the digest in verdicts follows it.
    let rego = shown.world.directory.path().join("policy.rego");
    shown.world.edit(|text| format!("{text}\n[appraisal]\npolicy = \"{}\"\n", rego.display()));
    for unusable in ["package appraisal", "package appraisal\ntrust_vector := {"] {
        std::fs::write(&rego, unusable).unwrap();
        assert!(shown.world.reload().await.unwrap_err().contains("appraisal"));
        assert_eq!(shown.attests().await, "evidence.appraisal", "the built-in policy stays");
    }
    let claims = ["instance-identity", "configuration", "executables", "hardware"].map(|name| format!("\"{name}\": 2"));
    let rest = ["file-system", "runtime-opaque", "storage-opaque", "sourced-data"].map(|name| format!("\"{name}\": 0"));
    let vector = [claims, rest].concat().join(", ");
    std::fs::write(&rego, format!("package appraisal\ntrust_vector := {{{vector}}}\n")).unwrap();
    let third = shown.world.reload().await.unwrap();
    assert_ne!(second, third);
    let client = shown.world.client_pinning(&shown.world.key_pem, Environment::Production);
    let session = shown.guest.attest(&client).await.unwrap();
    shown.guest.push_image(1, &image());
    shown.guest.deliver(&session).await.unwrap();
    let verdict = shown.guest.ask(&session, &question(1, &image())).await.unwrap();
    assert_eq!(verdict.claims().policy, third);
}

#[tokio::test]
async fn what_only_a_start_reads_is_not_reloaded() {
    let shown = Shown::new(3).await;
    for (from, to, field) in [
        ("environment = \"production\"", "environment = \"development\"", "environment"),
        ("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.1:1\"", "listen"),
        ("broker.redb", "other.redb", "store"),
        ("revocation_seconds = 0", "revocation_seconds = 1", "revocation_seconds"),
        ("[policy]", "[registry]\nstall_seconds = 5\n[policy]", "[registry]"),
    ] {
        shown.world.edit(|text| text.replacen(from, to, 1));
        assert_eq!(shown.world.reload().await.unwrap_err(), format!("{field} differs: it needs a restart"));
        shown.world.edit(|text| text.replacen(to, from, 1));
    }
    shown.world.edit(|text| text.replace("token_seconds = 300", "token_seconds = 60"));
    shown.world.reload().await.unwrap();
}

#[tokio::test]
async fn an_older_document_is_refused_after_a_restart_too() {
    let mut shown = Shown::new(7).await;
    shown.world.stop().await;
    let start = async |shown: &Shown| {
        let settings = Config::read(&shown.world.directory.path().join("broker.toml")).unwrap().settings().unwrap();
        let store = settings.store.open().await.unwrap();
        let now = Arc::new(|| Timestamp(NOW));
        let made = Broker::new(settings, store, Arc::clone(&shown.world.registry) as _, now).await;
        made.map(drop).map_err(|error| error.refusal().code.as_str())
    };
    for (document, expected) in [
        (document(6, "00"), Err("reference.rollback")),
        (document(7, "77"), Err("reference.conflict")),
        (document(7, "00"), Ok(())),
        // Another series begins anew.
        (Document { series: "other".into(), ..document(2, "00") }, Ok(())),
        (document(8, "00"), Ok(())),
        (document(7, "00"), Err("reference.rollback")),
    ] {
        shown.publish(&document);
        assert_eq!(Box::pin(start(&shown)).await, expected, "{document:?}");
    }
}
