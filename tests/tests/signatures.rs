//! The measured signature policy on whole launches: what it refuses is not even pulled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

#[path = "../../image-rs-fork/tests/support/gnupg.rs"]
mod gnupg;

use std::fs;

use gnupg::{Gnupg, Lookaside};
use integration_tests::command::run;
use integration_tests::image::{Image, Recipe};
use integration_tests::{Action, Options, World};
use serde_json::json;

/// Everything the agent asked for below the image's blobs, the config among them.
fn blobs_asked(world: &World) -> usize {
    world.registry_proxy.as_ref().unwrap().hits("blobs")
}

fn golden_value(world: &World, tag: &str) -> Image {
    let image = world.push(&Recipe::new("echo out"), "team/app", tag);
    let _ = world.sign(&image, 1);
    image
}

#[test]
fn an_image_the_measured_policy_refuses_is_neither_pulled_nor_run() {
    let mut world = World::without_agent(Options { registry_proxy: true, ..Options::default() });
    let (gnupg, lookaside) = (Gnupg::new(), Lookaside::new());
    for user in ["signer@example", "stranger@example"] {
        gnupg.key(user, "ed25519", "sign", "never", &[]);
    }
    let key = gnupg.export("signer@example", "signer.gpg");
    let proxy = world.registry_address().to_owned();
    let policy = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {
            format!("{proxy}/team"): [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": key}],
        }},
    });
    world.edit_agent(|agent| {
        agent["images"]["signature_policy_json"] = policy.to_string().into();
        let registry = agent["registry"].as_table_mut().unwrap();
        registry.insert("registries_d_json".into(), lookaside.registries_d().into());
    });
    world.start_agent();
    let signed = golden_value(&world, "1");
    let other = world.signed("echo out", "elsewhere");
    world.registry_proxy.as_ref().unwrap().rule("blobs", "GET", "/blobs/", Action::Pass);
    let reference = world.reference(&signed);
    let refused = |image: &Image, actual: &str| {
        for mode in ["local", "remote"] {
            let seen = world.refuses(image, &["--mode", mode], 77, "image.signature");
            assert!(seen.stderr.contains(actual), "{actual}: {seen:#?}");
        }
        assert_eq!(blobs_asked(&world), 0, "nothing of the image was fetched but its manifest");
        world.nothing_half_stored();
    };
    refused(&other, "the policy rejects it");
    refused(&signed, "no signature in file:///");
    let by = |user: &str| vec!["--sign-by".to_owned(), gnupg.fingerprint(user)];
    let sign = |user: &str, identity: &str| {
        let _ = fs::remove_dir_all(lookaside.root());
        let mut arguments = by(user);
        arguments.extend(["--sign-identity".to_owned(), identity.to_owned()]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let at_registry = format!("{}/team/app:1", world.registry.address);
        lookaside.sign_with_skopeo(&gnupg, &at_registry, &arguments);
    };
    let log = run(world.tclctl(&["log", "show"])).ok();
    assert!(!log.stdout.contains("PullImage"), "no launch has come as far as an image: {log:#?}");
    sign("stranger@example", &reference);
    refused(&signed, "wrong key");
    sign("signer@example", &format!("{proxy}/team/other:1"));
    refused(&signed, "signed as");
    sign("signer@example", &reference);
    for mode in ["local", "remote"] {
        assert_eq!(world.accepts(&signed, &["--mode", mode]).stdout, "out\n");
    }
    assert!(blobs_asked(&world) > 0, "the rule counts what is fetched");
    // Everything is stored now, and no signature was ever remembered.
    fs::remove_dir_all(lookaside.root()).unwrap();
    let fetched = blobs_asked(&world);
    for mode in ["local", "remote"] {
        let _ = world.refuses(&signed, &["--mode", mode], 77, "image.signature");
    }
    assert_eq!(blobs_asked(&world), fetched);
}
