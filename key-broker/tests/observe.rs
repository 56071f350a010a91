//! Observe mode: what policy would refuse is served, recorded and told in every token and verdict; nothing else is relaxed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::sync::{Arc, Mutex};

use kbs_client::{Question, VerifiedVerdict};
use protocols::environment::Environment;
use protocols::tcl::RefusalRecord;
use serde_json::Value;
use support::guest::{Guest, question};
use support::stock::Stock;
use support::{ADMIN, World, image};

const SECRET: &str = "default/key/one";

/// A world whose policies refuse everything that they can, in this mode.
async fn strict(mode: &str) -> World {
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("appraisal.rego");
    // The one reference value is another one, and development is no excuse.
    std::fs::write(&policy, appraisal::policy::BUILT_IN.replace("\"development\"", "\"nowhere\"")).unwrap();
    let section = format!("\n[appraisal]\npolicy = \"{}\"\n", policy.display());
    let mode = format!("[policy]\nmode = \"{mode}\"\n");
    World::edited(directory, "development", |text| {
        text.replace("[policy]\n", &mode).replace("status = [\"affirming\", \"warning\"]", "") + &section
    })
    .await
}

fn code(verdict: &VerifiedVerdict) -> &'static str {
    verdict.refusal().map_or("pass", |refusal| refusal.code.as_str())
}

/// The token's claims, unverified.
fn claims(token: &str) -> Value {
    let body = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&protocols::encoding::un_b64url(body).unwrap()).unwrap()
}

#[tokio::test]
async fn what_policy_would_refuse_is_served_and_told_and_recorded() {
    let enforced = strict("enforce").await;
    let (status, body) = Stock::attempt(&enforced, &Guest::boot(&enforced.tpm, 1)).await.send(&enforced).await;
    assert_eq!((status, body["reason"].as_str()), (401, Some("evidence.appraisal")));

    let log = Log::default();
    let writer = log.clone();
    // For every thread: what one thread alone listens to is lost where another came by the same place first.
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let world = strict("observe").await;
    let admin = format!("Bearer {ADMIN}");
    let path = format!("/kbs/v0/resource/{SECRET}");
    assert_eq!(world.raw("POST", &path, &[("authorization", &admin)], b"secret".to_vec()).await.0, 200);
    let stock = Stock::attest(&world, &Guest::boot(&world.tpm, 1)).await;
    let told = claims(&stock.token);
    assert_eq!(told["observe"], true);
    // It is graded as it is.
    assert_eq!(told["submods"]["cpu0"]["ear.status"], "contraindicated");
    assert_eq!(stock.resource(&world, SECRET).await.as_deref(), Ok("secret"));

    world.push_golden(&image(), 1).await;
    let mut guest = Guest::boot(&world.tpm, 2);
    let session = guest.attest(&world.client()).await.unwrap();
    guest.push_image(1, &image());
    let mut asked: Question = question(1, &image());
    asked.process.args.push("--debug".into());
    let verdict = guest.ask(&session, &asked).await.unwrap();
    assert_eq!((code(&verdict), verdict.claims().observe), ("pass", true));

    let observed = observed(&world, &log).await;
    let codes: Vec<_> = observed.iter().map(|record| record.refusal.code.as_str()).collect();
    for expected in ["evidence.appraisal", "attestor.denied", "policy.process"] {
        assert!(codes.contains(&expected), "{codes:?}");
    }
    assert!(observed.iter().all(|record| record.observed));
}

/// What is logged, by other tests' attestors too.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The records of what the log says was observed.
async fn observed(world: &World, log: &Log) -> Vec<RefusalRecord> {
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let mut records = Vec::new();
    for line in text.lines().filter(|line| line.contains("OBSERVED, and served")) {
        // Its span's id stands before it.
        let id = line.rsplit("id=\"").next().and_then(|rest| rest.split('"').next()).unwrap();
        // Another attestor's is not in this store.
        records.extend(world.store().refusal(id).await.unwrap());
    }
    records
}

#[tokio::test]
async fn signatures_digests_versions_and_nonces_are_checked_as_always() {
    let world = strict("observe").await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&world.client()).await.unwrap();
    assert_eq!(code(&guest.decide(&session, 1, &image()).await.unwrap()), "golden.missing");
    guest.push_failed(1);
    world
        .push(
            &image(),
            world.envelope(
                &image(),
                protocols::golden::Issue { environment: Environment::Production, ..support::issue(3) },
            ),
        )
        .await;
    assert_eq!(code(&guest.decide(&session, 2, &image()).await.unwrap()), "golden.environment");
    guest.push_failed(2);
    let altered = protocols::image::ImageMeasurement { config: support::digest("other"), ..image() };
    world.push(&image(), world.envelope(&altered, support::issue(4))).await;
    assert_eq!(code(&guest.decide(&session, 3, &image()).await.unwrap()), "image.config");
    let attempt = Stock::attempt(&world, &Guest::boot(&world.tpm, 2)).await;
    assert_eq!(attempt.send(&world).await.0, 200);
    assert_eq!(attempt.send(&world).await.0, 401, "a challenge is used once");
}

#[tokio::test]
async fn production_takes_nothing_that_was_only_observed() {
    let world = strict("observe").await;
    let client = world.client_pinning(&world.key_pem, Environment::Production);
    world.push_golden(&image(), 1).await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = guest.attest(&client).await.unwrap();
    let refused = guest.decide(&session, 1, &image()).await.unwrap_err();
    assert_eq!(refused.code().as_str(), "policy.environment");
}
