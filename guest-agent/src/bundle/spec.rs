//! The OCI runtime spec of a launch, and the digests the log names it by.
//!
//! `config.json` is written as canonical JSON, so that one launch has one file: `oci_h` in the log is the
//! SHA-384 of exactly these bytes, `config_h` their SHA-256.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxDeviceCgroupBuilder, LinuxNamespace,
    LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResourcesBuilder, ProcessBuilder, RootBuilder,
    Spec, SpecBuilder, UserBuilder,
};
use protocols::digest::{Sha256Digest, Sha384Digest};
use protocols::events::{hash_list, hash_str};
use protocols::image::ProcessRequest;
use protocols::jcs;
use serde_json::Value;

use super::mounts::mounts;
use super::pod::{self, PodParts};
use super::user::User;
use crate::container_id::ContainerId;
use crate::launch::{DEFAULT_PATH, DEFAULT_TERM, MAX_PIDS};

/// Release of the OCI runtime specification that the spec is written for.
const OCI_VERSION: &str = "1.0.2";
/// Parent of every container's control group.
const CGROUP_PARENT: &str = "/tcl";

/// What a container may do as root, as container engines commonly have it.
pub(crate) const CAPABILITIES: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Paths hidden from the container.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths the container may only read.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The final spec: its bytes, and what the `Launch` record says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FinalSpec {
    /// `config.json`.
    pub(crate) bytes: Vec<u8>,
    /// SHA-256 of the bytes.
    pub(crate) config_h: Sha256Digest,
    /// SHA-384 of the bytes, which are the spec's canonical JSON.
    pub(crate) oci_h: Sha384Digest,
    /// Arguments as a list.
    pub(crate) args_h: Sha384Digest,
    /// Environment as a list, with what was added to it.
    pub(crate) env_h: Sha384Digest,
    /// SHA-384 of the working directory.
    pub(crate) cwd_h: Sha384Digest,
    /// All capability sets as a sorted list of `SET:CAP`.
    pub(crate) caps_h: Sha384Digest,
    /// Mounts as a list of canonical JSON.
    pub(crate) mounts_h: Sha384Digest,
    /// Numeric user.
    pub(crate) uid: u32,
    /// Numeric group.
    pub(crate) gid: u32,
}

/// What one launch's spec is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blueprint<'b> {
    pub(super) id: &'b ContainerId,
    pub(super) process: &'b ProcessRequest,
    pub(super) user: &'b User,
    /// The mounted root file system.
    pub(super) rootfs: &'b Path,
    pub(super) terminal: bool,
    /// What a pod's container has besides.
    pub(super) pod: Option<&'b PodParts<'b>>,
}

/// Builds the spec of one launch.
///
/// - Root has the usual capabilities, any other user none; nobody gains privileges by executing a file.
/// - Namespaces: pid, ipc, uts, mount, and an empty network of its own; in a pod the sandbox's ipc and uts and the
///   guest's network. No hooks, no devices beyond the runtime's own and those a pod was permitted; a limit on
///   processes, and the seccomp profile of every container.
///
/// # Errors
/// Says which part of the request cannot be.
pub(super) fn build(plan: Blueprint<'_>) -> Result<FinalSpec, String> {
    let Blueprint { process, user, .. } = plan;
    let env = environment(process, plan.terminal, plan.pod)?;
    if process.args.first().is_none_or(String::is_empty) {
        return Err("neither the image nor the request names a program to run".to_owned());
    }
    if process.args.iter().any(|arg| arg.contains('\0')) {
        return Err("an argument holds a NUL byte".to_owned());
    }
    let spec = spec(plan, &env).map_err(|error| error.to_string())?;
    let mut value = serde_json::to_value(&spec).map_err(|error| error.to_string())?;
    let caps = sort_capabilities(&mut value);
    let bytes = jcs::canonical(&value).map_err(|error| error.to_string())?;
    let mounts = value.get("mounts").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mounts: Vec<String> = mounts
        .iter()
        .map(|mount| jcs::canonical(mount).map(|json| String::from_utf8_lossy(&json).into_owned()))
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    Ok(FinalSpec {
        config_h: Sha256Digest::of(&bytes),
        oci_h: Sha384Digest::of(&bytes),
        args_h: hash_list(&process.args),
        env_h: hash_list(&env),
        cwd_h: hash_str(&process.cwd),
        caps_h: hash_list(&caps),
        mounts_h: hash_list(&mounts),
        uid: user.uid,
        gid: user.gid,
        bytes,
    })
}

fn environment(process: &ProcessRequest, terminal: bool, pod: Option<&PodParts<'_>>) -> Result<Vec<String>, String> {
    let mut env = process.env.clone();
    for entry in &env {
        let named = entry.split_once('=').is_some_and(|(name, _)| !name.is_empty());
        if !named || entry.contains('\0') {
            return Err(format!("`{}` is not an environment entry NAME=value", entry.escape_debug()));
        }
    }
    if !env.iter().any(|entry| entry.starts_with("PATH=")) {
        env.push(DEFAULT_PATH.to_owned());
    }
    if terminal && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push(DEFAULT_TERM.to_owned());
    }
    if let Some(pod) = pod.filter(|pod| pod.spec.hostname_env) {
        env.push(format!("HOSTNAME={}", pod.spec.hostname));
    }
    Ok(env)
}

fn spec(plan: Blueprint<'_>, env: &[String]) -> Result<Spec, Box<dyn std::error::Error>> {
    let Blueprint { id, process, user, rootfs, terminal, pod } = plan;
    let (bounding, effective) = match pod.and_then(|pod| pod.spec.capabilities.as_ref()) {
        Some(sets) => (pod::capabilities(&sets.bounding)?, pod::capabilities(&sets.effective)?),
        None => (CAPABILITIES.into_iter().collect::<Capabilities>(), CAPABILITIES.into_iter().collect()),
    };
    let held = if user.uid == 0 { effective } else { Capabilities::new() };
    let mut oci_process = ProcessBuilder::default()
        .terminal(terminal)
        .args(process.args.clone())
        .env(env.to_vec())
        .cwd(PathBuf::from(&process.cwd))
        .user(UserBuilder::default().uid(user.uid).gid(user.gid).additional_gids(user.additional.clone()).build()?)
        .no_new_privileges(true)
        .capabilities(
            LinuxCapabilitiesBuilder::default()
                .bounding(bounding)
                .effective(held.clone())
                .permitted(held)
                .inheritable(Capabilities::new())
                .ambient(Capabilities::new())
                .build()?,
        )
        .build()?;
    oci_process.set_rlimits(None);
    oci_process.set_oom_score_adj(Some(pod::oom_score(pod.and_then(|pod| pod.spec.oom_score_adj))?));
    if let Some(pod) = pod {
        pod::process(&mut oci_process, pod.spec)?;
    }

    let pids = pod.and_then(|pod| pod.spec.resources.pids).filter(|pids| (1..MAX_PIDS).contains(pids));
    let mut devices = vec![LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?];
    let nodes = pod.map(|pod| pod::devices(&pod.spec.devices)).transpose()?.unwrap_or_default();
    devices.extend(nodes.iter().map(Into::into));
    let mut resources = LinuxResourcesBuilder::default()
        .devices(devices)
        .pids(LinuxPidsBuilder::default().limit(pids.unwrap_or(MAX_PIDS)).build()?)
        .build()?;
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces(pod)?)
        .seccomp(super::seccomp::profile()?)
        .cgroups_path(PathBuf::from(format!("{CGROUP_PARENT}/{id}")))
        .masked_paths(pod::joined(&MASKED, pod.map(|pod| pod.spec.masked_paths.as_slice())))
        .readonly_paths(pod::joined(&READ_ONLY, pod.map(|pod| pod.spec.readonly_paths.as_slice())))
        .build()?;
    if let Some(pod) = pod {
        pod::resources(&mut resources, &pod.spec.resources)?;
        if !pod.spec.sysctl.is_empty() {
            linux.set_sysctl(Some(pod.spec.sysctl.clone().into_iter().collect()));
        }
        if !nodes.is_empty() {
            linux.set_devices(Some(nodes));
        }
    }
    linux.set_resources(Some(resources));

    let read_only = pod.is_some_and(|pod| pod.spec.read_only_root);
    let mounts = match pod {
        Some(pod) => pod::mounts(&process.mounts, &pod.spec.mounts, pod.sources)?,
        None => mounts(&process.mounts)?,
    };
    let mut spec = SpecBuilder::default()
        .version(OCI_VERSION)
        .root(RootBuilder::default().path(rootfs).readonly(read_only).build()?)
        .process(oci_process)
        .mounts(mounts)
        .linux(linux)
        .build()?;
    // A pod's hostname is its sandbox's.
    spec.set_hostname(pod.is_none().then(|| id.hostname().to_owned()));
    Ok(spec)
}

fn namespaces(pod: Option<&PodParts<'_>>) -> Result<Vec<LinuxNamespace>, oci_spec::OciSpecError> {
    let of = |kind: LinuxNamespaceType, path: Option<&Path>| {
        let namespace = LinuxNamespaceBuilder::default().typ(kind);
        path.into_iter().fold(namespace, LinuxNamespaceBuilder::path).build()
    };
    let (pid, ipc, uts) = pod.map_or((None, None, None), |pod| (pod.pid, Some(&*pod.spec.ipc), Some(&*pod.spec.uts)));
    let mut all = vec![
        of(LinuxNamespaceType::Pid, pid)?,
        of(LinuxNamespaceType::Ipc, ipc)?,
        of(LinuxNamespaceType::Uts, uts)?,
        of(LinuxNamespaceType::Mount, None)?,
    ];
    if pod.is_none() {
        all.push(of(LinuxNamespaceType::Network, None)?);
    }
    Ok(all)
}

/// Capability sets have no order of their own: gives them one, and lists them as the log does.
fn sort_capabilities(spec: &mut Value) -> Vec<String> {
    let mut list = Vec::new();
    let Some(Value::Object(sets)) = spec.pointer_mut("/process/capabilities") else { return list };
    for (set, caps) in sets {
        let Value::Array(caps) = caps else { continue };
        caps.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        list.extend(caps.iter().filter_map(Value::as_str).map(|cap| format!("{set}:{cap}")));
    }
    list.sort();
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ContainerId {
        ContainerId::new("spec-test").unwrap()
    }

    fn process() -> ProcessRequest {
        ProcessRequest {
            args: vec!["/bin/true".to_owned()],
            env: vec!["A=b".to_owned(), "PATH=/bin".to_owned()],
            cwd: "/work".to_owned(),
            ..Default::default()
        }
    }

    fn user(uid: u32) -> User {
        User { uid, gid: uid, additional: vec![] }
    }

    fn build(
        id: &ContainerId,
        process: &ProcessRequest,
        user: &User,
        rootfs: &Path,
        terminal: bool,
    ) -> Result<FinalSpec, String> {
        super::build(Blueprint { id, process, user, rootfs, terminal, pod: None })
    }

    fn json(spec: &FinalSpec) -> Value {
        serde_json::from_slice(&spec.bytes).unwrap()
    }

    #[test]
    fn one_launch_has_one_file() {
        let one = build(&id(), &process(), &user(0), Path::new("/rootfs"), false).unwrap();
        for _ in 0..20 {
            assert_eq!(build(&id(), &process(), &user(0), Path::new("/rootfs"), false).unwrap(), one);
        }
        assert_eq!(one.config_h, Sha256Digest::of(&one.bytes));
        assert_eq!(one.oci_h, Sha384Digest::of(&jcs::canonical(&json(&one)).unwrap()));
        assert_eq!(one.args_h, hash_list(&["/bin/true"]));
        assert_eq!(one.env_h, hash_list(&["A=b", "PATH=/bin"]));
    }

    #[test]
    fn every_part_of_the_request_changes_the_digest() {
        let base = build(&id(), &process(), &user(0), Path::new("/rootfs"), false).unwrap();
        let changed = [
            build(&id(), &ProcessRequest { cwd: "/".to_owned(), ..process() }, &user(0), Path::new("/rootfs"), false),
            build(&id(), &process(), &user(1), Path::new("/rootfs"), false),
            build(&id(), &process(), &user(0), Path::new("/other"), false),
            build(&id(), &process(), &user(0), Path::new("/rootfs"), true),
            build(&ContainerId::new("other").unwrap(), &process(), &user(0), Path::new("/rootfs"), false),
        ];
        for spec in changed {
            assert_ne!(spec.unwrap().oci_h, base.oci_h);
        }
    }

    #[test]
    fn only_root_holds_capabilities_and_nobody_gains_any() {
        let root = json(&build(&id(), &process(), &user(0), Path::new("/r"), false).unwrap());
        let app = json(&build(&id(), &process(), &user(7), Path::new("/r"), false).unwrap());
        let count = |spec: &Value, set: &str| {
            spec.pointer(&format!("/process/capabilities/{set}")).map_or(0, |caps| caps.as_array().unwrap().len())
        };
        assert_eq!((count(&root, "effective"), count(&app, "effective")), (14, 0));
        assert_eq!((count(&root, "permitted"), count(&app, "permitted")), (14, 0));
        assert_eq!((count(&root, "bounding"), count(&app, "bounding")), (14, 14));
        for set in ["inheritable", "ambient"] {
            assert_eq!((count(&root, set), count(&app, set)), (0, 0));
        }
        for spec in [&root, &app] {
            assert_eq!(spec.pointer("/process/noNewPrivileges"), Some(&Value::Bool(true)));
            assert!(spec.pointer("/process/rlimits").is_none());
            assert!(spec.get("hooks").is_none());
            let namespaces = spec.pointer("/linux/namespaces").unwrap().to_string();
            for kind in ["pid", "ipc", "uts", "mount", "network"] {
                assert!(namespaces.contains(kind), "{namespaces}");
            }
            assert_eq!(spec.pointer("/linux/cgroupsPath").unwrap(), "/tcl/spec-test");
        }
    }

    #[test]
    fn every_container_has_a_limit_of_processes_and_a_seccomp_profile() {
        for uid in [0, 7] {
            let spec = json(&build(&id(), &process(), &user(uid), Path::new("/r"), false).unwrap());
            assert_eq!(spec.pointer("/linux/resources/pids/limit"), Some(&Value::from(4096)));
            let seccomp = spec.pointer("/linux/seccomp").unwrap();
            assert_eq!(seccomp["defaultAction"], "SCMP_ACT_ALLOW");
            assert_eq!(seccomp.get("architectures"), None, "any other than the native one is killed");
            let calls = seccomp["syscalls"].as_array().unwrap();
            let rules = |name: &str| -> Vec<(&Value, &Value)> {
                let named = |call: &&Value| call["names"].as_array().unwrap().contains(&Value::from(name));
                calls.iter().filter(named).map(|call| (&call["errnoRet"], &call["args"])).collect()
            };
            let always = Value::Null;
            for name in ["mount", "unshare", "setns", "bpf", "keyctl", "io_uring_setup", "open_by_handle_at"] {
                assert_eq!(rules(name), [(&Value::from(1), &always)], "{name}");
            }
            assert_eq!(rules("clone3"), [(&Value::from(38), &always)]);
            let vsock = serde_json::json!([
                { "index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0xffff_ffff_u64, "valueTwo": 40 }
            ]);
            assert_eq!(rules("socket"), [(&Value::from(1), &vsock)]);
            let flags = rules("clone").into_iter().map(|(_, args)| args[0]["valueTwo"].as_u64().unwrap());
            assert_eq!(flags.fold(0, |all, flag| all | flag), 0x7E02_0000, "every kind of namespace");
            for name in ["execve", "ptrace", "personality", "fork"] {
                assert_eq!(rules(name), [], "{name}");
            }
        }
    }

    #[test]
    fn a_process_that_cannot_be_is_refused() {
        let bad = [
            ProcessRequest { args: vec![], ..process() },
            ProcessRequest { args: vec![String::new()], ..process() },
            ProcessRequest { args: vec!["a\0b".to_owned()], ..process() },
            ProcessRequest { env: vec!["NAME".to_owned()], ..process() },
            ProcessRequest { env: vec!["=x".to_owned()], ..process() },
            ProcessRequest { env: vec!["A=\0".to_owned()], ..process() },
        ];
        for process in bad {
            assert!(build(&id(), &process, &user(0), Path::new("/r"), false).is_err(), "{process:?}");
        }
    }

    #[test]
    fn a_missing_path_is_added_and_named_in_the_log() {
        let bare = ProcessRequest { env: vec![], ..process() };
        let spec = build(&id(), &bare, &user(0), Path::new("/r"), true).unwrap();
        assert_eq!(spec.env_h, hash_list(&[DEFAULT_PATH, DEFAULT_TERM]));
    }
}
