//! Golden values as anyone reads them: with `curl` through the referrers API and the fallback tag, and with
//! `openssl` alone. `docs/golden-value.md` shows the same commands.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;
use std::path::Path;

use base64::Engine as _;
use integration_tests::command::{curl, run, tclctl, tool};
use integration_tests::golden::{INDEX_TYPE, MANIFEST_TYPE, fallback_tag, get_manifest, put_manifest};
use integration_tests::image::{Image, Recipe};
use integration_tests::oci11::Oci11;
use integration_tests::registry::Registry;
use protocols::digest::Sha256Digest;
use protocols::golden::ARTIFACT_TYPE;
use serde_json::{Value, json};

fn keygen(folder: &Path, arguments: &[&str]) -> String {
    let key = folder.join(format!("key{}.pem", arguments.len())).display().to_string();
    let _ = run(tclctl(&[&["golden", "keygen", &key], arguments].concat())).ok();
    key
}

fn push(registry: &str, image: &Image, key: &str) -> Value {
    let reference = format!("{registry}/{}:{}", image.repository, image.tag);
    let told = run(tclctl(&[
        "--json",
        "golden",
        "push",
        &reference,
        "--key",
        key,
        "--issuer",
        "release@example.com",
        "--version",
        "3",
        "--days",
        "30",
        "--plain-http",
        registry,
    ]));
    told.ok().json()
}

fn manifest_digest(bytes: &[u8]) -> String {
    Sha256Digest::of(bytes).to_string()
}

#[test]
fn the_golden_manifest_is_the_same_through_the_api_and_through_the_fallback_tag() {
    let folder = tempfile::tempdir().unwrap();
    let key = keygen(folder.path(), &[]);
    let (old, new) = (Registry::start(folder.path(), false), Oci11::start());
    let recipe = Recipe::new("echo hello");
    let in_old = recipe.push(folder.path(), &old.address, "app", "1");
    let in_new = recipe.push(folder.path(), &new.address, "app", "1");
    assert_eq!(in_old.manifest, in_new.manifest, "the same folders give the same image");
    // The series names the registry; the artifact must not differ for it here.
    let series = ["--series", "app"];
    let sign = |registry: &str| {
        let reference = format!("{registry}/app:1");
        let arguments = [
            "--json",
            "golden",
            "push",
            &reference,
            "--key",
            &key,
            "--issuer",
            "release@example.com",
            "--version",
            "3",
            "--expires",
            "2100-01-01T00:00:00Z",
            "--plain-http",
            registry,
        ];
        run(tclctl(&[arguments.as_slice(), series.as_slice()].concat())).ok().json()
    };
    let (in_old_told, in_new_told) = (sign(&old.address), sign(&new.address));

    // Debian's registry has no referrers API: the fallback tag leads to the manifest.
    let (status, _) = curl(&[&format!("http://{}/v2/app/referrers/{}", old.address, in_old.manifest)]);
    assert_eq!(status, 404);
    let index = get_manifest(&old.address, "app", &fallback_tag(&in_old.manifest)).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let by_tag = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(index["manifests"][0]["artifactType"], ARTIFACT_TYPE);
    assert_eq!(Some(by_tag.as_str()), in_old_told[0]["artifact"].as_str());

    // The OCI 1.1 registry lists it itself, and needs no fallback tag.
    let listing = format!("http://{}/v2/app/referrers/{}", new.address, in_new.manifest);
    let (status, listed) = curl(&["-G", "--data-urlencode", &format!("artifactType={ARTIFACT_TYPE}"), &listing]);
    assert_eq!(status, 200);
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 1);
    let by_api = listed["manifests"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!(Some(by_api.as_str()), in_new_told[0]["artifact"].as_str());
    assert_eq!(get_manifest(&new.address, "app", &fallback_tag(&in_new.manifest)), None);

    // Byte for byte the same manifest, but for the subject's name inside the envelope's payload.
    let (old_bytes, new_bytes) =
        (get_manifest(&old.address, "app", &by_tag).unwrap(), get_manifest(&new.address, "app", &by_api).unwrap());
    assert_eq!((manifest_digest(&old_bytes), manifest_digest(&new_bytes)), (by_tag, by_api));
    let shape = |bytes: &[u8]| {
        let mut manifest: Value = serde_json::from_slice(bytes).unwrap();
        manifest["layers"][0]["digest"] = "…".into();
        manifest["layers"][0]["size"] = 0.into();
        manifest
    };
    assert_eq!(shape(&old_bytes), shape(&new_bytes));
}

#[test]
fn one_registry_gives_identical_bytes_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let key = keygen(folder.path(), &[]);
    let registry = Oci11::start();
    let image = Recipe::new("echo hello").push(folder.path(), &registry.address, "app", "1");
    let told = push(&registry.address, &image, &key);
    let artifact = told[0]["artifact"].as_str().unwrap();
    let (status, listed) = curl(&[&format!("http://{}/v2/app/referrers/{}", registry.address, image.manifest)]);
    assert_eq!(status, 200);
    let listed: Value = serde_json::from_slice(&listed).unwrap();
    let through_api =
        get_manifest(&registry.address, "app", listed["manifests"][0]["digest"].as_str().unwrap()).unwrap();
    // A mirror without the API is given the same listing under the fallback tag, and the same manifest.
    let mirror = Registry::start(folder.path(), false);
    let copied = Recipe::new("echo hello").push(folder.path(), &mirror.address, "app", "1");
    assert_eq!(copied.manifest, image.manifest);
    let manifest: Value = serde_json::from_slice(&through_api).unwrap();
    for blob in [&manifest["config"], &manifest["layers"][0]] {
        let (status, bytes) =
            curl(&[&format!("http://{}/v2/app/blobs/{}", registry.address, blob["digest"].as_str().unwrap())]);
        assert_eq!(status, 200);
        let _ = integration_tests::golden::upload(&mirror.address, "app", &bytes);
    }
    let mut entry = put_manifest(&mirror.address, "app", "", MANIFEST_TYPE, &through_api);
    entry["artifactType"] = ARTIFACT_TYPE.into();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]});
    put_manifest(&mirror.address, "app", &fallback_tag(&image.manifest), INDEX_TYPE, index.to_string().as_bytes());
    let fallback = get_manifest(&mirror.address, "app", &fallback_tag(&image.manifest)).unwrap();
    let fallback: Value = serde_json::from_slice(&fallback).unwrap();
    let through_tag =
        get_manifest(&mirror.address, "app", fallback["manifests"][0]["digest"].as_str().unwrap()).unwrap();
    assert!(through_tag == through_api, "the golden value's manifest is byte-identical both ways");
    assert_eq!(manifest_digest(&through_tag), artifact);
    // And `tclctl` verifies it through either.
    for address in [&registry.address, &mirror.address] {
        let _ = run(tclctl(&[
            "golden",
            "verify",
            &format!("{address}/app:1"),
            "--signer",
            &format!("{key}.pub"),
            "--issuer",
            "release@example.com",
            "--plain-http",
            address,
        ]))
        .ok();
    }
}

#[test]
fn the_signature_verifies_with_openssl_alone() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path(), false);
    for arguments in [[].as_slice(), &["--ed25519"]] {
        let key = keygen(folder.path(), arguments);
        let repository = format!("app{}", arguments.len());
        let image = Recipe::new("echo hello").push(folder.path(), &registry.address, &repository, "1");
        let told = push(&registry.address, &image, &key);
        let artifact = get_manifest(&registry.address, &repository, told[0]["artifact"].as_str().unwrap()).unwrap();
        let artifact: Value = serde_json::from_slice(&artifact).unwrap();
        let blob = artifact["layers"][0]["digest"].as_str().unwrap();
        let (status, envelope) = curl(&[&format!("http://{}/v2/{repository}/blobs/{blob}", registry.address)]);
        assert_eq!(status, 200);
        let envelope: Value = serde_json::from_slice(&envelope).unwrap();
        let base64 = base64::engine::general_purpose::STANDARD;
        let payload = base64.decode(envelope["payload"].as_str().unwrap()).unwrap();
        let signature = base64.decode(envelope["signatures"][0]["sig"].as_str().unwrap()).unwrap();
        let kind = envelope["payloadType"].as_str().unwrap();
        let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        signed.extend_from_slice(&payload);
        let (message, sig) = (folder.path().join("message"), folder.path().join("sig"));
        fs::write(&message, &signed).unwrap();
        fs::write(&sig, &signature).unwrap();
        let (message, sig, public) = (message.display().to_string(), sig.display().to_string(), format!("{key}.pub"));
        let openssl = |message: &str| {
            if arguments.is_empty() {
                tool("openssl", &["dgst", "-sha256", "-verify", &public, "-signature", &sig, message])
            } else {
                tool(
                    "openssl",
                    &["pkeyutl", "-verify", "-pubin", "-inkey", &public, "-rawin", "-in", message, "-sigfile", &sig],
                )
            }
        };
        let verified = openssl(&message).ok();
        assert!(verified.stdout.contains("Verified"), "{verified:#?}");
        *signed.last_mut().unwrap() ^= 1;
        fs::write(&message, &signed).unwrap();
        assert_ne!(openssl(&message).status, 0, "an altered payload does not verify");
        // The payload is about this image.
        let statement: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap()), image.manifest);
    }
}

#[test]
fn the_same_image_gives_the_same_payload_and_an_index_one_for_each_platform() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path(), false);
    let address = registry.address.as_str();
    let image = Recipe::new("echo hello").push(folder.path(), address, "app", "amd64");
    let measure = |reference: &str, more: &[&str]| {
        run(tclctl(&[&["measure", reference, "--plain-http", address, "--issuer", "i"], more].concat())).ok().stdout
    };
    let reference = format!("{address}/app:amd64");
    let (one, other) = (measure(&reference, &[]), measure(&reference, &[]));
    assert_eq!(one, other);
    assert_eq!(one.lines().count(), 1);

    // A second platform, and an index over both with an attestation of the builder's beside them.
    let scratch = folder.path().join("arm64");
    fs::create_dir_all(scratch.join("bin")).unwrap();
    fs::write(scratch.join("bin/true"), "not really a program").unwrap();
    let told = run(tclctl(&[
        "--json",
        "image",
        "push",
        "--rootfs",
        &scratch.display().to_string(),
        "--platform",
        "linux/arm64",
        "--cmd",
        "/bin/true",
        "--plain-http",
        address,
        &format!("{address}/app:arm64"),
    ]));
    let arm = told.ok().json()["manifest"].as_str().unwrap().to_owned();
    let entry = |digest: &str, os: &str, architecture: &str| {
        let size = get_manifest(address, "app", digest).unwrap().len();
        json!({"mediaType": MANIFEST_TYPE, "digest": digest, "size": size, "platform": {"os": os, "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [
        entry(&image.manifest, "linux", "amd64"), entry(&arm, "linux", "arm64"), entry(&arm, "unknown", "unknown"),
    ]});
    put_manifest(address, "app", "multi", INDEX_TYPE, index.to_string().as_bytes());
    let both = measure(&format!("{address}/app:multi"), &["--series", "s"]);
    let lines: Vec<Value> = both.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let subjects: Vec<String> = lines
        .iter()
        .map(|line| format!("sha256:{}", line["subject"][0]["digest"]["sha256"].as_str().unwrap()))
        .collect();
    assert_eq!(subjects, [image.manifest.clone(), arm.clone()]);

    let key = keygen(folder.path(), &[]);
    let multi = Image { tag: "multi".to_owned(), ..image };
    let told = push(address, &multi, &key);
    let signed: Vec<&str> = told.as_array().unwrap().iter().map(|value| value["manifest"].as_str().unwrap()).collect();
    assert_eq!(signed, [multi.manifest.as_str(), arm.as_str()]);
    let _ = run(tclctl(&[
        "golden",
        "verify",
        &format!("{address}/app:multi"),
        "--signer",
        &format!("{key}.pub"),
        "--issuer",
        "release@example.com",
        "--plain-http",
        address,
    ]))
    .ok();
}

#[test]
fn the_documented_commands_work_as_they_are_written() {
    let page = include_str!("../../docs/golden-value.md");
    let script = page.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let key = keygen(folder.path(), &[]);
    let (old, new) = (Registry::start(folder.path(), false), Oci11::start());
    for address in [&old.address, &new.address] {
        let image = Recipe::new("echo hello").push(folder.path(), address, "team/app", "1");
        let _ = push(address, &image, &key);
        let mut command = std::process::Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(folder.path())
            .env("REGISTRY", format!("http://{address}"))
            .env("REPOSITORY", "team/app")
            .env("TAG", "1")
            .env("KEY", format!("{key}.pub"));
        let seen = run(command).ok();
        assert_eq!(seen.stdout, "Verified OK\n");
    }
}
