//! A host that lies about the time.

use std::time::Duration;

use integration_tests::golden::{attach, measured, sign};
use integration_tests::image::{Image, Recipe};
use integration_tests::process::binary;
use integration_tests::world::ISSUER;
use integration_tests::{Tee, World};
use protocols::time::Timestamp;
use serde_json::Value;

use super::scene::Scene;

const DAY: u64 = 24 * 3600;
const YEAR: u64 = 365 * DAY;

/// An image whose golden value ends `expires`.
fn image(world: &World, name: &str, expires: Timestamp) -> Image {
    let image = world.push(&Recipe::new(&format!("echo {name} launched")), name, "1");
    let arguments = ["--issuer", ISSUER, "--environment", "development", "--days", "30"];
    let mut statement = measured(&world.registry.address, &image, &arguments);
    statement.predicate.expires = expires;
    attach(&world.registry.address, &image.repository, &image.manifest, &sign(&statement, &world.release));
    image
}

#[test]
fn a_clock_set_back_revives_nothing_and_one_set_ahead_ends_what_the_attestor_does_not() {
    let scene = Scene::new(Tee::SimulatedSnp);
    let now = Timestamp::now();
    let old = image(&scene.world, "old", Timestamp(now.0 - DAY));
    let fresh = image(&scene.world, "fresh", now.plus(30 * DAY));
    let [old, fresh] = [old, fresh].map(|image| scene.world.reference(&image));
    let (back, ahead) = (Timestamp(now.0 - YEAR), now.plus(YEAR));
    let text = scene.initdata();
    let guest = scene.guest(&text, &text).program(&binary("tclctl"));
    let guest = guest.qemu(&["-rtc", &format!("base={}", back.to_string().trim_end_matches('Z'))]);
    // The seconds of the clock say that it is the host's, whose time went on since.
    let script = scene.prologue()
        + &format!(
            "export TCL_AGENT=unix:///run/tcl/agent.sock
             launch() {{ echo \"== $1\"; tclctl run --mode $2 $3 2>/told || grep -o 'golden\\.[a-z]*' /told | head -1; }}
             until_ready '[ -S /run/tcl/agent.sock ]'
             echo == clock; date +%s
             launch back-old-local local {old}; launch back-old-remote remote {old}; launch back-fresh remote {fresh}
             date -s @{} >/dev/null
             launch ahead-local local {fresh}; launch ahead-remote remote {fresh}
             echo == log; tclctl --json log show
             sleep 5; kill 1",
            ahead.0
        );
    let ended = guest.processor_time(Duration::from_secs(400)).run(&script);
    let clock: u64 = ended.section("clock")[0].parse().unwrap();
    assert!(clock < back.0 + DAY, "the guest began with the host's clock: {clock}\n{}", ended.output);
    let first = |section: &str| ended.section(section).first().copied().unwrap_or_default();
    for (section, line) in [
        ("back-old-local", "golden.expired"),
        ("back-old-remote", "golden.expired"),
        ("back-fresh", "fresh launched"),
        ("ahead-local", "golden.expired"),
        ("ahead-remote", "fresh launched"),
    ] {
        assert_eq!(first(section), line, "{section}\n{}\n{}", ended.output, ended.console);
    }
    let log: Value = serde_json::from_str(&ended.section("log").concat()).unwrap();
    let golden = log.as_array().unwrap().iter().map(|record| &record["content"]);
    let sources: Vec<_> = golden.filter_map(|content| content["time_source"].as_str()).collect();
    assert_eq!(sources, ["latest_known", "attestor", "attestor", "latest_known", "attestor"]);
}
