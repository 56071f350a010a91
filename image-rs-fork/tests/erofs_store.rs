//! The layout `erofs-v1` from a real registry to a mounted root file system. Needs root, loop devices and erofs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use image_rs_fork::{Enforcement, ErofsStore, ImageError, Limits, MeasureOnly, MeasuredImage, TreeStore, Unenforced};
use protocols::digest::Sha256Digest;
use protocols::image::Layout;
use protocols::reason;
use support::image::{self, LayerBlob, gzip, plain, zstd};
use support::tar::{archive, dir, file, hardlink, item, pax, symlink};
use support::{World, mounts_below, names, run};

/// A registry, and a store on tmpfs: guest memory, as far as anyone can tell.
struct Guest {
    world: World,
    home: tempfile::TempDir,
    store: ErofsStore,
}

impl Guest {
    fn new() -> Self {
        Self::at("/dev/shm", Unenforced::Refused)
    }

    fn at(dir: &str, unenforced: Unenforced) -> Self {
        let home = tempfile::tempdir_in(dir).unwrap();
        let store = ErofsStore::open(home.path(), None, unenforced).unwrap();
        Self { world: World::new(), home, store }
    }

    async fn push(&self, tag: &str, layers: &[LayerBlob]) {
        image::push(&self.world.client, &self.world.repository, tag, layers).await;
    }

    async fn pull(&self, tag: &str) -> Result<MeasuredImage, ImageError> {
        run(&self.world.reference(tag), &self.world.client, &self.store, &Limits::default()).await
    }

    /// Pushes an image and pulls it.
    async fn image(&self, layers: &[LayerBlob]) -> MeasuredImage {
        self.push("v1", layers).await;
        self.pull("v1").await.unwrap()
    }

    fn container(&self) -> PathBuf {
        self.home.path().join("container")
    }

    fn images(&self) -> PathBuf {
        self.home.path().join("erofs-v1/images")
    }

    /// The stored image file of a layer.
    fn file(&self, layer: &LayerBlob) -> PathBuf {
        let images = self.images();
        let named = names(&images).into_iter().find(|name| name.starts_with(&layer.diff_id.hex()));
        images.join(named.unwrap()).join("image")
    }

    /// Without its blob a layer cannot be fetched any more.
    fn forget_blob(&self, layer: &LayerBlob) {
        fs::remove_file(self.world.server.blob_file(&Sha256Digest::of(&layer.blob).hex())).unwrap();
    }

    /// Nothing is mounted, no device has one of this store's files behind it, no directory stays.
    fn nothing_mounted(&self) {
        assert_eq!(mounts_below(self.home.path()), 0);
        assert_eq!(names(&self.home.path().join("erofs-v1/mounts")), Vec::<String>::new());
        let used: Vec<_> = sys::loop_device::attached().unwrap();
        assert!(!used.iter().any(|(_, path)| path.starts_with(self.home.path())), "{used:?}");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.nothing_mounted();
        }
    }
}

/// What keeps layers on this machine, if it has no device-mapper.
fn without_mapper(enforcement: Enforcement) -> Enforcement {
    if sys::device_mapper::DeviceMapper::open().is_ok() { Enforcement::DmVerity } else { enforcement }
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn list(root: &Path) -> Vec<String> {
    let format = "%P %y %m %U:%G %s %T@ %n %l\\n";
    let output = Command::new("find").arg(root).args(["!", "-type", "d", "-printf", format]).output().unwrap();
    let plain = String::from_utf8(output.stdout).unwrap();
    let format = "%P %y %m %U:%G %T@\\n";
    let output =
        Command::new("find").arg(root).args(["-mindepth", "1", "-type", "d", "-printf", format]).output().unwrap();
    let mut lines: Vec<String> = plain.lines().map(str::to_owned).collect();
    lines.extend(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned));
    lines.sort();
    lines
}

#[tokio::test]
async fn an_image_is_pulled_mounted_and_runs_and_equals_the_other_layout() {
    let guest = Guest::new();
    let busybox = fs::read("/bin/busybox").expect("busybox must be installed (Debian package busybox-static)");
    let base = gzip(&archive([
        dir("bin"),
        file("bin/busybox", &busybox).mode(0o4755),
        symlink("bin/sh", "busybox"),
        hardlink("bin/echo", "bin/busybox").mode(0o4755),
        dir("etc").mode(0o700).owner(5, 6),
        file("etc/gone", b"gone"),
        item(b'3', "null").device(1, 3).mode(0o666),
        pax(&[("SCHILY.xattr.user.k", b"v")]),
        file("etc/kept", &[7; 9000]).owner(70_000, 8).mtime(1_000_000_000),
    ]));
    let top = zstd(&archive([file("etc/.wh.gone", b""), file("etc/new", b"new")]));
    let image = guest.image(&[base, top]).await;
    assert_eq!(image.measurement().rootfs.layout, Layout::ErofsV1);
    let rootfs = image.mount(&guest.container()).unwrap();
    assert_eq!((rootfs.layout(), rootfs.enforcement()), (Layout::ErofsV1, without_mapper(Enforcement::GuestMemory)));
    let etc = fs::metadata(rootfs.path().join("etc")).unwrap();
    assert_eq!((etc.mode() & 0o7777, etc.uid(), etc.gid()), (0o700, 5, 6), "not widened by the layer without an entry");
    assert_eq!(names(&rootfs.path().join("etc")), ["kept", "new"]);

    let tree = TreeStore::open(&guest.world.home.path().join("tree")).unwrap();
    let other = run(&guest.world.reference("v1"), &guest.world.client, &tree, &Limits::default()).await.unwrap();
    let other_rootfs = other.mount(&guest.world.home.path().join("container")).unwrap();
    assert_eq!(list(rootfs.path()), list(other_rootfs.path()));
    assert_eq!(fs::read(rootfs.path().join("bin/sh")).unwrap(), busybox);
    assert_ne!(image.measurement().rootfs, other.measurement().rootfs);

    let measured =
        run(&guest.world.reference("v1"), &guest.world.client, &MeasureOnly, &Limits::default()).await.unwrap();
    let both: BTreeMap<Layout, Sha256Digest> =
        [image.rootfs_digests(), other.rootfs_digests()].into_iter().flatten().collect();
    assert_eq!(measured.rootfs_digests(), both, "measured without a store, in both layouts");
    assert!(measured.mount(&guest.container().join("x")).is_err());

    let run = ["/bin/sh", "-c", "echo ran > /out; busybox cat /out"];
    let output = Command::new("chroot").arg(rootfs.path()).args(run).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "ran\n");
    rootfs.unmount().unwrap();
    assert!(!guest.container().exists());
}

#[tokio::test]
async fn a_stored_layer_is_used_again_also_after_a_restart() {
    let mut guest = Guest::new();
    let layer = gzip(&archive([file("f", b"content")]));
    let first = guest.image(std::slice::from_ref(&layer)).await;
    guest.forget_blob(&layer);
    let again = guest.pull("v1").await.unwrap();
    assert_eq!(again.measurement(), first.measurement());
    drop((first, again));
    let mode = fs::metadata(guest.file(&layer)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o400);

    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    guest.store = ErofsStore::open(elsewhere.path(), None, Unenforced::Refused).unwrap();
    guest.store = ErofsStore::open(guest.home.path(), None, Unenforced::Refused).unwrap();
    assert_eq!(
        fs::read(guest.pull("v1").await.unwrap().mount(&guest.container()).unwrap().path().join("f")).unwrap(),
        b"content"
    );
}

#[tokio::test]
async fn a_layer_altered_between_pull_and_mount_is_not_mounted() {
    let guest = Guest::new();
    let layer = gzip(&archive([dir("d"), file("d/f", &[b'x'; 20_000])]));
    let image = guest.image(std::slice::from_ref(&layer)).await;
    flip(&guest.file(&layer), 4096 + 1030);
    match image.mount(&guest.home.path().join("rootfs")) {
        Err(refused) => assert_eq!(refused.code(), reason::STORE_CORRUPT, "{refused}"),
        // Found by the kernel, when it is read.
        Ok(rootfs) => {
            assert_eq!(rootfs.enforcement(), Enforcement::DmVerity);
            assert_eq!(fs::read(rootfs.path().join("d/f")).unwrap_err().raw_os_error(), Some(5));
        }
    }
}

#[tokio::test]
async fn every_flipped_byte_of_a_stored_layer_is_found_and_the_layer_is_fetched_again() {
    let guest = Guest::new();
    let layer = gzip(&archive([dir("d"), file("d/f", &[b'x'; 20_000])]));
    let honest = guest.image(std::slice::from_ref(&layer)).await;
    let stored = guest.file(&layer);
    let bytes = fs::read(&stored).unwrap();
    let size = bytes.len() as u64;
    // Each block of the image; the hash tree behind it has no say without dm-verity.
    for at in (0..size / 4096 - 1).map(|block| block * 4096 + 1030) {
        flip(&stored, at);
        assert_eq!(guest.pull("v1").await.unwrap().measurement(), honest.measurement());
        assert!(fs::read(&stored).unwrap() == bytes, "byte {at} was found and the layer fetched again");
    }
    let folder = stored.parent().unwrap();
    for alter in [
        &(|| fs::write(folder.join("root-hash"), Sha256Digest::of(b"").hex()).unwrap()) as &dyn Fn(),
        &|| fs::remove_file(folder.join("root-hash")).unwrap(),
        &|| fs::remove_file(&stored).unwrap(),
        &|| fs::write(&stored, b"").unwrap(),
        &|| fs::OpenOptions::new().write(true).open(&stored).unwrap().set_len(size + 1).unwrap(),
    ] {
        alter();
        assert_eq!(guest.pull("v1").await.unwrap().measurement(), honest.measurement());
        assert!(fs::read(&stored).unwrap() == bytes);
        assert_eq!(fs::read_to_string(folder.join("root-hash")).unwrap().len(), 64);
    }
    flip(&stored, size - 8192);
    guest.forget_blob(&layer);
    assert!(guest.pull("v1").await.is_err(), "what cannot be fetched again does not run");
    assert_eq!(names(&guest.images()), Vec::<String>::new());
}

#[tokio::test]
async fn a_layer_that_is_stored_anew_does_not_get_the_mount_it_had_before() {
    let guest = Guest::new();
    let layer = plain(&archive([file("f", &[b'x'; 5000])]));
    let image = guest.image(std::slice::from_ref(&layer)).await;
    let running = image.mount(&guest.container()).unwrap();
    flip(&guest.file(&layer), 4096);
    let rootfs = guest.pull("v1").await.unwrap().mount(&guest.home.path().join("second")).unwrap();
    assert_eq!(fs::read(rootfs.path().join("f")).unwrap(), [b'x'; 5000]);
    drop(running);
}

#[tokio::test]
async fn chains_above_the_same_attributes_share_one_file_and_others_do_not() {
    let guest = Guest::new();
    let upper = gzip(&archive([file("d/f", b"shared")]));
    let below = |name: &str, mode| plain(&archive([dir("d").mode(mode), file(name, b"")]));
    guest.push("one", &[below("a", 0o700), upper.clone()]).await;
    guest.push("two", &[below("b", 0o700), upper.clone()]).await;
    guest.push("three", &[below("c", 0o711), upper.clone()]).await;
    let stored = || names(&guest.images()).iter().filter(|name| name.starts_with(&upper.diff_id.hex())).count();
    let mut rootfs = Vec::new();
    for (tag, files, mode) in [("one", 1, 0o700), ("two", 1, 0o700), ("three", 2, 0o711)] {
        let mounted = guest.pull(tag).await.unwrap().mount(&guest.home.path().join(tag)).unwrap();
        assert_eq!(stored(), files, "{tag}");
        assert_eq!(fs::metadata(mounted.path().join("d")).unwrap().mode() & 0o7777, mode, "{tag}");
        rootfs.push(mounted);
    }
    // Three layers of their own, one shared by two, one more.
    assert_eq!(mounts_below(&guest.home.path().join("erofs-v1/mounts")), 5);
    rootfs.remove(0);
    assert_eq!(fs::read(rootfs[0].path().join("d/f")).unwrap(), b"shared");
    assert_eq!(mounts_below(&guest.home.path().join("erofs-v1/mounts")), 4);
}

#[tokio::test]
async fn the_same_layer_twice_has_the_last_word_twice() {
    let guest = Guest::new();
    let (a, b) = (gzip(&archive([file("f", b"a")])), gzip(&archive([file("f", b"b")])));
    let image = guest.image(&[a.clone(), b, a]).await;
    assert_eq!(names(&guest.images()).len(), 2);
    let rootfs = image.mount(&guest.container()).unwrap();
    assert_eq!(fs::read(rootfs.path().join("f")).unwrap(), b"a");
}

#[tokio::test]
async fn an_opaque_root_hides_all_layers_below() {
    let guest = Guest::new();
    let layers = [
        plain(&archive([file("hidden", b"")])),
        plain(&archive([file(".wh..wh..opq", b""), file("shown", b"")])),
        plain(&archive([file("also", b"")])),
    ];
    let rootfs = guest.image(&layers).await.mount(&guest.container()).unwrap();
    assert_eq!(names(rootfs.path()), ["also", "shown"]);
}

#[tokio::test]
async fn a_hundred_and_thirty_layers_can_be_mounted() {
    let guest = Guest::new();
    let layers: Vec<_> = (0..130).map(|n| plain(&archive([file(&format!("f{n}"), b"")]))).collect();
    let rootfs = guest.image(&layers).await.mount(&guest.container()).unwrap();
    assert_eq!(names(rootfs.path()).len(), 130);
}

#[tokio::test]
async fn a_mount_that_fails_in_the_middle_leaves_nothing() {
    let guest = Guest::new();
    let layers: Vec<_> = (0..3).map(|n| plain(&archive([file(&format!("f{n}"), b"")]))).collect();
    let image = guest.image(&layers).await;
    // The lowest layer is mounted last.
    fs::remove_file(guest.file(&layers[0])).unwrap();
    assert_eq!(image.mount(&guest.container()).unwrap_err().code(), reason::STORE_IO);
    guest.nothing_mounted();
    assert!(!guest.container().exists());

    fs::create_dir(guest.container()).unwrap();
    let image = guest.image(&layers[1..]).await;
    assert!(image.mount(&guest.container()).is_err(), "a directory that exists is not taken over");
    guest.nothing_mounted();
}

#[tokio::test]
async fn what_a_dead_process_left_is_removed_when_the_store_is_opened() {
    let guest = Guest::at("/dev/shm", Unenforced::Refused);
    let layer = plain(&archive([file("f", b"content")]));
    let image = guest.image(std::slice::from_ref(&layer)).await;
    let rootfs = image.mount(&guest.container()).unwrap();
    // As a killed process leaves them.
    Box::leak(Box::new((rootfs, image)));
    let images = guest.images();
    fs::create_dir(images.join("half.partial-0")).unwrap();
    assert_eq!(ErofsStore::open(guest.home.path(), None, Unenforced::Refused).unwrap_err().code(), reason::STORE_IO);
    // Its lock would have gone with it.
    image_rs_fork::remove_rootfs(&guest.container()).unwrap();
    fs::remove_file(guest.home.path().join("lock")).unwrap();
    let _again = ErofsStore::open(guest.home.path(), None, Unenforced::Refused).unwrap();
    guest.nothing_mounted();
    assert!(!images.join("half.partial-0").exists());
}

#[tokio::test]
async fn a_store_outside_guest_memory_is_mounted_only_where_that_is_allowed() {
    let layer = plain(&archive([file("f", b"content")]));
    let guest = Guest::at("/var/tmp", Unenforced::Refused);
    let image = guest.image(std::slice::from_ref(&layer)).await;
    if guest.store.enforcement() == Enforcement::Nothing {
        assert_eq!(image.mount(&guest.container()).unwrap_err().code(), reason::STORE_UNENFORCED);
        assert_eq!(guest.store.probe().unwrap_err().code(), reason::STORE_UNENFORCED);
        assert!(!guest.container().exists());
    }

    let guest = Guest::at("/var/tmp", Unenforced::Allowed);
    guest.store.probe().unwrap();
    let rootfs = guest.image(std::slice::from_ref(&layer)).await.mount(&guest.container()).unwrap();
    assert_eq!(rootfs.enforcement(), without_mapper(Enforcement::Nothing));
    assert_eq!(fs::read(rootfs.path().join("f")).unwrap(), b"content");
}

#[tokio::test]
async fn a_quota_makes_room_but_never_of_what_is_used() {
    let mut guest = Guest::new();
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    guest.store = ErofsStore::open(home.path(), Some(200_000), Unenforced::Refused).unwrap();
    let layer = |name: &str| plain(&archive([file(name, &[b'x'; 90_000])]));
    for (tag, names) in [("a", ["a1", "a2"]), ("b", ["b1", "b2"])] {
        guest.push(tag, &names.map(layer)).await;
    }
    let image = guest.pull("a").await.unwrap();
    let rootfs = image.mount(&home.path().join("container")).unwrap();
    drop(image);
    assert_eq!(guest.pull("b").await.unwrap_err().code(), reason::STORE_QUOTA);
    assert_eq!(names(&home.path().join("erofs-v1/images")).len(), 2, "nothing half-written");
    drop(rootfs);
    let rootfs = guest.pull("b").await.unwrap().mount(&home.path().join("container")).unwrap();
    assert_eq!(names(rootfs.path()), ["b1", "b2"]);
    assert_eq!(names(&home.path().join("erofs-v1/images")).len(), 2);
}

#[tokio::test]
async fn two_pulls_of_one_image_at_once_agree() {
    let guest = Guest::new();
    let layers: Vec<_> = (0..4).map(|n| gzip(&archive([file(&format!("f{n}"), &[n; 100_000])]))).collect();
    guest.push("v1", &layers).await;
    let (one, two) = futures_util::future::join(guest.pull("v1"), guest.pull("v1")).await;
    assert_eq!(one.unwrap().measurement(), two.unwrap().measurement());
    assert_eq!(names(&guest.images()).len(), 4);
}
