//! Which sessions get which resources: the built-in policy, policies of stock brokers, and what a reload changes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use protocols::environment::Environment;
use protocols::tcl::GoldenResource;
use serde_json::json;
use support::guest::Guest;
use support::stock::Stock;
use support::{ADMIN, World, image};

const SECRET: &str = "default/key/one";
const WARNED: &str = "status = [\"affirming\", \"warning\"]";

async fn put(world: &World, path: &str, bytes: &[u8]) {
    let admin = format!("Bearer {ADMIN}");
    let path = format!("/kbs/v0/resource/{path}");
    assert_eq!(world.raw("POST", &path, &[("authorization", &admin)], bytes.to_vec()).await.0, 200);
}

/// A world of development without a word about releases, with a secret and a golden value in it.
async fn closed() -> (World, GoldenResource) {
    let world = World::edited(tempfile::tempdir().unwrap(), "development", |text| text.replace(WARNED, "")).await;
    put(&world, SECRET, b"secret").await;
    let golden = GoldenResource { envelopes: Vec::new(), revocations: None };
    put(&world, &GoldenResource::path(&image().manifest), &serde_json::to_vec(&golden).unwrap()).await;
    (world, golden)
}

async fn attested(world: &World) -> Stock {
    Stock::attest(world, &Guest::boot(&world.tpm, 1)).await
}

#[tokio::test]
async fn a_simulated_platform_gets_golden_values_and_no_secret_until_configuration_says_so() {
    let (world, golden) = closed().await;
    let session = attested(&world).await;
    assert_eq!(session.resource(&world, SECRET).await.unwrap_err(), "attestor.denied");
    let own = Guest::boot(&world.tpm, 1).attest(&world.client()).await.unwrap();
    assert_eq!(own.golden(&image().manifest).await.unwrap(), Some(golden));
    let (status, body) = session.get(&world, SECRET).await;
    assert_eq!(status, 401);
    assert_eq!(body["type"], "https://github.com/confidential-containers/kbs/errors/PolicyDeny");
    assert_eq!((&body["reason"], &body["detail"]), (&json!("attestor.denied"), &json!("Access denied by policy")));
    // What is not there is denied as well: nobody learns names.
    assert_eq!(session.get(&world, "default/key/none").await.0, 401);

    world.edit(|text| text.replace("[release]", &format!("[release]\n{WARNED}")));
    let before = world.reload().await.unwrap();
    assert_eq!(session.resource(&world, SECRET).await.as_deref(), Ok("secret"));
    assert_eq!(session.get(&world, "default/key/none").await.0, 404);
    // What was allowed once is not allowed for good.
    world.edit(|text| text.replace(WARNED, ""));
    assert_ne!(world.reload().await.unwrap(), before);
    assert_eq!(session.resource(&world, SECRET).await.unwrap_err(), "attestor.denied");
}

#[tokio::test]
async fn production_releases_to_affirmed_platforms_alone() {
    for (grade, expected) in [(2, Ok("secret")), (33, Err("attestor.denied"))] {
        let directory = tempfile::tempdir().unwrap();
        let policy = directory.path().join("appraisal.rego");
        let text =
            appraisal::policy::BUILT_IN.replace("hardware := 2 if genuine", &format!("hardware := {grade} if genuine"));
        std::fs::write(&policy, text).unwrap();
        let section = format!("[appraisal]\npolicy = \"{}\"\n", policy.display());
        let world = World::edited(directory, "production", |text| text + &section).await;
        put(&world, SECRET, b"secret").await;
        let guest = Guest::boot_as(&world.tpm, 1, Environment::Production, false);
        let session = Stock::attest(&world, &guest).await;
        let got = session.resource(&world, SECRET).await;
        assert_eq!(got.as_deref().map_err(String::as_str), expected, "{grade}");
    }
}

#[tokio::test]
async fn a_policy_of_ones_own_decides_and_a_broken_one_leaves_it_in_force() {
    let (world, _) = closed().await;
    let policy = world.directory.path().join("release.rego");
    std::fs::write(&policy, "package policy\ndefault allow = false\nallow if data[\"resource-path\"][2] == \"one\"\n")
        .unwrap();
    world.edit(|text| text.replace("[release]", &format!("[release]\npolicy = \"{}\"", policy.display())));
    let session = attested(&world).await;
    assert_eq!(session.resource(&world, SECRET).await.unwrap_err(), "attestor.denied");
    world.reload().await.unwrap();
    assert_eq!(session.resource(&world, SECRET).await.as_deref(), Ok("secret"));
    assert_eq!(session.get(&world, "default/key/two").await.0, 401);
    // It decides about golden values too.
    assert_eq!(session.get(&world, &GoldenResource::path(&image().manifest)).await.0, 401);

    std::fs::write(&policy, "package policy\nallow if {").unwrap();
    assert!(world.reload().await.unwrap_err().contains("release.policy"));
    assert_eq!(session.resource(&world, SECRET).await.as_deref(), Ok("secret"));
    std::fs::write(&policy, "package policy\nallow if input.register == \"rtmr\"\n").unwrap();
    world.reload().await.unwrap();
    assert_eq!(session.resource(&world, SECRET).await.unwrap_err(), "attestor.denied");
    std::fs::write(&policy, "package policy\nallow if input.register == \"tpm-listed\"\n").unwrap();
    world.reload().await.unwrap();
    assert_eq!(session.resource(&world, SECRET).await.as_deref(), Ok("secret"));
    world.edit(|text| text.replace("[release]", &format!("[release]\n{WARNED}")));
    assert!(world.reload().await.unwrap_err().contains("release.status"));
}
