//! A container's control groups: found from its first process, read and written as files.
//!
//! Version 1 (a hierarchy per controller), version 2 (one for all), and both side by side. Nothing here keeps a lock or
//! an open file between calls: a read that blocks delays nobody else.

mod kill;
mod membership;
mod oom;
mod parse;
mod resources;
mod stats;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use membership::{Membership, Version};
pub use oom::OomEvents;
pub(crate) use oom::OomWatch;
pub use parse::{IoEntry, io_entries, io_stat, keyed, number, numbers};
pub use resources::Resources;
pub use stats::{Cpu, HugePages, Io, Memory, Pids, Stats, Throttling, Usage};

/// The most of one file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// The directories of one container's control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Version 1: by controller.
    v1: BTreeMap<String, PathBuf>,
    /// Version 2.
    v2: Option<PathBuf>,
}

impl Cgroup {
    /// The control groups of a container's first process. A hierarchy in which the container has no group of its own
    /// is left out: what is done to the root's or the agent's group would be done to the whole guest.
    #[must_use]
    pub(crate) fn of(pid: Pid) -> Self {
        let read = |path: String| read_file(Path::new(&path));
        let its = read(format!("/proc/{}/cgroup", pid.as_raw_pid()));
        let agents = read("/proc/self/cgroup".to_owned());
        let mounts = read("/proc/self/mountinfo".to_owned());
        Self::from_files(&its, &agents, &mounts)
    }

    /// As `Cgroup::of`, from the text of the container's and the agent's `/proc/PID/cgroup` and of
    /// `/proc/self/mountinfo`.
    #[must_use]
    pub fn from_files(its: &str, agents: &str, mountinfo: &str) -> Self {
        let agents = membership::memberships(agents);
        let mounts = membership::mounts(mountinfo);
        let mut cgroup = Self::default();
        for Membership { version, path } in membership::memberships(its) {
            // The agent may sit in a group of its own, beside the container's or above it.
            let above = |agent: &Membership<'_>| agent.version == version && Path::new(agent.path).starts_with(path);
            if path == "/" || agents.iter().any(above) {
                continue;
            }
            let Some(dir) = mounts.iter().find_map(|mount| mount.dir_of(&version, path)) else { continue };
            match version {
                Version::One(controllers) => {
                    cgroup.v1.extend(controllers.iter().map(|controller| ((*controller).to_owned(), dir.clone())));
                }
                Version::Two => cgroup.v2 = Some(dir),
            }
        }
        cgroup
    }

    /// A file of a version 1 controller; empty when there is none.
    fn v1(&self, controller: &str, file: &str) -> Option<String> {
        Some(read_file(&self.v1.get(controller)?.join(file)))
    }

    /// A file of the version 2 group; empty when there is none.
    fn v2(&self, file: &str) -> String {
        self.v2.as_ref().map(|dir| read_file(&dir.join(file))).unwrap_or_default()
    }
}

/// The text of a file; empty when it cannot be read: what a kernel does not count is nothing.
fn read_file(path: &Path) -> String {
    let mut text = String::new();
    match std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text)) {
        Ok(_) => text,
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = include_str!("../../../tests/data/cgroup/proc-cgroup-v1.txt");
    const V1_MOUNTS: &str = include_str!("../../../tests/data/cgroup/mountinfo-v1.txt");
    const V2_MOUNTS: &str = include_str!("../../../tests/data/cgroup/mountinfo-v2.txt");

    #[test]
    fn a_group_is_found_in_every_hierarchy() {
        let cgroup = Cgroup::from_files(V1, "4:memory:/\n0::/\n", V1_MOUNTS);
        let dir = |controller: &str| cgroup.v1.get(controller).map(|dir| dir.to_str().unwrap());
        assert_eq!(dir("memory"), Some("/sys/fs/cgroup/memory/tcl/web"));
        assert_eq!(dir("cpu"), Some("/sys/fs/cgroup/cpu,cpuacct/tcl/web"));
        assert_eq!(dir("cpuacct"), dir("cpu"));
        assert_eq!(dir("name=systemd"), Some("/sys/fs/cgroup/systemd/tcl/web"));
        assert_eq!(cgroup.v2, None, "the root group is nobody's own");
        let cgroup = Cgroup::from_files("0::/kubepods/pod1/web\n", "0::/system.slice/agent\n", V2_MOUNTS);
        assert_eq!(cgroup, Cgroup { v2: Some("/sys/fs/cgroup/kubepods/pod1/web".into()), ..Default::default() });
    }

    #[test]
    fn the_agents_own_group_and_what_is_above_it_are_never_a_containers() {
        for its in ["0::/", "0::/a", "0::/a/b"] {
            assert_eq!(Cgroup::from_files(its, "0::/a/b", V2_MOUNTS), Cgroup::default(), "{its}");
        }
        for its in ["0::/a/bb", "0::/a/b/c", "0::/c"] {
            assert!(Cgroup::from_files(its, "0::/a/b", V2_MOUNTS).v2.is_some(), "{its}");
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_no_group() {
        for its in ["0::/../x", "0::x", "0::/a/../../etc", "0::", "0", ""] {
            assert_eq!(Cgroup::from_files(its, "", V2_MOUNTS), Cgroup::default(), "{its}");
        }
    }
}
