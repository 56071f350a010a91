//! The programs that packages are made of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::file;
use crate::{Result, Tree, tool};

/// A folder of built programs, such as `target/release`.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// The programs of this folder.
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf() }
    }

    /// One program's bytes without symbols and debugging information.
    ///
    /// # Errors
    /// [`crate::PackagingError`]: it is not there, or `strip` failed.
    pub fn stripped(&self, name: &str) -> Result<Vec<u8>> {
        let program = self.folder.join(name);
        fs::metadata(&program).map_err(file(&program))?;
        let folder = tempfile::tempdir().map_err(file(&std::env::temp_dir()))?;
        let stripped = folder.path().join(name);
        tool::run("strip", ["--strip-all".as_ref(), "-o".as_ref(), stripped.as_os_str(), program.as_os_str()])?;
        fs::read(&stripped).map_err(file(&stripped))
    }

    /// Adds one to a tree, with the shared libraries of this machine that it is linked against, loader included.
    ///
    /// # Errors
    /// [`crate::PackagingError`].
    pub fn install_with_libraries(&self, tree: &mut Tree, name: &str) -> Result<()> {
        tree.file(&format!("usr/bin/{name}"), 0o755, self.stripped(name)?);
        for library in libraries(&self.folder.join(name))? {
            let path = library.to_string_lossy();
            tree.copy(path.trim_start_matches('/'), 0o755, &library)?;
        }
        Ok(())
    }
}

/// Paths of what the loader would load for a program, itself included; nothing for a static one.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    // A static program makes ldd fail, which is no failure here: readelf tells whether there is a loader.
    let headers = tool::run("readelf", ["--program-headers".as_ref(), program.as_os_str()])?;
    if !headers.contains("INTERP") {
        return Ok(BTreeSet::new());
    }
    let listed = tool::run_with(Command::new(tool::found("ldd")).arg(program))?;
    // "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" or "/lib64/ld-linux-x86-64.so.2 (0x…)".
    Ok(listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}
