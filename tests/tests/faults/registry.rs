//! A registry that is away, slow, closed, or answers something else.

use std::fs;

use integration_tests::golden::{INDEX_TYPE, MANIFEST_TYPE, get_manifest, put_manifest};
use integration_tests::image::Recipe;
use integration_tests::registry::{PASSWORD, USER};
use integration_tests::{Action, Options, World};
use serde_json::json;

fn behind_a_proxy() -> World {
    World::with(Options { registry_proxy: true, ..Options::default() })
}

/// Spoils requests for `path`, expects `status` and `code`, then lets the same launch pass.
fn spoiled(path: &str, action: Action, status: i32, code: &str) {
    let world = behind_a_proxy();
    let image = world.signed("true", "app");
    let path = path.replace("LAYER", &image.layers[0]).replace("CONFIG", &image.config);
    let proxy = world.registry_proxy.as_ref().unwrap();
    proxy.rule("spoiled", "GET", &path, action);
    let _ = world.refuses(&image, &[], status, code);
    assert!(proxy.hits("spoiled") > 0, "{:#?}", proxy.requests());
    world.nothing_half_stored();
    proxy.clear();
    let _ = world.accepts(&image, &[]);
    let _ = world.verify_log().ok();
}

#[test]
fn registry_404() {
    let world = World::new();
    let mut image = world.signed("true", "app");
    image.tag = "other".to_owned();
    let _ = world.refuses(&image, &[], 77, "image.not_found");
}

#[test]
fn registry_404_for_a_blob() {
    spoiled("/blobs/LAYER", Action::Status(404), 77, "image.not_found");
}

#[test]
fn registry_5xx() {
    spoiled("/manifests/1", Action::Status(500), 69, "image.registry");
}

#[test]
fn registry_5xx_for_a_blob() {
    spoiled("/blobs/LAYER", Action::Status(503), 69, "image.registry");
}

#[test]
fn registry_stalled() {
    spoiled("/manifests/1", Action::Stall, 69, "image.registry");
}

#[test]
fn registry_stalled_in_the_middle_of_a_blob() {
    spoiled("/blobs/LAYER", Action::StallHalfway, 69, "image.registry");
}

#[test]
fn connection_cut_in_the_middle_of_a_blob() {
    spoiled("/blobs/LAYER", Action::Cut, 69, "image.registry");
}

#[test]
fn registry_down() {
    let world = behind_a_proxy();
    let image = world.signed("true", "app");
    world.registry_proxy.as_ref().unwrap().close();
    let _ = world.refuses(&image, &[], 69, "image.registry");
}

#[test]
fn registry_401_without_and_with_credentials() {
    let mut world = World::without_agent(Options { locked: true, ..Options::default() });
    world.start_agent();
    let image = world.signed("true", "app");
    let _ = world.refuses(&image, &[], 77, "image.denied");
    // The wrong password is no better than none, the right one opens the door to agent and attestor.
    for (password, opens) in [("wrong", false), (PASSWORD, true)] {
        let auth = world.path("auth.json");
        fs::write(&auth, world.auth_file(USER, password)).unwrap();
        let path = auth.display().to_string();
        world.kill_agent();
        world.kill_broker();
        world.edit_agent(|table| {
            table["registry"].as_table_mut().unwrap().insert("auth_file".into(), path.clone().into());
        });
        world.edit_broker(|table| {
            table["registry"].as_table_mut().unwrap().insert("auth_file".into(), path.clone().into());
        });
        world.start_broker();
        world.start_agent();
        if opens {
            let _ = world.accepts(&image, &["--mode", "local"]);
            let _ = world.accepts(&image, &["--mode", "remote"]);
        } else {
            let _ = world.refuses(&image, &[], 77, "image.denied");
        }
    }
}

#[test]
fn plain_http_for_a_host_the_configuration_does_not_name() {
    let world = World::with(Options {
        agent: |table| table["registry"]["plain_http"] = toml::Value::Array(Vec::new()),
        ..Options::default()
    });
    let image = world.signed("true", "app");
    for mode in crate::MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, "image.plain_http");
    }
}

#[test]
fn tag_moved_between_resolve_and_pull() {
    // The tag is resolved once. Whoever moves it afterwards changes nothing about this launch, neither in the
    // guest nor for the attestor, which looks by digest.
    let world = behind_a_proxy();
    let image = world.signed("echo the resolved one", "app");
    let link = world.registry.tag_link("app", "1");
    let evil = world.push(&Recipe::new("echo moved"), "app", "evil");
    let moved = evil.manifest.clone();
    let proxy = world.registry_proxy.as_ref().unwrap();
    proxy.rule("moved", "GET", &image.config, Action::meanwhile(move || fs::write(&link, &moved).unwrap()));
    let seen = world.accepts(&image, &["--mode", "remote"]);
    assert_eq!(seen.stdout, "the resolved one\n");
    assert_eq!(proxy.hits("moved"), 1);
    // From the next launch on the tag is another, unsigned image.
    let _ = world.refuses(&image, &[], 77, "golden.missing");
}

#[test]
fn another_manifest_for_the_digest_an_index_names() {
    let world = behind_a_proxy();
    let image = world.signed("true", "app");
    let size = get_manifest(&world.registry.address, "app", &image.manifest).unwrap().len();
    let entry = json!({"mediaType": MANIFEST_TYPE, "digest": image.manifest, "size": size,
        "platform": {"os": "linux", "architecture": architecture()}});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]});
    put_manifest(&world.registry.address, "app", "multi", INDEX_TYPE, index.to_string().as_bytes());
    let multi = integration_tests::image::Image { tag: "multi".to_owned(), ..image.clone() };
    let proxy = world.registry_proxy.as_ref().unwrap();
    let path = format!("/manifests/{}", image.manifest);
    let other = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace("sha256:", "sha256:0").into_bytes();
    proxy.rule("swapped", "GET", &path, Action::edit(other));
    let _ = world.refuses(&multi, &[], 77, "image.manifest_digest");
    assert!(proxy.hits("swapped") > 0);
    proxy.clear();
    let _ = world.accepts(&multi, &[]);
}

#[test]
fn no_manifest_for_this_platform() {
    let world = World::new();
    let image = world.push(&Recipe::new("true"), "app", "1");
    let size = get_manifest(&world.registry.address, "app", &image.manifest).unwrap().len();
    let entry = json!({"mediaType": MANIFEST_TYPE, "digest": image.manifest, "size": size,
        "platform": {"os": "linux", "architecture": "riscv64"}});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]});
    put_manifest(&world.registry.address, "app", "1", INDEX_TYPE, index.to_string().as_bytes());
    let _ = world.refuses(&image, &[], 77, "image.platform");
}

/// OCI's name of this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
