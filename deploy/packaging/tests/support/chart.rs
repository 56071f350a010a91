//! Helm, and what it makes of the chart.
#![allow(dead_code)] // each test uses a part of it

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{KUBERNETES, Seen, ok, reading, seen, workspace};

/// The sets of values that the chart comes with.
pub(crate) const EXAMPLES: &[&str] = &["development", "production-embedded", "production-postgres"];

pub(crate) fn chart() -> PathBuf {
    workspace().join("deploy/helm/trusted-container-launcher")
}

/// Where helm and the schemas are, which are installed where they are not yet.
fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let folder = workspace().join("deploy/helm");
        // Other pins, another folder.
        let pins = hex::encode(Sha256::digest(std::fs::read(folder.join("requirements.txt")).unwrap()));
        let target = super::binaries().join("../tools").join(format!("helm-{}", &pins[..12]));
        if !target.join("helm").exists() {
            ok(Command::new("python3").arg(folder.join("tools.py")).arg(&target));
        }
        target
    })
}

pub(crate) fn helm(arguments: &[&str]) -> Seen {
    helm_on(&chart(), arguments)
}

/// On the chart in a folder or an archive.
pub(crate) fn helm_on(chart: &Path, arguments: &[&str]) -> Seen {
    let mut command = Command::new(tools().join("helm"));
    // Nothing of whoever runs the tests counts.
    command.env("HOME", "/nonexistent").env("XDG_CONFIG_HOME", "/nonexistent").env("XDG_CACHE_HOME", "/nonexistent");
    seen(command.args(arguments).arg(chart))
}

/// What `helm template` says of an example, with more arguments.
pub(crate) fn template(example: &str, more: &[&str]) -> Seen {
    let values = chart().join(format!("examples/{example}.yaml"));
    helm(&[&["template", "tcl", "--namespace", "attestation", "--values", values.to_str().unwrap()], more].concat())
}

/// Holds objects in YAML to the schemas of Kubernetes.
pub(crate) fn checked(folder: &Path, yaml: &str) -> Result<Vec<Value>, String> {
    let mut command = Command::new(tools().join("venv/bin/python3"));
    command.arg(workspace().join("deploy/helm/check.py")).args(KUBERNETES);
    let seen = reading(&mut command, folder, yaml);
    if seen.ok { Ok(serde_json::from_str(&seen.out).unwrap()) } else { Err(seen.err) }
}

/// The objects of an example.
pub(crate) fn objects(folder: &Path, example: &str) -> Vec<Value> {
    let seen = template(example, &[]);
    assert!(seen.ok, "{example}: {}", seen.err);
    checked(folder, &seen.out).unwrap()
}

pub(crate) fn of<'o>(objects: &'o [Value], kind: &str) -> Vec<&'o Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}
