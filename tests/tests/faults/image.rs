//! Blobs that are not what the manifest says, and images that must not be unpacked.

use integration_tests::golden::{MANIFEST_TYPE, get_manifest, put_manifest, upload};
use integration_tests::image::{Image, Recipe};
use integration_tests::{Action, Options, World};
use serde_json::{Value, json};

use crate::MODES;

/// A signed image whose layer is then changed in the registry's storage.
fn altered(edit: impl Fn(&mut Vec<u8>), code: &str) {
    let world = World::new();
    let image = world.signed("true", "app");
    world.registry.edit_blob(&image.layers[0], &edit);
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, code);
    }
    world.nothing_half_stored();
    let _ = world.verify_log().ok();
}

#[test]
fn blob_tampered() {
    altered(
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
        "image.blob_digest",
    );
}

#[test]
fn blob_truncated() {
    altered(|bytes| bytes.truncate(bytes.len() - 1), "image.blob_size");
}

#[test]
fn blob_too_long() {
    altered(|bytes| bytes.push(0), "image.blob_size");
}

#[test]
fn blob_tampered_on_the_way_only_for_the_guest() {
    let world = World::with(Options { registry_proxy: true, ..Options::default() });
    let image = world.signed("true", "app");
    let proxy = world.registry_proxy.as_ref().unwrap();
    let flip = |mut bytes: Vec<u8>| {
        if let Some(last) = bytes.last_mut() {
            *last ^= 0x80;
        }
        bytes
    };
    // The config first: once its digest was compared, the guest asks for it no more.
    for tampered in [&image.config, &image.layers[0]] {
        proxy.rule("tampered", "GET", &format!("/blobs/{tampered}"), Action::edit(flip));
        let _ = world.refuses(&image, &[], 77, "image.blob_digest");
        assert!(proxy.hits("tampered") > 0);
        proxy.clear();
    }
    let _ = world.accepts(&image, &[]);
}

/// Pushes `image` again with another config, or other layers.
fn remade(world: &World, image: &Image, edit: impl Fn(&mut Value, &mut Value)) {
    let address = &world.registry.address;
    let mut manifest: Value = serde_json::from_slice(&get_manifest(address, "app", &image.manifest).unwrap()).unwrap();
    let config = std::fs::read(world.registry.blob(&image.config)).unwrap();
    let mut config: Value = serde_json::from_slice(&config).unwrap();
    edit(&mut manifest, &mut config);
    let mut descriptor = upload(address, "app", config.to_string().as_bytes());
    descriptor["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    manifest["config"] = descriptor;
    put_manifest(address, "app", "1", MANIFEST_TYPE, manifest.to_string().as_bytes());
}

#[test]
fn wrong_diff_id() {
    let world = World::new();
    let image = world.push(&Recipe::new("true"), "app", "1");
    remade(&world, &image, |_, config| config["rootfs"]["diff_ids"][0] = format!("sha256:{}", "ab".repeat(32)).into());
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, "image.diff_id");
    }
    world.nothing_half_stored();
}

/// A tar of one entry, as a gzip'd layer of the image.
fn hostile_layer(world: &World, image: &Image, entry: &[u8]) {
    let address = &world.registry.address;
    let mut tar = entry.to_vec();
    tar.extend_from_slice(&[0; 1024]);
    let diff_id = protocols::digest::Sha256Digest::of(&tar).to_string();
    let mut descriptor = upload(address, "app", &tar);
    descriptor["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
    remade(world, image, |manifest, config| {
        manifest["layers"].as_array_mut().unwrap().push(descriptor.clone());
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(diff_id));
    });
}

/// One ustar header with a name that no library would write.
fn header(name: &str, kind: u8, link: &str, size: usize) -> Vec<u8> {
    let mut block = vec![0u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn a_layer_that_reaches_out_of_its_directory() {
    let world = World::new();
    let image = world.push(&Recipe::new("true"), "app", "1");
    let outside = world.path("escaped");
    std::fs::write(&outside, "the host's own").unwrap();
    let target = format!("../../../../../../../..{}", outside.display());
    let entry = header("stolen", b'1', &target, 0);
    hostile_layer(&world, &image, &entry);
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, "image.unsafe");
    }
    assert_eq!(std::fs::read_to_string(&outside).unwrap(), "the host's own");
    world.nothing_half_stored();
}

#[test]
fn a_layer_that_is_no_archive() {
    let world = World::new();
    let image = world.push(&Recipe::new("true"), "app", "1");
    let mut entry = header("file", b'0', "", 3);
    entry[150] ^= 1;
    hostile_layer(&world, &image, &entry);
    let _ = world.refuses(&image, &[], 77, "image.layer_format");
    world.nothing_half_stored();
}

#[test]
fn an_image_beyond_the_configured_limits() {
    let world = World::with(Options {
        agent: |table| {
            table.insert("limits".into(), "entries = 3".parse::<toml::Table>().unwrap().into());
        },
        ..Options::default()
    });
    let image = world.signed("true", "app");
    for mode in MODES {
        let _ = world.refuses(&image, &["--mode", mode], 77, "image.limit");
    }
    world.nothing_half_stored();
}

#[test]
fn a_reference_that_is_none() {
    let world = World::new();
    for reference in ["busybox", "127.0.0.1:5000/UPPER:1", "127.0.0.1:5000/app@sha256:12", "127.0.0.1:5000/a/../b:1"] {
        let seen = integration_tests::command::run(world.tclctl(&["run", reference]));
        seen.refused(77, "image.reference");
    }
    world.nothing_ran();
}
