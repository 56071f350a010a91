//! An attestor that is away, slow, another one, or answers something else.

use std::sync::atomic::{AtomicBool, Ordering};

use integration_tests::image::Recipe;
use integration_tests::{Action, Options, World};
use protocols::keys::{KeyKind, SigningKey};
use serde_json::Value;

use crate::MODES;

fn behind_a_proxy() -> World {
    World::with(Options { attestor_proxy: true, ..Options::default() })
}

/// Spoils the attestor's answers for `path`, expects `status` and `code`, then lets the same launch pass.
fn spoiled(mode: &str, path: &str, action: Action, status: i32, code: &str) {
    let world = behind_a_proxy();
    let image = world.signed("true", "app");
    world.settle();
    let proxy = world.attestor_proxy.as_ref().unwrap();
    proxy.rule("spoiled", "POST", path, action);
    let _ = world.refuses(&image, &["--mode", mode], status, code);
    assert!(proxy.hits("spoiled") > 0, "{:#?}", proxy.requests());
    proxy.clear();
    let _ = world.accepts(&image, &["--mode", mode]);
    let _ = world.verify_log().ok();
}

#[test]
fn attestor_down() {
    let mut world = World::new();
    let image = world.signed("true", "app");
    world.kill_broker();
    // A local launch that waits for its receipt needs the attestor too.
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 69, "attestor.unavailable");
    }
    world.start_broker();
    for mode in MODES {
        let _ = world.accepts(&image, &["--mode", mode]);
    }
}

#[test]
fn attestor_5xx() {
    let mut world = behind_a_proxy();
    let image = world.signed("true", "app");
    world.settle();
    // A restarted agent needs a new session, and gets none.
    world.kill_agent();
    let proxy = world.attestor_proxy.as_ref().unwrap();
    proxy.rule("broken", "POST", "/kbs/v0/auth", Action::Status(500));
    world.start_agent();
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 69, "attestor.unavailable");
    }
    let proxy = world.attestor_proxy.as_ref().unwrap();
    assert!(proxy.hits("broken") > 0);
    proxy.clear();
    let _ = world.accepts(&image, &["--mode", "remote"]);
}

#[test]
fn attestor_5xx_for_a_decision() {
    spoiled("remote", "/tcl/v1/decide", Action::Status(503), 69, "attestor.unavailable");
}

#[test]
fn attestor_stalled() {
    spoiled("remote", "/tcl/v1/decide", Action::Stall, 69, "attestor.unavailable");
}

#[test]
fn attestor_stalled_for_one_launch_decides_on_another() {
    let world = behind_a_proxy();
    let image = world.signed("true", "app");
    world.settle();
    let proxy = world.attestor_proxy.as_ref().unwrap();
    let first = AtomicBool::new(true);
    proxy.rule_when("held", "POST", "/tcl/v1/decide", move || first.swap(false, Ordering::SeqCst), Action::Stall);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| world.run(&image, &["--mode", "remote"]));
        proxy.wait_for_hit("held");
        let _ = world.accepts(&image, &["--mode", "remote"]);
        assert!(!held.is_finished(), "the other launch has not waited for this one");
        held.join().unwrap().refused(69, "attestor.unavailable");
    });
}

#[test]
fn attestor_stalled_is_waited_for_once_by_all_launches() {
    let world = behind_a_proxy();
    let image = world.signed("true", "app");
    world.settle();
    let proxy = world.attestor_proxy.as_ref().unwrap();
    proxy.rule("stalled", "POST", "/tcl/v1/events", Action::Stall);
    std::thread::scope(|scope| {
        let launches: Vec<_> = (0..6).map(|_| scope.spawn(|| world.run(&image, &["--mode", "remote"]))).collect();
        for launch in launches {
            launch.join().unwrap().refused(69, "attestor.unavailable");
        }
    });
    // One that was under way, and one for all that came meanwhile; the records of their ends go out in the background.
    assert!(proxy.hits("stalled") <= 4, "{:#?}", proxy.requests());
    world.nothing_ran();
}

#[test]
fn attestor_answering_for_another_nonce() {
    // The decision of an earlier launch, as the attestor signed it then.
    let world = behind_a_proxy();
    let image = world.signed("true", "app");
    let proxy = world.attestor_proxy.as_ref().unwrap();
    proxy.rule("decided", "POST", "/tcl/v1/decide", Action::Pass);
    let _ = world.accepts(&image, &["--mode", "remote"]);
    assert_eq!(proxy.hits("decided"), 1);
    proxy.rule("replayed", "POST", "/tcl/v1/decide", Action::Replay("decided"));
    let _ = world.refuses(&image, &["--mode", "remote"], 77, "attestor.nonce");
    assert_eq!(proxy.hits("replayed"), 1);
}

#[test]
fn challenge_of_another_session() {
    let mut world = behind_a_proxy();
    let image = world.signed("true", "app");
    world.settle();
    world.kill_agent();
    let proxy = world.attestor_proxy.as_ref().unwrap();
    let stale = |bytes: Vec<u8>| {
        let mut challenge: Value = serde_json::from_slice(&bytes).unwrap();
        challenge["nonce"] = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=".into();
        challenge.to_string().into_bytes()
    };
    proxy.rule("stale", "POST", "/kbs/v0/auth", Action::edit(stale));
    world.start_agent();
    let seen = world.run(&image, &["--mode", "remote"]);
    assert_eq!(seen.status, 77, "{seen:#?}");
    let line = seen.stderr.lines().last().unwrap_or_default();
    let known = ["NOT verified: evidence.nonce ", "NOT verified: attestor.session "];
    assert!(known.iter().any(|lead| line.starts_with(lead)), "{seen:#?}");
    world.nothing_ran();
}

#[test]
fn verdict_replayed_for_another_image() {
    let world = behind_a_proxy();
    let image = world.signed("true", "app");
    let unsigned = world.push(&Recipe::new("echo evil"), "evil", "1");
    let proxy = world.attestor_proxy.as_ref().unwrap();
    proxy.rule("decided", "POST", "/tcl/v1/decide", Action::Pass);
    let _ = world.accepts(&image, &["--mode", "remote"]);
    // Only the verdict is put back; the receipt is the attestor's fresh one.
    proxy.rule("again", "POST", "/tcl/v1/decide", Action::Replay("decided"));
    let _ = world.refuses(&unsigned, &["--mode", "remote"], 77, "attestor.nonce");
}

#[test]
fn verdict_signed_by_another_key() {
    let mut world = World::new();
    let image = world.signed("true", "app");
    let other = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
    world.kill_broker();
    std::fs::write(world.path("attestor.pem"), other.to_pem().unwrap().as_bytes()).unwrap();
    // Over the store of another key it would not serve: its audit log is none that it signed.
    std::fs::remove_file(world.path("broker.redb")).unwrap();
    world.start_broker();
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, "attestor.signature");
    }
}

#[test]
fn receipt_missing() {
    let without = |bytes: Vec<u8>| {
        let mut answer: Value = serde_json::from_slice(&bytes).unwrap();
        answer.as_object_mut().unwrap().remove("receipt");
        answer.to_string().into_bytes()
    };
    spoiled("local", "/tcl/v1/events", Action::edit(without), 77, "attestor.protocol");
}

#[test]
fn receipt_missing_from_a_delivery_and_verdict_from_a_decision() {
    for (path, member) in [("/tcl/v1/events", "receipt"), ("/tcl/v1/decide", "verdict")] {
        let without = move |bytes: Vec<u8>| {
            let mut answer: Value = serde_json::from_slice(&bytes).unwrap();
            assert!(answer.as_object_mut().unwrap().remove(member).is_some());
            answer.to_string().into_bytes()
        };
        spoiled("remote", path, Action::edit(without), 77, "attestor.protocol");
    }
}

#[test]
fn receipt_withheld() {
    spoiled("local", "/tcl/v1/events", Action::Withhold, 69, "attestor.unavailable");
}

#[test]
fn receipt_of_an_earlier_history() {
    let world = behind_a_proxy();
    let image = world.signed("true", "app");
    let proxy = world.attestor_proxy.as_ref().unwrap();
    proxy.rule("receipted", "POST", "/tcl/v1/events", Action::Pass);
    let _ = world.accepts(&image, &["--mode", "local"]);
    proxy.rule("replayed", "POST", "/tcl/v1/events", Action::Replay("receipted"));
    let _ = world.refuses(&image, &["--mode", "local"], 77, "log.receipt");
    proxy.clear();
    let _ = world.accepts(&image, &["--mode", "local"]);
}

/// An attestor with the same key and an empty store, shown a history with one launch decided in `mode`.
fn lost_store(mode: &str, code: &str) {
    let mut world = World::new();
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &["--mode", mode]);
    world.settle();
    world.kill_broker();
    std::fs::remove_file(world.path("broker.redb")).unwrap();
    world.start_broker();
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, code);
    }
}

#[test]
fn attestor_that_lost_its_store() {
    lost_store("local", "log.receipt");
}

#[test]
fn attestor_that_lost_the_verdicts_a_history_claims() {
    lost_store("remote", "attestor.verdict");
}

#[test]
fn attestor_away_while_local_launches_may_queue() {
    let mut world = World::with(Options {
        agent: |table| {
            table["local"]["receipts"] = "queue".into();
            table["local"]["queue_max"] = 24.into();
        },
        ..Options::default()
    });
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &["--mode", "local"]);
    world.kill_broker();
    let _ = world.accepts(&image, &["--mode", "local"]);
    // Remote launches never queue; and the queue is bounded.
    let _ = world.refuses(&image, &["--mode", "remote"], 69, "attestor.unavailable");
    let mut refused = None;
    for _ in 0..8 {
        let seen = world.run(&image, &["--mode", "local"]);
        if seen.status != 0 {
            refused = Some(seen);
            break;
        }
    }
    refused.expect("a full queue refuses").refused(77, "log.queue_full");
    world.unmark();
    // Undelivered records survive a crash of the agent and are delivered in order later.
    world.kill_agent();
    world.start_broker();
    world.start_agent();
    let _ = world.accepts(&image, &["--mode", "remote"]);
    world.settle();
    let _ = world.verify_log().ok();
}
