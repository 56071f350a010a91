//! Every case against containerd: pulled by it from the same registry, unpacked by its overlayfs snapshotter, and
//! mounted. Where it makes something else of a case that is said here, with the reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};

use crate::case::{Case, Expect, all};
use crate::look::look;
use crate::support::{World, image};

/// Cases of which containerd 1.6 makes something else, and why we do not.
const DIFFERENT: &[(&str, &str)] = &[
    // Refused here, since readers differ in what it means or nobody can unpack it as it says.
    ("path-of-a-file-with-a-trailing-slash", "a file to some readers, a directory to others"),
    ("path-of-a-file-in-place-of-the-root", "left out there"),
    ("path-of-a-link-in-place-of-the-root", "left out there"),
    ("links-that-make-a-path-too-deep", "no bound on the names of a path there"),
    ("path-through-a-link-through-a-file", "the kernel would not go through a file either"),
    ("pax-global-header-of-a-path", "left out there, applied by others"),
    ("pax-global-header-of-a-size", "left out there, applied by others"),
    ("pax-twice", "the last counts there, the first or both elsewhere"),
    ("pax-and-gnu-names-that-differ", "readers differ in which counts"),
    ("pax-without-an-entry", "left out there"),
    ("hardlink-adds-attributes", "the inode is written when the link comes"),
    ("device-with-a-major-above-12-bits", "cut there"),
    ("device-with-a-minor-above-20-bits", "cut there"),
    ("owner-that-chown-ignores", "chown(2) leaves the owner there"),
    ("owner-above-2-to-the-32", "cut there"),
    ("owner-negative", "cut there"),
    ("attribute-access-list-that-belies-the-mode", "the list is changed there, by the kernel"),
    ("attribute-capability-of-revision-3", "changed to revision 2 there, by the kernel"),
    ("attribute-overlay-opaque", "left out there; it was meant to steer overlayfs"),
    ("attribute-overlay-redirect", "left out there; it was meant to steer overlayfs"),
    ("attribute-overlay-escaped", "left out there; it was meant to steer overlayfs"),
    ("whiteout-with-an-entry-below", "a directory with a whiteout's name there"),
    ("gzip-and-garbage", "bytes behind the archive are not looked at there"),
    ("gzip-cut-short", "the archive had ended before"),
    ("gzip-with-a-wrong-checksum", "checked only by some of the decompressors it may find"),
    ("gzip-that-is-called-plain", "a media type is not taken at its word there"),
    ("gzip-that-is-called-zstd", "a media type is not taken at its word there"),
    ("zstd-that-is-called-gzip", "a media type is not taken at its word there"),
    ("plain-that-is-called-gzip", "a media type is not taken at its word there"),
    ("zstd-and-garbage", "bytes behind the archive are not looked at there"),
    ("zstd-cut-short", "the archive had ended before"),
    // Limits, which it has none of.
    ("path-of-257-names", "a limit of ours"),
    ("links-forty-one-in-a-row", "Linux follows forty; it follows 255"),
    ("attribute-of-the-root-above-2880-bytes", "the root's attributes are left out there"),
    // Taken here.
    ("file-of-the-contiguous-type", "POSIX has it as a file; refused there"),
    ("sparse-gnu", "GNU tar writes them; refused there"),
    ("end-of-an-empty-blob", "an empty layer here; it cannot store a blob without bytes"),
    // Something else here.
    ("attribute-selinux", "labels belong to the guest's policy"),
    ("above-a-directory-a-file-then-a-directory", "what a file has replaced must not come back"),
    ("whiteout-and-again-the-directory", "what was hidden must not come back"),
    ("directory-and-then-its-whiteout", "whiteouts are for the layers below; refused there"),
    ("file-and-then-its-whiteout", "whiteouts are for the layers below; refused there"),
    ("whiteout-and-again-a-path-below", "a directory again; refused there"),
    ("opaque-root", "overlayfs does not look for the mark on a layer's root; we leave out the layers below"),
    ("whiteout-files-of-aufs", "book-keeping of AUFS; some of it is unpacked there"),
];

/// A containerd of its own that ends with this value.
struct Containerd {
    child: Child,
    dir: tempfile::TempDir,
}

impl Containerd {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            at("root"),
            at("state"),
            at("socket"),
            at("ttrpc")
        );
        std::fs::write(dir.path().join("config.toml"), config).unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(dir.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .expect("containerd must be installed (Debian package containerd)");
        let server = Self { child, dir };
        let start = Instant::now();
        while !server.ctr(&["version"]).status.success() {
            assert!(start.elapsed() < Duration::from_secs(30), "containerd did not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        Command::new("ctr").arg("--address").arg(self.dir.path().join("socket")).args(arguments).output().unwrap()
    }

    /// What containerd makes of an image, or what it says against it.
    fn pull(&self, reference: &str, name: &str) -> Result<Vec<String>, String> {
        let said = |output: Output| String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let pulled = self.ctr(&["images", "pull", "--plain-http", "--snapshotter", "overlayfs", reference]);
        if !pulled.status.success() {
            return Err(said(pulled));
        }
        let at: PathBuf = self.dir.path().join(name);
        std::fs::create_dir(&at).unwrap();
        let mounted = self.ctr(&["images", "mount", "--snapshotter", "overlayfs", reference, at.to_str().unwrap()]);
        if !mounted.status.success() {
            return Err(said(mounted));
        }
        let lines = look(&at);
        unmount(&at, UnmountFlags::DETACH).unwrap();
        Ok(lines)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for at in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(at).starts_with(self.dir.path()) {
                let _ = unmount(at, UnmountFlags::DETACH);
            }
        }
    }
}

/// Without what differs in every case: containerd leaves the root as it made it, and gives directories that are implied
/// or filled later the time at which it did so.
fn common(lines: &[String]) -> Vec<String> {
    let line = |line: &String| match line.split_once(" @") {
        Some((before, after)) if line.starts_with('d') => {
            let rest = after.split_once(' ').map_or(String::new(), |(_, rest)| format!(" {rest}"));
            format!("{before}{rest}")
        }
        _ => line.clone(),
    };
    let is_root = |line: &&String| line.split(' ').nth(2) == Some("/");
    // Its layers keep whiteouts that hide nothing, and overlayfs lists those.
    let is_listed_only = |line: &&String| line.starts_with("! ");
    lines.iter().filter(|line| !is_root(line) && !is_listed_only(line)).map(line).collect()
}

/// What containerd makes of a case that is not what we make of it.
fn difference(case: &Case, theirs: Result<Vec<String>, String>) -> Option<String> {
    match (&case.expect, theirs) {
        (Expect::Tree(ours), Ok(theirs)) if common(ours) == common(&theirs) => None,
        (Expect::Refused(_), Err(_)) => None,
        (Expect::Tree(ours), theirs) => Some(format!("{theirs:#?}\nwhere we have {ours:#?}")),
        (Expect::Refused(code), Ok(theirs)) => Some(format!("{theirs:#?}\nwhere we have {code}")),
    }
}

#[tokio::test]
async fn containerd_makes_the_same_of_every_case_but_those_listed() {
    let world = World::new();
    let containerd = Containerd::start();
    let listed: BTreeMap<&str, &str> = DIFFERENT.iter().copied().collect();
    assert_eq!(listed.len(), DIFFERENT.len());
    let mut wrong = Vec::new();
    let mut seen = 0;
    // Our own limits are not containerd's.
    for case in all().iter().filter(|case| !case.name.starts_with("limit")) {
        image::push(&world.client, &world.repository, case.name, &case.layers).await;
        let reference = format!("{}:{}", world.repository, case.name);
        match (difference(case, containerd.pull(&reference, case.name)), listed.get(case.name)) {
            (Some(theirs), None) => wrong.push(format!("{}: containerd has {theirs}", case.name)),
            (None, Some(_)) => wrong.push(format!("{}: no longer different", case.name)),
            (Some(_), Some(_)) => seen += 1,
            (None, None) => {}
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(seen, DIFFERENT.len(), "a listed case that there is not");
}
