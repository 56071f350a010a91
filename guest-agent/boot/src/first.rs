//! The duties of a guest's first process: mounts, the terminal, the hostname; and the end of the machine.

use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind_recursive};
use rustix::system::RebootCommand;

use crate::BootError;
use crate::error::io;

/// One mount: file system, place, flags, options.
type Entry = (&'static str, &'static str, MountFlags, &'static str);

/// `RAMFS_MAGIC`, `TMPFS_MAGIC`: what an initramfs is unpacked into.
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x8584_58f6, 0x0102_1994];

const NOSUID: MountFlags = MountFlags::NOSUID;
const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// In this order; what an initrd has mounted already stays as it is.
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
    _made_by_this: (),
}

/// Where a firmware's log and a TEE's reports are; kernels without them have no such directories.
const WHERE_THERE: [Entry; 2] =
    [("securityfs", "sys/kernel/security", QUIET, ""), ("configfs", "sys/kernel/config", QUIET, "")];

impl FirstProcess {
    /// This process, when it is the guest's first.
    #[must_use]
    pub fn this() -> Option<Self> {
        rustix::process::getpid().is_init().then_some(Self { _made_by_this: () })
    }

    /// Sets the guest up: a root that runtimes can leave behind, mounts, terminal, hostname.
    ///
    /// # Errors
    /// [`BootError::Io`] names the duty that could not be done.
    pub fn set_up(&self) -> Result<(), BootError> {
        let root = Path::new("/");
        leave_initramfs(root)?;
        mount_all(root)?;
        // Only a shell on the console would miss these.
        if let Err(error) = rustix::process::setsid() {
            tracing::debug!(%error, "no session of its own");
        } else if let Err(error) = rustix::process::ioctl_tiocsctty(std::io::stdin()) {
            tracing::debug!(%error, "no controlling terminal");
        }
        set_hostname(&root.join("etc/hostname"))
    }

    /// Writes everything back and switches the machine off. Returns only when the kernel refuses.
    ///
    /// # Errors
    /// [`BootError::Io`].
    pub fn power_off(self) -> Result<(), BootError> {
        // A serial console drops what it has not sent yet; what is no terminal keeps nothing back.
        let _ = rustix::termios::tcdrain(std::io::stderr());
        rustix::fs::sync();
        rustix::system::reboot(RebootCommand::PowerOff).map_err(io("power off"))
    }
}

/// An initramfs is the one root that `pivot_root` cannot leave, which every container does: the same files, mounted
/// once more above it, can be left.
fn leave_initramfs(root: &Path) -> Result<(), BootError> {
    let kind = rustix::fs::statfs(root).map_err(io("the root file system"))?.f_type;
    if !MEMORY_FILE_SYSTEMS.contains(&u64::try_from(kind).unwrap_or_default()) {
        return Ok(());
    }
    // What an initrd's script mounted comes along.
    mount_bind_recursive(root, root).map_err(io("bind the root"))?;
    // The root's own path leads beneath the new mount; its parent, which is itself, leads above.
    rustix::process::chdir("/..").map_err(io("enter the new root"))?;
    rustix::process::chroot(".").map_err(io("change the root"))?;
    rustix::process::chdir("/").map_err(io("enter the new root"))
}

fn mount_all(root: &Path) -> Result<(), BootError> {
    for entry in MOUNTS {
        make_dir(&root.join(entry.1))?;
        mount_one(root, entry)?;
    }
    for entry in WHERE_THERE.into_iter().filter(|entry| root.join(entry.1).is_dir()) {
        mount_one(root, entry)?;
    }
    // With devpts mounted in its own instance, /dev/ptmx of devtmpfs would open another one.
    let link = root.join("dev/ptmx");
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("/dev/ptmx")(error)),
        _ => {}
    }
    std::os::unix::fs::symlink("pts/ptmx", &link).map_err(io("/dev/ptmx"))
}

fn mount_one(root: &Path, (kind, place, flags, options): Entry) -> Result<(), BootError> {
    let target = root.join(place);
    if is_mount_point(root, &target) {
        return Ok(());
    }
    let options = std::ffi::CString::new(options).unwrap_or_default();
    match mount(kind, &target, kind, flags, options.as_c_str()) {
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(source) => Err(io(format!("mount {kind} on {}", target.display()))(source)),
    }
}

/// A second tmpfs or devpts would hide the first one and all that is in it.
fn is_mount_point(root: &Path, target: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev()).ok();
    device(target) != device(target.parent().unwrap_or(root))
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
    fn another_process_is_not_the_first() {
        assert!(FirstProcess::this().is_none());
    }

    #[test]
    fn what_is_mounted_already_is_seen() {
        assert!(is_mount_point(Path::new("/"), Path::new("/proc")));
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_mount_point(Path::new("/"), dir.path()));
    }
}
