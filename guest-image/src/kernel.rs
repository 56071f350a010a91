//! A kernel, and its modules with all they need.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{ImageError, io};

/// A kernel whose modules are there too, with `modules.dep`.
#[derive(Debug, Clone)]
pub struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The kernel `vmlinuz-VERSION` at this path, with its modules in `modules/VERSION`; `None` where one is missing.
    #[must_use]
    pub fn at(image: &Path, modules: &Path) -> Option<Self> {
        let version = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?;
        let modules = modules.join(version);
        modules.join("modules.dep").is_file().then(|| Self { image: image.to_path_buf(), modules })
    }

    /// The newest kernel of a folder.
    #[must_use]
    pub fn newest(folder: &Path, modules: &Path) -> Option<Self> {
        let images = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
        images.filter_map(|image| Self::at(&image, modules)).max_by_key(|kernel| order(kernel.version()))
    }

    /// Its version, as `uname -r` gives it.
    #[must_use]
    pub fn version(&self) -> &str {
        self.modules.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }

    /// The compressed kernel.
    #[must_use]
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Files of the modules `names`, each after those it depends on; what is built in is left out.
    ///
    /// # Errors
    /// The kernel has one of them in neither form.
    pub fn modules<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<PathBuf>, ImageError> {
        let read = |file: &str| {
            let path = self.modules.join(file);
            fs::read_to_string(&path).map_err(io(&path))
        };
        let dependencies = read("modules.dep")?;
        let built_in = read("modules.builtin")?;
        // Each line: a file, a colon, all it needs, the ones to load first last.
        let by_name: BTreeMap<String, (&str, &str)> = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| (module(file), (file, needs)))
            .collect();
        let mut found: Vec<PathBuf> = Vec::new();
        for name in names {
            let name = name.as_ref().replace('-', "_");
            let Some((file, needs)) = by_name.get(&name) else {
                if built_in.lines().any(|file| module(file) == name) {
                    continue;
                }
                return Err(ImageError::input(self.version(), format!("has no module {name}")));
            };
            for file in needs.split_whitespace().rev().chain([*file]) {
                let path = self.modules.join(file);
                if !found.contains(&path) {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }
}

/// A module's name, from its file.
fn module(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split(".ko").next().unwrap_or(name).replace('-', "_")
}

/// Numbers in a version, to tell 6.1.0-10 from 6.1.0-9.
fn order(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}
