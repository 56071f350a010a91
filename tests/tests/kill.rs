//! kill -9 of the agent at each stage of a launch, then a restart: the log replays to the register, no
//! container is left, and the next launch is decided as if nothing had happened.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use integration_tests::command::{finish, run, runc_list};
use integration_tests::image::Image;
use integration_tests::{Action, Options, World};
use serde_json::Value;

fn world() -> World {
    World::with(Options { registry_proxy: true, attestor_proxy: true, ..Options::default() })
}

fn launch(world: &World, image: &Image, mode: &str) -> Child {
    let mut command = world.tclctl(&world.run_arguments(image, &["--mode", mode, "--name", "victim"]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The operations in the log, and the last `Exit` record.
fn operations(world: &World) -> (Vec<String>, Option<Value>) {
    let shown = run(world.tclctl(&["--json", "log", "show"])).ok().json();
    let records = shown.as_array().unwrap();
    let names = records.iter().map(|record| record["operation"].as_str().unwrap().to_owned()).collect();
    let exit =
        records.iter().rev().find(|record| record["operation"] == "Exit").map(|record| record["content"].clone());
    (names, exit)
}

/// Kills the agent now, restarts it, and checks what must hold whatever stage it was.
fn killed_and_restarted(world: &mut World, child: Child, image: &Image, mode: &str) {
    world.kill_agent();
    let seen = finish(child, "tclctl run");
    assert_eq!(seen.status, 69, "the agent is gone for tclctl: {seen:#?}");
    world.registry_proxy.as_ref().unwrap().clear();
    world.attestor_proxy.as_ref().unwrap().clear();
    world.start_agent();
    assert_eq!(runc_list(&world.runc_root()), Vec::<String>::new());
    world.nothing_left();
    let (names, _) = operations(world);
    assert!(names.iter().any(|name| name == "Restart"), "{names:?}");
    let _ = world.verify_log().ok();
    let _ = world.accepts(image, &["--mode", mode]);
    let _ = world.verify_log().ok();
    world.nothing_left();
}

/// Holds a launch at the first request that fits, kills the agent there.
fn killed_at(mode: &str, at_registry: bool, method: &'static str, path: &str, action: Action) -> World {
    let mut world = world();
    let image = world.signed("true", "app");
    let path = path.replace("LAYER", &image.layers[0]);
    world.settle();
    let proxy = if at_registry { &world.registry_proxy } else { &world.attestor_proxy };
    let proxy = proxy.as_ref().unwrap();
    proxy.rule("held", method, &path, action);
    let child = launch(&world, &image, mode);
    proxy.wait_for_hit("held");
    std::thread::sleep(Duration::from_millis(50));
    assert!(!world.marked(), "nothing ran before the kill");
    killed_and_restarted(&mut world, child, &image, mode);
    world
}

#[test]
fn while_the_manifest_is_fetched() {
    let _ = killed_at("remote", true, "GET", "/manifests/1", Action::Stall);
}

#[test]
fn while_a_layer_is_pulled() {
    let world = killed_at("remote", true, "GET", "/blobs/LAYER", Action::StallHalfway);
    world.nothing_half_stored();
}

#[test]
fn while_the_golden_value_is_fetched() {
    let _ = killed_at("local", true, "GET", "sha256-", Action::Stall);
}

#[test]
fn while_the_attestor_is_asked_for_a_challenge() {
    let mut world = world();
    let image = world.signed("true", "app");
    world.settle();
    // A restarted agent needs a new session; it is killed while it waits for one.
    world.kill_agent();
    world.attestor_proxy.as_ref().unwrap().rule("held", "POST", "/kbs/v0/auth", Action::Stall);
    world.start_agent();
    let child = launch(&world, &image, "remote");
    world.attestor_proxy.as_ref().unwrap().wait_for_hit("held");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!world.marked());
    killed_and_restarted(&mut world, child, &image, "remote");
}

#[test]
fn while_the_attestor_decides() {
    let world = killed_at("remote", false, "POST", "/tcl/v1/decide", Action::Stall);
    let shown = run(world.tclctl(&["--json", "log", "show"])).ok().json();
    let closed = |record: &Value| record["content"]["code"] == "runtime.interrupted";
    assert_eq!(shown.as_array().unwrap().iter().filter(|record| closed(record)).count(), 1, "{shown}");
}

#[test]
fn after_the_attestor_decided_and_before_the_agent_knew() {
    let _ = killed_at("remote", false, "POST", "/tcl/v1/decide", Action::Withhold);
}

#[test]
fn while_the_launch_record_is_delivered() {
    let world = killed_at("local", false, "POST", "/tcl/v1/events", Action::Stall);
    let (names, _) = operations(&world);
    assert!(names.iter().filter(|name| *name == "Launch").count() == 2, "{names:?}");
}

#[test]
fn after_the_launch_record_was_received_and_before_the_agent_knew() {
    let _ = killed_at("local", false, "POST", "/tcl/v1/events", Action::Withhold);
}

#[test]
fn after_create_and_before_start() {
    // The record `Created` waits for its receipt: the container exists, its process has not run.
    let mut world = world();
    let image = world.signed("true", "app");
    world.settle();
    let container = world.runc_root().join("victim");
    let proxy = world.attestor_proxy.as_ref().unwrap();
    proxy.rule_when("held", "POST", "/tcl/v1/events", move || container.exists(), Action::Stall);
    let child = launch(&world, &image, "local");
    proxy.wait_for_hit("held");
    assert_eq!(runc_list(&world.runc_root()), ["victim"]);
    assert!(!world.marked(), "its process has not run");
    killed_and_restarted(&mut world, child, &image, "local");
    let (names, exit) = operations(&world);
    assert_eq!(names.iter().filter(|name| *name == "Created").count(), 2, "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == "Started").count(), 1, "{names:?}");
    assert!(exit.is_some());
}

#[test]
fn while_the_workload_runs() {
    let mut world = world();
    let image = world.signed("exec sleep 600", "sleeper");
    let next = world.signed("true", "app");
    let child = launch(&world, &image, "remote");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !world.marked() {
        assert!(Instant::now() < deadline, "it never ran:\n{}", world.agent_log());
        std::thread::sleep(Duration::from_millis(10));
    }
    world.unmark();
    let ids = runc_list(&world.runc_root());
    assert_eq!(ids, ["victim"]);
    killed_and_restarted(&mut world, child, &next, "remote");
    let shown = run(world.tclctl(&["--json", "log", "show"])).ok().json();
    let ended = shown.as_array().unwrap().iter().find(|r| r["content"]["reason"] == "agent_restart");
    assert!(ended.is_some(), "the container's end is logged: {shown}");
}

#[test]
fn while_it_starts() {
    // From the very first start on, which begins the log, in steps of two milliseconds.
    let mut world = World::without_agent(Options::default());
    for millis in (0..60).step_by(2) {
        let mut agent = world.spawn_agent();
        std::thread::sleep(Duration::from_millis(millis));
        agent.kill();
    }
    world.start_agent();
    let status = run(world.tclctl(&["--json", "status"])).ok().json();
    assert_eq!(status["poisoned"], false, "{status}\n{}", world.agent_log());
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &[]);
    let _ = world.verify_log().ok();
}

#[test]
fn again_and_again_at_random_moments() {
    let mut world = world();
    let image = world.signed("true", "app");
    // Fixed delays spread over a whole launch; each kill leaves a log that replays.
    for millis in [1, 5, 12, 25, 40, 60, 85, 115, 150, 200] {
        let child = launch(&world, &image, if millis % 2 == 0 { "local" } else { "remote" });
        std::thread::sleep(Duration::from_millis(millis));
        world.kill_agent();
        let _ = finish(child, "tclctl run");
        world.start_agent();
        assert_eq!(runc_list(&world.runc_root()), Vec::<String>::new(), "after {millis} ms");
        let _ = world.verify_log().ok();
    }
    let _ = world.accepts(&image, &[]);
    world.nothing_left();
}
