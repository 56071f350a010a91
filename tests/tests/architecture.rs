//! The house: who may depend on whom, which lints hold, and that unsafe code has one place.

#![allow(clippy::unwrap_used)] // a test fails by panicking

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// Every edge that may exist between crates of ours, as ARCHITECTURE.md draws them.
const ALLOWED: &[(&str, &[&str])] = &[
    ("kata-protocol", &[]),
    ("protocols", &["kata-protocol"]),
    ("sys", &[]),
    ("simulated-tee", &["protocols"]),
    ("registry", &["protocols"]),
    ("kbs-client", &["protocols"]),
    ("verifier", &["protocols"]),
    ("reference-values", &["verifier", "protocols"]),
    ("appraisal", &["reference-values", "verifier", "protocols"]),
    ("image-rs-fork", &["registry", "sys", "protocols"]),
    ("attester", &["sys", "protocols", "simulated-tee"]),
    ("boot", &["protocols"]),
    ("image-disk", &["sys", "protocols"]),
    ("sandbox", &["sys", "protocols"]),
    ("agent-policy", &["protocols"]),
    (
        "guest-agent",
        &[
            "image-rs-fork",
            "attester",
            "boot",
            "image-disk",
            "agent-policy",
            "sandbox",
            "kbs-client",
            "verifier",
            "sys",
            "protocols",
        ],
    ),
    ("endorsements", &["verifier", "protocols"]),
    ("audit-log", &["protocols"]),
    ("broker-store", &["verifier", "protocols"]),
    ("release", &["appraisal", "protocols"]),
    (
        "key-broker",
        &[
            "appraisal",
            "audit-log",
            "broker-store",
            "endorsements",
            "reference-values",
            "release",
            "verifier",
            "registry",
            "protocols",
        ],
    ),
    (
        "tclctl",
        &[
            "image-rs-fork",
            "registry",
            "agent-policy",
            "appraisal",
            "attester",
            "endorsements",
            "audit-log",
            "reference-values",
            "release",
            "verifier",
            "kbs-client",
            "simulated-tee",
            "protocols",
        ],
    ),
    ("node-installer", &[]),
    ("packaging", &[]),
    ("guest-vm", &[]),
    ("remote-hypervisor", &["guest-vm"]),
    ("guest-image", &["guest-vm"]),
    ("guest-init", &["sys", "protocols"]),
    ("xtask", &["packaging", "guest-image", "guest-vm"]),
];

/// Tests of a crate may also use these, which makes no edge in what is shipped.
const ALLOWED_IN_TESTS: &[(&str, &[&str])] = &[
    ("verifier", &["simulated-tee"]),
    ("attester", &["verifier"]),
    ("endorsements", &["simulated-tee"]),
    ("appraisal", &["simulated-tee"]),
    ("key-broker", &["simulated-tee", "kbs-client"]),
    ("kbs-client", &["simulated-tee"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).exec().unwrap()
}

fn members(metadata: &Metadata) -> Vec<&Package> {
    metadata.workspace_packages()
}

/// Edges to other members, of shipped code or of tests.
fn edges(package: &Package, names: &BTreeSet<String>, tests: bool) -> BTreeSet<String> {
    package
        .dependencies
        .iter()
        .filter(|dependency| (dependency.kind == DependencyKind::Development) == tests)
        .map(|dependency| dependency.name.clone())
        .filter(|name| names.contains(name))
        .collect()
}

#[test]
fn every_edge_between_crates_is_one_the_architecture_draws() {
    let metadata = metadata();
    let names: BTreeSet<String> = members(&metadata).iter().map(|package| package.name.to_string()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let in_tests: BTreeMap<&str, &[&str]> = ALLOWED_IN_TESTS.iter().copied().collect();
    for package in members(&metadata) {
        let name = package.name.as_str();
        if name == "integration-tests" {
            continue;
        }
        let drawn = allowed.get(name).unwrap_or_else(|| panic!("{name} is not in the architecture: draw it first"));
        for edge in edges(package, &names, false) {
            assert!(drawn.contains(&edge.as_str()), "{name} -> {edge} is not in the architecture");
        }
        for edge in edges(package, &names, true) {
            let more = in_tests.get(name).copied().unwrap_or_default();
            assert!(
                drawn.contains(&edge.as_str()) || more.contains(&edge.as_str()),
                "{name} -> {edge} is not in the architecture, not even for tests"
            );
        }
    }
    for name in allowed.keys() {
        assert!(names.contains(*name), "{name} is drawn but not there");
    }
}

#[test]
fn nobody_but_the_tests_depends_on_the_agent_or_the_broker() {
    let metadata = metadata();
    for package in members(&metadata) {
        for dependency in &package.dependencies {
            let to_a_daemon = ["guest-agent", "key-broker"].contains(&dependency.name.as_str());
            assert!(
                !to_a_daemon || package.name.as_str() == "integration-tests",
                "{} -> {}",
                package.name,
                dependency.name
            );
        }
    }
}

/// Everything a package reaches through normal dependencies when it is built by itself: the metadata's own
/// resolution joins the features that other members ask for.
fn reaches(name: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = std::process::Command::new(cargo)
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package", name])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let seen: BTreeSet<String> = String::from_utf8(tree.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect();
    assert!(seen.contains("serde"), "the tree of {name} is read: {seen:?}");
    seen
}

#[test]
fn the_verifier_sees_no_network_no_runtime_and_no_evidence_source() {
    let seen = reaches("verifier");
    for absent in
        ["attester", "registry", "kbs-client", "image-rs-fork", "simulated-tee", "tokio", "reqwest", "hyper", "axum"]
    {
        assert!(!seen.contains(absent), "verifier reaches {absent}");
    }
}

#[test]
fn the_kbs_client_gets_evidence_as_a_value() {
    let seen = reaches("kbs-client");
    for absent in ["attester", "sys", "simulated-tee", "verifier", "image-rs-fork"] {
        assert!(!seen.contains(absent), "kbs-client reaches {absent}");
    }
}

#[test]
fn the_protocols_do_no_io() {
    let seen = reaches("protocols");
    for absent in ["tokio", "reqwest", "hyper", "axum", "rustix", "ttrpc"] {
        assert!(!seen.contains(absent), "protocols reaches {absent}");
    }
}

#[test]
fn every_crate_takes_the_one_lint_table_and_only_sys_has_unsafe_code() {
    for package in members(&metadata()) {
        let name = package.name.as_str();
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        let table: toml::Table = manifest.parse().unwrap();
        let workspace = table["lints"].get("workspace").and_then(toml::Value::as_bool);
        if name == "sys" {
            if workspace != Some(true) {
                assert_eq!(
                    table["lints"]["rust"]["unsafe_code"].as_str(),
                    Some("deny"),
                    "sys denies what it does not allow by name"
                );
            }
        } else {
            assert_eq!(workspace, Some(true), "{name} must take the workspace's lints");
            let folder = package.manifest_path.parent().unwrap();
            for file in sources(folder.join("src").as_std_path()) {
                let text = std::fs::read_to_string(&file).unwrap();
                assert!(!text.contains("allow(unsafe_code"), "{} allows unsafe code", file.display());
            }
        }
    }
    let root = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml")).unwrap();
    let root: toml::Table = root.parse().unwrap();
    assert_eq!(root["workspace"]["lints"]["rust"]["unsafe_code"].as_str(), Some("forbid"));
}

/// The part of a source file that is tests: all of one in a folder or file of tests, else the module at its end. Where the
/// workspace lies says nothing, nor does a module of tests that is declared above code.
fn tests_of(path: &Path, root: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let name = path.strip_prefix(root).unwrap().to_string_lossy();
    if name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("tests.rs") {
        return text;
    }
    text.split_once("\nmod tests {").map(|(_, tests)| tests.to_owned()).unwrap_or_default()
}

#[test]
fn every_reason_code_is_named_in_a_test() {
    let metadata = metadata();
    let mut folders = Vec::new();
    for package in members(&metadata) {
        let folder = package.manifest_path.parent().unwrap();
        folders.extend(["src", "tests"].map(|name| folder.join(name).into_std_path_buf()));
    }
    let files = folders.iter().filter(|folder| folder.is_dir()).flat_map(|folder| sources(folder));
    let tests: String = files.map(|file| tests_of(&file, metadata.workspace_root.as_std_path())).collect();
    for entry in protocols::reason::ALL {
        let constant = entry.code.replace('.', "_").to_uppercase();
        assert!(tests.contains(entry.code) || tests.contains(&constant), "{} is named in no test", entry.code);
    }
}

fn sources(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
