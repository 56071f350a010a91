//! The lock: name, version and SHA-256 of every package, a line each.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::{KERNEL, NAMES};
use crate::error::{ImageError, io};
use crate::programs::output;

/// One package of Debian, for amd64 or all architectures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its file, 64 lower-case hex digits.
    pub sha256: String,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock(Vec<Package>);

impl Lock {
    /// Reads a lock.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Self, ImageError> {
        let text = std::fs::read_to_string(path).map_err(io(path))?;
        text.parse().map_err(|wrong: String| ImageError::input(path.display().to_string(), wrong))
    }

    /// What Debian serves now.
    ///
    /// # Errors
    /// apt fails, or knows one of the packages not.
    pub fn renew() -> Result<Self, ImageError> {
        update()?;
        let kernel = shown(KERNEL)?;
        let depends = field(&kernel, "Depends").unwrap_or_default();
        let kernel = depends.split([' ', ',', '(']).find(|word| word.starts_with("linux-image-"));
        let kernel = kernel.ok_or_else(|| ImageError::input(KERNEL, "depends on no kernel"))?;
        let mut names: Vec<&str> = NAMES.iter().copied().chain([kernel]).collect();
        names.sort_unstable();
        let mut packages = Vec::new();
        for name in names {
            let text = shown(name)?;
            let known = |wanted| field(&text, wanted).ok_or_else(|| ImageError::input(name, "apt knows no SHA-256"));
            packages.push(Package {
                name: name.to_owned(),
                version: known("Version")?.to_owned(),
                sha256: known("SHA256")?.to_owned(),
            });
        }
        Ok(Self(packages))
    }

    /// In the order of their names.
    #[must_use]
    pub fn packages(&self) -> &[Package] {
        &self.0
    }
}

impl FromStr for Lock {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut packages: Vec<Package> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            let &[name, version, sha256] = words.as_slice() else {
                return Err(format!("`{line}` is not NAME VERSION SHA256"));
            };
            let plain = |text: &str, more: &str| {
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c);
                text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain)
            };
            let hash = sha256.len() == 64 && plain(sha256, "") && hex::decode(sha256).is_ok();
            if !plain(name, "+-.") || !plain(version, "+-.~:ABCDEFGHIJKLMNOPQRSTUVWXYZ") || !hash {
                return Err(format!("`{line}` is not NAME VERSION SHA256"));
            }
            if packages.last().is_some_and(|last| last.name.as_str() >= name) {
                return Err(format!("{name} is there twice, or not in its place"));
            }
            packages.push(Package { name: name.into(), version: version.into(), sha256: sha256.into() });
        }
        if let Some(name) = NAMES.iter().find(|name| !packages.iter().any(|package| package.name == **name)) {
            return Err(format!("{name} is missing"));
        }
        Ok(Self(packages))
    }
}

impl fmt::Display for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What a guest image is made of. `cargo xtask guest-image lock` writes it anew.")?;
        self.0.iter().try_for_each(|Package { name, version, sha256 }| writeln!(f, "{name} {version} {sha256}"))
    }
}

/// Has apt look at what Debian serves now.
pub(super) fn update() -> Result<(), ImageError> {
    output("apt-get", &["update", "-qq"]).map(drop)
}

/// What apt would install.
fn shown(name: &str) -> Result<String, ImageError> {
    output("apt-cache", &["show", "--no-all-versions", name])
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text() -> String {
        NAMES.iter().map(|name| format!("{name} 1:2.3+b1~deb {}\n", "0f".repeat(32))).collect()
    }

    #[test]
    fn a_lock_is_written_as_it_was_read() {
        let lock: Lock = text().parse().unwrap();
        assert_eq!(lock.packages().len(), NAMES.len());
        assert_eq!(lock.to_string().parse::<Lock>().unwrap(), lock);
    }

    #[test]
    fn what_apt_must_not_be_asked_for_is_no_lock() {
        let line = |name: &str, version: &str, hash: &str| format!("{}{name} {version} {hash}\n", text());
        let hash = "0f".repeat(32);
        for wrong in [
            line("zlib1g", "1", &hash[1..]),
            line("zlib1g", "1", &hash.to_uppercase()),
            line("-o=x", "1", &hash),
            line("zlib1g", "--x", &hash),
            line("zlib1g", "1 2", &hash),
            line("busybox-static", "1", &hash),
            text().replace("runc", "runk"),
        ] {
            assert!(wrong.parse::<Lock>().is_err(), "{wrong}");
        }
    }
}
