//! The duties of a guest's first process: mounts, the terminal, the hostname; and the end of the machine.

use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::RebootCommand;

use crate::BootError;
use crate::error::io;

/// One mount: file system, place, flags, options.
type Entry = (&'static str, &'static str, MountFlags, &'static str);

const NOSUID: MountFlags = MountFlags::NOSUID;
const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// In this order; a kernel or an initrd that has mounted one already has done that part.
const MOUNTS: [Entry; 7] = [
    ("proc", "proc", QUIET, ""),
    ("sysfs", "sys", QUIET, ""),
    ("devtmpfs", "dev", NOSUID, "mode=0755"),
    ("tmpfs", "dev/shm", QUIET.difference(MountFlags::NOEXEC), "mode=1777"),
    ("devpts", "dev/pts", NOSUID.union(MountFlags::NOEXEC), "mode=0620,gid=5,ptmxmode=0666"),
    // Containers' files lie here too: programs must run from it.
    ("tmpfs", "run", NOSUID.union(MountFlags::NODEV), "mode=0755,size=50%"),
    ("cgroup2", "sys/fs/cgroup", QUIET, ""),
];

/// Says that this process is the guest's first. Ending it ends the machine.
#[derive(Debug)]
pub struct FirstProcess {
    _made_by_take: (),
}

impl FirstProcess {
    /// Takes the duties of a first process when this is one, with everything in `root` (`/`).
    ///
    /// # Errors
    /// [`BootError::Io`] names the duty that could not be done.
    pub fn take(root: &Path) -> Result<Option<Self>, BootError> {
        if !rustix::process::getpid().is_init() {
            return Ok(None);
        }
        mount_all(root)?;
        // Only a shell on the console would miss these.
        if let Err(error) = rustix::process::setsid() {
            tracing::debug!(%error, "no session of its own");
        } else if let Err(error) = rustix::process::ioctl_tiocsctty(std::io::stdin()) {
            tracing::debug!(%error, "no controlling terminal");
        }
        set_hostname(&root.join("etc/hostname"))?;
        Ok(Some(Self { _made_by_take: () }))
    }

    /// Writes everything back and switches the machine off. Returns only when the kernel refuses.
    ///
    /// # Errors
    /// [`BootError::Io`].
    pub fn power_off(self) -> Result<(), BootError> {
        rustix::fs::sync();
        rustix::system::reboot(RebootCommand::PowerOff).map_err(io("power off"))
    }
}

fn mount_all(root: &Path) -> Result<(), BootError> {
    for (kind, place, flags, options) in MOUNTS {
        let target = root.join(place);
        make_dir(&target)?;
        let options = std::ffi::CString::new(options).unwrap_or_default();
        match mount(kind, &target, kind, flags, options.as_c_str()) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(source) => return Err(io(format!("mount {kind} on {}", target.display()))(source)),
        }
    }
    // With devpts mounted in its own instance, /dev/ptmx of devtmpfs would open another one.
    let link = root.join("dev/ptmx");
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("/dev/ptmx")(error)),
        _ => {}
    }
    std::os::unix::fs::symlink("pts/ptmx", &link).map_err(io("/dev/ptmx"))
}

fn make_dir(path: &PathBuf) -> Result<(), BootError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(source) => Err(io(path.display().to_string())(source)),
    }
}

fn set_hostname(file: &Path) -> Result<(), BootError> {
    let Ok(text) = std::fs::read_to_string(file) else { return Ok(()) };
    let Some(name) = text.lines().next().map(str::trim).filter(|name| !name.is_empty()) else { return Ok(()) };
    rustix::system::sethostname(name.as_bytes()).map_err(io("hostname"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_takes_no_duties() {
        let dir = tempfile::tempdir().unwrap();
        assert!(FirstProcess::take(dir.path()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
