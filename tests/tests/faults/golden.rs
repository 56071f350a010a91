//! Golden values that are absent, wrong, old or withdrawn: refused the same way in both modes.

use integration_tests::golden::{attach, detach_all, measured, sign};
use integration_tests::image::{Image, Recipe};
use integration_tests::world::ISSUER;
use integration_tests::{Action, Options, World};
use protocols::dsse::Envelope;
use protocols::golden::{GoldenValue, Statement};
use protocols::keys::{KeyKind, SigningKey};
use protocols::time::Timestamp;

use crate::MODES;

fn unsigned(world: &World) -> Image {
    world.push(&Recipe::new("true"), "app", "1")
}

/// The statement the signer would sign for `image`, changed by `edit`, signed by `key` and stored.
fn store(world: &World, image: &Image, key: &SigningKey, edit: impl FnOnce(&mut Statement<GoldenValue>)) {
    let arguments = ["--issuer", ISSUER, "--environment", "development", "--days", "30"];
    let mut statement = measured(&world.registry.address, image, &arguments);
    statement.predicate.process = Some(serde_json::from_str(r#"{"mounts":["/marker"]}"#).unwrap());
    edit(&mut statement);
    attach(&world.registry.address, &image.repository, &image.manifest, &sign(&statement, key));
}

fn refused_in_both_modes(world: &World, image: &Image, code: &str) {
    for mode in MODES {
        let _ = world.refuses(image, &["--mode", mode], 77, code);
    }
    let _ = world.verify_log().ok();
}

#[test]
fn no_golden_value() {
    let world = World::new();
    let image = unsigned(&world);
    refused_in_both_modes(&world, &image, "golden.missing");
    // The same image launches once it is signed: nothing else was in the way.
    let _ = world.sign(&image, 1);
    let _ = world.accepts(&image, &[]);
}

#[test]
fn wrong_signature() {
    let world = World::new();
    let image = unsigned(&world);
    let statement = measured(&world.registry.address, &image, &["--issuer", ISSUER, "--environment", "development"]);
    let mut envelope = Envelope::parse(&sign(&statement, &world.release)).unwrap();
    let mut other = statement;
    other.predicate.version += 1;
    envelope.payload = other.payload().unwrap();
    attach(&world.registry.address, "app", &image.manifest, &envelope.to_bytes());
    refused_in_both_modes(&world, &image, "golden.signature");
}

#[test]
fn unknown_signer() {
    let world = World::new();
    let image = unsigned(&world);
    let stranger = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
    store(&world, &image, &stranger, |_| {});
    refused_in_both_modes(&world, &image, "golden.signer");
}

#[test]
fn another_issuers_name_under_a_pinned_key() {
    let world = World::new();
    let image = unsigned(&world);
    store(&world, &image, &world.release, |statement| statement.predicate.issuer = "someone@example.com".to_owned());
    refused_in_both_modes(&world, &image, "golden.signer");
}

#[test]
fn signature_over_another_subject() {
    let world = World::new();
    let image = unsigned(&world);
    let other = world.push(&Recipe::new("echo another"), "app", "2");
    store(&world, &image, &world.release, |statement| {
        let hex = other.manifest.trim_start_matches("sha256:").to_owned();
        statement.subject[0].digest.insert("sha256".to_owned(), hex);
    });
    refused_in_both_modes(&world, &image, "golden.subject");
}

#[test]
fn expired() {
    let world = World::new();
    let image = unsigned(&world);
    let now = Timestamp::now();
    store(&world, &image, &world.release, |statement| statement.predicate.expires = Timestamp(now.0 - 1));
    refused_in_both_modes(&world, &image, "golden.expired");
}

#[test]
fn a_config_other_than_the_signed_one() {
    let world = World::new();
    let image = unsigned(&world);
    store(&world, &image, &world.release, |statement| {
        statement.predicate.config = protocols::digest::Sha256Digest::of(b"another config");
    });
    refused_in_both_modes(&world, &image, "image.config");
}

#[test]
fn layers_other_than_the_signed_ones() {
    let world = World::new();
    let image = unsigned(&world);
    store(&world, &image, &world.release, |statement| {
        statement.predicate.layers.push(protocols::digest::Sha256Digest::of(b"another layer"));
    });
    refused_in_both_modes(&world, &image, "image.layer");
}

#[test]
fn a_root_file_system_other_than_the_signed_one() {
    let world = World::new();
    let image = unsigned(&world);
    store(&world, &image, &world.release, |statement| {
        for digest in statement.predicate.rootfs.values_mut() {
            *digest = protocols::digest::Sha256Digest::of(b"another root file system");
        }
    });
    refused_in_both_modes(&world, &image, "image.rootfs");
}

#[test]
fn not_a_statement_of_ours() {
    let world = World::new();
    let image = unsigned(&world);
    let envelope = Envelope::sign("application/vnd.in-toto+json", b"{\"hello\":1}".to_vec(), &world.release);
    attach(&world.registry.address, "app", &image.manifest, &envelope.to_bytes());
    refused_in_both_modes(&world, &image, "golden.malformed");
}

#[test]
fn signed_for_another_environment() {
    let world = World::new();
    let image = unsigned(&world);
    store(&world, &image, &world.release, |statement| {
        statement.predicate.environment = protocols::environment::Environment::Production;
    });
    refused_in_both_modes(&world, &image, "golden.environment");
}

#[test]
fn older_version_than_one_accepted_even_after_restarts() {
    let mut world = World::new();
    let old = world.push(&Recipe::new("echo old"), "app", "stable");
    let _ = world.sign(&old, 1);
    let new = world.push(&Recipe::new("echo new"), "app", "stable");
    let _ = world.sign(&new, 2);
    for mode in MODES {
        assert_eq!(world.accepts(&new, &["--mode", mode]).stdout, "new\n");
    }
    // The registry's operator moves the tag back.
    let link = world.registry.tag_link("app", "stable");
    std::fs::write(&link, &old.manifest).unwrap();
    refused_in_both_modes(&world, &old, "golden.rollback");
    // A crash of the agent, and an attestor that was away: both still know.
    world.kill_agent();
    world.kill_broker();
    world.start_broker();
    world.start_agent();
    refused_in_both_modes(&world, &old, "golden.rollback");
}

#[test]
fn a_version_below_the_measured_minimum() {
    let world = World::with(Options {
        agent: |table| table["signers"][0]["min_version"] = 5.into(),
        broker: |table| table["signers"][0]["min_version"] = 5.into(),
        ..Options::default()
    });
    let image = unsigned(&world);
    let _ = world.sign(&image, 4);
    refused_in_both_modes(&world, &image, "golden.rollback");
    let _ = world.sign(&image, 5);
    let _ = world.accepts(&image, &["--mode", "local"]);
}

#[test]
fn two_contents_under_one_version() {
    let world = World::new();
    let image = unsigned(&world);
    store(&world, &image, &world.release, |_| {});
    store(&world, &image, &world.release, |statement| {
        statement.predicate.expires = statement.predicate.expires.plus(86_400);
    });
    refused_in_both_modes(&world, &image, "golden.conflict");
}

#[test]
fn a_revoked_golden_value() {
    let world = World::new();
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &[]);
    let key = world.path("release.pem").display().to_string();
    let reference = format!("{}/app:1", world.registry.address);
    let arguments =
        ["golden", "revoke", &reference, "--key", &key, "--issuer", ISSUER, "--plain-http", &world.registry.address];
    let _ = integration_tests::command::run(world.tclctl(&arguments)).ok();
    refused_in_both_modes(&world, &image, "golden.revoked");
}

#[test]
fn storage_of_golden_values_out_of_reach_is_not_their_absence() {
    let world = World::with(Options { registry_proxy: true, ..Options::default() });
    let image = world.signed("true", "app");
    let proxy = world.registry_proxy.as_ref().unwrap();
    proxy.rule("away", "GET", "sha256-", Action::Status(503));
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 69, "golden.unavailable");
    }
    assert!(proxy.hits("away") > 1);
    proxy.clear();
    let _ = world.accepts(&image, &[]);
    detach_all(&world.registry.address, "app", &image.manifest);
    let _ = world.refuses(&image, &[], 77, "golden.missing");
}
