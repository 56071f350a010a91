//! Initdata: in force only when the platform's evidence tells it, and never by halves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::os::unix::fs::PermissionsExt as _;

use integration_tests::command::run;
use integration_tests::initdata::{attach, disk, text};
use integration_tests::kata::{self, Shim};
use integration_tests::{Options, Tee, World};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::keys::{KeyKind, SigningKey};
use serde_json::json;
use toml::{Table, Value};
use ttrpc::Code;

/// A policy that lets the host ask for one thing only.
const POLICY: &str = "package agent_policy\n\ndefault GuestDetailsRequest := true\n";

/// A sandbox whose measured configuration takes initdata and trusts a signer of its own only.
fn world(tee: Tee, allow: &[&str]) -> World {
    let mut world = kata::world(Options { tee, ..Options::default() });
    world.stop_agent();
    if tee == Tee::Tpm {
        world.reboot();
    } else {
        let _ = std::fs::remove_dir_all(world.path("state"));
    }
    for socket in ["agent.sock", "kata.sock"] {
        std::fs::remove_file(world.path(socket)).unwrap();
    }
    let other = SigningKey::generate(KeyKind::EcdsaP256).unwrap().verifying_key().to_pem().unwrap();
    let (devices, folder) = (world.path("dev"), world.path("initdata"));
    let rules: Table = format!(
        "allow = {allow:?}\nrequired = false\ndevices = \"{}\"\nfolder = \"{}\"\n",
        devices.display(),
        folder.display()
    )
    .parse()
    .unwrap();
    std::fs::create_dir(&devices).unwrap();
    world.edit_agent(|agent| {
        agent.insert("initdata".into(), Value::Table(rules));
        agent["signers"].as_array_mut().unwrap()[0]["key"] = other.into();
    });
    world
}

/// `guest-agent.toml` with the key that signs images in these tests.
fn signers(world: &World) -> String {
    let mut signer = Table::new();
    signer.insert("issuer".into(), "release@example.com".into());
    signer.insert("key".into(), world.release.verifying_key().to_pem().unwrap().into());
    signer.insert("min_version".into(), 1.into());
    signer.insert("revocations".into(), "optional".into());
    let mut table = Table::new();
    table.insert("signers".into(), Value::Array(vec![Value::Table(signer)]));
    table.to_string()
}

/// What the simulated chip was launched with.
fn launched_with(world: &World, text: &str) {
    let path = world.path("launched-with.toml");
    std::fs::write(&path, text).unwrap();
    world.edit_agent(|agent| {
        agent["attester"].as_table_mut().unwrap().insert("initdata".into(), path.display().to_string().into());
    });
}

/// The agent does not start, and says why.
#[track_caller]
fn refuses(world: &World, code: &str) {
    let mut agent = world.spawn_agent();
    assert!(!agent.ended().success());
    let log = agent.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(&format!("{code}: ")), "{code}:\n{log}");
    assert!(!world.path("agent.sock").exists() && !world.path("kata.sock").exists());
    assert!(!world.path("state/log").exists(), "nothing was measured in its name");
}

async fn policy_of_the_initdata_is_in_force(world: &World) {
    let shim = Shim::connect(&kata::address(world)).await;
    shim.call("GetGuestDetails", json!({})).await.unwrap();
    let failure = shim.call("ListInterfaces", json!({})).await.unwrap_err();
    assert_eq!((failure.code, failure.reason()), (Code::PERMISSION_DENIED, "policy.gate"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_and_signers_of_a_bound_initdata_are_in_force_in_both_modes() {
    let mut world = world(Tee::SimulatedSnp, &["policy", "signers"]);
    let signers = signers(&world);
    let text = text("sha256", &[("policy.rego", POLICY), ("guest-agent.toml", &signers), ("aa.toml", "other = 1\n")]);
    launched_with(&world, &text);
    attach(&world.path("dev"), &text);
    world.edit_agent(|agent| {
        let state: Value = toml::from_str::<Table>("s = { initdata = true }").unwrap()["s"].clone();
        agent["local"].as_table_mut().unwrap().insert("boot_state".into(), state);
    });
    world.start_agent();
    policy_of_the_initdata_is_in_force(&world).await;

    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(world.path("initdata")), 0o700);
    for (name, content) in [("policy.rego", POLICY), ("aa.toml", "other = 1\n"), ("initdata.toml", &text)] {
        assert_eq!(std::fs::read_to_string(world.path("initdata").join(name)).unwrap(), content);
        assert_eq!(mode(world.path("initdata").join(name)), 0o600);
    }

    // The attestor takes the evidence for that of a guest with this initdata; the guest itself, its signers.
    let image = world.signed("true", "test/initdata");
    let _ = world.accepts(&image, &["--mode", "remote"]);
    let _ = world.accepts(&image, &["--mode", "local"]);
    world.settle();
    let log = run(world.tclctl(&["--json", "log", "show"])).ok().json();
    assert_eq!(log[0]["content"]["initdata"], Sha256Digest::of(text.as_bytes()).to_string(), "{log}");

    world.kill_agent();
    world.start_agent();
    policy_of_the_initdata_is_in_force(&world).await;
}

#[test]
fn a_tds_initdata_is_bound_by_its_sha384_and_by_no_shorter_digest() {
    let mut world = world(Tee::SimulatedTdx, &["policy", "signers"]);
    let signers = signers(&world);
    let files = [("policy.rego", POLICY), ("guest-agent.toml", signers.as_str())];
    let launch = |text: &str| {
        launched_with(&world, text);
        attach(&world.path("dev"), text)
    };
    for algorithm in ["sha256", "sha512"] {
        launch(&text(algorithm, &files));
        refuses(&world, "evidence.initdata_algorithm");
    }
    let good = text("sha384", &files);
    launch(&good);
    launched_with(&world, &format!("{good}\n"));
    refuses(&world, "evidence.initdata");
    launch(&good);
    world.start_agent();
    let image = world.signed("true", "test/initdata-tdx");
    let _ = world.accepts(&image, &["--mode", "remote"]);
    world.settle();
    let log = run(world.tclctl(&["--json", "log", "show"])).ok().json();
    assert_eq!(log[0]["content"]["initdata"], Sha384Digest::of(good.as_bytes()).to_string(), "{log}");
}

#[test]
fn initdata_that_the_chip_was_not_launched_with_is_not_taken() {
    let world = world(Tee::SimulatedSnp, &["policy"]);
    let good = text("sha256", &[("policy.rego", POLICY)]);
    attach(&world.path("dev"), &good);
    refuses(&world, "evidence.initdata");
    launched_with(&world, &format!("{good}\n"));
    refuses(&world, "evidence.initdata");
    assert!(!world.path("initdata").exists(), "nothing of it was written");

    // The other way round: the chip's initdata would be taken for the one in force.
    std::fs::remove_file(world.path("dev/vda")).unwrap();
    refuses(&world, "boot.initdata");
    world.edit_agent(|agent| _ = agent.remove("initdata"));
    refuses(&world, "evidence.initdata");
}

#[test]
fn initdata_that_is_malformed_cut_or_not_allowed_keeps_the_guest_closed() {
    let world = world(Tee::SimulatedSnp, &["policy"]);
    let launch = |text: &str| {
        launched_with(&world, text);
        attach(&world.path("dev"), text)
    };
    let path = launch("version = \"0.1.0\"\n");
    refuses(&world, "boot.initdata");
    std::fs::write(&path, &disk("version = \"0.1.0\"\n")[..40]).unwrap();
    refuses(&world, "boot.initdata");
    for algorithm in ["sha384", "sha512"] {
        launch(&text(algorithm, &[("policy.rego", POLICY)]));
        refuses(&world, "evidence.initdata_algorithm");
    }
    launch(&text("sha256", &[("guest-agent.toml", &signers(&world))]));
    refuses(&world, "policy.initdata");
    launch(&text("sha256", &[("guest-agent.toml", "state_dir = \"/elsewhere\"\n")]));
    refuses(&world, "policy.initdata");
    assert!(!world.path("initdata").exists(), "nothing of it was written");
    launch(&text("sha256", &[("policy.rego", "package other\n")]));
    refuses(&world, "policy.invalid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tpm_measures_initdata_before_it_counts_and_once_only() {
    let mut world = world(Tee::Tpm, &["policy", "signers"]);
    let signers = signers(&world);
    let good = text("sha256", &[("policy.rego", POLICY), ("guest-agent.toml", &signers)]);
    attach(&world.path("dev"), &good);
    world.start_agent();
    policy_of_the_initdata_is_in_force(&world).await;
    let measured = protocols::tpm::initdata_pcr(&Sha256Digest::of(good.as_bytes())).hex();
    let image = world.signed("true", "test/initdata-tpm");
    let _ = world.accepts(&image, &["--mode", "remote"]);
    world.kill_agent();
    assert_eq!(world.tpm.as_ref().unwrap().pcr(8), measured);

    // The same history never gets another initdata, nor none.
    let started = |world: &World, code: &str| {
        let mut agent = world.spawn_agent();
        assert!(!agent.ended().success());
        assert!(agent.log().lines().last().unwrap().contains(&format!("{code}: ")), "{code}:\n{}", agent.log());
    };
    let folder = world.path("initdata");
    attach(&world.path("dev"), &text("sha256", &[("policy.rego", "package agent_policy\n")]));
    started(&world, "evidence.initdata");
    std::fs::remove_file(world.path("dev/vda")).unwrap();
    started(&world, "evidence.initdata");
    attach(&world.path("dev"), &good);
    world.start_agent();
    policy_of_the_initdata_is_in_force(&world).await;
    assert!(folder.join("policy.rego").exists());

    // A pinned digest is the only one.
    world.kill_agent();
    world.reboot();
    world.edit_agent(|agent| {
        let other = Sha256Digest::of(b"").to_string();
        agent["initdata"].as_table_mut().unwrap().insert("digest".into(), other.into());
    });
    started(&world, "evidence.initdata");
    assert_eq!(world.tpm.as_ref().unwrap().pcr(8), "0".repeat(64), "what is refused is not measured");
}
