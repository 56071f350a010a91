//! `test`, `check` and `docs`.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::prerequisites;
use crate::shell::{cargo, output, root, run};

/// What of the attester needs a library in C: linked into nothing but the program that its test runs in a guest.
const AZURE: &[&str] = &["--workspace", "--features", "attester/azure", "--bin", "azure_evidence"];

/// Every test of the workspace, with the real registry, TPM simulator and container runtime.
pub(crate) fn test() -> Result<()> {
    prerequisites::require_root()?;
    prerequisites::install()?;
    let _ = prerequisites::vsock()?;
    // Binaries and tests in one go, so that the tests find the programs they start and nothing is built twice.
    run(cargo(&["build", "--workspace", "--all-targets"]))?;
    run(cargo(&[&["build"][..], AZURE].concat()))?;
    run(cargo(&["test", "--workspace", "--no-fail-fast"]))
}

/// Everything that is checked without running a container.
pub(crate) fn check() -> Result<()> {
    run(cargo(&["fmt", "--all", "--check"]))?;
    run(cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run(cargo(&[&["clippy"][..], AZURE, &["--", "-D", "warnings"]].concat()))?;
    let mut documentation = cargo(&["doc", "--workspace", "--no-deps"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    run(documentation)?;
    install_cargo_deny()?;
    run(cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
    run(cargo(&["test", "--package", "integration-tests", "--test", "architecture"]))
}

/// Writes the generated documentation anew.
pub(crate) fn docs() -> Result<()> {
    let page = output(cargo(&["run", "--quiet", "--package", "tclctl", "--", "reason-codes", "--markdown"]))?;
    let path = root().join("docs/reason-codes.md");
    std::fs::write(&path, page).with_context(|| path.display().to_string())?;
    println!("docs/reason-codes.md is written.");
    Ok(())
}

fn install_cargo_deny() -> Result<()> {
    let there = output({
        let mut command = Command::new("cargo-deny");
        command.arg("--version");
        command
    });
    if there.is_ok() {
        return Ok(());
    }
    println!("cargo-deny is missing, to be built from crates.io (a few minutes).");
    run(cargo(&["install", "--locked", "cargo-deny"]))
}
