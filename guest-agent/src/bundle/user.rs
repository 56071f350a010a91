//! Looks up the user a container runs as in the image's own `/etc/passwd` and `/etc/group`.
//!
//! The files come from an untrusted image: they are opened beneath the root file system, so that no link in it
//! leads outside, must be regular, and are read up to a limit.

use std::io::Read as _;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// The most of one file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// The largest numeric id taken, as other launchers have it.
const MAX_ID: u32 = i32::MAX as u32;

/// A numeric user with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    /// User id.
    pub(super) uid: u32,
    /// Primary group id.
    pub(super) gid: u32,
    /// Further groups, ascending.
    pub(super) additional: Vec<u32>,
}

/// Resolves `text` (empty, `user` or `user:group`, each a name or a number) in the root file system at `root`.
///
/// - Empty means user 0.
/// - A user without an entry in `/etc/passwd` must be a number; its group is then 0.
/// - Without `:group` the user's further groups from `/etc/group` are added.
///
/// # Errors
/// Says which name has no entry, or which file cannot be read.
pub(super) fn resolve(root: BorrowedFd<'_>, text: &str) -> Result<User, String> {
    let (user_text, group_text) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let user_text = if user_text.is_empty() { "0" } else { user_text };
    let group_text = group_text.filter(|group| !group.is_empty());

    let passwd = read(root, "etc/passwd")?;
    let number = parse_id(user_text);
    let entry = passwd.lines().filter_map(PasswdEntry::parse).find(|entry| {
        // A number is first a number: a user cannot be shadowed by another one's name.
        number.map_or(entry.name == user_text, |uid| entry.uid == uid)
    });
    let (uid, mut gid) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) => return Err(format!("user `{user_text}` is not in the image's /etc/passwd")),
    };

    let groups = read(root, "etc/group")?;
    let groups = || groups.lines().filter_map(GroupEntry::parse);
    let mut additional = Vec::new();
    match (group_text, &entry) {
        (Some(group), _) => {
            gid = match parse_id(group) {
                Some(gid) => gid,
                None => groups()
                    .find(|entry| entry.name == group)
                    .map(|entry| entry.gid)
                    .ok_or_else(|| format!("group `{group}` is not in the image's /etc/group"))?,
            };
        }
        (None, Some(user)) => {
            additional.extend(groups().filter(|group| group.has_member(user.name)).map(|group| group.gid));
            additional.sort_unstable();
            additional.dedup();
        }
        (None, None) => {}
    }
    Ok(User { uid, gid, additional })
}

fn parse_id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|id| *id <= MAX_ID)
}

/// The file's text; empty when the image has none.
fn read(root: BorrowedFd<'_>, path: &str) -> Result<String, String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(fd) => std::fs::File::from(fd),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(format!("the image's /{path}: {error}")),
    };
    let named = |error: std::io::Error| format!("the image's /{path}: {error}");
    let meta = file.metadata().map_err(named)?;
    if !meta.is_file() || meta.len() > MAX_FILE {
        return Err(format!("the image's /{path} is not a regular file of at most 1 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(named)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct PasswdEntry<'t> {
    name: &'t str,
    uid: u32,
    gid: u32,
}

impl<'t> PasswdEntry<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        fields.next()?;
        Some(Self { name, uid: parse_id(fields.next()?)?, gid: parse_id(fields.next()?)? })
    }
}

struct GroupEntry<'t> {
    name: &'t str,
    gid: u32,
    members: &'t str,
}

impl<'t> GroupEntry<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        fields.next()?;
        Some(Self { name, gid: parse_id(fields.next()?)?, members: fields.next().unwrap_or_default() })
    }

    fn has_member(&self, name: &str) -> bool {
        self.members.split(',').any(|member| member.trim() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# note\nbroken\napp:x:1000:1001::/home/app:/bin/sh\n\
        huge:x:4294967296:0::/:\n7:x:12:13::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:root\napp:x:1001:\naudio:x:29:other,app\nwheel:x:10:app\nwheel2:x:10:app\n";

    fn rootfs() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), PASSWD).unwrap();
        std::fs::write(dir.path().join("etc/group"), GROUP).unwrap();
        dir
    }

    fn resolve_in(dir: &std::path::Path, text: &str) -> Result<User, String> {
        let root = std::fs::File::open(dir).unwrap();
        resolve(root.as_fd(), text)
    }

    #[test]
    fn users_and_groups_as_images_write_them() {
        let dir = rootfs();
        let user = |uid, gid, additional: &[u32]| User { uid, gid, additional: additional.to_vec() };
        for (text, expected) in [
            ("", user(0, 0, &[0])),
            ("root", user(0, 0, &[0])),
            ("app", user(1000, 1001, &[10, 29])),
            ("1000", user(1000, 1001, &[10, 29])),
            ("app:audio", user(1000, 29, &[])),
            ("app:77", user(1000, 77, &[])),
            ("2000", user(2000, 0, &[])),
            ("2000:app", user(2000, 1001, &[])),
            (":audio", user(0, 29, &[])),
            ("app:", user(1000, 1001, &[10, 29])),
            ("7", user(7, 0, &[])),
        ] {
            assert_eq!(resolve_in(dir.path(), text), Ok(expected), "{text}");
        }
        for bad in ["nobody-here", "app:nogroup", "huge", "broken", "-1", "4294967295", "app:-1"] {
            assert!(resolve_in(dir.path(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_image_without_files_takes_numbers_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(resolve_in(dir.path(), "5:6").unwrap(), User { uid: 5, gid: 6, additional: vec![] });
        assert!(resolve_in(dir.path(), "app").is_err());
    }

    #[test]
    fn a_link_out_of_the_root_stays_inside() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("passwd"), "evil:x:0:0::/:\n").unwrap();
        let dir = rootfs();
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        symlink(outside.path().join("passwd"), dir.path().join("etc/passwd")).unwrap();
        assert!(resolve_in(dir.path(), "evil").is_err());
        // An absolute link is taken from the image's root.
        std::fs::remove_file(dir.path().join("etc/passwd")).unwrap();
        std::fs::write(dir.path().join("real"), "inside:x:5:6::/:\n").unwrap();
        symlink("/real", dir.path().join("etc/passwd")).unwrap();
        assert_eq!(resolve_in(dir.path(), "inside").unwrap().uid, 5);
    }

    #[test]
    fn what_is_not_a_file_does_not_hang_or_fill_memory() {
        let dir = rootfs();
        let path = dir.path().join("etc/passwd");
        std::fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        assert!(resolve_in(dir.path(), "app").is_err());
        std::fs::remove_file(&path).unwrap();
        std::fs::File::create(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(resolve_in(dir.path(), "app").is_err());
    }
}
