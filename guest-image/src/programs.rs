//! Programs of this machine that builds take.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use crate::error::{ImageError, io};

/// Runs a program and gives what it wrote to standard output.
pub(crate) fn output<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[S]) -> Result<String, ImageError> {
    output_in(Path::new("."), program, arguments)
}

/// The same in a folder.
pub(crate) fn output_in<S: AsRef<OsStr>>(
    folder: &Path,
    program: impl AsRef<OsStr>,
    arguments: &[S],
) -> Result<String, ImageError> {
    let mut command = Command::new(found(program.as_ref()));
    // Neither the language nor the time of this machine gets into an image.
    command.args(arguments).current_dir(folder).env("LC_ALL", "C").env("TZ", "UTC").env("SOURCE_DATE_EPOCH", "0");
    let shown = || {
        let words = std::iter::once(program.as_ref()).chain(arguments.iter().map(AsRef::as_ref));
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let failed = |told: String| ImageError::Program { command: shown(), told };
    let done = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if !done.status.success() {
        let told = String::from_utf8_lossy(&done.stderr);
        return Err(failed(format!("{}: {}", done.status, told.trim())));
    }
    String::from_utf8(done.stdout).map_err(|_| failed("its output is no text".to_owned()))
}

/// Debian keeps some programs in /usr/sbin, which is not always on the path.
#[must_use]
pub fn found(program: &OsStr) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut candidates = folders.map(|folder| folder.join(program)).filter(|candidate| candidate.is_file());
    candidates.next().unwrap_or_else(|| PathBuf::from(program))
}

/// A file's SHA-256, as 64 hex digits.
///
/// # Errors
/// It cannot be read.
pub fn sha256(path: &Path) -> Result<String, ImageError> {
    let mut file = std::fs::File::open(path).map_err(io(path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(io(path))? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}
