//! Ends every process of a container.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal};

use super::membership::{Mount, memberships, mounts};
use super::{Cgroup, read_file};

/// How long a group may take to be frozen; it is killed either way.
const FREEZE_TIME: Duration = Duration::from_millis(500);
/// How often the processes are counted again: one that was not frozen may have made another.
const ROUNDS: u32 = 8;
/// The deepest nesting of groups that is followed.
const MAX_DEPTH: u32 = 16;

impl Cgroup {
    /// Kills every process of the group and of the groups beneath it; paused ones go on to their end. Blocks.
    ///
    /// # Errors
    /// A group cannot be read, or the kernel refuses to kill.
    pub(crate) fn kill_all(&self) -> io::Result<()> {
        if let Some(dir) = &self.v2
            && self.v1.is_empty()
            && std::fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            // It kills what is frozen too.
            return Ok(());
        }
        let Some((dir, freezer)) = self.hierarchy() else { return Ok(()) };
        if freezer.freeze(&dir) {
            return freezer.thaw_after(&dir, kill_rounds(&dir, 1));
        }
        freezer.thaw_after(&dir, kill_rounds(&dir, ROUNDS))
    }

    /// The hierarchy whose list of processes is used, and how it is frozen.
    fn hierarchy(&self) -> Option<(PathBuf, Freezer)> {
        let v1 = |controller: &str| self.v1.get(controller).cloned();
        let frozen = v1("freezer").map(|dir| (dir, Freezer::One));
        let v2 = || self.v2.clone().map(|dir| (dir, Freezer::Two));
        let any = || ["pids", "memory", "devices"].into_iter().find_map(v1).map(|dir| (dir, Freezer::None));
        frozen.or_else(v2).or_else(any)
    }
}

#[derive(Debug, Clone, Copy)]
enum Freezer {
    One,
    Two,
    None,
}

impl Freezer {
    fn files(self) -> Option<[&'static str; 4]> {
        match self {
            Self::One => Some(["freezer.state", "FROZEN", "THAWED", "freezer.state"]),
            Self::Two => Some(["cgroup.freeze", "1", "0", "cgroup.events"]),
            Self::None => None,
        }
    }

    /// Whether everything is frozen: nothing can make another process meanwhile.
    fn freeze(self, dir: &Path) -> bool {
        let Some([file, freeze, _, state]) = self.files() else { return false };
        if std::fs::write(dir.join(file), freeze).is_err() {
            return false;
        }
        let begun = Instant::now();
        while begun.elapsed() < FREEZE_TIME {
            let state = read_file(&dir.join(state));
            if state.trim() == "FROZEN" || state.lines().any(|line| line == "frozen 1") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    /// Lets the killed processes run to their end, whether all could be killed or not.
    fn thaw_after(self, dir: &Path, killed: io::Result<()>) -> io::Result<()> {
        let Some([file, _, thaw, _]) = self.files() else { return killed };
        match std::fs::write(dir.join(file), thaw) {
            // The group goes with its last process.
            Err(error) if !gone(&error) => killed.and(Err(error)),
            _ => killed,
        }
    }
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn kill_rounds(dir: &Path, rounds: u32) -> io::Result<()> {
    for _ in 0..rounds {
        let pids = processes(dir, MAX_DEPTH);
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            kill(pid, dir)?;
        }
    }
    Ok(())
}

/// The processes of a group and of those beneath it.
fn processes(dir: &Path, depth: u32) -> Vec<Pid> {
    let mut pids: Vec<Pid> =
        read_file(&dir.join("cgroup.procs")).lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect();
    if depth > 0 {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                pids.extend(processes(&entry.path(), depth - 1));
            }
        }
    }
    pids
}

/// Kills a process that is in the group still: its id may have changed hands.
fn kill(pid: Pid, dir: &Path) -> io::Result<()> {
    let Ok(fd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    if pid == rustix::process::getpid() || !is_in(pid, dir) {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(&fd, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether one of the process's groups is at the directory or beneath it.
fn is_in(pid: Pid, dir: &Path) -> bool {
    let text = read_file(Path::new(&format!("/proc/{}/cgroup", pid.as_raw_pid())));
    let mounts = read_file(Path::new("/proc/self/mountinfo"));
    let mounts = self::mounts(&mounts);
    memberships(&text).iter().any(|membership| {
        let at = |mount: &Mount<'_>| mount.dir_of(&membership.version, membership.path);
        mounts.iter().filter_map(at).any(|at| at.starts_with(dir))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command};

    use super::*;

    /// A real group with one beneath it, in whichever version this kernel has mounted.
    struct Group {
        cgroup: Cgroup,
        dir: PathBuf,
    }

    impl Group {
        fn new(name: &str) -> Self {
            let v1 = Path::new("/sys/fs/cgroup/freezer");
            let name = format!("tcl-{name}-{}", std::process::id());
            let (dir, cgroup) = if v1.is_dir() {
                let dir = v1.join(name);
                (dir.clone(), Cgroup { v1: BTreeMap::from([("freezer".to_owned(), dir)]), v2: None })
            } else {
                let dir = Path::new("/sys/fs/cgroup").join(name);
                (dir.clone(), Cgroup { v1: BTreeMap::new(), v2: Some(dir) })
            };
            std::fs::create_dir_all(dir.join("beneath")).unwrap();
            Self { cgroup, dir }
        }

        fn sleeper(&self, beneath: &str) -> Child {
            let child = Command::new("sleep").arg("100").spawn().unwrap();
            std::fs::write(self.dir.join(beneath).join("cgroup.procs"), child.id().to_string()).unwrap();
            child
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir(self.dir.join("beneath"));
            let _ = std::fs::remove_dir(&self.dir);
        }
    }

    #[test]
    fn everything_in_the_group_and_beneath_it_ends_and_nothing_else() {
        let group = Group::new("kill");
        let mut other = Command::new("sleep").arg("100").spawn().unwrap();
        let mut inside = [group.sleeper(""), group.sleeper("beneath"), group.sleeper("")];
        group.cgroup.kill_all().unwrap();
        for child in &mut inside {
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        }
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
        group.cgroup.kill_all().unwrap();
    }

    #[test]
    fn what_is_frozen_ends_too() {
        let group = Group::new("frozen");
        let mut child = group.sleeper("");
        let (_, freezer) = group.cgroup.hierarchy().unwrap();
        assert!(freezer.freeze(&group.dir));
        group.cgroup.kill_all().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[test]
    fn a_group_that_is_gone_is_no_error() {
        let gone = PathBuf::from("/sys/fs/cgroup/freezer/tcl-nothing-here");
        let cgroup = Cgroup { v1: BTreeMap::from([("freezer".to_owned(), gone)]), v2: None };
        cgroup.kill_all().unwrap();
        Cgroup::default().kill_all().unwrap();
    }

    #[test]
    fn figures_that_block_delay_no_kill() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("cpu.stat");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let cgroup = Cgroup { v1: BTreeMap::new(), v2: Some(dir.path().to_owned()) };
        let reader = std::thread::spawn({
            let cgroup = cgroup.clone();
            move || cgroup.stats()
        });
        std::thread::sleep(Duration::from_millis(50));
        cgroup.kill_all().unwrap();
        assert_eq!(read_file(&dir.path().join("cgroup.kill")), "1");
        assert!(!reader.is_finished(), "the figures still wait");
        std::fs::write(&fifo, "usage_usec 7\n").unwrap();
        assert_eq!(reader.join().unwrap().cpu.total, 7000);
    }
}
