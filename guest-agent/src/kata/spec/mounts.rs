//! The mounts of a pod's container: the usual ones are ours, a few files come with every pod, the rest is judged.

use std::os::fd::OwnedFd;
use std::path::Path;

use protocols::image::MountRequest;
use protocols::reason::{self, Refusal};
use protocols::rpc::kata::oci;
use rustix::fs::FileType;

use super::{MountSources, refusal};
use crate::bundle::mounts::{MAX_MOUNTS, fixed_kind, is_plain_absolute};
use crate::launch::{Opened, POD_FILES, POD_SHM, PodMount};

/// The mounts whose sources were opened, and those that are judged with the process.
pub(super) fn read(spec: &oci::Spec, sources: &MountSources) -> Result<(Vec<PodMount>, Vec<MountRequest>), Refusal> {
    let (mut opened, mut judged) = (Vec::new(), Vec::new());
    let mut seen: Vec<&oci::Mount> = Vec::new();
    for mount in &spec.Mounts {
        // Shims repeat a mount: the same one twice is one.
        if seen.contains(&mount) {
            continue;
        }
        let destination = mount.destination.as_str();
        let refused = |expected: &str, actual: &str| {
            let subject = format!("mount at `{}`", destination.escape_debug());
            refusal(reason::POLICY_MOUNT, &subject, expected, actual)
        };
        if seen.iter().any(|known| known.destination == destination) {
            return Err(refused("one mount for a destination", "two that differ"));
        }
        seen.push(mount);
        if !is_plain_absolute(destination) || destination == "/" {
            return Err(refused("an absolute path without `.` and `..`, not the root", destination));
        }
        let bind = mount.type_ == "bind";
        match fixed_kind(destination) {
            Some(_) if destination == POD_SHM && bind => {}
            // Our own stands there, whatever the options say.
            Some(kind) if mount.type_ == kind || (kind == "cgroup" && mount.type_ == "cgroup2") => continue,
            Some(kind) => return Err(refused(kind, &mount.type_)),
            None => {}
        }
        let asked = MountRequest {
            destination: destination.to_owned(),
            kind: mount.type_.clone(),
            source: mount.source.clone(),
            options: mount.options.clone(),
        };
        if !bind {
            // A tmpfs may be judged; anything else has no place in a container.
            if mount.type_ != "tmpfs" {
                return Err(refused("bind or tmpfs", &mount.type_));
            }
            judged.push(asked);
            continue;
        }
        let file = POD_FILES.contains(&destination);
        if !is_plain_absolute(&mount.source) {
            return Err(refused("a source that is an absolute path without `.` and `..`", &mount.source));
        }
        let path = Path::new(&mount.source);
        let found = if file { sources.open_shared(path) } else { sources.open(path) };
        let source = found.map_err(|error| {
            refused(
                "a source beneath the shared directory or a storage of this sandbox",
                &format!("{}: {error}", mount.source),
            )
        })?;
        check_kind(&source, file).map_err(|(expected, actual)| refused(expected, &actual))?;
        if !(file || destination == POD_SHM) {
            judged.push(asked.clone());
        }
        opened.push(PodMount { asked, source: Opened::new(source) });
        if opened.len() + judged.len() > 2 * MAX_MOUNTS {
            return Err(refused(&format!("at most {MAX_MOUNTS} mounts"), "more"));
        }
    }
    Ok((opened, judged))
}

/// A pod's fixed file is a file; every other source is a file or a directory.
fn check_kind(source: &OwnedFd, file: bool) -> Result<(), (&'static str, String)> {
    let expected = if file { "a regular file" } else { "a regular file or a directory" };
    let stat = rustix::fs::fstat(source).map_err(|error| (expected, error.to_string()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory if !file => Ok(()),
        other => Err((expected, format!("{other:?}"))),
    }
}
