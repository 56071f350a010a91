//! What the tests of packages share.
#![allow(dead_code)] // each test uses a part of it

pub(crate) mod chart;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use packaging::{Epoch, Programs};

pub(crate) const EPOCH: Epoch = Epoch(1_750_000_000);
/// The oldest version of Kubernetes that the chart is for, and the newest whose schemas are there.
pub(crate) const KUBERNETES: &[&str] = &["1.30", "1.37"];

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// The workspace's programs: in the folder that `TCL_BINARIES` names, else beside the test's own.
pub(crate) fn programs() -> Programs {
    Programs::of(&binaries())
}

pub(crate) fn binaries() -> PathBuf {
    let named = std::env::var_os("TCL_BINARIES").map(PathBuf::from);
    named.unwrap_or_else(|| std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_path_buf())
}

/// What a command said, and whether it succeeded.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn seen(command: &mut Command) -> Seen {
    let program = command.get_program().to_string_lossy().into_owned();
    let done = command.output().unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask test` installs it"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Seen { ok: done.status.success(), out: text(&done.stdout), err: text(&done.stderr) }
}

#[track_caller]
pub(crate) fn ok(command: &mut Command) -> String {
    let seen = seen(command);
    assert!(seen.ok, "{command:?} failed:\n{}\n{}", seen.out, seen.err);
    seen.out
}

#[track_caller]
pub(crate) fn run<I: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = I>) -> String {
    ok(Command::new(program).args(arguments))
}

/// With this as standard input.
pub(crate) fn reading(command: &mut Command, folder: &Path, text: &str) -> Seen {
    let input = folder.join("input");
    std::fs::write(&input, text).unwrap();
    seen(command.stdin(Stdio::from(std::fs::File::open(input).unwrap())))
}

/// Every file beneath a folder with its bytes, by its path.
pub(crate) fn files(folder: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if path.is_file() {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}
