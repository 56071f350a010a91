//! The kernel a guest boots, and its modules.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// A kernel of this machine whose modules are installed too.
#[derive(Debug, Clone)]
pub struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    /// The one `TCL_TEST_KERNEL` names, a path that ends in `vmlinuz-VERSION`; otherwise the newest of `/boot`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn find() -> Self {
        if let Some(image) = std::env::var_os("TCL_TEST_KERNEL") {
            let image = PathBuf::from(image);
            return Self::at(&image).unwrap_or_else(|| panic!("{}: no kernel with modules", image.display()));
        }
        let images = fs::read_dir("/boot").unwrap().flatten().map(|entry| entry.path());
        images
            .filter_map(|image| Self::at(&image))
            .max_by_key(|kernel| order(kernel.version()))
            .expect("no kernel in /boot; `cargo xtask test` installs linux-image-amd64")
    }

    fn at(image: &Path) -> Option<Self> {
        let version = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?;
        let modules = Path::new("/lib/modules").join(version);
        modules.join("modules.dep").is_file().then(|| Self { image: image.to_path_buf(), modules })
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
    pub(super) fn modules(&self, names: &[String]) -> Vec<PathBuf> {
        let read = |file: &str| fs::read_to_string(self.modules.join(file)).unwrap();
        let dependencies = read("modules.dep");
        let built_in = read("modules.builtin");
        // Each line: a file, a colon, all it needs, the ones to load first last.
        let by_name: BTreeMap<String, (&str, &str)> = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(file, needs)| (module(file), (file, needs)))
            .collect();
        let mut found: Vec<PathBuf> = Vec::new();
        for name in names {
            let name = name.replace('-', "_");
            let Some((file, needs)) = by_name.get(&name) else {
                assert!(built_in.lines().any(|file| module(file) == name), "{} has no module {name}", self.version());
                continue;
            };
            for file in needs.split_whitespace().rev().chain([*file]) {
                let path = self.modules.join(file);
                if !found.contains(&path) {
                    found.push(path);
                }
            }
        }
        found
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
