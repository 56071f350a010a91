//! Storages on a real kernel: what is mounted, who shares it, what is refused, and that nothing stays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use protocols::reason;
use sandbox::Roots;
use sandbox::storage::{Driver, FsGroup, GroupChange, Mounted, StorageConfig, StorageRequest, Storages};

struct Tree {
    dir: tempfile::TempDir,
    roots: Roots,
    storages: Storages,
}

impl Tree {
    fn new() -> Self {
        Self::with(StorageConfig::default())
    }

    fn permitting(drivers: &[Driver]) -> Self {
        let permitted: BTreeSet<Driver> = drivers.iter().copied().collect();
        Self::with(StorageConfig { permitted, device_timeout: Duration::from_millis(200), ..StorageConfig::default() })
    }

    fn with(config: StorageConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::beneath(dir.path());
        roots.recreate().unwrap();
        let storages = Storages::new(&roots, config).unwrap();
        Self { dir, roots, storages }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.roots.run.join(name)
    }

    fn request(&self, driver: Driver, fstype: &str, options: &[&str], at: &str) -> StorageRequest {
        StorageRequest {
            driver,
            source: fstype.to_owned(),
            fstype: fstype.to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            mount_point: self.at(at).to_str().unwrap().to_owned(),
            fs_group: None,
        }
    }

    fn tmpfs(&self, options: &[&str], at: &str) -> Result<Mounted, sandbox::SandboxError> {
        self.storages.add(&self.request(Driver::Ephemeral, "tmpfs", options, at))
    }

    /// Lines of the mount table about this tree.
    fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.path().to_str().unwrap();
        table.lines().filter(|line| line.contains(dir)).map(str::to_owned).collect()
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, sandbox::SandboxError>, code: reason::Code) {
    let error = result.expect_err("it passed");
    assert_eq!(error.code(), code, "{error}");
}

#[test]
fn shared_memory_is_mounted_once_and_gone_with_its_last_user() {
    let tree = Tree::new();
    let options = ["noexec", "nosuid", "nodev", "mode=1777", "size=65536"];
    let first = tree.tmpfs(&options, "sandbox/shm").unwrap();
    let second = tree.tmpfs(&options, "sandbox/shm").unwrap();
    let mounts = tree.mounts();
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    assert!(["noexec", "nosuid", "nodev", "size=64k"].iter().all(|option| mounts[0].contains(option)), "{mounts:?}");
    let shm = tree.at("sandbox/shm");
    assert_eq!(first.mount_point(), shm);
    assert_eq!(shm.metadata().unwrap().mode() & 0o7777, 0o1777);
    assert!(fs::write(shm.join("big"), vec![0; 65_537]).is_err(), "the size holds");
    refused(tree.tmpfs(&["size=1"], "sandbox/shm"), reason::SANDBOX_STORAGE);
    drop(first);
    assert_eq!(tree.mounts().len(), 1);
    drop(second);
    assert!(tree.mounts().is_empty() && !shm.exists());
}

#[test]
fn a_tmpfs_grows_when_the_guest_does() {
    let tree = Tree::new();
    let held = tree.tmpfs(&["size=64k"], "sandbox/shm").unwrap();
    tree.storages.resize(&[tree.request(Driver::Ephemeral, "tmpfs", &["size=128k"], "sandbox/shm")]).unwrap();
    assert!(tree.mounts()[0].contains("size=128k"));
    refused(
        tree.storages.resize(&[tree.request(Driver::Ephemeral, "tmpfs", &["size=1m"], "sandbox/other")]),
        reason::SANDBOX_STORAGE,
    );
    drop(held);
}

#[test]
fn a_local_directory_keeps_its_data_for_a_container_that_starts_again() {
    let tree = Tree::new();
    let at = "shared/containers/s1/local/cache";
    let request = tree.request(Driver::Local, "local", &["mode=0777", "fsgid=4242"], at);
    let held = tree.storages.add(&request).unwrap();
    let meta = tree.at(at).metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.gid()), (0o2777, 4242));
    fs::write(tree.at(at).join("data"), "kept").unwrap();
    drop(held);
    let _again = tree.storages.add(&request).unwrap();
    assert_eq!(fs::read_to_string(tree.at(at).join("data")).unwrap(), "kept");
    assert!(tree.mounts().is_empty());
}

#[test]
fn storage_over_files_that_were_copied_in() {
    let tree = Tree::new();
    let at = "shared/containers/config";
    fs::create_dir(tree.at(at)).unwrap();
    tree.tmpfs(&[], at).unwrap(); // empty, nothing is hidden
    fs::create_dir(tree.at(at)).unwrap();
    fs::write(tree.at(at).join("key"), "logged").unwrap();
    let mode = tree.at(at).metadata().unwrap().mode();
    refused(tree.tmpfs(&[], at), reason::SANDBOX_STORAGE);
    refused(tree.storages.add(&tree.request(Driver::Local, "local", &["mode=0777"], at)), reason::SANDBOX_STORAGE);
    assert_eq!(tree.at(at).metadata().unwrap().mode(), mode);
    assert_eq!(fs::read_to_string(tree.at(at).join("key")).unwrap(), "logged");
}

#[test]
fn mount_points_outside_their_place() {
    let tree = Tree::new();
    fs::create_dir(tree.at("c1")).unwrap();
    let outside = tree.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, tree.at("sandbox/link")).unwrap();
    for at in
        ["c1/rootfs", "sandbox", "shared", "shared/containers", "shared/.partial/x", "sandbox/resolv.conf", "image"]
    {
        refused(tree.tmpfs(&[], at), reason::SANDBOX_STORAGE);
    }
    for at in ["sandbox/../c1", "sandbox//x", "sandbox/x/", "../x", "sandbox/link", "sandbox/link/x", "sandbox/./x"] {
        refused(tree.tmpfs(&[], at), reason::SANDBOX_PATH);
    }
    let absolute = StorageRequest { mount_point: "/etc".into(), ..tree.request(Driver::Ephemeral, "tmpfs", &[], "x") };
    refused(tree.storages.add(&absolute), reason::SANDBOX_PATH);
    let held = tree.tmpfs(&[], "sandbox/a").unwrap();
    refused(tree.tmpfs(&[], "sandbox/a/b"), reason::SANDBOX_PATH); // inside another storage
    drop(held);
    assert!(tree.mounts().is_empty());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn options_and_drivers_that_are_not_permitted() {
    let tree = Tree::new();
    for options in [&["dev"][..], &["suid"], &["size=1,huge=always"], &["mpol=bind:0"], &["mode=4777x/"]] {
        refused(tree.tmpfs(options, "sandbox/x"), reason::SANDBOX_STORAGE);
    }
    refused(
        tree.storages.add(&tree.request(Driver::Local, "local", &["mode=4777"], "sandbox/x")),
        reason::SANDBOX_STORAGE,
    );
    refused(tree.storages.add(&tree.request(Driver::Ephemeral, "proc", &[], "sandbox/x")), reason::SANDBOX_STORAGE);
    for driver in Driver::ALL {
        if !matches!(driver, Driver::Ephemeral | Driver::Local) {
            refused(tree.storages.add(&tree.request(driver, "ext4", &[], "sandbox/x")), reason::SANDBOX_STORAGE);
        }
    }
    assert!("image_guest_pull".parse::<Driver>().is_err() && "".parse::<Driver>().is_err());
    assert!(!tree.at("sandbox/x").exists());
}

#[test]
fn a_failed_mount_leaves_nothing() {
    let tree = Tree::new();
    refused(tree.tmpfs(&["mode=9"], "sandbox/x"), reason::SANDBOX_SYSTEM); // the kernel finds no octal digit
    assert!(!tree.at("sandbox/x").exists() && tree.mounts().is_empty());
    // A group that cannot be set: the mount was there already, and goes.
    let tree = Tree::permitting(&[Driver::Bind]);
    let source = tree.at("sandbox/from");
    fs::create_dir(&source).unwrap();
    let group = FsGroup { gid: u32::MAX - 1, change: GroupChange::Always };
    let deep = (0..260).fold(source.clone(), |path, _| path.join("d"));
    fs::create_dir_all(deep).unwrap();
    let request = StorageRequest {
        source: source.to_str().unwrap().to_owned(),
        fs_group: Some(group),
        ..tree.request(Driver::Bind, "bind", &[], "sandbox/to")
    };
    refused(tree.storages.add(&request), reason::SANDBOX_SYSTEM);
    assert!(!tree.at("sandbox/to").exists() && tree.mounts().is_empty());
}

#[test]
fn a_bind_mount_comes_from_the_sandbox_and_brings_no_devices() {
    let tree = Tree::permitting(&[Driver::Bind]);
    let from = tree.at("shared/containers/data");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("f"), "x").unwrap();
    symlink("/etc", tree.at("shared/containers/link")).unwrap();
    let request = |source: &Path| StorageRequest {
        source: source.to_str().unwrap().to_owned(),
        ..tree.request(Driver::Bind, "bind", &["ro", "rbind"], "sandbox/to")
    };
    let held = tree.storages.add(&request(&from)).unwrap();
    assert_eq!(fs::read_to_string(tree.at("sandbox/to/f")).unwrap(), "x");
    assert!(fs::write(tree.at("sandbox/to/f"), "y").is_err());
    let mounts = tree.mounts();
    assert!(["ro", "nosuid", "nodev"].iter().all(|option| mounts[0].contains(option)), "{mounts:?}");
    drop(held);
    assert!(tree.mounts().is_empty() && from.join("f").exists());
    for source in [Path::new("/etc"), &tree.at("shared/containers/link"), &tree.at("c1"), &tree.at("sandbox/../c1")] {
        refused(tree.storages.add(&request(source)), reason::SANDBOX_PATH);
    }
}

#[test]
fn directories_are_joined() {
    let tree = Tree::permitting(&[Driver::Overlay]);
    for (dir, file) in [("low1", "a"), ("low2", "b"), ("up", "c"), ("work", "")] {
        let dir = tree.at("sandbox").join(dir);
        fs::create_dir(&dir).unwrap();
        if !file.is_empty() {
            fs::write(dir.join(file), dir.to_str().unwrap()).unwrap();
        }
    }
    let path = |name: &str| tree.at("sandbox").join(name).display().to_string();
    let lower = format!("lowerdir={}:{}", path("low1"), path("low2"));
    let (upper, work) = (format!("upperdir={}", path("up")), format!("workdir={}", path("work")));
    let request = |options: &[&str]| tree.request(Driver::Overlay, "overlay", options, "sandbox/joined");
    let held = tree.storages.add(&request(&[&lower, &upper, &work])).unwrap();
    for name in ["a", "b", "c"] {
        assert!(tree.at("sandbox/joined").join(name).exists(), "{name}");
    }
    fs::write(tree.at("sandbox/joined/d"), "").unwrap();
    assert!(tree.at("sandbox/up/d").exists());
    drop(held);
    refused(tree.storages.add(&request(&["lowerdir=/etc"])), reason::SANDBOX_PATH);
    refused(tree.storages.add(&request(&[&lower, &upper])), reason::SANDBOX_STORAGE);
    refused(tree.storages.add(&request(&[&lower, &lower])), reason::SANDBOX_STORAGE);
    refused(tree.storages.add(&request(&[&lower, "userxattr"])), reason::SANDBOX_STORAGE);
    assert!(tree.mounts().is_empty());
}

/// A loop device, which the tests plug in as a virtual disk.
struct Disk(String);

impl Disk {
    fn format(image: &Path) -> Self {
        fs::write(image, vec![0; 8 << 20]).unwrap();
        assert!(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image).status().unwrap().success());
        let made = Command::new("losetup").args(["--find", "--show"]).arg(image).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self(String::from_utf8(made.stdout).unwrap().trim_end().to_owned())
    }

    /// Shows it at `sysfs` and as `/dev/NAME` of the tree.
    fn plug(&self, roots: &Roots, sysfs: &str, name: &str) {
        let number = fs::metadata(&self.0).unwrap().rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        fs::create_dir_all(&roots.dev).unwrap();
        let kind = rustix::fs::FileType::BlockDevice;
        rustix::fs::mknodat(rustix::fs::CWD, roots.dev.join(name), kind, 0o600.into(), number).unwrap();
        let dir = roots.sys.join(sysfs);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("dev"), format!("{major}:{minor}\n")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_disk_of_the_host_is_found_by_its_slots_and_mounted_without_devices_or_setuid() {
    let tree = Tree::permitting(&[Driver::Blk, Driver::MmioBlk, Driver::Scsi]);
    let disk = Disk::format(&tree.dir.path().join("disk"));
    disk.plug(&tree.roots, "devices/pci0000:00/0000:00:05.0/virtio2/block/vda", "vda");
    disk.plug(&tree.roots, "class/block/vdb", "vdb");
    disk.plug(&tree.roots, "class/scsi_device/0:0:0:3/device/block/sda", "sda");
    for (driver, source) in
        [(Driver::Blk, "05"), (Driver::MmioBlk, "/dev/vdb"), (Driver::Blk, "/dev/vdb"), (Driver::Scsi, "0:3")]
    {
        let request = StorageRequest {
            source: source.to_owned(),
            fs_group: Some(FsGroup { gid: 77, change: GroupChange::OnRootMismatch }),
            ..tree.request(driver, "ext4", &["noatime"], "sandbox/storage/disk")
        };
        let held = tree.storages.add(&request).unwrap();
        let mounts = tree.mounts();
        assert!(["nosuid", "nodev", "noatime", "ext4"].iter().all(|word| mounts[0].contains(word)), "{mounts:?}");
        assert_eq!(held.mount_point().metadata().unwrap().gid(), 77);
        drop(held);
        assert!(tree.mounts().is_empty());
    }
    let disk = |source: &str, fstype: &str| StorageRequest {
        source: source.to_owned(),
        ..tree.request(Driver::Blk, fstype, &[], "sandbox/storage/disk")
    };
    refused(tree.storages.add(&disk("06", "ext4")), reason::SANDBOX_DEVICE);
    refused(tree.storages.add(&disk("../05", "ext4")), reason::SANDBOX_STORAGE);
    refused(tree.storages.add(&disk("05", "btrfs")), reason::SANDBOX_STORAGE);
    refused(tree.storages.add(&disk("05", "xfs")), reason::SANDBOX_SYSTEM);
    assert!(tree.mounts().is_empty() && !tree.at("sandbox/storage/disk").exists());
}

#[test]
fn huge_pages_are_reserved_before_they_are_mounted() {
    let tree = Tree::new();
    let dir = tree.roots.sys.join("kernel/mm/hugepages/hugepages-2048kB");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("nr_hugepages"), "1\n").unwrap();
    fs::write(dir.join("free_hugepages"), "1\n").unwrap();
    let request = |options: &[&str]| tree.request(Driver::Ephemeral, "hugetlbfs", options, "sandbox/ephemeral/huge");
    let held = tree.storages.add(&request(&["pagesize=2M", "size=8M"])).unwrap();
    assert_eq!(fs::read_to_string(dir.join("nr_hugepages")).unwrap(), "4");
    assert!(tree.mounts()[0].contains("hugetlbfs"));
    drop(held);
    for bad in [&["pagesize=2M"][..], &["size=8M"], &["pagesize=0", "size=8M"], &["pagesize=2M", "size=99999999G"]] {
        refused(tree.storages.add(&request(bad)), reason::SANDBOX_STORAGE);
    }
    refused(tree.storages.add(&request(&["pagesize=4M", "size=8M"])), reason::SANDBOX_SYSTEM);
}

#[test]
fn sources_are_opened_through_storages_and_through_no_link() {
    let tree = Tree::new();
    let held = tree.tmpfs(&[], "sandbox/ephemeral/e").unwrap();
    fs::create_dir(held.mount_point().join("sub")).unwrap();
    symlink("/etc", held.mount_point().join("link")).unwrap();
    symlink("../../shm", held.mount_point().join("up")).unwrap();
    let open = |name: &str| tree.storages.open(tree.at(name).to_str().unwrap());
    open("sandbox/ephemeral/e").unwrap();
    open("sandbox/ephemeral/e/sub").unwrap();
    for bad in ["sandbox/ephemeral/e/link", "sandbox/ephemeral/e/up", "sandbox/ephemeral", "sandbox/ephemeral/ee", "c1"]
    {
        refused(open(bad), reason::SANDBOX_PATH);
    }
    assert!(tree.storages.open("/etc").is_err());
    drop(held);
    refused(open("sandbox/ephemeral/e"), reason::SANDBOX_PATH);
}

#[test]
fn many_storages_are_bounded() {
    let tree = Tree::with(StorageConfig { most: 2, ..StorageConfig::default() });
    let held = [tree.tmpfs(&[], "sandbox/a").unwrap(), tree.tmpfs(&[], "sandbox/b").unwrap()];
    refused(tree.tmpfs(&[], "sandbox/c"), reason::SANDBOX_STORAGE);
    drop(held);
    tree.tmpfs(&[], "sandbox/c").unwrap();
}
