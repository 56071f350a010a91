//! A store with a quota: what gives way, what does not, and what a refusal leaves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use image_rs_fork::{ImageError, Limits, MeasuredImage, TreeStore};
use protocols::reason;
use support::image::{self, plain};
use support::tar::{archive, file};
use support::{World, names, run};

/// A store in which each image below fits, but no two.
const QUOTA: u64 = 300 * 1024;

struct Small {
    world: World,
    store: TreeStore,
}

impl Small {
    async fn new() -> Self {
        let world = World::new();
        for tag in ["one", "two"] {
            let layer = plain(&archive([file(tag, &[1; 200 * 1024])]));
            image::push(&world.client, &world.repository, tag, &[layer]).await;
        }
        let store = TreeStore::open_within(&world.home.path().join("small"), Some(QUOTA)).unwrap();
        Self { world, store }
    }

    async fn pull(&self, tag: &str) -> Result<MeasuredImage, ImageError> {
        run(&self.world.reference(tag), &self.world.client, &self.store, &Limits::default()).await
    }

    fn layers(&self) -> Vec<String> {
        names(&self.world.home.path().join("small/layers"))
    }
}

#[tokio::test]
async fn layers_that_nobody_uses_give_way() {
    let small = Small::new().await;
    drop(small.pull("one").await.unwrap());
    let one = small.layers();
    let two = small.pull("two").await.unwrap();
    assert_eq!(small.layers().len(), 1);
    assert_ne!(small.layers(), one);

    // An image that is held does not, nor one that is mounted.
    let error = small.pull("one").await.unwrap_err();
    assert_eq!(error.code(), reason::STORE_QUOTA, "{error}");
    let dir = small.world.home.path().join("container");
    let mounted = two.mount(&dir).unwrap();
    drop(two);
    assert_eq!(small.pull("one").await.unwrap_err().code(), reason::STORE_QUOTA);
    assert_eq!(std::fs::read(mounted.path().join("two")).unwrap().len(), 200 * 1024);
    assert_eq!(small.layers().len(), 1, "nothing half-done stays");
    mounted.unmount().unwrap();
    small.pull("one").await.unwrap();
    assert_eq!(small.layers(), one);
}

#[tokio::test]
async fn what_is_found_when_the_store_is_opened_counts() {
    let Small { world, store } = Small::new().await;
    let small = Small { world, store };
    drop(small.pull("one").await.unwrap());
    let one = small.layers();
    let Small { world, store } = small;
    drop(store);
    let store = TreeStore::open_within(&world.home.path().join("small"), Some(QUOTA)).unwrap();
    let small = Small { world, store };
    drop(small.pull("two").await.unwrap());
    assert_eq!(small.layers().len(), 1);
    assert_ne!(small.layers(), one);
}

#[tokio::test]
async fn an_image_larger_than_the_quota_leaves_nothing() {
    let small = Small::new().await;
    let large: Vec<_> = (0..2).map(|n| plain(&archive([file(&format!("f{n}"), &[1; 200 * 1024])]))).collect();
    image::push(&small.world.client, &small.world.repository, "large", &large).await;
    let error = small.pull("large").await.unwrap_err();
    assert_eq!(error.code(), reason::STORE_QUOTA, "{error}");
    // The layer that was complete is a stored one like any other, and gives way.
    assert!(small.layers().iter().all(|name| !name.contains("partial")));
    small.pull("one").await.unwrap();
}
