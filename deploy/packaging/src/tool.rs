//! Programs of the machine.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use crate::{PackagingError, Result};

/// Runs one and gives what it wrote to standard output.
pub(crate) fn run<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) -> Result<String> {
    run_with(Command::new(found(program)).args(arguments))
}

/// Runs one that was made ready; it reads nothing where no input was given.
pub(crate) fn run_with(command: &mut Command) -> Result<String> {
    // Dates and sorting must not hang on who builds.
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    let ended = command.output();
    let failed = |what: String| PackagingError::Tool {
        program: command.get_program().to_string_lossy().into_owned(),
        what: what.trim().to_owned(),
    };
    let done = ended.map_err(|error| failed(error.to_string()))?;
    if !done.status.success() {
        return Err(failed(format!("{}: {}", done.status, String::from_utf8_lossy(&done.stderr))));
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Where it is; Debian keeps some in `/usr/sbin`, which is not always on the path.
pub(crate) fn found(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| program.into())
}
