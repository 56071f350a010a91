//! Registers, logs, disks, runtimes and configurations that fail or are not what they must be.

use std::fs;

use integration_tests::command::run;
use integration_tests::image::Recipe;
use integration_tests::process::Service;
use integration_tests::{Options, World};

use crate::MODES;

#[test]
fn register_extend_refused() {
    let world = World::with(Options { tpm_relay: true, ..Options::default() });
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &[]);
    let relay = world.tpm_relay.as_ref().unwrap();
    relay.refuse_extends(true);
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, "register.extend");
    }
    // Nothing was recorded that the register does not have: the next launch goes on where the last one was.
    relay.refuse_extends(false);
    let _ = world.accepts(&image, &[]);
    let _ = world.verify_log().ok();
}

#[test]
fn register_out_of_reach() {
    let mut world = World::new();
    let image = world.signed("true", "app");
    world.tpm.as_mut().unwrap().kill();
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 70, "register.unavailable");
    }
}

#[test]
fn register_extended_by_something_else() {
    let world = World::new();
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &[]);
    world.tpm.as_ref().unwrap().extend(14, &"22".repeat(32));
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, "log.poisoned");
    }
}

#[test]
fn register_not_at_its_start() {
    let world = World::without_agent(Options::default());
    world.tpm.as_ref().unwrap().extend(14, &"33".repeat(32));
    refuses_to_start(world.spawn_agent(), "register.start");
}

fn refuses_to_start(mut agent: Service, code: &str) {
    let status = agent.ended();
    assert!(!status.success());
    assert!(agent.log().contains(code), "the log should name {code}:\n{}", agent.log());
}

#[test]
fn log_write_refused() {
    let world = World::with(Options { state_kib: 512, ..Options::default() });
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &[]);
    world.fill("state");
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 74, "log.write");
    }
    world.drain("state");
    let _ = world.accepts(&image, &[]);
    let _ = world.verify_log().ok();
}

#[test]
fn disk_full() {
    let world = World::with(Options { images_kib: 1024, ..Options::default() });
    let image = world.signed("true", "app");
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 74, "store.full");
    }
    world.nothing_half_stored();
}

#[test]
fn runtime_gone() {
    let world = World::with(Options {
        agent: |table| table["runtime"]["path"] = "/nonexistent/runc".into(),
        ..Options::default()
    });
    let image = world.signed("true", "app");
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 70, "runtime.unavailable");
    }
}

#[test]
fn runtime_that_cannot_create() {
    let world =
        World::with(Options { agent: |table| table["runtime"]["path"] = "/bin/false".into(), ..Options::default() });
    let image = world.signed("true", "app");
    let _ = world.refuses(&image, &[], 70, "runtime.create");
    let shown = run(world.tclctl(&["--json", "log", "show"])).ok().json();
    let last = shown.as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["operation"], &last["content"]["code"]), (&"Failed".into(), &"runtime.create".into()), "{last}");
}

#[test]
fn mode_not_permitted() {
    let world = World::with(Options {
        agent: |table| {
            table["modes"]["permitted"] = toml::Value::Array(vec!["remote".into()]);
            table.remove("local");
        },
        ..Options::default()
    });
    let image = world.signed("true", "app");
    let _ = world.refuses(&image, &["--mode", "local"], 77, "policy.mode");
    let _ = world.accepts(&image, &["--mode", "remote"]);
}

#[test]
fn boot_state_other_than_the_configuration_names() {
    let world = World::with(Options {
        agent: |table| {
            let state = format!("boot_state = {{ pcrs = {{ \"7\" = \"{}\" }} }}", "ab".repeat(32));
            table["local"]["boot_state"] = state.parse::<toml::Table>().unwrap()["boot_state"].clone();
        },
        ..Options::default()
    });
    let image = world.signed("true", "app");
    let _ = world.refuses(&image, &["--mode", "local"], 77, "policy.boot_state");
    let _ = world.accepts(&image, &["--mode", "remote"]);
}

#[test]
fn boot_state_as_the_configuration_names_it() {
    let world = World::with(Options {
        agent: |table| {
            let state = format!("boot_state = {{ pcrs = {{ \"7\" = \"{}\" }} }}", "00".repeat(32));
            table["local"]["boot_state"] = state.parse::<toml::Table>().unwrap()["boot_state"].clone();
        },
        ..Options::default()
    });
    let image = world.signed("true", "app");
    let _ = world.accepts(&image, &["--mode", "local"]);
}

#[test]
fn process_beyond_the_signed_policy() {
    let world = World::new();
    let image = world.signed("true", "app");
    let asked: [&[&str]; 4] =
        [&["-e", "LD_PRELOAD=/evil.so"], &["-u", "1000"], &["-w", "/etc"], &["--", "/bin/sh", "-c", "id"]];
    for mode in MODES {
        for more in asked {
            let _ = world.refuses(&image, &[&["--mode", mode], more].concat(), 77, "policy.process");
        }
    }
    let tmpfs = ["--mount", "type=tmpfs,destination=/elsewhere"];
    let _ = world.refuses(&image, &tmpfs, 77, "policy.process");
}

#[test]
fn attestation_key_not_enrolled() {
    let world = World::with(Options {
        broker: |table| {
            table.remove("tpm");
        },
        ..Options::default()
    });
    let image = world.signed("true", "app");
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, "evidence.ak");
    }
}

#[test]
fn register_kind_the_attestor_does_not_accept() {
    let world = World::with(Options {
        broker: |table| table["policy"]["registers"] = toml::Value::Array(vec!["software".into()]),
        ..Options::default()
    });
    let image = world.signed("true", "app");
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, "policy.register");
    }
}

#[test]
fn simulated_platform_in_a_production_guest() {
    let world = World::without_agent(Options {
        agent: |table| {
            table.remove("environment");
            // Everything else that production refuses is out of the way: only the simulated TPM is left.
            table["modes"]["permitted"] = toml::Value::Array(vec!["remote".into()]);
            table.remove("local");
            table["attestor"]["url"] = "https://attestor.example".into();
            table["registry"]["plain_http"] = toml::Value::Array(Vec::new());
        },
        ..Options::default()
    });
    refuses_to_start(world.spawn_agent(), "policy.environment");
}

#[test]
fn simulated_evidence_shown_to_a_production_attestor() {
    let mut world = World::without_agent(Options::default());
    world.kill_broker();
    // As someone might enrol a software TPM's key by mistake, without the word `simulated`.
    world.edit_broker(|table| {
        table.remove("environment");
        table["tpm"]["ak"][0].as_table_mut().unwrap().remove("simulated");
        table["registry"]["plain_http"] = toml::Value::Array(Vec::new());
        // What booted is as expected: no firmware has measured anything.
        let values: toml::Table = format!("\"tpm.pcr0\" = ['{}']", "0".repeat(64)).parse().unwrap();
        let reference = toml::Table::from_iter([("values".to_owned(), values.into())]);
        table.insert("reference".into(), reference.into());
    });
    world.start_broker();
    world.start_agent();
    let image = world.signed("true", "app");
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, "policy.environment");
    }
}

#[test]
fn simulated_key_in_a_production_attestor() {
    let mut world = World::without_agent(Options::default());
    world.kill_broker();
    world.edit_broker(|table| {
        table.remove("environment");
    });
    let mut broker = world.spawn_broker();
    assert!(!broker.ended().success());
    assert!(broker.log().contains("simulated"), "{}", broker.log());
}

#[test]
fn agent_down() {
    let mut world = World::new();
    let image = world.push(&Recipe::new("true"), "app", "1");
    world.kill_agent();
    fs::remove_file(world.path("agent.sock")).unwrap();
    world.run(&image, &[]).refused(69, "runtime.agent");
    world.nothing_ran();
}
