//! Where a sandbox lives in the guest's file tree.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

use crate::error::SandboxError;

/// Every directory and file a sandbox uses; tests give a tree of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// What the host names paths beneath: `/run/kata-containers`.
    pub run: PathBuf,
    /// Where the sandbox's namespaces are kept: `/run/sandbox-ns`.
    pub namespaces: PathBuf,
    /// sysfs: `/sys`.
    pub sys: PathBuf,
    /// procfs: `/proc`.
    pub proc: PathBuf,
    /// devtmpfs: `/dev`.
    pub dev: PathBuf,
    /// What the resolver reads: `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

impl Roots {
    /// A guest's own.
    #[must_use]
    pub fn guest() -> Self {
        Self {
            run: "/run/kata-containers".into(),
            namespaces: "/run/sandbox-ns".into(),
            sys: "/sys".into(),
            proc: "/proc".into(),
            dev: "/dev".into(),
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }

    /// The same tree beneath `dir`, which stands for the root; nothing of the machine's own is touched.
    #[must_use]
    pub fn beneath(dir: &Path) -> Self {
        let guest = Self::guest();
        let moved = |path: &Path| dir.join(path.strip_prefix("/").unwrap_or(path));
        Self {
            run: moved(&guest.run),
            namespaces: moved(&guest.namespaces),
            sys: moved(&guest.sys),
            proc: moved(&guest.proc),
            dev: moved(&guest.dev),
            resolv_conf: moved(&guest.resolv_conf),
        }
    }

    /// Where copied files go, and bind mounts come from.
    #[must_use]
    pub fn shared(&self) -> PathBuf {
        self.run.join("shared/containers")
    }

    /// What the sandbox itself owns: `resolv.conf`, `shm`, ephemeral and block storages.
    #[must_use]
    pub fn sandbox(&self) -> PathBuf {
        self.run.join("sandbox")
    }

    /// Where copied files are until they are whole: the shared directory's file system, but no name the host can say.
    pub(crate) fn partial(&self) -> PathBuf {
        self.run.join("shared/.partial")
    }

    /// Makes the sandbox's directories anew: unmounts and removes what an earlier sandbox left in `shared` and
    /// `sandbox`. Directories of containers are the launch's and stay.
    ///
    /// # Errors
    /// [`SandboxError::System`].
    pub fn recreate(&self) -> Result<(), SandboxError> {
        private_dir(&self.run)?;
        for left in [self.run.join("shared"), self.sandbox()] {
            unmount_beneath(&left)?;
            match std::fs::remove_dir_all(&left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(SandboxError::system(format!("remove {}", left.display()))(error));
                }
                _ => {}
            }
        }
        for dir in [self.shared(), self.partial(), self.sandbox()] {
            private_dir(&dir)?;
        }
        Ok(())
    }
}

/// Makes `dir`, and what leads to it, for root alone.
pub(crate) fn private_dir(dir: &Path) -> Result<(), SandboxError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(SandboxError::system(format!("make {}", dir.display())))
}

/// Detaches every mount at or beneath `dir`, the newest first; a removal must never reach into a mounted volume.
fn unmount_beneath(dir: &Path) -> Result<(), SandboxError> {
    let table =
        std::fs::read_to_string("/proc/self/mountinfo").map_err(SandboxError::system("read the mount table"))?;
    let points: Vec<PathBuf> = table.lines().filter_map(mount_point).filter(|point| point.starts_with(dir)).collect();
    for point in points.iter().rev() {
        rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
            .map_err(SandboxError::system(format!("unmount {}", point.display())))?;
    }
    Ok(())
}

/// The fifth field of a line, with the kernel's octal escapes undone.
fn mount_point(line: &str) -> Option<PathBuf> {
    let field = line.split(' ').nth(4)?;
    let mut plain = Vec::with_capacity(field.len());
    let mut bytes = field.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?, bytes.next()?];
        let octal = std::str::from_utf8(&digits).ok()?;
        plain.push(u8::from_str_radix(octal, 8).ok()?);
    }
    Some(PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(plain)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_with_a_space_is_read_as_it_is() {
        let line = r"36 35 98:0 / /run/a\040b rw,noatime - tmpfs tmpfs rw";
        assert_eq!(mount_point(line), Some("/run/a b".into()));
        assert_eq!(mount_point("36 35"), None);
        assert_eq!(mount_point(r"36 35 98:0 / /run/a\04"), None, "a cut escape");
    }

    #[test]
    fn a_new_sandbox_finds_nothing_of_the_last_one_and_spares_the_content_of_its_mounts() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::beneath(dir.path());
        roots.recreate().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(volume.join("data"), "kept").unwrap();
        let left = roots.sandbox().join("storage");
        std::fs::create_dir(&left).unwrap();
        rustix::mount::mount_bind(&volume, &left).unwrap();
        std::fs::write(roots.shared().join("old"), "gone").unwrap();
        let container = roots.run.join("c1");
        std::fs::create_dir(&container).unwrap();

        roots.recreate().unwrap();
        assert!(!left.exists() && !roots.shared().join("old").exists());
        assert_eq!(std::fs::read_to_string(volume.join("data")).unwrap(), "kept");
        assert!(container.exists());
    }
}
