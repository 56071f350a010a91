//! Several attestors on one store: what one has accepted or seen revoked counts at each, and the attestor's time alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kbs_client::{Client, Session, VerifiedVerdict};
use protocols::digest::Sha256Digest;
use protocols::golden::{self, Issue};
use protocols::time::Timestamp;
use registry::SparingRegistry;
use support::guest::Guest;
use support::replica::Replica;
use support::{NOW, REFERENCE, World, image, issue};

const HOUR: u64 = 3600;

fn code(verdict: &VerifiedVerdict) -> &'static str {
    verdict.refusal().map_or("pass", |refusal| refusal.code.as_str())
}

/// One launch by a guest of its own, decided at `client`.
async fn launch(world: &World, client: &Client, boot: u8) -> &'static str {
    let mut guest = Guest::boot(&world.tpm, boot);
    let session = guest.attest(client).await.unwrap();
    code(&guest.decide(&session, 1, &image()).await.unwrap())
}

fn clock(world: &World) -> impl Fn() -> Timestamp + Send + Sync + 'static {
    let clock = Arc::clone(&world.clock);
    move || Timestamp(clock.load(Ordering::SeqCst))
}

#[tokio::test]
async fn version_six_after_seven_is_refused_at_every_replica_and_after_a_restart_of_all() {
    let mut world = World::new().await;
    let second = Replica::start(&world, world.registry.clone(), clock(&world)).await;
    let third = Replica::start(&world, world.registry.clone(), clock(&world)).await;
    world.push_golden(&image(), 7).await;
    assert_eq!(launch(&world, &second.client, 1).await, "pass");
    // Not even the replica that serves next has seen version 7 itself.
    world.registry.clear();
    world.push_golden(&image(), 6).await;
    for (boot, client) in [(2, &world.client()), (3, &second.client), (4, &third.client)] {
        assert_eq!(launch(&world, client, boot).await, "golden.rollback");
    }
    second.kill().await;
    third.kill().await;
    world.restart().await;
    assert_eq!(launch(&world, &world.client(), 5).await, "golden.rollback");
    let late = Replica::start(&world, world.registry.clone(), clock(&world)).await;
    assert_eq!(launch(&world, &late.client, 6).await, "golden.rollback");
    world.push_golden(&image(), 8).await;
    assert_eq!(launch(&world, &late.client, 7).await, "pass");
}

/// One replica asks the registry again only after a second; another has seen the list, and that is enough for both.
#[tokio::test]
async fn a_revocation_counts_within_its_time_and_at_once_where_one_replica_saw_it() {
    let revocations = |world: &World| {
        let payload = golden::statement(&image(), issue(1)).payload().unwrap();
        support::revocations(1, vec![Sha256Digest::of(&payload)], &world.signer)
    };
    let reuse = Duration::from_secs(1);
    let sparing = |world: &World| {
        let registry = SparingRegistry::new(support::registry::Shared(Arc::clone(&world.registry)));
        Arc::new(registry.reusing(reuse))
    };

    let world = World::new().await;
    world.push_golden(&image(), 1).await;
    let slow = Replica::start(&world, sparing(&world), clock(&world)).await;
    assert_eq!(launch(&world, &slow.client, 1).await, "pass");
    world.registry.push_revocations(REFERENCE, &revocations(&world)).await;
    tokio::time::sleep(reuse).await;
    assert_eq!(launch(&world, &slow.client, 2).await, "golden.revoked", "its time is over");

    let world = World::new().await;
    world.push_golden(&image(), 1).await;
    let hour = SparingRegistry::new(support::registry::Shared(Arc::clone(&world.registry)));
    let hour = Replica::start(&world, Arc::new(hour.reusing(Duration::from_secs(HOUR))), clock(&world)).await;
    assert_eq!(launch(&world, &hour.client, 1).await, "pass");
    world.registry.push_revocations(REFERENCE, &revocations(&world)).await;
    assert_eq!(launch(&world, &world.client(), 2).await, "golden.revoked", "this one asks every time");
    assert_eq!(launch(&world, &hour.client, 3).await, "golden.revoked", "what one has seen all know");
}

async fn attested(world: &World, guest: &Guest) -> Session {
    guest.attest(&world.client()).await.unwrap()
}

/// Agents and signers have clocks of their own: only the attestor's decides. This machine's own clock is another year.
#[tokio::test]
async fn an_hour_of_other_clocks_changes_nothing_and_the_attestors_time_ends_a_golden_value() {
    let world = World::new().await;
    // The signer's clock was an hour ahead: what it signed counts all the same, and ends when it says here.
    let ahead = Issue { issued_at: Timestamp(NOW + HOUR), expires: Timestamp(NOW + 2 * HOUR), ..issue(1) };
    world.push(&image(), world.envelope(&image(), ahead)).await;
    let mut guest = Guest::boot(&world.tpm, 1);
    let session = attested(&world, &guest).await;
    assert_eq!(code(&guest.decide(&session, 1, &image()).await.unwrap()), "pass");
    for (seq, passed, expected) in [(2, 2 * HOUR - 1, "pass"), (3, 1, "golden.expired")] {
        world.pass(passed);
        guest.push_failed(seq - 1);
        let session = attested(&world, &guest).await;
        assert_eq!(code(&guest.decide(&session, seq, &image()).await.unwrap()), expected);
    }
    // An attestor whose own clock is an hour behind would still pass it: that clock must be right.
    let now = clock(&world);
    let behind = Replica::start(&world, world.registry.clone(), move || Timestamp(now().0 - HOUR)).await;
    assert_eq!(launch(&world, &behind.client, 2).await, "pass");
}
