//! Whom a guest trusts and how it reaches them, as its owner and its host say it: trust roots and attestor that come
//! with the initdata, proxy and patience that come with the kernel's command line.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;
use std::process::Command;

use integration_tests::command::{Seen, run};
use integration_tests::image::Image;
use integration_tests::initdata::{attach, text};
use integration_tests::process::binary;
use integration_tests::proxy::Action;
use integration_tests::tls::{TlsRegistry, Tunnel};
use integration_tests::{Options, World};
use protocols::keys::{KeyKind, SigningKey};
use toml::{Table, Value};

fn elsewhere(world: &World, registry: &TlsRegistry, image: &Image, mode: &str) -> Seen {
    let reference = format!("{}/{}:{}", registry.address, image.repository, image.tag);
    run(world.tclctl(&["run", "--mode", mode, &reference]))
}

/// The machine's next start; what an initdata brought lived in memory.
fn reboot(world: &mut World) {
    world.stop_agent();
    world.reboot();
    fs::remove_dir_all(world.path("initdata")).unwrap();
}

fn check(world: &World, initdata: Option<&str>) -> Seen {
    let mut command = Command::new(binary("guest-agent"));
    command.args(["--check-config", "--config"]).arg(world.path("agent.toml"));
    if let Some(text) = initdata {
        fs::write(world.path("initdata.text"), text).unwrap();
        command.arg("--initdata").arg(world.path("initdata.text"));
    }
    run(command)
}

#[test]
fn attestor_signers_and_roots_come_with_the_initdata_alone() {
    let mut world = World::without_agent(Options::default());
    let registry = TlsRegistry::start(&world.path("tls"), &world.registry);
    let image = world.signed("echo trusted", "test/trust");
    let agent: Table = fs::read_to_string(world.path("agent.toml")).unwrap().parse().unwrap();
    let brought = |roots: &[&str], attestor: bool| {
        let mut table = Table::new();
        table.insert("signers".into(), agent["signers"].clone());
        table.insert("roots".into(), Value::from(roots.to_vec()));
        if attestor {
            table.insert("attestor".into(), agent["attestor"].clone());
        }
        let root = fs::read_to_string(&registry.root).unwrap();
        text("sha256", &[("guest-agent.toml", &table.to_string()), ("registry.pem", &root)])
    };
    let rules = format!(
        "allow = [\"attestor\", \"signers\", \"roots\"]\nrequired = true\ndevices = \"{}\"\nfolder = \"{}\"\n",
        world.path("dev").display(),
        world.path("initdata").display()
    );
    world.edit_agent(|agent| {
        agent.insert("initdata".into(), Value::Table(rules.parse().unwrap()));
        agent.remove("attestor");
        agent.remove("signers");
    });
    let good = brought(&["registry.pem"], true);

    // Whoever writes such a configuration can look at it before any guest has it.
    let seen = check(&world, None);
    assert!(seen.status == 1 && seen.stderr.contains("by --initdata: attestor: stands neither"), "{seen:#?}");
    let seen = check(&world, Some(&brought(&["registry.pem"], false)));
    assert!(seen.status == 1 && seen.stderr.contains("attestor: stands neither"), "{seen:#?}");
    let seen = check(&world, Some(&brought(&["other.pem"], true)));
    assert!(seen.status == 1 && seen.stderr.contains("policy.initdata: "), "{seen:#?}");
    let _ = check(&world, Some(&good)).ok();
    assert!(!world.path("initdata").exists() && !world.path("state").exists(), "a look leaves nothing behind");

    attach(&world.path("dev"), &brought(&[], true));
    world.start_agent();
    elsewhere(&world, &registry, &image, "local").refused(69, "image.registry");
    reboot(&mut world);

    attach(&world.path("dev"), &good);
    world.start_agent();
    assert_eq!(elsewhere(&world, &registry, &image, "local").ok().stdout, "trusted\n");
    let _ = world.accepts(&image, &["--mode", "remote"]);
    reboot(&mut world);

    // An attestor whose key is not the one brought decides nothing.
    let other = SigningKey::generate(KeyKind::EcdsaP256).unwrap().verifying_key().to_pem().unwrap();
    let mut attestor = agent["attestor"].clone();
    attestor.as_table_mut().unwrap().insert("key".into(), other.into());
    let mut table: Table = Table::new();
    table.insert("signers".into(), agent["signers"].clone());
    table.insert("attestor".into(), attestor);
    attach(&world.path("dev"), &text("sha256", &[("guest-agent.toml", &table.to_string())]));
    world.start_agent();
    let _ = world.refuses(&image, &["--mode", "remote"], 77, "attestor.signature");
}

#[test]
fn a_proxy_of_the_command_line_is_asked_for_every_registry_but_those_it_is_not_for() {
    let mut world = World::without_agent(Options::default());
    let registry = TlsRegistry::start(&world.path("tls"), &world.registry);
    let image = world.signed("echo through", "test/proxy");
    world.edit_agent(|agent| {
        let roots = vec![registry.root.display().to_string()];
        agent["registry"].as_table_mut().unwrap().insert("roots".into(), roots.into());
    });
    let tunnel = Tunnel::start();
    world.start_agent_booted_with(&format!("quiet agent.https_proxy={}", tunnel.url));
    assert_eq!(elsewhere(&world, &registry, &image, "local").ok().stdout, "through\n");
    let asked = tunnel.asked();
    assert!(!asked.is_empty() && asked.iter().all(|target| *target == registry.address), "{asked:?}");
    world.stop_agent();
    world.reboot();

    world.start_agent_booted_with(&format!("agent.https_proxy={} agent.no_proxy=127.0.0.0/8", tunnel.url));
    assert_eq!(elsewhere(&world, &registry, &image, "local").ok().stdout, "through\n");
    assert_eq!(tunnel.asked().len(), asked.len(), "nobody asked it again");
    world.stop_agent();
    world.reboot();

    // A proxy that is not there is no reason to go past it.
    world.start_agent_booted_with("agent.https_proxy=http://127.0.0.1:1");
    elsewhere(&world, &registry, &image, "local").refused(69, "image.registry");
    world.stop_agent();
    world.reboot();

    // The measured configuration may keep the host's words out.
    world.edit_agent(|agent| {
        agent.insert("boot".into(), Value::Table("parameters = [\"log\"]".parse().unwrap()));
    });
    world.start_agent_booted_with("agent.https_proxy=http://127.0.0.1:1");
    assert_eq!(elsewhere(&world, &registry, &image, "local").ok().stdout, "through\n");
}

#[test]
fn a_pull_ends_when_the_command_line_says_so_and_a_later_one_succeeds() {
    let mut world = World::without_agent(Options { registry_proxy: true, ..Options::default() });
    let image = world.signed("echo patient", "test/patience");
    world.edit_agent(|agent| {
        agent["registry"]["stall_seconds"] = 60.into();
        agent["registry"]["request_seconds"] = 60.into();
    });
    world.start_agent_booted_with("agent.image_pull_timeout=1");
    let proxy = world.registry_proxy.as_ref().unwrap();
    proxy.rule("layer", "GET", &format!("/blobs/{}", image.layers[0]), Action::StallHalfway);
    let refusal = world.refuses(&image, &["--mode", "local"], 69, "image.registry");
    assert!(refusal.stderr.contains("the pull was not done after 1 s"), "{refusal:#?}");
    world.nothing_left();
    proxy.clear();
    let _ = world.accepts(&image, &["--mode", "local"]);
    let _ = world.verify_log().ok();
}
