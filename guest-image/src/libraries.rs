//! The shared libraries that programs are linked to, among the packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use goblin::elf::Elf;

use crate::error::{ImageError, io};
use crate::tree::Tree;

/// Where Debian keeps them.
const FOLDERS: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
/// Where a guest has them.
const PLACE: &str = "/usr/lib/x86_64-linux-gnu";
/// The loader's path, as programs name it; `/lib64` is a link to `/usr/lib64`.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Adds to `tree` what the programs need, each library once.
pub(crate) fn add(tree: &mut Tree, programs: &[PathBuf], packages: &[PathBuf]) -> Result<(), ImageError> {
    let mut open: Vec<PathBuf> = programs.to_vec();
    let mut seen = BTreeSet::new();
    while let Some(path) = open.pop() {
        let bytes = fs::read(&path).map_err(io(&path))?;
        let what = || path.display().to_string();
        let elf = Elf::parse(&bytes).map_err(|error| ImageError::input(what(), error.to_string()))?;
        match elf.interpreter {
            None => {}
            Some(LOADER) => {
                let loader = find(packages, "ld-linux-x86-64.so.2")?;
                tree.copy("/usr/lib64/ld-linux-x86-64.so.2", &loader);
            }
            Some(other) => return Err(ImageError::input(what(), format!("wants the loader {other}"))),
        }
        for name in elf.libraries {
            if name.starts_with("ld-linux") || !seen.insert(name.to_owned()) {
                continue;
            }
            let library = find(packages, name)?;
            tree.copy(&format!("{PLACE}/{name}"), &library);
            open.push(library);
        }
    }
    Ok(())
}

fn find(packages: &[PathBuf], name: &str) -> Result<PathBuf, ImageError> {
    let candidates = packages.iter().flat_map(|package| FOLDERS.map(|folder| package.join(folder).join(name)));
    let mut found = candidates.filter(|path| path.is_file());
    found.next().ok_or_else(|| ImageError::input(name, "no package of the lock has this library"))
}

/// A program without what only debuggers read, so that two builds of it in different folders give the same image.
pub(crate) fn stripped(program: &Path, to: &Path) -> Result<(), ImageError> {
    let strip = ["--strip-all".as_ref(), "-o".as_ref(), to.as_os_str(), program.as_os_str()];
    crate::programs::output("strip", &strip).map(drop)
}
