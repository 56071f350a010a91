//! Debian's packages: pinned by a lock, fetched with apt into a cache, unpacked.

mod lock;

use std::fs;
use std::path::{Path, PathBuf};

pub use lock::{Lock, Package};

use crate::error::{ImageError, io};
use crate::programs::{output, output_in, sha256};

/// What a guest is made of, beside the kernel that [`KERNEL`] leads to.
pub(crate) const NAMES: [&str; 12] = [
    "busybox-static",
    "ca-certificates",
    "e2fsprogs",
    "libblkid1",
    "libc6",
    "libcom-err2",
    "libext2fs2",
    "libgcc-s1",
    "libseccomp2",
    "libuuid1",
    "runc",
    "systemd-boot-efi",
];
/// The package whose first dependency is the kernel in its present version.
pub(crate) const KERNEL: &str = "linux-image-cloud-amd64";

/// Packages as folders.
#[derive(Debug)]
pub(crate) struct Unpacked {
    folder: tempfile::TempDir,
    names: Vec<String>,
}

impl Unpacked {
    /// Unpacks everything in a lock; what `cache` does not hold is fetched.
    pub(crate) fn all(lock: &Lock, cache: &Path) -> Result<Self, ImageError> {
        fs::create_dir_all(cache).map_err(io(cache))?;
        let folder = tempfile::tempdir().map_err(io(Path::new("a temporary folder")))?;
        let mut names = Vec::new();
        for package in lock.packages() {
            let file = fetched(package, cache)?;
            let to = folder.path().join(&package.name);
            output("dpkg-deb", &["-x".as_ref(), file.as_os_str(), to.as_os_str()])?;
            names.push(package.name.clone());
        }
        Ok(Self { folder, names })
    }

    /// A package's files.
    pub(crate) fn package(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The kernel's package.
    pub(crate) fn kernel(&self) -> Result<PathBuf, ImageError> {
        let name = self.names.iter().find(|name| name.starts_with("linux-image-"));
        Ok(self.package(name.ok_or_else(|| ImageError::input("the lock", "names no linux-image-…"))?))
    }

    /// Every package's files.
    pub(crate) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.names.iter().map(|name| self.package(name))
    }
}

/// The package's file in the cache, whose name is its SHA-256: looked at again each time.
fn fetched(package: &Package, cache: &Path) -> Result<PathBuf, ImageError> {
    let Package { name, version, sha256: expected } = package;
    let file = cache.join(format!("{expected}.deb"));
    if !file.is_file() {
        let scratch = tempfile::tempdir_in(cache).map_err(io(cache))?;
        let pinned = format!("{name}={version}");
        let download = ["-q", "-o", "APT::Sandbox::User=root", "download", &pinned];
        // The lists may be older than what Debian serves.
        output_in(scratch.path(), "apt-get", &download)
            .or_else(|_| lock::update().and_then(|()| output_in(scratch.path(), "apt-get", &download)))
            .map_err(|error| ImageError::Gone {
                name: name.clone(),
                version: version.clone(),
                told: error.to_string(),
            })?;
        let entries = fs::read_dir(scratch.path()).map_err(io(scratch.path()))?;
        let found = entries.flatten().map(|entry| entry.path()).next();
        let found = found.ok_or_else(|| ImageError::input(pinned, "apt-get download left no file"))?;
        check(package, &found)?;
        fs::rename(&found, &file).map_err(io(&file))?;
    }
    check(package, &file)?;
    Ok(file)
}

fn check(package: &Package, file: &Path) -> Result<(), ImageError> {
    let actual = sha256(file)?;
    let Package { name, version, sha256: expected } = package;
    if actual == *expected {
        return Ok(());
    }
    let (name, version, expected) = (name.clone(), version.clone(), expected.clone());
    Err(ImageError::Altered { name, version, expected, actual })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_package_that_is_not_the_pinned_one_is_refused_also_from_the_cache() {
        let cache = tempfile::tempdir().unwrap();
        let package = Package { name: "libc6".into(), version: "1".into(), sha256: "ab".repeat(32) };
        fs::write(cache.path().join(format!("{}.deb", package.sha256)), "another").unwrap();
        assert!(matches!(fetched(&package, cache.path()), Err(ImageError::Altered { .. })));
    }
}
