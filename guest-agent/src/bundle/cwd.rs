//! Where a container's process starts: never in the kernel's file systems, whatever links its image holds.
//!
//! A working directory that leads through `/proc/self/fd` (to which `/dev/fd` is a link) can lead out of the container
//! when a runtime leaves a descriptor open; checking it here does not rely on any runtime's care. The runtime mounts
//! and fills `/proc`, `/dev` and `/sys` only later, so no step of the way may enter them, be they in the image or not.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::mounts::{RESERVED, is_plain_absolute};

/// The most links on one way, as in the kernel.
const MAX_LINKS: usize = 40;

/// A step of the way.
struct Step {
    name: Vec<u8>,
    /// From a link's target, which must be there.
    linked: bool,
}

/// Checks that `cwd` is absolute and leads neither through `/proc`, `/dev` or `/sys` nor through a link that ends
/// nowhere. What does not exist yet is made by the runtime.
///
/// # Errors
/// Says why not.
pub(crate) fn check(root: BorrowedFd<'_>, cwd: &str) -> Result<(), String> {
    let refused = |why: &str| format!("working directory `{}`: {why}", cwd.escape_debug());
    let plain = cwd.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(cwd);
    if !is_plain_absolute(plain) {
        return Err(refused("it must be an absolute path without `.` and `..`"));
    }
    let mut ahead: VecDeque<Step> = steps(plain.as_bytes(), false).collect();
    let mut behind: Vec<Vec<u8>> = Vec::new();
    let mut links = 0;
    while let Some(step) = ahead.pop_front() {
        if step.name == b".." {
            behind.pop();
            continue;
        }
        behind.push(step.name);
        let here = [b"/", behind.join(&b'/').as_slice()].concat();
        if is_reserved(&here) {
            return Err(refused("it must not lead into /proc, /dev or /sys"));
        }
        let found = match open(root, &here) {
            Ok(found) => found,
            Err(Errno::NOENT) if step.linked => return Err(refused("a link on its way leads nowhere")),
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(refused(&error.to_string())),
        };
        let stat = rustix::fs::fstat(&found).map_err(|error| refused(&error.to_string()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => continue,
            FileType::Symlink => {}
            _ => return Err(refused("a part of it is no directory")),
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(refused("too many links on its way"));
        }
        let target = rustix::fs::readlinkat(&found, "", Vec::new()).map_err(|error| refused(&error.to_string()))?;
        let target = target.as_bytes();
        if target.first() == Some(&b'/') {
            behind.clear();
        } else {
            behind.pop();
        }
        for step in steps(target, true).rev() {
            ahead.push_front(step);
        }
    }
    Ok(())
}

fn steps(path: &[u8], linked: bool) -> impl DoubleEndedIterator<Item = Step> + '_ {
    let names = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
    names.map(move |name| Step { name: name.to_vec(), linked })
}

fn is_reserved(path: &[u8]) -> bool {
    let beneath =
        |dir: &&str| path.strip_prefix(dir.as_bytes()).is_some_and(|r| matches!(r.first(), None | Some(b'/')));
    RESERVED.iter().any(beneath)
}

/// Opens what is at `path`, whose parents are directories; not what it links to.
fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_working_directory_never_leads_into_the_kernels_file_systems() {
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

    const KERNELS: [&str; 12] = [
        "/proc",
        "/proc/self/fd/7",
        "/proc/self/cwd/",
        "/dev",
        "/dev/",
        "/dev/fd/7",
        "/dev/shm",
        "/sys",
        "/sys/fs",
        "//proc/self/fd/7",
        "/dev//fd/7",
        "/opt/../dev/fd/7",
    ];

    #[test]
    fn what_the_runtime_mounts_later_is_refused_though_the_image_has_none_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        for bad in KERNELS {
            assert!(check(root.as_fd(), bad).is_err(), "without: {bad}");
        }
        for made in ["proc/self/fd/7", "proc/self/cwd", "dev/fd/7", "dev/shm", "sys/fs", "opt"] {
            std::fs::create_dir_all(dir.path().join(made)).unwrap();
        }
        for bad in KERNELS {
            assert!(check(root.as_fd(), bad).is_err(), "with: {bad}");
        }
        for good in ["/devices", "/opt/dev", "/system/proc"] {
            assert_eq!(check(root.as_fd(), good), Ok(()), "{good}");
        }
    }

    #[test]
    fn no_link_of_the_image_leads_there_either() {
        let links = [
            ("relative", "dev"),
            ("absolute", "/proc/self/fd/7"),
            ("doubled", "//dev//fd/./7"),
            ("dotted", "home/../../../sys"),
            ("chained", "home/again"),
            ("home/again", "../relative"),
            // The image's own `proc/self` leads home; the kernel's, mounted over it, does not.
            ("shadowed", "/proc/self"),
            ("passing", "proc/../home"),
        ];
        for present in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join("home")).unwrap();
            if present {
                for made in ["proc", "dev/fd/7", "sys"] {
                    std::fs::create_dir_all(dir.path().join(made)).unwrap();
                }
                symlink("/home", dir.path().join("proc/self")).unwrap();
            }
            let root = std::fs::File::open(dir.path()).unwrap();
            for (link, target) in links {
                symlink(target, dir.path().join(link)).unwrap();
            }
            for (link, _) in links {
                for bad in [format!("/{link}"), format!("/{link}/fd/7")] {
                    let error = check(root.as_fd(), &bad).unwrap_err();
                    assert!(error.contains("/proc, /dev or /sys"), "{present} {error}");
                }
            }
        }
    }
}
