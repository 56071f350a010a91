//! The fixed mounts of every container, and the rules for those a caller adds.

use std::path::PathBuf;

use oci_spec::runtime::{Mount, MountBuilder};
use protocols::image::MountRequest;

/// Options a caller may give; those with `=` take a value of letters, digits and `%`.
const OPTIONS: &[&str] = &[
    "ro", "rw", "bind", "rbind", "private", "rprivate", "slave", "rslave", "nosuid", "nodev", "noexec", "noatime",
    "relatime", "mode=", "size=", "uid=", "gid=",
];
/// Always added to a caller's mounts.
const FORCED: &[&str] = &["nosuid", "nodev"];
/// Destinations where the runtime's own mounts are.
pub(super) const RESERVED: &[&str] = &["/proc", "/sys", "/dev"];
/// The most mounts one launch may ask for.
pub(crate) const MAX_MOUNTS: usize = 64;

/// The mounts every container has, in order: destination, type, source, options.
const FIXED: &[(&str, &str, &str, &[&str])] = &[
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
];

/// The fixed mounts followed by the caller's.
///
/// # Errors
/// Says which of the caller's mounts cannot be, and why.
pub(super) fn mounts(asked: &[MountRequest]) -> Result<Vec<Mount>, String> {
    if asked.len() > MAX_MOUNTS {
        return Err(format!("{} mounts, at most {MAX_MOUNTS}", asked.len()));
    }
    fixed().chain(asked.iter().map(added)).collect()
}

/// The mounts every container has.
pub(super) fn fixed() -> impl Iterator<Item = Result<Mount, String>> {
    FIXED.iter().map(|(destination, kind, source, options)| {
        mount(destination, kind, source, options.iter().map(|option| (*option).to_owned()).collect())
    })
}

/// The type of the mount that every container has at `destination`.
pub(crate) fn fixed_kind(destination: &str) -> Option<&'static str> {
    FIXED.iter().find(|(fixed, ..)| *fixed == destination).map(|(_, kind, ..)| *kind)
}

pub(super) fn added(asked: &MountRequest) -> Result<Mount, String> {
    let refused = |why: &str| format!("mount at `{}`: {why}", asked.destination.escape_debug());
    if !is_plain_absolute(&asked.destination) || asked.destination == "/" {
        return Err(refused("the destination must be an absolute path without `.` and `..`, and not the root"));
    }
    let beneath = |dir: &&str| asked.destination.strip_prefix(*dir).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    if RESERVED.iter().any(beneath) {
        return Err(refused("the destination is the runtime's own"));
    }
    let bind = match asked.kind.as_str() {
        "bind" if is_plain_absolute(&asked.source) => true,
        "bind" => return Err(refused("a bind mount's source must be an absolute path without `.` and `..`")),
        "tmpfs" => false,
        _ => return Err(refused("the type must be bind or tmpfs")),
    };
    let options = options(asked, bind).map_err(|why| refused(&why))?;
    let source = if bind { asked.source.as_str() } else { "tmpfs" };
    mount(&asked.destination, &asked.kind, source, options)
}

/// The options of a caller's mount, with those that it always has.
///
/// # Errors
/// Says which may not be given.
pub(super) fn options(asked: &MountRequest, bind: bool) -> Result<Vec<String>, String> {
    let mut options: Vec<String> = Vec::new();
    for option in &asked.options {
        let (name, value) = option.split_once('=').map_or((option.as_str(), None), |(n, v)| (n, Some(v)));
        let known = match value {
            None => OPTIONS.contains(&name),
            Some(value) => {
                let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'%');
                plain && !bind && OPTIONS.iter().any(|known| known.strip_suffix('=') == Some(name))
            }
        };
        if !known {
            return Err(format!("the option `{}` may not be given", option.escape_debug()));
        }
        options.push(option.clone());
    }
    if bind && !options.iter().any(|option| option == "bind" || option == "rbind") {
        options.push("rbind".to_owned());
    }
    for forced in FORCED {
        if !options.iter().any(|option| option == forced) {
            options.push((*forced).to_owned());
        }
    }
    Ok(options)
}

pub(super) fn mount(destination: &str, kind: &str, source: &str, options: Vec<String>) -> Result<Mount, String> {
    MountBuilder::default()
        .destination(PathBuf::from(destination))
        .typ(kind)
        .source(PathBuf::from(source))
        .options(options)
        .build()
        .map_err(|error| error.to_string())
}

/// Absolute, no empty, `.` or `..` segment, no NUL.
pub(crate) fn is_plain_absolute(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else { return false };
    let plain = |segment: &str| !matches!(segment, "" | "." | "..");
    !path.contains('\0') && (rest.is_empty() || rest.split('/').all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(destination: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount, String> {
        let asked = MountRequest {
            destination: destination.to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        };
        Ok(mounts(&[asked])?.pop().unwrap())
    }

    #[test]
    fn a_callers_mounts_are_bind_or_tmpfs_and_never_bring_devices_or_setuid() {
        let mount = ask("/data", "bind", "/srv/data", &["ro"]).unwrap();
        assert_eq!(mount.options().as_deref().unwrap(), ["ro", "rbind", "nosuid", "nodev"]);
        let mount = ask("/scratch", "tmpfs", "ignored", &["size=64m", "nosuid"]).unwrap();
        assert_eq!(mount.options().as_deref().unwrap(), ["size=64m", "nosuid", "nodev"]);
        assert_eq!(mount.source().as_ref().unwrap().to_str(), Some("tmpfs"));
    }

    #[test]
    fn mounts_that_could_hide_or_reach_what_they_should_not_are_refused() {
        for (destination, kind, source, options) in [
            ("data", "tmpfs", "", &[][..]),
            ("/", "tmpfs", "", &[]),
            ("/a/../b", "tmpfs", "", &[]),
            ("/a//b", "tmpfs", "", &[]),
            ("/proc", "tmpfs", "", &[]),
            ("/proc/sys", "bind", "/tmp", &[]),
            ("/dev/shm", "tmpfs", "", &[]),
            ("/sys/fs", "tmpfs", "", &[]),
            ("/data", "proc", "proc", &[]),
            ("/data", "overlay", "overlay", &[]),
            ("/data", "bind", "relative", &[]),
            ("/data", "bind", "/srv/../etc", &[]),
            ("/data", "tmpfs", "", &["suid"]),
            ("/data", "tmpfs", "", &["dev"]),
            ("/data", "tmpfs", "", &["size="]),
            ("/data", "tmpfs", "", &["size=1,mode=777"]),
            ("/data", "bind", "/srv", &["upperdir=/x"]),
            ("/data", "bind", "/srv", &["mode=777"]),
            ("/data", "bind", "/srv", &["rshared"]),
        ] {
            assert!(ask(destination, kind, source, options).is_err(), "{destination} {kind} {source} {options:?}");
        }
        assert!(ask("/process", "tmpfs", "", &[]).is_ok(), "only whole path segments are reserved");
    }

    #[test]
    fn the_file_systems_of_the_kernel_cannot_be_written() {
        let mounts = mounts(&[]).unwrap();
        for read_only in ["/sys", "/sys/fs/cgroup"] {
            let mount = mounts.iter().find(|m| m.destination().to_str() == Some(read_only)).unwrap();
            assert!(mount.options().as_ref().unwrap().contains(&"ro".to_owned()), "{read_only}");
        }
    }
}
