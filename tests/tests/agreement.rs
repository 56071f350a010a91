//! One function decides in the guest and in the attestor: for every input both modes give one verdict and
//! one code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::fs;

use integration_tests::command::run;
use integration_tests::golden::{attach, measured, sign};
use integration_tests::image::{Image, Recipe};
use integration_tests::world::ISSUER;
use integration_tests::{Options, Tee, World};
use protocols::digest::Sha256Digest;
use protocols::dsse::Envelope;
use protocols::golden::{GoldenValue, PAYLOAD_TYPE, Statement};
use protocols::keys::{KeyKind, SigningKey};
use protocols::time::Timestamp;

/// One input: how the world is prepared, what the launch asks for, and the verdict both modes must reach.
struct Case {
    name: &'static str,
    prepare: fn(&World, &Image),
    ask: &'static [&'static str],
    verdict: &'static str,
}

fn store(world: &World, image: &Image, key: &SigningKey, edit: impl FnOnce(&mut Statement<GoldenValue>)) {
    let arguments = ["--issuer", ISSUER, "--environment", "development", "--days", "30"];
    let mut statement = measured(&world.registry.address, image, &arguments);
    statement.predicate.process = Some(serde_json::from_str(POLICY).unwrap());
    edit(&mut statement);
    attach(&world.registry.address, &image.repository, &image.manifest, &sign(&statement, key));
}

const POLICY: &str = r#"{"mounts":["/marker"],"env":["LEVEL=*"]}"#;

const CASES: &[Case] = &[
    Case { name: "pass", prepare: |w, i| store(w, i, &w.release, |_| {}), ask: &[], verdict: "pass" },
    Case {
        name: "allowed environment",
        prepare: |w, i| store(w, i, &w.release, |_| {}),
        ask: &["-e", "LEVEL=debug"],
        verdict: "pass",
    },
    Case {
        name: "signed by two, one known",
        prepare: |w, i| {
            store(w, i, &SigningKey::generate(KeyKind::Ed25519).unwrap(), |_| {});
            store(w, i, &w.release, |_| {});
        },
        ask: &[],
        verdict: "pass",
    },
    Case { name: "none", prepare: |_, _| {}, ask: &[], verdict: "golden.missing" },
    Case {
        name: "stranger",
        prepare: |w, i| store(w, i, &SigningKey::generate(KeyKind::EcdsaP256).unwrap(), |_| {}),
        ask: &[],
        verdict: "golden.signer",
    },
    Case {
        name: "borrowed name",
        prepare: |w, i| store(w, i, &w.release, |s| s.predicate.issuer = "other@example.com".to_owned()),
        ask: &[],
        verdict: "golden.signer",
    },
    Case {
        name: "altered",
        prepare: |w, i| {
            let statement = measured(&w.registry.address, i, &["--issuer", ISSUER, "--environment", "development"]);
            let mut envelope = Envelope::parse(&sign(&statement, &w.release)).unwrap();
            let last = envelope.signatures[0].sig.last_mut().unwrap();
            *last ^= 1;
            attach(&w.registry.address, &i.repository, &i.manifest, &envelope.to_bytes());
        },
        ask: &[],
        verdict: "golden.signature",
    },
    Case {
        name: "not a statement",
        prepare: |w, i| {
            let envelope = Envelope::sign(PAYLOAD_TYPE, b"[]".to_vec(), &w.release);
            attach(&w.registry.address, &i.repository, &i.manifest, &envelope.to_bytes());
        },
        ask: &[],
        verdict: "golden.malformed",
    },
    Case {
        name: "other subject",
        prepare: |w, i| {
            store(w, i, &w.release, |s| {
                s.subject[0].digest.insert("sha256".to_owned(), Sha256Digest::of(b"another").hex());
            });
        },
        ask: &[],
        verdict: "golden.subject",
    },
    Case {
        name: "expired",
        prepare: |w, i| store(w, i, &w.release, |s| s.predicate.expires = Timestamp(Timestamp::now().0 - 1)),
        ask: &[],
        verdict: "golden.expired",
    },
    Case {
        name: "conflict",
        prepare: |w, i| {
            store(w, i, &w.release, |_| {});
            store(w, i, &w.release, |s| s.predicate.expires = s.predicate.expires.plus(60));
        },
        ask: &[],
        verdict: "golden.conflict",
    },
    Case {
        name: "revoked",
        prepare: |w, i| {
            store(w, i, &w.release, |_| {});
            let (key, address) = (w.path("release.pem").display().to_string(), w.registry.address.clone());
            let reference = format!("{address}/{}:{}", i.repository, i.tag);
            let arguments =
                ["golden", "revoke", &reference, "--key", &key, "--issuer", ISSUER, "--plain-http", &address];
            let _ = run(w.tclctl(&arguments)).ok();
        },
        ask: &[],
        verdict: "golden.revoked",
    },
    Case {
        name: "config",
        prepare: |w, i| store(w, i, &w.release, |s| s.predicate.config = Sha256Digest::of(b"another")),
        ask: &[],
        verdict: "image.config",
    },
    Case {
        name: "layers",
        prepare: |w, i| store(w, i, &w.release, |s| s.predicate.layers.reverse()),
        ask: &[],
        verdict: "image.layer",
    },
    Case {
        name: "root file system",
        prepare: |w, i| {
            store(w, i, &w.release, |s| {
                s.predicate.rootfs.values_mut().for_each(|digest| *digest = Sha256Digest::of(b"another"));
            });
        },
        ask: &[],
        verdict: "image.rootfs",
    },
    Case {
        name: "arguments",
        prepare: |w, i| store(w, i, &w.release, |_| {}),
        ask: &["--", "/bin/true", "more"],
        verdict: "policy.process",
    },
    Case {
        name: "environment entry",
        prepare: |w, i| store(w, i, &w.release, |_| {}),
        ask: &["-e", "LD_PRELOAD=/evil.so"],
        verdict: "policy.process",
    },
    Case {
        name: "user",
        prepare: |w, i| store(w, i, &w.release, |_| {}),
        ask: &["-u", "0:1"],
        verdict: "policy.process",
    },
];

/// Prepares every case in a repository of its own, launches it in both modes, and compares.
fn agree(world: &World) {
    let mut table = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        // Two layers, so that their order can be wrong.
        let recipe = Recipe::new("true").layer("name", case.name);
        let image = world.push(&recipe, &format!("case{number}"), "1");
        (case.prepare)(world, &image);
        let verdicts: Vec<String> =
            ["local", "remote"].iter().map(|mode| verdict(world, &image, mode, case.ask)).collect();
        table.push((case.name, case.verdict, verdicts));
    }
    for (name, expected, verdicts) in &table {
        assert!(verdicts.iter().all(|verdict| verdict == expected), "{name}: {expected}, but {verdicts:?}\n{table:#?}");
    }
    assert!(table.len() >= 12);
    world.nothing_left();
}

/// `pass` or the code, and that the workload ran exactly when it passed.
fn verdict(world: &World, image: &Image, mode: &str, ask: &[&str]) -> String {
    world.unmark();
    let file = world.path("status.json");
    let _ = fs::remove_file(&file);
    let path = file.display().to_string();
    let seen = world.run(image, &[&["--mode", mode, "--status-file", path.as_str()], ask].concat());
    let told: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let verdict = match told["producer"].as_str().unwrap() {
        "workload" => "pass".to_owned(),
        _ => told["refusal"]["code"].as_str().unwrap_or_default().to_owned(),
    };
    assert_eq!(world.marked(), verdict == "pass", "{mode}: {seen:#?}");
    if verdict != "pass" {
        seen.refused(77, &verdict);
        let source = told["refusal"]["source"].as_str().unwrap();
        assert_eq!(source, if mode == "local" { "guest" } else { "attestor" }, "who decided: {told}");
    }
    verdict
}

#[test]
fn both_modes_agree_with_a_tpm() {
    let world = World::new();
    agree(&world);
    let _ = world.verify_log().ok();
}

#[test]
fn both_modes_agree_with_simulated_snp() {
    agree(&World::with(Options { tee: Tee::SimulatedSnp, ..Options::default() }));
}

#[test]
fn both_modes_agree_with_simulated_tdx() {
    agree(&World::with(Options { tee: Tee::SimulatedTdx, ..Options::default() }));
}
