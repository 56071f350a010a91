//! Encrypted images from `tclctl image encrypt` to a running container: the key broker's key, and who gets it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;
use std::process::Command;

use integration_tests::command::{ADMIN_TOKEN_FILE, Seen, run, tclctl};
use integration_tests::image::{Image, Recipe};
use integration_tests::process::program;
use integration_tests::{Options, World};

const KEY: &str = "kbs:///default/image-kek/app";

/// Encrypts `image` as `tag`, with more arguments.
fn encrypt(world: &World, image: &Image, tag: &str, arguments: &[&str]) -> Image {
    let registry = &world.registry.address;
    let reference = |tag: &str| format!("{registry}/{}:{tag}", image.repository);
    let (from, to) = (reference(&image.tag), reference(tag));
    let mut all = vec!["--json", "image", "encrypt", "--plain-http", registry, &from, &to];
    all.extend(arguments);
    let told = run(tclctl(&all)).ok().json();
    let layers = told["layers"].as_array().unwrap().iter().map(|digest| digest.as_str().unwrap().to_owned()).collect();
    let manifest = told["manifest"].as_str().unwrap().to_owned();
    Image { tag: tag.to_owned(), manifest, layers, ..image.clone() }
}

/// A file with 32 bytes.
fn key_file(world: &World, name: &str, byte: u8) -> String {
    let path = world.path(name);
    fs::write(&path, [byte; 32]).unwrap();
    path.display().to_string()
}

/// The world's platform is simulated, which is graded a warning.
fn release_to_warned(broker: &mut toml::Table) {
    let release: toml::Table = r#"status = ["affirming", "warning"]"#.parse().unwrap();
    broker.insert("release".into(), toml::Value::Table(release));
}

fn sign(world: &World, image: &Image, key: &str) -> Seen {
    world.sign_with(image, 1, &["--decryption-key", &format!("{KEY}={key}")])
}

#[test]
fn an_encrypted_image_runs_only_with_the_brokers_key() {
    let mut world = World::with(Options { broker: release_to_warned, ..Options::default() });
    let image = world.push(&Recipe::new("echo out").layer("/data", "secret weights"), "app", "1");
    let (key, other) = (key_file(&world, "kek", 7), key_file(&world, "other-kek", 8));
    let provider = format!("attestation-agent:{KEY}");
    let only = ["--provider", provider.as_str(), "--key", key.as_str()];
    let encrypted = encrypt(&world, &image, "enc", &only);
    assert_eq!(encrypted.layers.len(), 2);
    assert!(encrypted.layers.iter().all(|layer| !image.layers.contains(layer)), "the blobs are others");
    for digest in &encrypted.layers {
        let blob = fs::read(world.registry.blob(digest)).unwrap();
        assert!(!blob.starts_with(&[0x1f, 0x8b]), "no gzip to be seen");
    }

    // It cannot be measured without the key, and the golden value is that of its content.
    let reference = format!("{}/app:enc", world.registry.address);
    let measure = ["measure", reference.as_str(), "--plain-http", world.registry.address.as_str()];
    let seen = run(tclctl(&measure));
    assert!(seen.status == 77 && seen.stderr.contains("image.key"), "{seen:#?}");
    let _ = sign(&world, &encrypted, &key);

    // The broker does not have the key yet.
    for mode in ["remote", "local"] {
        world.refuses(&encrypted, &["--mode", mode], 77, "image.key");
    }
    let (url, token) = (world.attestor_url(), world.path(ADMIN_TOKEN_FILE).display().to_string());
    let stored = ["--attestor", url.as_str(), "--admin-token", token.as_str()];
    let encrypted = encrypt(&world, &image, "enc", &[only.as_slice(), &stored].concat());
    let _ = sign(&world, &encrypted, &key);
    for mode in ["remote", "local"] {
        assert_eq!(world.accepts(&encrypted, &["--mode", mode]).stdout, "out\n");
    }

    // The layers are stored in the guest by now; whoever may not have the key any more may not use them.
    let revoked = ["--provider", provider.as_str(), "--key", other.as_str()];
    let _ = encrypt(&world, &image, "elsewhere", &[revoked.as_slice(), &stored].concat());
    for mode in ["remote", "local"] {
        world.refuses(&encrypted, &["--mode", mode], 77, "image.key");
    }
    world.kill_broker();
    world.refuses(&encrypted, &["--mode", "local"], 69, "attestor.unavailable");
}

#[test]
fn skopeo_reads_what_the_command_encrypts_for_a_private_key() {
    let world = World::new();
    let image = world.push(&Recipe::new("echo out"), "app", "1");
    let (private, public) = (world.path("private.pem").display().to_string(), world.path("public.pem"));
    let public = public.display().to_string();
    let openssl = |arguments: &[&str]| {
        let output = Command::new(program("openssl")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &private]);
    openssl(&["pkey", "-in", &private, "-pubout", "-out", &public]);
    let _ = encrypt(&world, &image, "enc", &["--recipient", &format!("jwe:{public}")]);
    let place = |tag: &str| format!("docker://{}/app:{tag}", world.registry.address);
    let output = Command::new(program("skopeo"))
        .args(["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"])
        .args(["--decryption-key", &private, &place("enc"), &place("dec")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let measure = |tag: &str, more: &[&str]| {
        let reference = format!("{}/app:{tag}", world.registry.address);
        let mut all = vec!["--json", "measure", reference.as_str(), "--plain-http", &world.registry.address];
        all.extend(more);
        run(tclctl(&all)).ok().json()[0]["measurement"].clone()
    };
    let (plain, back) = (measure("1", &[]), measure("dec", &[]));
    let encrypted = measure("enc", &["--decryption-key", &private]);
    assert_eq!(back["layers"], plain["layers"]);
    assert_eq!((&encrypted["layers"], &encrypted["rootfs"]), (&plain["layers"], &plain["rootfs"]));
}
