//! What a pod's container has in its spec besides, from the plain types of the launch.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use oci_spec::runtime::{
    Capabilities, Capability, LinuxCpuBuilder, LinuxDevice, LinuxDeviceBuilder, LinuxDeviceType, LinuxMemoryBuilder,
    LinuxResources, Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process,
};
use protocols::image::MountRequest;
use protocols::reason::{self, Refusal};

use super::mounts;
use super::user::User;
use crate::launch::{NumericUser, POD_FILES, POD_SHM, PodMount, PodSpec, Resources};

/// How the kernel weighs this process when memory is short, from -1000 to 1000.
const OWN_OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// A pod's container and what was made for it before its spec.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PodParts<'p> {
    pub(crate) spec: &'p PodSpec,
    /// The PID namespace to join; `None`: a new one.
    pub(crate) pid: Option<&'p Path>,
    /// Where the sources of the spec's mounts are, in their order.
    pub(crate) sources: &'p [PathBuf],
}

/// The numeric user a pod's container runs as: the one that was judged, or a refusal. `of_uid` is what the image's
/// files say of its number.
pub(super) fn user(judged: User, of_uid: &User, asked: &NumericUser) -> Result<User, Refusal> {
    let refused = |expected: String, actual: String| Refusal::new(reason::POLICY_PROCESS, "process", expected, actual);
    if (judged.uid, judged.gid) != (asked.uid, asked.gid) {
        let expected = format!("user {}:{}, which the image's own user is", judged.uid, judged.gid);
        return Err(refused(expected, format!("user {}:{}", asked.uid, asked.gid)));
    }
    let of_image = |gid: &u32| *gid == judged.gid || *gid == of_uid.gid || of_uid.additional.contains(gid);
    if let Some(gid) = asked.additional.iter().find(|gid| !of_image(gid)) {
        let expected = format!("groups that the image gives user {}", judged.uid);
        return Err(refused(expected, format!("group {gid}")));
    }
    let additional: BTreeSet<u32> = asked.additional.iter().copied().collect();
    Ok(User { additional: additional.into_iter().collect(), ..judged })
}

/// Capabilities by their names.
pub(super) fn capabilities(names: &BTreeSet<String>) -> Result<Capabilities, String> {
    let parse = |name: &String| {
        let bare = name.strip_prefix("CAP_").unwrap_or(name);
        Capability::from_str(bare).map_err(|_| format!("`{}` is no capability", name.escape_debug()))
    };
    names.iter().map(parse).collect()
}

/// Limits of the first process.
pub(super) fn process(process: &mut Process, spec: &PodSpec) -> Result<(), String> {
    let rlimits: Vec<PosixRlimit> = spec
        .rlimits
        .iter()
        .map(|limit| {
            let kind = rlimit(&limit.name).ok_or_else(|| format!("`{}` is no limit", limit.name.escape_debug()))?;
            let limit = PosixRlimitBuilder::default().typ(kind).hard(limit.hard).soft(limit.soft);
            limit.build().map_err(|error| error.to_string())
        })
        .collect::<Result<_, String>>()?;
    if !rlimits.is_empty() {
        process.set_rlimits(Some(rlimits));
    }
    Ok(())
}

/// How gladly the kernel ends the first process for lack of memory: as asked, but never less than the agent, and never
/// the agent's own rank by inheritance.
pub(super) fn oom_score(asked: Option<i32>) -> Result<i32, String> {
    let own = std::fs::read_to_string(OWN_OOM_SCORE).map_err(|error| format!("{OWN_OOM_SCORE}: {error}"))?;
    let own: i32 = own.trim().parse().map_err(|_| format!("{OWN_OOM_SCORE} holds no number"))?;
    Ok(asked.unwrap_or(0).clamp(own.min(1000), 1000))
}

/// A limit by its name in runtime specifications.
pub(crate) fn rlimit(name: &str) -> Option<PosixRlimitType> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).ok()
}

/// Limits of the control group.
pub(super) fn resources(linux: &mut LinuxResources, asked: &Resources) -> Result<(), oci_spec::OciSpecError> {
    let Resources {
        cpu_shares, cpu_quota, cpu_period, cpus, mems, memory_limit, memory_reservation, memory_swap, ..
    } = asked.clone();
    let mut cpu = LinuxCpuBuilder::default().build()?;
    cpu.set_shares(cpu_shares).set_quota(cpu_quota).set_period(cpu_period).set_cpus(cpus).set_mems(mems);
    linux.set_cpu(Some(cpu));
    let mut memory = LinuxMemoryBuilder::default().build()?;
    memory.set_limit(memory_limit).set_reservation(memory_reservation).set_swap(memory_swap);
    linux.set_memory(Some(memory));
    Ok(())
}

/// The guest's own device nodes at these paths.
pub(super) fn devices(paths: &[String]) -> Result<Vec<LinuxDevice>, String> {
    paths.iter().map(|path| device(path)).collect()
}

fn device(path: &str) -> Result<LinuxDevice, String> {
    let failed = |error: String| format!("device `{}`: {error}", path.escape_debug());
    let meta = std::fs::symlink_metadata(path).map_err(|error| failed(error.to_string()))?;
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => LinuxDeviceType::C,
        kind if kind.is_block_device() => LinuxDeviceType::B,
        _ => return Err(failed("it is no device node".to_owned())),
    };
    let number = |part: u32| i64::from(part);
    LinuxDeviceBuilder::default()
        .path(PathBuf::from(path))
        .typ(kind)
        .major(number(rustix::fs::major(meta.rdev())))
        .minor(number(rustix::fs::minor(meta.rdev())))
        .file_mode(meta.mode() & 0o777)
        .uid(meta.uid())
        .gid(meta.gid())
        .build()
        .map_err(|error| failed(error.to_string()))
}

/// Ours, and then what was asked for beyond.
pub(super) fn joined(own: &[&str], asked: Option<&[String]>) -> Vec<String> {
    let beyond = asked.unwrap_or_default().iter().filter(|path| !own.contains(&path.as_str())).cloned();
    own.iter().map(|path| (*path).to_owned()).chain(beyond).collect()
}

/// The fixed mounts, then the pod's. `judged` are the mounts that passed with the process: a bind mount that is not
/// among them must be one of a pod's fixed files or its shared memory.
pub(super) fn mounts(judged: &[MountRequest], binds: &[PodMount], sources: &[PathBuf]) -> Result<Vec<Mount>, String> {
    let mut all = mounts::fixed().collect::<Result<Vec<_>, _>>()?;
    for asked in judged.iter().filter(|asked| asked.kind != "bind") {
        all.push(mounts::added(asked)?);
    }
    if judged.iter().any(|asked| asked.kind == "bind" && !binds.iter().any(|bind| bind.asked == *asked)) {
        return Err("a mount whose source was not opened".to_owned());
    }
    if binds.len() != sources.len() || binds.len() > mounts::MAX_MOUNTS {
        return Err(format!("{} mounts with {} sources, at most {}", binds.len(), sources.len(), mounts::MAX_MOUNTS));
    }
    for (bind, source) in binds.iter().zip(sources) {
        let source = source.to_str().ok_or("a path that is not UTF-8")?.to_owned();
        let asked = MountRequest { source, kind: "bind".to_owned(), ..bind.asked.clone() };
        let destination = asked.destination.as_str();
        if judged.contains(&bind.asked) {
            all.push(mounts::added(&asked)?);
        } else if POD_FILES.contains(&destination) || destination == POD_SHM {
            let mount = mounts::mount(destination, "bind", &asked.source, mounts::options(&asked, true)?)?;
            match all.iter_mut().find(|known| known.destination() == Path::new(destination)) {
                Some(known) => *known = mount,
                None => all.push(mount),
            }
        } else {
            return Err(format!("a mount at `{}` that was not judged", destination.escape_debug()));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::Opened;

    fn asked(destination: &str, source: &str) -> MountRequest {
        let (destination, source) = (destination.to_owned(), source.to_owned());
        MountRequest { destination, kind: "bind".to_owned(), source, options: vec!["rbind".to_owned()] }
    }

    fn bind(destination: &str) -> PodMount {
        let source = Opened::new(std::fs::File::open("/").unwrap().into());
        PodMount { asked: asked(destination, "/run/x"), source }
    }

    #[test]
    fn only_judged_mounts_and_the_pods_fixed_files_are_mounted_and_from_opened_sources() {
        let sources = |n: usize| (0..n).map(|n| PathBuf::from(format!("/own/{n}"))).collect::<Vec<_>>();
        let pod = [bind("/dev/shm"), bind("/etc/hosts"), bind("/data")];
        let judged = [asked("/data", "/run/x")];
        let all = mounts(&judged, &pod, &sources(3)).unwrap();
        let at = |destination: &str| {
            let mut found = all.iter().filter(|mount| mount.destination() == Path::new(destination));
            let mount = found.next().unwrap();
            assert!(found.next().is_none(), "{destination} twice");
            (mount.source().clone().unwrap(), mount.options().clone().unwrap())
        };
        let options = ["rbind", "nosuid", "nodev"].map(str::to_owned).to_vec();
        assert_eq!(at("/dev/shm"), ("/own/0".into(), options.clone()));
        assert_eq!(at("/etc/hosts"), ("/own/1".into(), options.clone()));
        assert_eq!(at("/data"), ("/own/2".into(), options));
        assert!(mounts(&[], &pod, &sources(3)).is_err(), "/data was not judged");
        assert!(mounts(&judged, &pod[..2], &sources(2)).is_err(), "/data has no source");
        assert!(mounts(&judged, &pod, &sources(2)).is_err(), "a source is missing");
        for destination in ["/proc/x", "/dev", "/dev/pts", "/sys"] {
            let judged = [asked(destination, "/run/x")];
            assert!(mounts(&judged, &[bind(destination)], &sources(1)).is_err(), "{destination}, though judged");
        }
    }

    #[test]
    fn the_user_that_runs_is_the_one_that_was_judged() {
        let of = |uid, gid, additional: &[u32]| User { uid, gid, additional: additional.to_vec() };
        let ask = |uid, gid, additional: &[u32]| NumericUser { uid, gid, additional: additional.to_vec() };
        let image = of(1000, 1001, &[10, 29]);
        let run = |asked| user(image.clone(), &image, &asked).map_err(|refusal| refusal.code);
        assert_eq!(run(ask(1000, 1001, &[29, 1001, 29])), Ok(of(1000, 1001, &[29, 1001])));
        assert_eq!(run(ask(1000, 1001, &[])), Ok(of(1000, 1001, &[])));
        for bad in [ask(0, 1001, &[]), ask(1000, 0, &[]), ask(1000, 1001, &[0])] {
            assert_eq!(run(bad), Err(reason::POLICY_PROCESS));
        }
    }

    #[test]
    fn names_and_devices_that_are_none_are_refused() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let two = capabilities(&names(&["CAP_CHOWN", "NET_RAW"])).unwrap();
        assert_eq!(two, [Capability::Chown, Capability::NetRaw].into_iter().collect());
        assert!(capabilities(&names(&["CAP_ALL"])).is_err());
        assert!(rlimit("RLIMIT_NOFILE").is_some() && rlimit("NOFILE").is_none());
        let null = devices(&["/dev/null".to_owned()]).unwrap();
        assert_eq!((null[0].major(), null[0].minor(), null[0].typ()), (1, 3, LinuxDeviceType::C));
        for bad in ["/etc/passwd", "/nowhere"] {
            assert!(devices(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
