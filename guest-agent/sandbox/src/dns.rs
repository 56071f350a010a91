//! The guest's own resolver, as the host gives it. Answers are not trusted: registries and attestors show keys.

use std::fs;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

use crate::beneath::by_number;
use crate::error::SandboxError;
use crate::roots::Roots;

/// The most lines.
const MAX_LINES: usize = 64;
/// The longest line, in bytes.
const MAX_LINE: usize = 1024;

/// The host's lines over the guest's `resolv.conf`, until dropped.
#[derive(Debug)]
pub struct Dns {
    target: std::os::fd::OwnedFd,
}

impl Dns {
    /// Writes `lines`, without empty ones, to the sandbox's `resolv.conf` and mounts it over the guest's. Without
    /// any line the guest's stays as it is.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for a line that is more than one, [`SandboxError::System`].
    pub fn set(roots: &Roots, lines: &[impl AsRef<str>]) -> Result<Option<Self>, SandboxError> {
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let sound = |line: &&str| line.len() <= MAX_LINE && !line.chars().any(char::is_control);
        if lines.len() > MAX_LINES || !lines.iter().all(sound) {
            return Err(SandboxError::request(
                "dns",
                "at most 64 lines of at most 1024 bytes, without control characters",
            ));
        }
        let file = roots.sandbox().join("resolv.conf");
        let step = |what: &str| format!("{what} {}", roots.resolv_conf.display());
        fs::write(&file, lines.join("\n") + "\n").map_err(SandboxError::system(step("write the lines for")))?;
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .map_err(SandboxError::system(step("share")))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target =
            rustix::fs::open(&roots.resolv_conf, flags, Mode::empty()).map_err(SandboxError::system(step("open")))?;
        let stat = rustix::fs::fstat(&target).map_err(SandboxError::system(step("open")))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(SandboxError::request("dns", "the guest's resolv.conf is no regular file"));
        }
        let copy = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = open_tree(rustix::fs::CWD, &file, copy).map_err(SandboxError::system(step("mount over")))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mount, "", &target, "", flags).map_err(SandboxError::system(step("mount over")))?;
        Ok(Some(Self { target: mount }))
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = unmount(by_number(&self.target), UnmountFlags::DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(dir: &std::path::Path) -> Roots {
        let roots = Roots::beneath(dir);
        roots.recreate().unwrap();
        fs::create_dir_all(roots.resolv_conf.parent().unwrap()).unwrap();
        fs::write(&roots.resolv_conf, "nameserver 192.0.2.1\n").unwrap();
        roots
    }

    #[test]
    fn lines_hide_the_guests_own_until_the_sandbox_ends() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(dir.path());
        let read = || fs::read_to_string(&roots.resolv_conf).unwrap();
        assert!(Dns::set(&roots, &["", "  "]).unwrap().is_none());
        let dns = Dns::set(&roots, &["nameserver 10.96.0.10", "", "search a.local"]).unwrap();
        assert_eq!(read(), "nameserver 10.96.0.10\nsearch a.local\n");
        drop(dns);
        assert_eq!(read(), "nameserver 192.0.2.1\n");
    }

    #[test]
    fn a_line_is_one_line_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(dir.path());
        for bad in ["nameserver 1\noptions x", "a\0b", &"x".repeat(1025)] {
            assert!(matches!(Dns::set(&roots, &[bad]), Err(SandboxError::Request { .. })), "{bad:?}");
        }
        assert!(Dns::set(&roots, &["x"; 65]).is_err());
        let victim = dir.path().join("victim");
        fs::write(&victim, "safe").unwrap();
        fs::remove_file(&roots.resolv_conf).unwrap();
        std::os::unix::fs::symlink(&victim, &roots.resolv_conf).unwrap();
        assert!(Dns::set(&roots, &["nameserver 10.0.0.1"]).is_err());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "safe");
    }
}
