//! Copied files: what a host can place, and each way it must not get out of the shared directory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;
use protocols::reason;
use sandbox::{Copied, CopyLimits, CopyRequest, FileKind, Roots, SandboxError, Shared};

const FILE: u32 = 0o100_644;
const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;

struct Tree {
    dir: tempfile::TempDir,
    roots: Roots,
    shared: Shared,
}

impl Tree {
    fn new() -> Self {
        Self::with(CopyLimits::default())
    }

    fn with(limits: CopyLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::beneath(dir.path());
        roots.recreate().unwrap();
        let shared = Shared::open_in(&roots, limits).unwrap();
        Self { dir, roots, shared }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.roots.shared().display())
    }

    fn on_disk(&self, name: &str) -> PathBuf {
        self.roots.shared().join(name)
    }

    fn copy(&self, name: &str, mode: u32, data: &[u8]) -> Result<Copied, SandboxError> {
        let path = self.path(name);
        self.shared.prepare(&whole(&path, mode, data))?.expect("it is whole").commit()
    }

    fn private_files(&self) -> usize {
        std::fs::read_dir(self.roots.run.join("shared/.partial")).unwrap().count()
    }

    /// Everything there is outside the shared directory, to see that an attack changed nothing.
    fn outside(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, skip: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path != skip {
                    if path.symlink_metadata().unwrap().is_dir() {
                        walk(&path, skip, found);
                    }
                    found.push(path);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.dir.path(), &self.roots.shared(), &mut found);
        found.sort_unstable();
        found
    }
}

fn whole<'a>(path: &'a str, file_mode: u32, data: &'a [u8]) -> CopyRequest<'a> {
    let file_size = i64::try_from(data.len()).unwrap();
    CopyRequest { path, file_size, file_mode, dir_mode: 0o750, uid: 0, gid: 0, offset: 0, data }
}

#[track_caller]
fn refused(result: Result<Copied, SandboxError>, code: reason::Code) {
    let error = result.expect_err("an attack passed");
    assert_eq!(error.code(), code, "{error}");
}

#[test]
fn a_file_in_pieces_is_invisible_until_committed_and_is_what_was_measured() {
    let tree = Tree::new();
    let path = tree.path("c1/etc/motd");
    let piece = |offset: usize, data: &'static [u8]| CopyRequest {
        path: &path,
        file_size: 10,
        file_mode: 0o100_640,
        dir_mode: 0o710,
        uid: 1000,
        gid: 1001,
        offset: i64::try_from(offset).unwrap(),
        data,
    };
    assert!(tree.shared.prepare(&piece(0, b"0123")).unwrap().is_none());
    assert!(tree.shared.prepare(&piece(4, b"4567")).unwrap().is_none());
    let ready = tree.shared.prepare(&piece(8, b"89")).unwrap().unwrap();
    assert_eq!(ready.copied().sha256, Sha256Digest::of(b"0123456789"));
    assert!(!tree.on_disk("c1").exists(), "not even the directory");
    let copied = ready.commit().unwrap();
    let expected = Copied {
        path: path.clone(),
        kind: FileKind::Regular,
        mode: 0o640,
        uid: 1000,
        gid: 1001,
        size: 10,
        sha256: Sha256Digest::of(b"0123456789"),
    };
    assert_eq!(copied, expected);
    let file = tree.on_disk("c1/etc/motd");
    assert_eq!(std::fs::read(&file).unwrap(), b"0123456789");
    let meta = file.metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o640, 1000, 1001));
    assert_eq!(file.parent().unwrap().metadata().unwrap().mode() & 0o7777, 0o710);
    assert_eq!(tree.private_files(), 0);
}

#[test]
fn what_is_not_committed_leaves_nothing() {
    let tree = Tree::new();
    for (name, mode, data) in [("f", FILE, &b"data"[..]), ("d", DIRECTORY, b""), ("l", LINK, b"target")] {
        drop(tree.shared.prepare(&whole(&tree.path(name), mode, data)).unwrap().unwrap());
        assert!(tree.on_disk(name).symlink_metadata().is_err(), "{name}");
    }
    assert_eq!(tree.private_files(), 0);
}

#[test]
fn directories_links_and_empty_files_are_made_as_asked() {
    let tree = Tree::new();
    assert_eq!(tree.copy("empty", FILE, b"").unwrap().sha256, Sha256Digest::of(b""));
    assert_eq!(tree.on_disk("empty").metadata().unwrap().len(), 0);

    // A volume with an fsGroup has setgid directories; the bit stays outside.
    let path = tree.path("volume");
    let request = CopyRequest { uid: 7, gid: 8, file_size: 4096, ..whole(&path, 0o042_770, b"") };
    let copied = tree.shared.prepare(&request).unwrap().unwrap().commit().unwrap();
    assert_eq!((copied.kind, copied.mode, copied.size), (FileKind::Directory, 0o770, 0));
    let meta = tree.on_disk("volume").metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o770, 7, 8));

    tree.copy("volume/..2024_01", DIRECTORY, b"").unwrap();
    tree.copy("volume/..data", LINK, b"..2024_01").unwrap();
    tree.copy("volume/..data", LINK, b"..2024_02").unwrap();
    assert_eq!(std::fs::read_link(tree.on_disk("volume/..data")).unwrap(), Path::new("..2024_02"), "an update");
    assert_eq!(tree.copy("old-client", 0o644, b"x").unwrap().kind, FileKind::Regular);
}

#[test]
fn path_that_is_not_plainly_beneath_the_shared_directory() {
    let tree = Tree::new();
    let before = tree.outside();
    let long = "x".repeat(256);
    let longer = ["y".repeat(200).as_str(); 25].join("/");
    let deep = ["d"; 65].join("/");
    let bad = [
        "../x",
        "../../x",
        "a/../../x",
        "a/../b",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "/",
        "",
        ".",
        "..",
        "a\0b",
        "a/..",
        &long,
        &longer,
        &deep,
    ];
    for name in bad {
        refused(tree.copy(name, FILE, b"x"), reason::SANDBOX_COPY_PATH);
    }
    let root = tree.roots.shared().display().to_string();
    for path in [
        root.clone(),
        format!("{root}x/f"),
        "/etc/passwd".into(),
        "etc/passwd".into(),
        root.replace("shared", "sandbox"),
    ] {
        let error = tree.shared.prepare(&whole(&path, FILE, b"x")).expect_err(&path);
        assert_eq!(error.code(), reason::SANDBOX_COPY_PATH);
    }
    assert_eq!(tree.outside(), before);
}

#[test]
fn link_in_the_middle_of_a_path() {
    let tree = Tree::new();
    let outside = tree.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let before = tree.outside();
    tree.copy("absolute", LINK, outside.to_str().unwrap().as_bytes()).unwrap();
    tree.copy("relative", LINK, b"../../../../outside").unwrap();
    tree.copy("magic", LINK, b"/proc/self/cwd").unwrap();
    tree.copy("here", LINK, b".").unwrap();
    for name in ["absolute/f", "relative/f", "magic/f", "here/f", "absolute/sub/f"] {
        for (mode, data) in [(FILE, &b"x"[..]), (DIRECTORY, b""), (LINK, b"t")] {
            refused(tree.copy(name, mode, data), reason::SANDBOX_COPY_PATH);
        }
        let error = tree.shared.open(&tree.path(name)).unwrap_err();
        assert_eq!(error.code(), reason::SANDBOX_PATH);
    }
    for name in ["absolute", "relative", "magic", "here"] {
        assert!(tree.shared.open(&tree.path(name)).is_err(), "a mount's source is no link: {name}");
    }
    assert_eq!(tree.outside(), before);
}

#[test]
fn link_as_the_target_is_replaced_and_never_written_through() {
    let tree = Tree::new();
    let victim = tree.dir.path().join("victim");
    std::fs::write(&victim, "safe").unwrap();
    tree.copy("f", LINK, victim.to_str().unwrap().as_bytes()).unwrap();
    tree.copy("f", FILE, b"evil").unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"safe");
    assert!(tree.on_disk("f").symlink_metadata().unwrap().is_file());

    // A directory's mode and owner are set through no link either.
    let home = tree.dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700)).unwrap();
    tree.copy("d", LINK, home.to_str().unwrap().as_bytes()).unwrap();
    refused(tree.copy("d", 0o040_777, b""), reason::SANDBOX_COPY_PATH);
    assert_eq!(home.metadata().unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn hard_link_made_by_a_container_is_replaced_and_never_written_through() {
    let tree = Tree::new();
    let victim = tree.dir.path().join("victim");
    std::fs::write(&victim, "safe").unwrap();
    std::fs::hard_link(&victim, tree.on_disk("f")).unwrap();
    tree.copy("f", FILE, b"evil").unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"safe");
    assert_eq!(victim.metadata().unwrap().mode() & 0o777, 0o644);
    assert_eq!(std::fs::read(tree.on_disk("f")).unwrap(), b"evil");
}

#[test]
fn directory_and_file_in_each_others_place() {
    let tree = Tree::new();
    tree.copy("d", DIRECTORY, b"").unwrap();
    tree.copy("d/keep", FILE, b"kept").unwrap();
    refused(tree.copy("d", FILE, b"x"), reason::SANDBOX_COPY_PATH);
    refused(tree.copy("d", LINK, b"x"), reason::SANDBOX_COPY_PATH);
    tree.copy("f", FILE, b"x").unwrap();
    refused(tree.copy("f", DIRECTORY, b""), reason::SANDBOX_COPY_PATH);
    refused(tree.copy("f/below", FILE, b"x"), reason::SANDBOX_COPY_PATH);
    assert_eq!(std::fs::read(tree.on_disk("d/keep")).unwrap(), b"kept");
    assert_eq!(tree.private_files(), 0);
}

#[test]
fn link_put_in_the_way_between_prepare_and_commit() {
    let tree = Tree::new();
    tree.copy("d", DIRECTORY, b"").unwrap();
    let ready = tree.shared.prepare(&whole(&tree.path("d/f"), FILE, b"x")).unwrap().unwrap();
    let outside = tree.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::remove_dir(tree.on_disk("d")).unwrap();
    symlink(&outside, tree.on_disk("d")).unwrap();
    refused(ready.commit(), reason::SANDBOX_COPY_PATH);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(tree.private_files(), 0);
}

#[test]
fn another_file_system_in_the_way() {
    let tree = Tree::new();
    tree.copy("volume", DIRECTORY, b"").unwrap();
    let outside = tree.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    rustix::mount::mount_bind(&outside, tree.on_disk("volume")).unwrap();
    refused(tree.copy("volume/f", FILE, b"x"), reason::SANDBOX_COPY_PATH);
    refused(tree.copy("volume", DIRECTORY, b""), reason::SANDBOX_COPY_PATH);
    rustix::mount::unmount(tree.on_disk("volume"), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn numbers_and_modes_that_cannot_be() {
    let tree = Tree::new();
    let path = tree.path("f");
    let good = whole(&path, FILE, b"x");
    let bad = [
        CopyRequest { file_size: -1, ..good },
        CopyRequest { file_size: 0, ..good },
        CopyRequest { offset: -1, ..good },
        CopyRequest { offset: 1, ..good },
        CopyRequest { offset: i64::MAX, file_size: i64::MAX, ..good },
        CopyRequest { uid: -1, ..good },
        CopyRequest { gid: -1, ..good },
        CopyRequest { file_mode: 0o104_755, ..good },
        CopyRequest { file_mode: 0o102_755, ..good },
        CopyRequest { file_mode: 0o101_755, ..good },
        CopyRequest { file_mode: 0o020_644, ..good },
        CopyRequest { file_mode: 0o060_644, ..good },
        CopyRequest { file_mode: 0o010_644, ..good },
        CopyRequest { file_mode: 0o140_644, ..good },
        CopyRequest { file_mode: DIRECTORY, ..good },
        CopyRequest { file_mode: LINK, data: b"", ..good },
        CopyRequest { file_mode: LINK, data: b"a\0b", ..good },
        CopyRequest { file_mode: LINK, data: b"\xFF", ..good },
        CopyRequest { file_mode: LINK, offset: 1, ..good },
        CopyRequest { file_mode: LINK, data: &[b'x'; 4096], ..good },
    ];
    for request in bad {
        let error = tree.shared.prepare(&request).expect_err("an attack passed");
        assert_eq!(error.code(), reason::SANDBOX_COPY_FILE, "{request:?}: {error}");
    }
    assert!(!tree.on_disk("f").exists());
}

#[test]
fn pieces_out_of_order_twice_or_of_another_file() {
    let tree = Tree::new();
    let path = tree.path("f");
    let piece = |offset, data| CopyRequest { offset, file_size: 6, ..whole(&path, FILE, data) };
    assert!(tree.shared.prepare(&piece(0, b"abc")).unwrap().is_none());
    for request in [
        piece(4, b"e"),
        piece(1, b"x"),
        piece(3, b"defg"),
        CopyRequest { file_size: 5, ..piece(3, b"de") },
        CopyRequest { file_mode: 0o100_777, ..piece(3, b"def") },
        CopyRequest { uid: 5, ..piece(3, b"def") },
    ] {
        let error = tree.shared.prepare(&request).expect_err("an attack passed");
        assert_eq!(error.code(), reason::SANDBOX_COPY_FILE, "{request:?}: {error}");
    }
    // The file itself goes on, and a first piece starts it anew.
    let first = tree.shared.prepare(&piece(3, b"def")).unwrap().unwrap();
    assert!(tree.shared.prepare(&piece(0, b"123")).unwrap().is_none());
    let second = tree.shared.prepare(&piece(3, b"456")).unwrap().unwrap();
    assert_eq!(first.commit().unwrap().sha256, Sha256Digest::of(b"abcdef"));
    assert_eq!(second.commit().unwrap().sha256, Sha256Digest::of(b"123456"));
    assert_eq!(std::fs::read(tree.on_disk("f")).unwrap(), b"123456");
}

#[test]
fn race_of_two_senders_ends_with_one_whole_file() {
    let tree = Tree::new();
    let path = tree.path("f");
    std::thread::scope(|scope| {
        for letter in [b'a', b'b', b'c'] {
            let (shared, path) = (&tree.shared, &path);
            scope.spawn(move || {
                let half = [letter; 512];
                for _ in 0..200 {
                    for offset in [0, 512] {
                        let request = CopyRequest { offset, file_size: 1024, ..whole(path, FILE, &half) };
                        if let Ok(Some(ready)) = shared.prepare(&request) {
                            let said = ready.copied().sha256;
                            assert_eq!(ready.commit().unwrap().sha256, said);
                        }
                    }
                }
            });
        }
    });
    let whole = std::fs::read(tree.on_disk("f")).unwrap();
    assert_eq!(whole.len(), 1024);
    assert!(tree.private_files() <= 1);
}

#[test]
fn limits_hold_and_are_given_back() {
    let limits = CopyLimits { file_bytes: 100, total_bytes: 250, unfinished: 2, entries: 4 };
    let tree = Tree::with(limits);
    refused(tree.copy("big", FILE, &[0; 101]), reason::SANDBOX_COPY_FILE);
    let start = |name: &str| {
        let path = tree.path(name);
        let request = CopyRequest { file_size: 100, ..whole(&path, FILE, b"x") };
        tree.shared.prepare(&request).map(|ready| assert!(ready.is_none()))
    };
    start("a").unwrap();
    start("a").unwrap(); // anew, not a second one
    start("b").unwrap();
    assert_eq!(start("c").unwrap_err().code(), reason::SANDBOX_COPY_FILE, "two are unfinished");
    drop(tree);

    let tree = Tree::with(limits);
    for _ in 0..5 {
        tree.copy("a", FILE, &[1; 100]).unwrap(); // the same file counts once
    }
    tree.copy("b", FILE, &[2; 100]).unwrap();
    refused(tree.copy("c", FILE, &[3; 51]), reason::SANDBOX_COPY_FILE);
    tree.copy("c", FILE, &[3; 50]).unwrap();
    tree.copy("d", DIRECTORY, b"").unwrap();
    refused(tree.copy("e", DIRECTORY, b""), reason::SANDBOX_COPY_FILE);
}

#[test]
fn a_termination_log_is_a_plain_file_and_its_end_is_read() {
    let tree = Tree::new();
    tree.copy("log", FILE, b"0123456789").unwrap();
    assert_eq!(tree.shared.read_end(&tree.path("log"), 4).unwrap(), b"6789");
    assert_eq!(tree.shared.read_end(&tree.path("log"), 4096).unwrap(), b"0123456789");
    std::fs::write(tree.dir.path().join("secret"), "s").unwrap();
    tree.copy("link", LINK, b"../../../../secret").unwrap();
    tree.copy("dir", DIRECTORY, b"").unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, tree.on_disk("pipe"), fifo, 0o600.into(), 0).unwrap();
    for name in ["link", "dir", "pipe", "missing", "../../run"] {
        assert!(tree.shared.read_end(&tree.path(name), 4096).is_err(), "{name}");
    }
}
