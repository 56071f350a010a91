//! What is fetched once: by one pull, by several at a time, and by one after the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use image_rs_fork::registry::{BlobStream, Descriptor, ManifestBytes, Registry, RegistryError, Repository, Target};
use image_rs_fork::{
    ErofsStore, ImagePolicy, LayerEvent, LayerPlace, Limits, MeasureOnly, MeasuredImage, NoKeys, Progress, Unenforced,
    fetch, pull,
};
use protocols::digest::Sha256Digest;
use protocols::image::Layout;
use protocols::time::Timestamp;
use support::image::{self, LayerBlob, gzip, plain};
use support::tar::{archive, dir, file};
use support::{World, names, run};
use tokio::sync::Notify;

/// A registry that counts how often it is asked for each blob, and fails or waits as it is told.
struct Counting<'w> {
    world: &'w World,
    asked: Mutex<BTreeMap<Sha256Digest, usize>>,
    /// So many more blobs of this digest are refused.
    failures: Option<(Sha256Digest, AtomicUsize)>,
    /// No blob of this digest comes before the other side says so.
    held: Option<(Sha256Digest, Notify)>,
}

impl<'w> Counting<'w> {
    fn new(world: &'w World) -> Self {
        Self { world, asked: Mutex::default(), failures: None, held: None }
    }

    /// How often layers were asked for, in their order.
    fn asked(&self, layers: &[LayerBlob]) -> Vec<usize> {
        let asked = self.asked.lock().unwrap();
        layers.iter().map(|layer| asked.get(&Sha256Digest::of(&layer.blob)).copied().unwrap_or(0)).collect()
    }
}

#[async_trait]
impl Registry for Counting<'_> {
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        self.world.client.manifest(repository, target).await
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        *self.asked.lock().unwrap().entry(*digest).or_default() += 1;
        if let Some((held, released)) = &self.held
            && held == digest
        {
            released.notified().await;
        }
        if let Some((failing, left)) = &self.failures
            && failing == digest
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
        {
            let (host, what) = (repository.host().to_owned(), format!("blob {digest}"));
            return Err(RegistryError::Unavailable { host, what, reason: "made to fail".to_owned() });
        }
        self.world.client.blob(repository, digest, size).await
    }

    async fn referrers(&self, _: &Repository, _: &Sha256Digest, _: &str) -> Result<Vec<Descriptor>, RegistryError> {
        Ok(Vec::new())
    }
}

/// Three layers of different sizes, the first of them once more on top.
fn layers() -> Vec<LayerBlob> {
    let layer = |name: &str, size: usize| {
        let content: Vec<u8> = (0..size).map(|n| (n.wrapping_mul(n) >> 7).to_le_bytes()[0]).collect();
        gzip(&archive([file(name, &content), file("shared", name.as_bytes())]))
    };
    let (a, b, c) = (layer("a", 300_000), layer("b", 2_000_000), layer("c", 40_000));
    vec![a.clone(), b, c, a]
}

async fn pull_from(world: &World, registry: &dyn Registry) -> Result<MeasuredImage, image_rs_fork::ImageError> {
    run(&world.reference("v1"), registry, &world.store, &Limits::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_pulls_at_once_fetch_each_blob_once_and_later_ones_none() {
    let world = World::new();
    image::push(&world.client, &world.repository, "v1", &layers()).await;
    let registry = Counting::new(&world);
    let pulls = (0..8).map(|_| pull_from(&world, &registry));
    let images: Vec<_> = futures_util::future::join_all(pulls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(registry.asked(&layers()), [1, 1, 1, 1]);
    assert!(images.iter().all(|image| image.measurement() == images[0].measurement()));
    let rootfs = images[7].mount(&world.home.path().join("container")).unwrap();
    assert_eq!(std::fs::read(rootfs.path().join("shared")).unwrap(), b"a", "the last layer has the last word");
    assert_eq!(std::fs::metadata(rootfs.path().join("b")).unwrap().len(), 2_000_000);
    pull_from(&world, &registry).await.unwrap();
    assert_eq!(registry.asked(&layers()), [1, 1, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waited_for_a_pull_that_fails_fetches_itself() {
    let world = World::new();
    image::push(&world.client, &world.repository, "v1", &layers()).await;
    let mut registry = Counting::new(&world);
    let failing = Sha256Digest::of(&layers()[1].blob);
    registry.failures = Some((failing, AtomicUsize::new(1)));
    let (one, two) = tokio::join!(pull_from(&world, &registry), pull_from(&world, &registry));
    assert_eq!([one.is_ok(), two.is_ok()].into_iter().filter(|ok| *ok).count(), 1);
    assert_eq!(registry.asked(&layers())[1], 2);
    pull_from(&world, &registry).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waited_for_a_pull_that_is_given_up_goes_on() {
    let world = Arc::new(World::new());
    let layers = layers();
    image::push(&world.client, &world.repository, "v1", &layers).await;
    let mut stuck = Counting::new(&world);
    stuck.held = Some((Sha256Digest::of(&layers[0].blob), Notify::new()));
    let registry = Counting::new(&world);
    let given_up = tokio::time::timeout(std::time::Duration::from_secs(2), pull_from(&world, &stuck));
    let waiting = async {
        // Only once the other has begun.
        while stuck.asked(&layers)[0] == 0 {
            tokio::task::yield_now().await;
        }
        pull_from(&world, &registry).await
    };
    let (given_up, waited) = tokio::join!(given_up, waiting);
    assert!(given_up.is_err());
    waited.unwrap();
    assert_eq!(registry.asked(&layers)[0], 1);
}

#[derive(Default)]
struct Told(Mutex<Vec<(usize, LayerEvent)>>);

impl Progress for Told {
    fn event(&self, layer: &LayerPlace<'_>, event: LayerEvent) {
        assert!(layer.registry.starts_with("127.0.0.1:") && layer.size > 0);
        if !matches!(event, LayerEvent::Received(_)) {
            self.0.lock().unwrap().push((layer.index, event));
        }
    }
}

async fn told(world: &World, limits: &Limits) -> Vec<(usize, LayerEvent)> {
    let found = fetch(&world.reference("v1"), &world.client).await.unwrap();
    let verified = found
        .verify(
            &ImagePolicy::host(image_rs_fork::SignaturePolicy::insecure_accept_anything(), Timestamp::now()),
            &world.client,
        )
        .await
        .unwrap();
    let told = Told::default();
    pull(verified, &world.client, &world.store, &NoKeys, limits, &told).await.unwrap();
    told.0.into_inner().unwrap()
}

#[tokio::test]
async fn the_largest_layer_is_fetched_first_and_all_are_completed_from_the_lowest_on() {
    use LayerEvent::{Reused, Started, Stored, Unpacked};
    let world = World::new();
    image::push(&world.client, &world.repository, "v1", &layers()).await;
    let limits = Limits { parallel: 1, ..Limits::default() };
    let events = told(&world, &limits).await;
    let of = |wanted: LayerEvent| -> Vec<usize> {
        events.iter().filter(|(_, event)| *event == wanted).map(|(index, _)| *index).collect()
    };
    assert_eq!(of(Started), [1, 0, 3, 2], "one blob stands for two layers");
    assert_eq!(of(Unpacked), [1, 0, 3, 2]);
    assert_eq!(of(Stored), [0, 1, 2, 3]);
    let events = told(&world, &limits).await;
    let reused: Vec<_> = events.iter().filter(|(_, event)| *event == Reused).collect();
    assert_eq!((reused.len(), events.len()), (4, 8));
}

#[tokio::test]
async fn one_thread_or_many_measure_the_same() {
    let world = World::new();
    let many: Vec<_> =
        (0..40).map(|n| plain(&archive([file(&format!("f{n}"), &vec![n; 1000 * usize::from(n)])]))).collect();
    image::push(&world.client, &world.repository, "v1", &many).await;
    let mut measured = Vec::new();
    for limits in [
        Limits { inline: true, ..Limits::default() },
        Limits { parallel: 1, ..Limits::default() },
        Limits { parallel: 16, ..Limits::default() },
    ] {
        let store = MeasureOnly;
        measured.push(run(&world.reference("v1"), &world.client, &store, &limits).await.unwrap().measurement().clone());
    }
    assert!(measured.windows(2).all(|pair| pair[0] == pair[1]));
}

/// A layer above others that give its implied directories the same attributes, and that have the directories of its
/// whiteouts or not as before, is the same layer.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_the_same_above_other_layers_is_not_fetched_again() {
    let world = World::new();
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = ErofsStore::open(home.path(), None, Unenforced::Refused).unwrap();
    let registry = Counting::new(&world);
    let shared = gzip(&archive([file("d/f", b"shared"), file("e/.wh.gone", b"")]));
    let below = |name: &str, mode, has_e: bool| {
        let mut items = vec![dir("d").mode(mode), file(name, b"")];
        items.extend(has_e.then(|| file("e/gone", b"")));
        plain(&archive(items))
    };
    for (tag, layer, fetched) in [
        ("one", below("1", 0o700, true), 1),
        ("same-attributes", below("2", 0o700, true), 1),
        ("other-attributes", below("3", 0o711, true), 2),
        ("no-directory-of-the-whiteout", below("4", 0o700, false), 3),
        ("same-without-the-directory", below("5", 0o700, false), 3),
        ("same-once-more", below("6", 0o711, true), 3),
    ] {
        image::push(&world.client, &world.repository, tag, &[layer, shared.clone()]).await;
        let pulled = run(&world.reference(tag), &registry, &store, &Limits::default()).await.unwrap();
        assert_eq!(registry.asked(std::slice::from_ref(&shared)), [fetched], "{tag}");
        let measured = run(&world.reference(tag), &world.client, &MeasureOnly, &Limits::default()).await.unwrap();
        let expected = measured.rootfs_digests()[&Layout::ErofsV1];
        assert_eq!(pulled.measurement().rootfs.digest, expected, "{tag}: as if it had been fetched");
        let mounted = pulled.mount(&home.path().join("container")).unwrap();
        assert_eq!(std::fs::read(mounted.path().join("d/f")).unwrap(), b"shared");
        assert!(!mounted.path().join("e/gone").exists());
    }

    // What was altered is found before it is used above other layers, and fetched.
    let images = home.path().join("erofs-v1/images");
    for name in names(&images).iter().filter(|name| name.starts_with(&shared.diff_id.hex())) {
        let path = images.join(name).join("image");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[2000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    image::push(&world.client, &world.repository, "altered", &[below("7", 0o700, true), shared.clone()]).await;
    let pulled = run(&world.reference("altered"), &registry, &store, &Limits::default()).await.unwrap();
    assert_eq!(registry.asked(std::slice::from_ref(&shared)), [4]);
    let mounted = pulled.mount(&home.path().join("container")).unwrap();
    assert_eq!(std::fs::read(mounted.path().join("d/f")).unwrap(), b"shared");
}
