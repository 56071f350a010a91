//! Pulls that are killed at any moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use image_rs_fork::Limits;
use image_rs_fork::registry::{HttpRegistry, ImageReference, RegistryConfig};
use protocols::image::{ImageMeasurement, Layout};
use support::image::{self, LayerBlob, gzip, plain, zstd};
use support::tar::{archive, dir, file, symlink};
use support::{World, names, run};

/// What tells the child, which is this very program, which image to pull into which store.
const CHILD: &str = "CRASH_TEST_CHILD";
/// Moments, half of them in each layout.
const KILLS: u32 = 50;

/// A pull that somebody kills.
#[tokio::test]
#[ignore = "started by the test below"]
async fn the_child() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let [reference, layout, store] = asked.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let reference: ImageReference = reference.parse().unwrap();
    let plain_http = vec![reference.repository().host().to_owned()];
    let client = HttpRegistry::new(RegistryConfig { plain_http, ..RegistryConfig::default() }).unwrap();
    let layout = if layout == Layout::TreeV1.as_str() { Layout::TreeV1 } else { Layout::ErofsV1 };
    let (store, _) = support::open(layout, Path::new(store));
    run(&reference, &client, store.as_ref(), &Limits::default()).await.unwrap();
}

fn child(world: &World, layout: Layout, store: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "the_child"])
        .env(CHILD, format!("{} {} {}", world.reference("v1"), layout.as_str(), store.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Layers of a few thousand entries and some megabytes, of every compression.
fn layers() -> Vec<LayerBlob> {
    let layer = |name: &str, files: usize| {
        let mut items = vec![dir(name)];
        for n in 0..files {
            let content: Vec<u8> = (0..3000).map(|at: usize| (at.wrapping_mul(n) >> 5).to_le_bytes()[0]).collect();
            items.push(file(&format!("{name}/f{n}"), &content));
            items.push(symlink(&format!("{name}/s{n}"), "f0"));
        }
        archive(items)
    };
    vec![gzip(&layer("a", 100)), zstd(&layer("b", 500)), plain(&layer("c", 200)), gzip(&layer("d", 300))]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_pull_leaves_a_store_that_the_next_one_uses() {
    let world = World::new();
    image::push(&world.client, &world.repository, "v1", &layers()).await;
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut moments = Moments(0x5eed);
    for layout in [Layout::TreeV1, Layout::ErofsV1] {
        // In memory, where stores are in production, and where syncing does not wait for others.
        let path = home.path().join(layout.as_str());
        let started = Instant::now();
        assert!(child(&world, layout, &path).wait().unwrap().success());
        let whole = started.elapsed();
        let honest = next(&world, layout, &path).await;
        let mut partial = 0;
        for kill in 0..KILLS / 2 {
            std::fs::remove_dir_all(&path).unwrap();
            let moment = whole.mul_f64(moments.next());
            let mut killed = child(&world, layout, &path);
            std::thread::sleep(moment);
            killed.kill().unwrap();
            killed.wait().unwrap();
            partial += u32::from(path.exists() && !leftovers(&path).is_empty());
            let measured = next(&world, layout, &path).await;
            assert_eq!(measured, honest, "{layout:?}: kill {kill} after {moment:?} of {whole:?}");
            assert_eq!(leftovers(&path), Vec::<PathBuf>::new(), "{layout:?}: kill {kill} after {moment:?}");
        }
        println!("{layout:?}: {partial} of {} kills left a layer half-written", KILLS / 2);
        assert!(partial > KILLS / 10, "{layout:?}: the moments miss the pull: {partial}");
    }
}

/// The same in every run: shares of a pull's time.
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % 1000) as f64 / 1000.0
    }
}

/// The next pull into the store: what it measures, with every layer in its place.
async fn next(world: &World, layout: Layout, path: &Path) -> ImageMeasurement {
    let (store, layers) = support::open(layout, path);
    let image = run(&world.reference("v1"), &world.client, store.as_ref(), &Limits::default()).await.unwrap();
    assert_eq!(names(&layers).len(), self::layers().len(), "{layout:?}: {:?}", names(&layers));
    image.measurement().clone()
}

/// What is half-written below a directory.
fn leftovers(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().contains(".partial-") {
            found.push(path);
        } else if path.is_dir() && !path.is_symlink() && path.file_name().unwrap() != "fs" {
            found.extend(leftovers(&path));
        }
    }
    found
}
