//! A store with a quota or on a full disk: what gives way, what does not, and what a refusal leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use std::ffi::CString;
use std::path::{Path, PathBuf};

use image_rs_fork::{ErofsStore, ImageError, LayerStore, Limits, MeasuredImage, TreeStore, Unenforced};
use protocols::image::Layout;
use protocols::reason;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use support::image::{self, plain};
use support::tar::{archive, file};
use support::{World, names, run};

/// A store in which each image below fits, but no two.
const QUOTA: u64 = 300 * 1024;
/// Bytes of the one file of an image.
const SIZE: usize = 200 * 1024;

struct Small {
    world: World,
    home: tempfile::TempDir,
    layout: Layout,
    store: Box<dyn LayerStore>,
}

fn open(layout: Layout, root: &Path, quota: Option<u64>) -> Box<dyn LayerStore> {
    match layout {
        Layout::TreeV1 => Box::new(TreeStore::open_within(root, quota).unwrap()),
        Layout::ErofsV1 => Box::new(ErofsStore::open(root, quota, Unenforced::Refused).unwrap()),
    }
}

impl Small {
    async fn new(layout: Layout) -> Self {
        let world = World::new();
        for tag in ["one", "two"] {
            let layer = plain(&archive([file(tag, &[1; SIZE])]));
            image::push(&world.client, &world.repository, tag, &[layer]).await;
        }
        let home = tempfile::tempdir_in("/dev/shm").unwrap();
        let store = open(layout, &home.path().join("small"), Some(QUOTA));
        Self { world, home, layout, store }
    }

    async fn pull(&self, tag: &str) -> Result<MeasuredImage, ImageError> {
        pull(&self.world, tag, self.store.as_ref()).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn layers(&self) -> Vec<String> {
        layers(self.layout, &self.path("small"))
    }
}

async fn pull(world: &World, tag: &str, store: &dyn LayerStore) -> Result<MeasuredImage, ImageError> {
    run(&world.reference(tag), &world.client, store, &Limits::default()).await
}

/// The stored layers and those half-written.
fn layers(layout: Layout, root: &Path) -> Vec<String> {
    names(&match layout {
        Layout::TreeV1 => root.join("layers"),
        Layout::ErofsV1 => root.join(layout.as_str()).join("images"),
    })
}

#[tokio::test]
async fn layers_that_nobody_uses_give_way() {
    for layout in Layout::ALL {
        let small = Small::new(layout).await;
        drop(small.pull("one").await.unwrap());
        let one = small.layers();
        let two = small.pull("two").await.unwrap();
        assert_eq!(small.layers().len(), 1);
        assert_ne!(small.layers(), one);

        // An image that is held does not, nor one that is mounted.
        let error = small.pull("one").await.unwrap_err();
        assert_eq!(error.code(), reason::STORE_QUOTA, "{error}");
        let mounted = two.mount(&small.path("container")).unwrap();
        drop(two);
        assert_eq!(small.pull("one").await.unwrap_err().code(), reason::STORE_QUOTA);
        assert_eq!(std::fs::read(mounted.path().join("two")).unwrap().len(), SIZE);
        assert_eq!(small.layers().len(), 1, "nothing half-done stays");
        mounted.unmount().unwrap();
        small.pull("one").await.unwrap();
        assert_eq!(small.layers(), one);
    }
}

#[tokio::test]
async fn what_is_found_when_the_store_is_opened_counts() {
    for layout in Layout::ALL {
        let mut small = Small::new(layout).await;
        drop(small.pull("one").await.unwrap());
        let one = small.layers();
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        small.store = open(layout, elsewhere.path(), None);
        small.store = open(layout, &small.path("small"), Some(QUOTA));
        drop(small.pull("two").await.unwrap());
        assert_eq!(small.layers().len(), 1);
        assert_ne!(small.layers(), one);
    }
}

#[tokio::test]
async fn an_image_larger_than_the_quota_leaves_nothing() {
    for layout in Layout::ALL {
        let small = Small::new(layout).await;
        let large: Vec<_> = (0..2).map(|n| plain(&archive([file(&format!("f{n}"), &[1; SIZE])]))).collect();
        image::push(&small.world.client, &small.world.repository, "large", &large).await;
        let error = small.pull("large").await.unwrap_err();
        assert_eq!(error.code(), reason::STORE_QUOTA, "{error}");
        // The layer that was complete is a stored one like any other, and gives way.
        assert!(small.layers().iter().all(|name| !name.contains("partial")));
        small.pull("one").await.unwrap();
    }
}

#[tokio::test]
async fn what_the_other_layout_has_in_the_same_directory_counts_and_stays() {
    for (layout, other) in [(Layout::TreeV1, Layout::ErofsV1), (Layout::ErofsV1, Layout::TreeV1)] {
        let mut small = Small::new(layout).await;
        drop(small.pull("one").await.unwrap());
        let one = small.layers();
        let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
        small.store = open(layout, elsewhere.path(), None);
        small.store = open(other, &small.path("small"), Some(QUOTA));
        let error = small.pull("two").await.unwrap_err();
        assert_eq!(error.code(), reason::STORE_QUOTA, "{layout:?}: {error}");
        assert_eq!((small.layers(), layers(other, &small.path("small")).len()), (one, 0));
        small.store = open(other, elsewhere.path(), None);
        small.store = open(other, &small.path("small"), Some(2 * QUOTA));
        small.pull("two").await.unwrap();
    }
}

/// A file system of half a megabyte that ends with this value.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = CString::new("size=512k").unwrap();
        mount("none", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Self(dir)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_leaves_a_store_that_the_next_pull_uses() {
    for layout in Layout::ALL {
        let world = World::new();
        for (tag, size) in [("large", 4 * SIZE), ("small", SIZE)] {
            let layer = plain(&archive([file(tag, &vec![1; size])]));
            image::push(&world.client, &world.repository, tag, &[layer]).await;
        }
        let disk = Disk::new();
        let root = disk.0.path().join("store");
        let store = open(layout, &root, None);
        let error = pull(&world, "large", store.as_ref()).await.unwrap_err();
        assert_eq!(error.code(), reason::STORE_FULL, "{layout:?}: {error}");
        assert_eq!(layers(layout, &root), Vec::<String>::new(), "{layout:?}");
        let image = pull(&world, "small", store.as_ref()).await.unwrap();
        let mounted = image.mount(&world.home.path().join("container")).unwrap();
        assert_eq!(std::fs::read(mounted.path().join("small")).unwrap(), [1; SIZE]);
    }
}
