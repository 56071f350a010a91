//! Which groups a process is in, and where their hierarchies are mounted.

use std::path::{Component, Path, PathBuf};

/// A hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version<'t> {
    /// Of these controllers.
    One(Vec<&'t str>),
    /// The one of version 2.
    Two,
}

/// A line of `/proc/PID/cgroup`: `ID:CONTROLLERS:PATH`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Membership<'t> {
    pub(super) version: Version<'t>,
    pub(super) path: &'t str,
}

/// Reads `/proc/PID/cgroup`; lines of another form are left out.
pub(super) fn memberships(text: &str) -> Vec<Membership<'_>> {
    text.lines()
        .filter_map(|line| {
            let (id, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let version = match (id, controllers) {
                ("0", "") => Version::Two,
                (_, "") => return None,
                (_, controllers) => Version::One(controllers.split(',').collect()),
            };
            Some(Membership { version, path })
        })
        .collect()
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount<'t> {
    /// The group that is the mount's root.
    root: String,
    point: String,
    version: Version<'t>,
}

impl Mount<'_> {
    /// The directory of group `path`, when this is its hierarchy.
    pub(super) fn dir_of(&self, version: &Version<'_>, path: &str) -> Option<PathBuf> {
        let same = match (&self.version, version) {
            (Version::Two, Version::Two) => true,
            // The mount's options name the same controllers, in any order, besides other words.
            (Version::One(options), Version::One(controllers)) => {
                controllers.iter().all(|controller| options.contains(controller))
            }
            _ => false,
        };
        let plain = Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !same || !path.starts_with('/') || !plain {
            return None;
        }
        let beneath = Path::new(path).strip_prefix(&self.root).ok()?;
        Some(Path::new(&self.point).join(beneath))
    }
}

/// Reads the hierarchies in `/proc/self/mountinfo`:
/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG...] - TYPE SOURCE SUPER_OPTIONS`.
pub(super) fn mounts(text: &str) -> Vec<Mount<'_>> {
    text.lines()
        .filter_map(|line| {
            let (mount, kind) = line.split_once(" - ")?;
            let mut mount = mount.split(' ').skip(3);
            let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
            let mut kind = kind.split(' ');
            let version = match kind.next()? {
                "cgroup2" => Version::Two,
                "cgroup" => Version::One(kind.nth(1)?.split(',').collect()),
                _ => return None,
            };
            Some(Mount { root, point, version })
        })
        .collect()
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match (byte, part.get(3..)) {
            (Some(byte), Some(rest)) => {
                plain.push(char::from(byte));
                plain.push_str(rest);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    #[test]
    fn a_mount_of_a_part_of_a_hierarchy_shows_what_is_in_that_part() {
        let text = "30 1 0:25 /pods /mnt/c\\040g rw - cgroup2 none rw\n";
        let mounts = mounts(text);
        let dir = |path| mounts.first().unwrap().dir_of(&Version::Two, path);
        assert_eq!(dir("/pods/a"), Some("/mnt/c g/a".into()));
        assert_eq!(dir("/podsx/a"), None);
        assert_eq!(dir("/other"), None);
    }

    #[test]
    fn a_named_hierarchy_is_no_controllers() {
        let text = "30 1 0:25 / /sys/fs/cgroup/systemd rw - cgroup none rw,name=systemd\n";
        let mounts = mounts(text);
        let mount = mounts.first().unwrap();
        assert!(mount.dir_of(&Version::One(vec!["name=systemd"]), "/a").is_some());
        assert_eq!(mount.dir_of(&Version::One(vec!["memory"]), "/a"), None);
        assert_eq!(mount.dir_of(&Version::Two, "/a"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_a_directory_outside_the_mount(its in any::<String>(), path in "(/|[a-z.]{1,3}|\\.\\.){0,8}") {
            let _ = (memberships(&its), mounts(&its), unescape(&its));
            let mounts = mounts("30 1 0:25 / /sys/fs/cgroup rw - cgroup2 none rw\n");
            if let Some(dir) = mounts.first().and_then(|mount| mount.dir_of(&Version::Two, &path)) {
                prop_assert!(dir.starts_with("/sys/fs/cgroup") && !dir.components().any(|c| c == Component::ParentDir));
            }
        }
    }
}
