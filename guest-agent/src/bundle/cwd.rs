//! Where a container's process starts: never in `/proc`, whatever links its image holds.
//!
//! A working directory that leads through `/proc/self/fd` can lead out of the container when a runtime leaves a
//! descriptor open; checking it here does not rely on any runtime's care.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::mounts::is_plain_absolute;

/// Checks that `cwd` is absolute and leads neither into `/proc` nor through a link that ends nowhere. What does
/// not exist yet is made by the runtime.
///
/// # Errors
/// Says why not.
pub(super) fn check(root: BorrowedFd<'_>, cwd: &str) -> Result<(), String> {
    let refused = |why: &str| format!("working directory `{}`: {why}", cwd.escape_debug());
    let plain = cwd.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(cwd);
    if !is_plain_absolute(plain) {
        return Err(refused("it must be an absolute path without `.` and `..`"));
    }
    let mut path = Path::new(plain);
    loop {
        match resolve(root, path, OFlags::DIRECTORY) {
            Ok(real) if real.starts_with("/proc") => return Err(refused("it must not lead into /proc")),
            Ok(_) => return Ok(()),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(refused(&error.to_string())),
        }
        // The last segment must be absent, not a link to something absent.
        if resolve(root, path, OFlags::NOFOLLOW) != Err(Errno::NOENT) {
            return Err(refused("a link on its way leads nowhere"));
        }
        path = path.parent().unwrap_or_else(|| Path::new("/"));
    }
}

/// The place beneath `root` that `path` leads to.
fn resolve(root: BorrowedFd<'_>, path: &Path, more: OFlags) -> Result<PathBuf, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | more;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
    let place = |fd: BorrowedFd<'_>| {
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        std::fs::read_link(link).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    let (found, root) = (place(std::os::fd::AsFd::as_fd(&found))?, place(root)?);
    let beneath = found.strip_prefix(&root).map_err(|_| Errno::XDEV)?;
    Ok(Path::new("/").join(beneath))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_working_directory_never_leads_into_proc() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for made in ["proc", "home/app", "opt"] {
            std::fs::create_dir_all(path(made)).unwrap();
        }
        std::fs::write(path("file"), "").unwrap();
        symlink("/proc/self/fd/7", path("escape")).unwrap();
        symlink("/proc", path("opt/p")).unwrap();
        symlink("../home/app", path("opt/app")).unwrap();
        symlink("/nowhere", path("dangling")).unwrap();
        symlink("loop", path("loop")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        for good in ["/", "/home/app", "/home/app/", "/opt/app", "/new", "/home/new/deep", "/opt/app/new", "/processes"]
        {
            assert_eq!(check(root.as_fd(), good), Ok(()), "{good}");
        }
        let bad = [
            "",
            "home",
            "/..",
            "/a/../proc",
            "/proc",
            "/proc/",
            "/proc/self/fd/7",
            "/escape",
            "/escape/x",
            "/opt/p",
            "/opt/p/self/fd/8",
            "/dangling",
            "/dangling/x",
            "/loop",
            "/file",
            "/file/x",
            "/a\0b",
        ];
        for bad in bad {
            assert!(check(root.as_fd(), bad).is_err(), "{bad:?}");
        }
    }
}
