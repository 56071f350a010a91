//! Debian packages, described by `[package.metadata.deb]` of a crate in the terms of `cargo-deb`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::error::file;
use crate::{Epoch, PackagingError, Programs, Result, Tree, tool};

/// The crates that become packages, by their folders.
pub const CRATES: &[&str] = &["guest-agent", "key-broker", "tclctl"];
/// What `assets` calls a program that was built.
const BUILT: &str = "target/release/";
const SCRIPTS: &[&str] = &["preinst", "postinst", "prerm", "postrm"];

#[derive(Debug, Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    description: String,
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    deb: Description,
}

/// Of the keys that `cargo-deb` reads those that are used here; others are refused, lest they be believed to count.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Description {
    maintainer: String,
    extended_description: String,
    section: String,
    priority: String,
    depends: String,
    #[serde(default)]
    recommends: String,
    #[serde(default)]
    conf_files: Vec<String>,
    maintainer_scripts: Option<PathBuf>,
    /// Source, destination (a folder where it ends with a slash), permissions in octal.
    assets: Vec<(String, String, String)>,
}

/// Makes the package of the crate in this folder of `workspace`, as `out/NAME_VERSION_ARCHITECTURE.deb`.
///
/// # Errors
/// [`PackagingError`].
pub fn package(workspace: &Path, folder: &str, programs: &Programs, out: &Path, epoch: Epoch) -> Result<PathBuf> {
    let crate_folder = workspace.join(folder);
    let path = crate_folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).map_err(file(&path))?;
    let wrong = |what: String| PackagingError::Description { path: path.clone(), what };
    let Manifest { package } = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let deb = &package.metadata.deb;
    let mut tree = Tree::default();
    for (source, destination, mode) in &deb.assets {
        let mode = u32::from_str_radix(mode, 8).map_err(|error| wrong(format!("{mode}: {error}")))?;
        let name = source.rsplit('/').next().unwrap_or(source);
        let place = if destination.ends_with('/') { format!("{destination}{name}") } else { destination.clone() };
        match source.strip_prefix(BUILT) {
            Some(program) => tree.file(&place, mode, programs.stripped(program)?),
            None => tree.copy(&place, mode, &crate_folder.join(source))?,
        }
    }
    let installed = tree.size().div_ceil(1024);
    tree.file("DEBIAN/control", 0o644, control(&package, installed));
    if !deb.conf_files.is_empty() {
        tree.file("DEBIAN/conffiles", 0o644, deb.conf_files.join("\n") + "\n");
    }
    if let Some(scripts) = &deb.maintainer_scripts {
        let scripts = crate_folder.join(scripts);
        for name in SCRIPTS.iter().filter(|name| scripts.join(name).exists()) {
            tree.copy(&format!("DEBIAN/{name}"), 0o755, &scripts.join(name))?;
        }
    }
    let staging = tempfile::tempdir().map_err(file(&std::env::temp_dir()))?;
    let root = staging.path().join("root");
    tree.write(&root)?;
    let built = out.join(format!("{}_{}_{}.deb", package.name, env!("CARGO_PKG_VERSION"), architecture()));
    tool::run_with(
        Command::new(tool::found("dpkg-deb"))
            .env("SOURCE_DATE_EPOCH", epoch.0.to_string())
            .args(["--root-owner-group", "-Zzstd", "--build"])
            .args([&root, &built]),
    )?;
    Ok(built)
}

fn control(package: &Package, installed: usize) -> String {
    let deb = &package.metadata.deb;
    let mut text = format!(
        "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: {}\nInstalled-Size: {installed}\nSection: {}\n\
         Priority: {}\nDepends: {}\n",
        package.name,
        env!("CARGO_PKG_VERSION"),
        architecture(),
        deb.maintainer,
        deb.section,
        deb.priority,
        deb.depends,
    );
    if !deb.recommends.is_empty() {
        let _ = writeln!(text, "Recommends: {}", deb.recommends);
    }
    let _ = writeln!(text, "Description: {}", package.description);
    for line in deb.extended_description.trim().lines() {
        let _ = writeln!(text, " {}", if line.is_empty() { "." } else { line });
    }
    text
}

/// Debian's name of what this was built for.
fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
