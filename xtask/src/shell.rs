//! Running commands, and where the workspace is.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// `cargo` as it was called, in the workspace's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Where `cargo` puts binaries of the dev profile.
pub(crate) fn binaries() -> Result<PathBuf> {
    Ok(target()?.join("debug"))
}

/// Where `cargo` puts binaries of the release profile.
pub(crate) fn release_binaries() -> Result<PathBuf> {
    Ok(target()?.join("release"))
}

/// The target folder.
pub(crate) fn target() -> Result<PathBuf> {
    let metadata = output(cargo(&["metadata", "--format-version=1", "--no-deps"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let target =
        metadata.get("target_directory").and_then(|v| v.as_str()).context("cargo metadata: target_directory")?;
    Ok(target.into())
}

/// Shows a command as one would type it and runs it; its failure is ours.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let text = shown(&command);
    println!("$ {text}");
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot run {text}"))?;
    if !status.success() {
        bail!("`{text}` failed ({status})");
    }
    Ok(())
}

/// Runs a command quietly and gives what it wrote to standard output.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let text = shown(&command);
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {text}"))?;
    if !done.status.success() {
        bail!("`{text}` failed ({}): {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    String::from_utf8(done.stdout).with_context(|| format!("{text}: not UTF-8"))
}

/// A command as one would type it; only the program's name, not where it lies.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut text = program;
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        text.push(' ');
        if !argument.is_empty() && argument.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:=@,+%".contains(&b)) {
            text.push_str(&argument);
        } else {
            text.push('\'');
            text.push_str(&argument.replace('\'', "'\\''"));
            text.push('\'');
        }
    }
    text
}
