//! The namespaces that a sandbox's containers share.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use sys::namespace::{Namespace, unshare};

use crate::error::SandboxError;
use crate::roots::{Roots, private_dir};

/// The longest host name Linux takes.
const MAX_HOSTNAME: usize = 64;

/// IPC and UTS namespaces kept by bind mounts, without a process in them; dropped, they go when the last container
/// in them is gone.
#[derive(Debug)]
pub struct Namespaces {
    ipc: Pinned,
    uts: Pinned,
}

impl Namespaces {
    /// Makes both, and gives the UTS namespace `hostname`; an empty one leaves the guest's.
    ///
    /// # Errors
    /// [`SandboxError::Request`] for a name that is no host name, [`SandboxError::System`] when the kernel refuses.
    pub fn create(roots: &Roots, hostname: &str) -> Result<Self, SandboxError> {
        check_hostname(hostname)?;
        private_dir(&roots.namespaces)?;
        let (ipc, uts) = (roots.namespaces.join("ipc"), roots.namespaces.join("uts"));
        // A thread of its own, since a thread cannot go back; it ends and leaves the mounts.
        let made = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                unshare(&[Namespace::Ipc, Namespace::Uts]).map_err(SandboxError::system("new namespaces"))?;
                if !hostname.is_empty() {
                    rustix::system::sethostname(hostname.as_bytes()).map_err(SandboxError::system("set host name"))?;
                }
                let ipc = Pinned::new(Path::new("/proc/thread-self/ns/ipc"), ipc)?;
                let uts = Pinned::new(Path::new("/proc/thread-self/ns/uts"), uts)?;
                Ok(Self { ipc, uts })
            });
            thread.join()
        });
        made.unwrap_or_else(|_| Err(SandboxError::request("namespaces", "the thread that makes them died")))
    }

    /// What a container joins for its IPC namespace.
    #[must_use]
    pub fn ipc(&self) -> &Path {
        &self.ipc.path
    }

    /// What a container joins for its UTS namespace.
    #[must_use]
    pub fn uts(&self) -> &Path {
        &self.uts.path
    }
}

/// A namespace's file, bind mounted; unmounted and removed when dropped.
#[derive(Debug)]
struct Pinned {
    path: PathBuf,
}

impl Pinned {
    fn new(namespace: &Path, path: PathBuf) -> Result<Self, SandboxError> {
        let step = || format!("keep {}", path.display());
        // What an agent that was killed has left there.
        while rustix::mount::unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
        match rustix::fs::unlink(&path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(SandboxError::system(step())(errno)),
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty()).map_err(SandboxError::system(step()))?;
        let step = step();
        let pinned = Self { path };
        rustix::mount::mount_bind(namespace, &pinned.path).map_err(SandboxError::system(step))?;
        Ok(pinned)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        let _ = rustix::fs::unlink(&self.path);
    }
}

/// The PID namespace of a running container that others join, held open: no later process with the same number can
/// take its place.
#[derive(Debug)]
pub struct PidNamespace {
    fd: OwnedFd,
}

impl PidNamespace {
    /// That of the process `pid`, in the agent's own numbering.
    ///
    /// # Errors
    /// [`SandboxError::System`] when there is no such process.
    pub fn of(pid: u32) -> Result<Self, SandboxError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(format!("/proc/{pid}/ns/pid"), flags, Mode::empty())
            .map_err(SandboxError::system(format!("open the PID namespace of process {pid}")))?;
        Ok(Self { fd })
    }

    /// A path that the runtime can join while this value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()))
    }
}

fn check_hostname(name: &str) -> Result<(), SandboxError> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.len() > MAX_HOSTNAME {
        return Err(SandboxError::request("host name", "longer than 64 bytes"));
    }
    if !name.bytes().all(known) || name.starts_with('-') {
        return Err(SandboxError::request("host name", "letters, digits, `-`, `.` and `_` only"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    use super::*;

    /// The host name inside the UTS namespace at `path`.
    fn hostname_in(path: &Path) -> String {
        let file = File::open(path).unwrap();
        let inside = std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::HostNameAndNISDomainName)).unwrap();
            rustix::system::uname().nodename().to_str().unwrap().to_owned()
        });
        inside.join().unwrap()
    }

    #[test]
    fn the_sandbox_has_a_host_name_of_its_own_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::beneath(dir.path());
        let before = rustix::system::uname().nodename().to_owned();
        let namespaces = Namespaces::create(&roots, "pod-1.example").unwrap();
        assert_eq!(hostname_in(namespaces.uts()), "pod-1.example");
        assert_eq!(rustix::system::uname().nodename(), before.as_c_str());
        let ours = std::fs::metadata("/proc/self/ns/ipc").unwrap();
        let theirs = std::fs::metadata(namespaces.ipc()).unwrap();
        assert_ne!(std::os::unix::fs::MetadataExt::ino(&ours), std::os::unix::fs::MetadataExt::ino(&theirs));
        drop(namespaces);
        assert_eq!(std::fs::read_dir(&roots.namespaces).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_agent_left_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::beneath(dir.path());
        let left = Namespaces::create(&roots, "first").unwrap();
        let second = Namespaces::create(&roots, "second").unwrap();
        assert_eq!(hostname_in(second.uts()), "second");
        drop(left);
    }

    #[test]
    fn a_host_name_is_a_host_name() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::beneath(dir.path());
        for bad in ["a b", "a\n", "-a", "a/b", "\u{e9}", &"a".repeat(65)] {
            assert!(matches!(Namespaces::create(&roots, bad), Err(SandboxError::Request { .. })), "{bad:?}");
        }
        assert!(!roots.namespaces.exists(), "refused before anything is made");
    }

    #[test]
    fn a_held_pid_namespace_outlives_its_process() {
        let mut child = std::process::Command::new("unshare").args(["--pid", "--fork", "sleep", "60"]).spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let inner = loop {
            let text = std::fs::read_to_string(&children).unwrap();
            if let Some(pid) = text.split_whitespace().next() {
                break pid.parse::<u32>().unwrap();
            }
            std::thread::yield_now();
        };
        let held = PidNamespace::of(inner).unwrap();
        let before = std::fs::read_link(held.path()).unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(inner).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        child.wait().unwrap();
        assert_eq!(std::fs::read_link(held.path()).unwrap(), before);
        assert!(PidNamespace::of(u32::MAX).is_err());
    }
}
