//! What a container of a pod is besides its image and process, in plain types, and what of it is the image's own.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use protocols::image::{ImageProcess, MountRequest, ProcessRequest};

use super::process::{Asked, merge};

// Given to a process whose image names no `PATH`: without one not even its own program is found.
pub(crate) use protocols::pause::DEFAULT_PATH;

/// Given to a process with a terminal whose image names none.
pub(crate) const DEFAULT_TERM: &str = "TERM=xterm";
/// The most processes and threads of one container, so that none takes them all from the guest.
pub(crate) const MAX_PIDS: i64 = 4096;

/// Files that every pod brings, by destination: they need no golden entry, and must be files of the shared directory.
pub const POD_FILES: [&str; 4] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/termination-log"];
/// Where the sandbox's shared memory is mounted: it needs no golden entry either.
pub const POD_SHM: &str = "/dev/shm";

/// Where a container's root file system and process come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Source {
    /// An image, appraised against its golden value.
    #[default]
    Image,
    /// The pause bundle of the guest image, pinned by the measured configuration.
    Pause,
}

/// Where a container runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// In namespaces of its own, with an empty network.
    #[default]
    Own,
    /// In a pod: with its sandbox's namespaces and the guest's network.
    Pod(Box<PodSpec>),
}

/// What a pod's container shares, and what its runtime asks for. Whoever makes one has checked it against what the
/// measured configuration permits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSpec {
    /// The sandbox's hostname, as its UTS namespace has it.
    pub hostname: String,
    /// Whether the process is told the hostname in `HOSTNAME`.
    pub hostname_env: bool,
    /// The sandbox's IPC namespace.
    pub ipc: PathBuf,
    /// The sandbox's UTS namespace.
    pub uts: PathBuf,
    /// The PID namespace.
    pub pid: PidNamespace,
    /// The numeric user that the process is meant to have; it must be what the judged user turns out to be.
    pub user: Option<NumericUser>,
    /// Whether the root file system cannot be written.
    pub read_only_root: bool,
    /// Capability sets; `None`: the usual ones.
    pub capabilities: Option<CapabilitySets>,
    /// Resource limits of the process.
    pub rlimits: Vec<Rlimit>,
    /// How readily the kernel ends it when memory is short; never below the agent's own.
    pub oom_score_adj: Option<i32>,
    /// Kernel parameters of the sandbox's IPC namespace.
    pub sysctl: BTreeMap<String, String>,
    /// Limits of its control group.
    pub resources: Resources,
    /// Paths hidden beyond those always hidden.
    pub masked_paths: Vec<String>,
    /// Paths that can only be read beyond those always so.
    pub readonly_paths: Vec<String>,
    /// Bind mounts, in order.
    pub mounts: Vec<PodMount>,
    /// Device nodes of the guest, by path.
    pub devices: Vec<String>,
}

/// A container's PID namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PidNamespace {
    /// One of its own.
    #[default]
    New,
    /// That of the container with this id.
    Of(String),
}

/// A numeric user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumericUser {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Further group ids.
    pub additional: Vec<u32>,
}

/// Capabilities by name (`CAP_CHOWN`). What is not here no process of the container can have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// The most the container's processes can have.
    pub bounding: BTreeSet<String>,
    /// What its first process has, as root.
    pub effective: BTreeSet<String>,
}

/// One limit of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and the like.
    pub name: String,
    /// Hard limit.
    pub hard: u64,
    /// Soft limit.
    pub soft: u64,
}

/// Limits of a control group; what is `None` is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU weight.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time in a period.
    pub cpu_quota: Option<i64>,
    /// The period, in microseconds.
    pub cpu_period: Option<u64>,
    /// CPUs, as a list of ranges.
    pub cpus: Option<String>,
    /// Memory nodes, as a list of ranges.
    pub mems: Option<String>,
    /// Bytes of memory.
    pub memory_limit: Option<i64>,
    /// Bytes that are reclaimed down to when memory is short.
    pub memory_reservation: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_swap: Option<i64>,
    /// Processes and threads; at most `MAX_PIDS`.
    pub pids: Option<i64>,
}

/// A bind mount whose source has been opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodMount {
    /// As it was asked for.
    pub asked: MountRequest,
    /// The source.
    pub source: Opened,
}

/// The file or directory that was found when the request came: what lies under its path later is another matter.
#[derive(Debug, Clone)]
pub struct Opened(Arc<OwnedFd>);

impl Opened {
    /// Keeps a descriptor.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Two requests are alike when they ask alike, whichever descriptors they were given.
impl PartialEq for Opened {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Opened {}

/// The process of a pod's container that is judged: what pod runtimes add to every process is taken out again where
/// it is what this agent would add itself.
pub(super) fn merge_pod(image: &ImageProcess, mut asked: Asked, pod: &mut PodSpec, terminal: bool) -> ProcessRequest {
    let has = |name: &str| image.env.iter().any(|entry| entry.split_once('=').is_some_and(|(known, _)| known == name));
    let (has_path, has_term, has_hostname) = (has("PATH"), has("TERM"), has("HOSTNAME"));
    let hostname = format!("HOSTNAME={}", pod.hostname);
    asked.env.retain(|entry| match entry.as_str() {
        DEFAULT_PATH => has_path,
        DEFAULT_TERM => has_term || !terminal,
        // An image's own value is not silently replaced by another.
        entry if entry == hostname && !has_hostname => {
            pod.hostname_env = true;
            false
        }
        _ => true,
    });
    if let Some(user) = &pod.user {
        asked.user = user_text(&image.user, user);
    }
    merge(image, asked)
}

/// The image's own user where `asked` may be it, which the image's files tell only once it is mounted; else numbers.
fn user_text(image: &str, asked: &NumericUser) -> String {
    let (user, group) = image.split_once(':').map_or((image, None), |(user, group)| (user, Some(group)));
    let number = |text: &str| text.parse::<u32>().ok();
    let uid = match user {
        "" | "root" => Some(0),
        user => number(user),
    };
    let gid = match group.filter(|group| !group.is_empty()) {
        Some(group) => number(group),
        None => uid.filter(|uid| *uid == 0),
    };
    let may_be = |own: Option<u32>, asked: u32| own.is_none_or(|own| own == asked);
    if may_be(uid, asked.uid) && may_be(gid, asked.gid) {
        image.to_owned()
    } else {
        format!("{}:{}", asked.uid, asked.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn merged(image_env: &[&str], asked: &[&str], terminal: bool) -> (Vec<String>, bool) {
        let image = ImageProcess { env: strings(image_env), ..Default::default() };
        let mut pod = PodSpec { hostname: "pod".to_owned(), ..Default::default() };
        let asked = Asked { env: strings(asked), ..Default::default() };
        let process = merge_pod(&image, asked, &mut pod, terminal);
        (process.env, pod.hostname_env)
    }

    #[test]
    fn what_pod_runtimes_always_add_is_not_judged_and_everything_else_is() {
        assert_eq!(merged(&["A=1"], &[DEFAULT_PATH, "A=1", "HOSTNAME=pod"], false), (strings(&["A=1"]), true));
        // The order is the image's, whatever the runtime made of it.
        let (env, _) = merged(&["A=1", "PATH=/bin"], &["PATH=/bin", "A=1"], false);
        assert_eq!(env, ["A=1", "PATH=/bin"]);
        assert_eq!(merged(&["PATH=/bin"], &[DEFAULT_PATH], false).0, [DEFAULT_PATH]);
        assert_eq!(merged(&[], &["HOSTNAME=other"], false), (strings(&["HOSTNAME=other"]), false));
        assert_eq!(merged(&["HOSTNAME=own"], &["HOSTNAME=pod"], false), (strings(&["HOSTNAME=pod"]), false));
        assert_eq!(merged(&[], &[DEFAULT_TERM], true).0, [""; 0]);
        assert_eq!(merged(&[], &[DEFAULT_TERM], false).0, [DEFAULT_TERM]);
    }

    #[test]
    fn a_number_that_may_be_the_images_user_is_judged_as_that_user() {
        for (image, uid, gid, judged) in [
            ("", 0, 0, ""),
            ("root", 0, 0, "root"),
            ("0:0", 0, 0, "0:0"),
            ("", 0, 5, "0:5"),
            ("", 1000, 0, "1000:0"),
            ("1000", 1000, 7, "1000"),
            ("1000", 1001, 7, "1001:7"),
            ("1000:7", 1000, 7, "1000:7"),
            ("1000:7", 1000, 8, "1000:8"),
            ("app", 1000, 1000, "app"),
            ("app:7", 1000, 8, "1000:8"),
        ] {
            let asked = NumericUser { uid, gid, additional: vec![] };
            assert_eq!(user_text(image, &asked), judged, "{image}");
        }
    }
}
