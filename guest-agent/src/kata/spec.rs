//! From a `CreateContainerRequest` to a launch: what is taken, what is refused, and what is left unread.
//!
//! The request is the host's. It chooses an image and asks for a process, both of which are judged against the
//! image's golden value; for the rest it may ask for less than a container usually has, and for more only where the
//! measured configuration names it. `docs/kata-fields.md` lists every field.

mod limits;
mod mounts;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use protocols::reason::{self, Code, Refusal};
use protocols::rpc::kata::agent::{CreateContainerRequest, Storage};
use protocols::rpc::kata::oci;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use crate::error::AgentError;
use crate::launch::{Asked, LaunchRequest, NumericUser, PidNamespace, Place, PodSpec, Source};

/// The storage driver that has the guest pull an image.
pub(super) const GUEST_PULL: &str = "image_guest_pull";
/// What the driver's source is for the sandbox container.
const PAUSE: &str = "pause";
/// Where container runtimes say what kind of container it is.
const CONTAINER_TYPE: [&str; 2] = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
/// The largest metadata of an image, in bytes.
const MAX_METADATA: usize = 1024 * 1024;
/// The most entries of any list in a request.
const MAX_ENTRIES: usize = 4096;

/// What of its sandbox a container's request is read against.
#[derive(Debug)]
pub struct SandboxView<'v> {
    /// The sandbox's hostname.
    pub hostname: &'v str,
    /// The file of the sandbox's IPC namespace.
    pub ipc: &'v Path,
    /// The file of the sandbox's UTS namespace.
    pub uts: &'v Path,
    /// The container whose PID namespace is the sandbox's: the pause container.
    pub pause: Option<&'v str>,
    /// Where sources of mounts may be.
    pub sources: &'v MountSources,
    /// Capabilities (`CAP_NET_ADMIN`) that the measured configuration permits beyond the usual ones.
    pub capabilities: &'v BTreeSet<String>,
    /// Devices of the guest that the measured configuration permits.
    pub devices: &'v BTreeSet<PathBuf>,
}

/// The directories that a mount's source may lie beneath: the shared one, and every mounted storage.
#[derive(Debug, Default)]
pub struct MountSources {
    shared: Option<(PathBuf, OwnedFd)>,
    storages: BTreeMap<PathBuf, OwnedFd>,
}

impl MountSources {
    /// Opens the directory that the host's files are copied to.
    ///
    /// # Errors
    /// It is no directory.
    pub fn share(&mut self, path: &Path) -> std::io::Result<()> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.shared = Some((path.to_owned(), rustix::fs::open(path, flags, Mode::empty())?));
        Ok(())
    }

    /// Opens a mounted storage, by its mount point.
    ///
    /// # Errors
    /// It is not there.
    pub fn storage(&mut self, path: &Path) -> std::io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.storages.insert(path.to_owned(), rustix::fs::open(path, flags, Mode::empty())?);
        Ok(())
    }

    /// Opens a file of the shared directory.
    fn open_shared(&self, path: &Path) -> Result<OwnedFd, String> {
        let shared = self.shared.as_ref().map(|(root, fd)| (root.as_path(), fd));
        beneath(shared.into_iter(), path)
    }

    /// Opens what `path` names beneath any of them, without following a link.
    fn open(&self, path: &Path) -> Result<OwnedFd, String> {
        let shared = self.shared.as_ref().map(|(root, fd)| (root.as_path(), fd));
        // The innermost comes first: a storage may be mounted in another.
        let storages = self.storages.iter().rev().map(|(root, fd)| (root.as_path(), fd));
        beneath(storages.chain(shared), path)
    }
}

fn beneath<'r>(roots: impl Iterator<Item = (&'r Path, &'r OwnedFd)>, path: &Path) -> Result<OwnedFd, String> {
    let mut roots = roots.filter_map(|(root, fd)| path.strip_prefix(root).ok().map(|rest| (rest, fd)));
    let Some((rest, root)) = roots.next() else {
        return Err("it lies beneath neither the shared directory nor a storage of this sandbox".to_owned());
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let rest = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    match rustix::fs::openat2(root.as_fd(), rest, flags, Mode::empty(), resolve) {
        // A storage may be a single file.
        Err(rustix::io::Errno::NOTDIR) if rest == Path::new(".") => root.try_clone().map_err(|error| error.to_string()),
        other => other.map_err(|error| error.to_string()),
    }
}

/// What `image_guest_pull` says of an image besides its name.
#[derive(Deserialize)]
struct GuestPull {
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Reads a request against its sandbox.
///
/// # Errors
/// `policy.rootfs`, `policy.capabilities`, `policy.devices`, `policy.mount`, `policy.spec`; nothing has been done.
pub fn launch_request(
    request: &CreateContainerRequest,
    sandbox: &SandboxView<'_>,
) -> Result<LaunchRequest, AgentError> {
    Ok(read(request, sandbox)?)
}

fn read(request: &CreateContainerRequest, sandbox: &SandboxView<'_>) -> Result<LaunchRequest, Refusal> {
    let spec = request.OCI.as_ref().ok_or_else(|| refused("OCI", "a runtime specification", "none"))?;
    let process = spec.Process.as_ref().ok_or_else(|| refused("Process", "a process", "none"))?;
    plain(request, spec)?;
    let (source, reference) = image(request, spec)?;
    namespaces(spec)?;

    let mut pod = PodSpec {
        hostname: hostname(sandbox.hostname)?,
        ipc: sandbox.ipc.to_owned(),
        uts: sandbox.uts.to_owned(),
        pid: match (request.sandbox_pidns, sandbox.pause) {
            (false, _) => PidNamespace::New,
            (true, Some(pause)) => PidNamespace::Of(pause.to_owned()),
            (true, None) => return Err(refused("sandbox_pidns", "a pause container that was created", "none")),
        },
        read_only_root: spec.Root.as_ref().is_some_and(|root| root.Readonly),
        ..PodSpec::default()
    };
    limits::read(&mut pod, request, spec, process, sandbox)?;
    let mut asked = Asked::default();
    if source == Source::Image {
        pod.user = Some(user(process)?);
        asked = Asked {
            args: process.Args.clone(),
            env: process.Env.clone(),
            cwd: process.Cwd.clone(),
            ..Asked::default()
        };
        (pod.mounts, asked.mounts) = mounts::read(spec, sandbox.sources)?;
    }
    Ok(LaunchRequest {
        reference,
        id: request.container_id.clone(),
        // Whoever measured the configuration says where it is decided, not the host.
        mode: String::new(),
        process: asked,
        terminal: source == Source::Image && process.Terminal,
        stdin: source == Source::Image,
        keep: true,
        source,
        place: Place::Pod(Box::new(pod)),
    })
}

fn refusal(code: Code, subject: &str, expected: impl Into<String>, actual: impl AsRef<str>) -> Refusal {
    let actual: String = actual.as_ref().chars().take(256).collect();
    Refusal::new(code, subject, expected, actual.escape_debug().to_string())
}

fn refused(subject: &str, expected: impl Into<String>, actual: impl AsRef<str>) -> Refusal {
    refusal(reason::POLICY_SPEC, subject, expected, actual)
}

/// Refuses what no container of a pod has, and lists without end.
fn plain(request: &CreateContainerRequest, spec: &oci::Spec) -> Result<(), Refusal> {
    if !(request.exec_id.is_empty() || request.exec_id == request.container_id) {
        return Err(refused("exec_id", "none, or the container's id", &request.exec_id));
    }
    let linux = spec.Linux.as_ref();
    let id_mappings = linux.is_some_and(|linux| !linux.UIDMappings.is_empty() || !linux.GIDMappings.is_empty());
    let hooks = spec.Hooks.as_ref().is_some_and(|hooks| {
        let lists = [
            &hooks.Prestart,
            &hooks.Poststart,
            &hooks.Poststop,
            &hooks.CreateRuntime,
            &hooks.CreateContainer,
            &hooks.StartContainer,
        ];
        lists.iter().any(|list| !list.is_empty())
    });
    for (there, what) in [
        (request.string_user.is_some(), "string_user"),
        (!request.shared_mounts.is_empty(), "shared_mounts"),
        (request.stdin_port != 0 || request.stdout_port != 0 || request.stderr_port != 0, "ports of streams"),
        (hooks, "Hooks"),
        (id_mappings, "UIDMappings and GIDMappings"),
        (spec.Solaris.is_some() || spec.Windows.is_some(), "Solaris and Windows"),
        (linux.is_some_and(|linux| linux.IntelRdt.is_some()), "IntelRdt"),
    ] {
        if there {
            return Err(refused(what, "none", "some"));
        }
    }
    let process = spec.Process.as_ref();
    for (what, len) in [
        ("storages", request.storages.len()),
        ("Mounts", spec.Mounts.len()),
        ("Args", process.map_or(0, |process| process.Args.len())),
        ("Env", process.map_or(0, |process| process.Env.len())),
    ] {
        if len > MAX_ENTRIES {
            return Err(refused(what, format!("at most {MAX_ENTRIES} entries"), len.to_string()));
        }
    }
    Ok(())
}

/// The one storage that has the guest pull an image, or stands for the pause bundle.
fn image(request: &CreateContainerRequest, spec: &oci::Spec) -> Result<(Source, String), Refusal> {
    let rootfs = |expected: &str, actual: &str| refusal(reason::POLICY_ROOTFS, "root file system", expected, actual);
    let mut pulls = request.storages.iter().filter(|storage| storage.driver == GUEST_PULL);
    let Some(pull) = pulls.next() else {
        return Err(rootfs("an image that the guest pulls", "one of the host"));
    };
    if pulls.next().is_some() {
        return Err(rootfs("one image", "several"));
    }
    if let Some(root) = spec.Root.as_ref().filter(|root| root.Path != pull.mount_point) {
        return Err(rootfs(&format!("the pulled image at {}", pull.mount_point), &root.Path));
    }
    let sandbox = is_sandbox(pull)?;
    match (sandbox, pull.source.as_str()) {
        (true, PAUSE) => Ok((Source::Pause, String::new())),
        (true, other) => Err(rootfs("the pause bundle for the sandbox container", other)),
        (false, PAUSE | "") => Err(rootfs("an image's reference, or the sandbox container", &pull.source)),
        (false, reference) => Ok((Source::Image, reference.to_owned())),
    }
}

fn is_sandbox(pull: &Storage) -> Result<bool, Refusal> {
    let mut sandbox = false;
    for option in &pull.driver_options {
        let Some(json) = option.strip_prefix("image_guest_pull=") else { continue };
        let malformed = |why: String| refusal(reason::POLICY_ROOTFS, "image_guest_pull", "metadata in JSON", why);
        if json.len() > MAX_METADATA {
            return Err(malformed(format!("{} bytes", json.len())));
        }
        let pull: GuestPull = serde_json::from_str(json).map_err(|error| malformed(error.to_string()))?;
        let kind = |name: &&str| pull.metadata.get(*name).is_some_and(|kind| kind == "sandbox");
        sandbox |= CONTAINER_TYPE.iter().any(kind);
    }
    Ok(sandbox)
}

/// The sandbox's namespaces are joined whatever the request says; what it must not do is name others.
fn namespaces(spec: &oci::Spec) -> Result<(), Refusal> {
    let all = spec.Linux.as_ref().map(|linux| linux.Namespaces.as_slice()).unwrap_or_default();
    for namespace in all {
        match (namespace.Type.as_str(), namespace.Path.as_str()) {
            ("ipc" | "uts" | "mnt" | "mount" | "pid" | "network" | "cgroup", "") => {}
            // The host's paths of its own namespaces say nothing here.
            ("ipc" | "uts" | "network", _) => {}
            (kind, path) => return Err(refused("Namespaces", "those of the sandbox", format!("{kind} {path}"))),
        }
    }
    Ok(())
}

fn hostname(name: &str) -> Result<String, Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.len() > 64 || !name.bytes().all(plain) {
        return Err(refused("hostname", "at most 64 of A-Z a-z 0-9 - . _", name));
    }
    Ok(name.to_owned())
}

fn user(process: &oci::Process) -> Result<NumericUser, Refusal> {
    let Some(user) = process.User.as_ref() else { return Ok(NumericUser::default()) };
    if user.AdditionalGids.len() > MAX_ENTRIES {
        return Err(refused("AdditionalGids", format!("at most {MAX_ENTRIES}"), user.AdditionalGids.len().to_string()));
    }
    Ok(NumericUser { uid: user.UID, gid: user.GID, additional: user.AdditionalGids.clone() })
}

#[cfg(test)]
mod tests;
