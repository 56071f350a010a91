//! Policies that administrators post: where configuration lets them, on every replica, until they are taken back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::sync::Arc;

use key_broker::broker::Broker;
use key_broker::config::Config;
use protocols::encoding::b64url;
use protocols::time::Timestamp;
use serde_json::{Value, json};
use support::guest::Guest;
use support::stock::Stock;
use support::{ADMIN, NOW, World};

const SECRET: &str = "default/key/one";
const RELEASE: &str = "/kbs/v0/resource-policy";
const APPRAISAL: &str = "/kbs/v0/attestation-policy";
const NOTHING: &str = "package policy\ndefault allow = false\n";

/// Status and reason of an administrator's request.
async fn asked(world: &World, method: &str, path: &str, body: Vec<u8>) -> (u16, String) {
    let admin = format!("Bearer {ADMIN}");
    let (status, body) = world.raw(method, path, &[("authorization", &admin)], body).await;
    let reason = serde_json::from_str::<Value>(&body).ok().and_then(|body| Some(body["reason"].as_str()?.to_owned()));
    (status, reason.unwrap_or_default())
}

async fn post(world: &World, path: &str, text: &str) -> (u16, String) {
    let body = json!({ "type": "rego", "policy_id": "default_cpu", "policy": b64url(text.as_bytes()) });
    asked(world, "POST", path, body.to_string().into_bytes()).await
}

async fn world(posted: bool) -> (World, Stock) {
    let edit = |text: String| text.replace("[policy]", &format!("[policy]\nposted = {posted}"));
    let world = World::edited(tempfile::tempdir().unwrap(), "development", edit).await;
    assert_eq!(asked(&world, "POST", &format!("/kbs/v0/resource/{SECRET}"), b"secret".to_vec()).await.0, 200);
    let session = Stock::attest(&world, &Guest::boot(&world.tpm, 1)).await;
    (world, session)
}

async fn secret(world: &World, session: &Stock) -> Result<String, String> {
    session.resource(world, SECRET).await
}

fn is(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

#[tokio::test]
async fn nobody_posts_a_policy_where_configuration_does_not_say_so() {
    let (world, session) = world(false).await;
    let before = world.broker().policy();
    for path in [RELEASE, APPRAISAL] {
        assert_eq!(post(&world, path, NOTHING).await, is(401, "policy.posted"));
        assert_eq!(asked(&world, "DELETE", path, vec![]).await, is(401, "policy.posted"));
        let (status, _) = world.raw("POST", path, &[("authorization", "Bearer other")], b"{}".to_vec()).await;
        assert_eq!(status, 401);
    }
    assert_eq!(world.broker().policy(), before);
    assert_eq!(secret(&world, &session).await.as_deref(), Ok("secret"));
}

#[tokio::test]
async fn a_posted_policy_counts_at_once_after_a_restart_and_on_other_replicas_until_it_is_taken_back() {
    let (mut world, session) = world(true).await;
    let configured = world.broker().policy();
    let settings = Config::read(&world.directory.path().join("broker.toml")).unwrap().settings().unwrap();
    let now = Arc::new(|| Timestamp(NOW));
    let other = Broker::new(settings, world.store(), Arc::clone(&world.registry) as _, now).await.unwrap();

    assert_eq!(post(&world, RELEASE, NOTHING).await.0, 200);
    assert_eq!(secret(&world, &session).await.unwrap_err(), "attestor.denied");
    let posted = world.broker().policy();
    assert!(posted != configured && other.policy() == configured);
    other.refresh_posted().await.unwrap();
    assert_eq!(other.policy(), posted, "verdicts of both name what decided");
    drop(other);

    world.restart().await;
    assert_eq!((world.broker().policy(), secret(&world, &session).await.is_err()), (posted, true));
    world.reload().await.unwrap();
    assert_eq!(world.broker().policy(), posted);

    assert_eq!(asked(&world, "DELETE", RELEASE, vec![]).await.0, 200);
    assert_eq!(world.broker().policy(), configured);
    assert_eq!(secret(&world, &session).await.as_deref(), Ok("secret"));
    assert_eq!(asked(&world, "DELETE", RELEASE, vec![]).await, is(404, "attestor.not_found"));
}

#[tokio::test]
async fn a_posted_appraisal_policy_grades_the_next_guest() {
    let (world, _) = world(true).await;
    let refuses =
        appraisal::policy::BUILT_IN.replace("unexpected.hardware if input.simulated", "97 if input.simulated");
    assert_ne!(refuses, appraisal::policy::BUILT_IN);
    let guest = Guest::boot(&world.tpm, 1);
    assert!(guest.attest(&world.client()).await.is_ok());
    assert_eq!(post(&world, APPRAISAL, &refuses).await.0, 200);
    let refused = Guest::boot(&world.tpm, 1).attest(&world.client()).await.unwrap_err();
    assert_eq!(refused.code().as_str(), "evidence.appraisal");
    assert_eq!(asked(&world, "DELETE", APPRAISAL, vec![]).await.0, 200);
    assert!(Guest::boot(&world.tpm, 1).attest(&world.client()).await.is_ok());
}

#[tokio::test]
async fn what_does_not_compile_or_is_no_policy_leaves_the_one_in_force() {
    let (world, session) = world(true).await;
    let before = world.broker().policy();
    for text in ["package policy\nallow if {", "package other\nallow = true\n", ""] {
        assert_eq!(post(&world, RELEASE, text).await, is(401, "attestor.protocol"), "{text}");
        assert_eq!(post(&world, APPRAISAL, text).await, is(401, "attestor.protocol"), "{text}");
    }
    let other = json!({ "policy_id": "mine", "policy": b64url(NOTHING.as_bytes()) }).to_string();
    for body in [other.as_str(), "{}", "{\"policy\":\"!\"}", "[]"] {
        assert_eq!(asked(&world, "POST", RELEASE, body.into()).await, is(401, "attestor.protocol"), "{body}");
    }
    assert_eq!((world.broker().policy(), secret(&world, &session).await.is_ok()), (before, true));
}

#[tokio::test]
async fn where_posted_policies_lie_no_resource_is_read_or_written() {
    let (world, session) = world(true).await;
    assert_eq!(post(&world, RELEASE, "package policy\nallow = true\n").await.0, 200);
    let inside = "tcl-posted/policy/release";
    assert_eq!(session.get(&world, inside).await.0, 404);
    let path = format!("/kbs/v0/resource/{inside}");
    assert_eq!(asked(&world, "POST", &path, NOTHING.into()).await, is(404, "attestor.not_found"));
    assert_eq!(asked(&world, "DELETE", &path, vec![]).await, is(404, "attestor.not_found"));
    assert_eq!(secret(&world, &session).await.as_deref(), Ok("secret"));
}
