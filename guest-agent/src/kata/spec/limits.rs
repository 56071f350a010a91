//! Capabilities, limits, kernel parameters, paths and devices of a pod's container.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use protocols::reason::{self, Refusal};
use protocols::rpc::kata::agent::CreateContainerRequest;
use protocols::rpc::kata::oci;

use super::{SandboxView, refusal, refused};
use crate::bundle::CAPABILITIES;
use crate::bundle::mounts::is_plain_absolute;
use crate::launch::{CapabilitySets, PodSpec, Resources, Rlimit};

/// The most masked or read-only paths, limits or parameters.
const MAX: usize = 256;
/// Kernel parameters of an IPC namespace: by name, or everything beneath.
const SYSCTLS: [&str; 14] = [
    "fs.mqueue.",
    "kernel.auto_msgmni",
    "kernel.msg_next_id",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.sem_next_id",
    "kernel.shm_next_id",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shmmin",
];

pub(super) fn read(
    pod: &mut PodSpec,
    request: &CreateContainerRequest,
    spec: &oci::Spec,
    process: &oci::Process,
    sandbox: &SandboxView<'_>,
) -> Result<(), Refusal> {
    pod.capabilities =
        process.Capabilities.as_ref().map(|sets| capabilities(sets, sandbox.capabilities)).transpose()?;
    pod.rlimits = process.Rlimits.iter().map(rlimit).collect::<Result<_, _>>()?;
    let names: BTreeSet<&str> = pod.rlimits.iter().map(|limit| limit.name.as_str()).collect();
    if names.len() < pod.rlimits.len() {
        return Err(refused("Rlimits", "each limit once", "one twice"));
    }
    pod.oom_score_adj = match process.OOMScoreAdj {
        // What is not set arrives as zero.
        0 => None,
        score => Some(i32::try_from(score.clamp(-1000, 1000)).unwrap_or(1000)),
    };
    for device in &request.devices {
        pod.devices.push(permitted_device(&device.container_path, sandbox)?);
    }
    let Some(linux) = spec.Linux.as_ref() else { return Ok(()) };
    pod.sysctl = sysctl(linux)?;
    if let Some(asked) = linux.Resources.as_ref() {
        pod.resources = resources(asked)?;
    }
    pod.masked_paths = paths("MaskedPaths", &linux.MaskedPaths)?;
    pod.readonly_paths = paths("ReadonlyPaths", &linux.ReadonlyPaths)?;
    for device in &linux.Devices {
        pod.devices.push(permitted_device(&device.Path, sandbox)?);
    }
    pod.devices.sort();
    pod.devices.dedup();
    Ok(())
}

/// A device node of the guest, which the container sees under the same path.
fn permitted_device(path: &str, sandbox: &SandboxView<'_>) -> Result<String, Refusal> {
    if sandbox.devices.contains(Path::new(path)) && is_plain_absolute(path) {
        return Ok(path.to_owned());
    }
    let expected = "devices that the measured configuration names";
    Err(refusal(reason::POLICY_DEVICES, "devices", expected, path))
}

/// The host may drop what containers usually have; beyond that the configuration says what it may add. Nothing is
/// inheritable or ambient.
fn capabilities(sets: &oci::LinuxCapabilities, permitted: &BTreeSet<String>) -> Result<CapabilitySets, Refusal> {
    let usual: BTreeSet<String> = CAPABILITIES.iter().map(|capability| format!("CAP_{capability}")).collect();
    let within = |names: &[String]| -> Result<BTreeSet<String>, Refusal> {
        let full = |name: &String| if name.starts_with("CAP_") { name.clone() } else { format!("CAP_{name}") };
        let names: BTreeSet<String> = names.iter().map(full).collect();
        match names.iter().find(|name| !usual.contains(*name) && !permitted.contains(*name)) {
            Some(beyond) => {
                let expected = "the usual capabilities and those the measured configuration names";
                Err(refusal(reason::POLICY_CAPABILITIES, "Capabilities", expected, beyond))
            }
            None => Ok(names),
        }
    };
    within(&sets.Inheritable)?;
    within(&sets.Ambient)?;
    let (bounding, effective, held) = (within(&sets.Bounding)?, within(&sets.Effective)?, within(&sets.Permitted)?);
    let effective = effective.into_iter().filter(|name| bounding.contains(name) && held.contains(name)).collect();
    Ok(CapabilitySets { bounding, effective })
}

fn rlimit(limit: &oci::POSIXRlimit) -> Result<Rlimit, Refusal> {
    if crate::bundle::rlimit(&limit.Type).is_none() || limit.Soft > limit.Hard {
        let actual = format!("{} {} above {}", limit.Type, limit.Soft, limit.Hard);
        return Err(refused("Rlimits", "known limits, soft ones not above hard ones", actual));
    }
    Ok(Rlimit { name: limit.Type.clone(), hard: limit.Hard, soft: limit.Soft })
}

/// The network is the guest's own and the host name the sandbox's: only the IPC namespace has parameters of a pod.
fn sysctl(linux: &oci::Linux) -> Result<BTreeMap<String, String>, Refusal> {
    let mut all = BTreeMap::new();
    for (name, value) in &linux.Sysctl {
        let of_ipc = |known: &&str| {
            let beneath = known.ends_with('.') && name.strip_prefix(*known).is_some_and(|rest| !rest.contains('/'));
            beneath || name == known
        };
        let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b' ' | b'\t' | b'-');
        if !SYSCTLS.iter().any(of_ipc) || value.len() > 256 || !value.bytes().all(plain) {
            return Err(refused("Sysctl", "numbers for parameters of the IPC namespace", format!("{name} = {value}")));
        }
        all.insert(name.clone(), value.clone());
    }
    Ok(all)
}

/// CPU, memory and processes. Zero is how the protocol says "not set".
fn resources(asked: &oci::LinuxResources) -> Result<Resources, Refusal> {
    let mut resources = Resources::default();
    if let Some(cpu) = asked.CPU.as_ref() {
        resources.cpu_shares = Some(cpu.Shares).filter(|shares| *shares != 0);
        resources.cpu_quota = Some(cpu.Quota).filter(|quota| *quota != 0);
        resources.cpu_period = Some(cpu.Period).filter(|period| *period != 0);
        resources.cpus = ranges("Cpus", &cpu.Cpus)?;
        resources.mems = ranges("Mems", &cpu.Mems)?;
    }
    if let Some(memory) = asked.Memory.as_ref() {
        // A guest has no swap, so that a limit of memory and swap together says nothing more.
        resources.memory_limit = Some(memory.Limit).filter(|limit| *limit != 0);
        resources.memory_reservation = Some(memory.Reservation).filter(|limit| *limit != 0);
    }
    resources.pids = asked.Pids.as_ref().map(|pids| pids.Limit).filter(|limit| *limit > 0);
    Ok(resources)
}

fn ranges(what: &str, text: &str) -> Result<Option<String>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b',' | b'-');
    if text.len() > 4096 || !text.bytes().all(plain) {
        return Err(refused(what, "a list of ranges", text));
    }
    Ok(Some(text.to_owned()))
}

fn paths(what: &str, paths: &[String]) -> Result<Vec<String>, Refusal> {
    if paths.len() > MAX {
        return Err(refused(what, format!("at most {MAX} paths"), paths.len().to_string()));
    }
    match paths.iter().find(|path| !is_plain_absolute(path) || path.as_str() == "/") {
        Some(path) => Err(refused(what, "absolute paths without `.` and `..`", path)),
        None => Ok(paths.to_vec()),
    }
}
