//! Kernel modules, in the order of their names.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::system::finit_module;

use crate::error::{InitError, io};

/// Where they lie, in the initrd and in a verity root: `NN-NAME.ko`, each after those it needs.
const FOLDER: &str = "/usr/lib/guest/modules";

/// Loads all of them. Those that find no hardware of theirs are no failure.
pub(crate) fn load() -> Result<(), InitError> {
    let failed = || io(FOLDER);
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed()(error)),
    };
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed())?;
    files.sort();
    files.iter().try_for_each(|file| one(file))
}

fn one(path: &Path) -> Result<(), InitError> {
    let file = File::open(path).map_err(io(path.display().to_string()))?;
    match finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST | Errno::NODEV) => Ok(()),
        Err(errno) => Err(io(format!("load {}", path.display()))(errno)),
    }
}
