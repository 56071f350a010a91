//! Pulls that are killed at any moment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image_rs_fork::registry::{HttpRegistry, ImageReference, RegistryConfig};
use image_rs_fork::{Limits, TreeStore};
use support::image::{self, LayerBlob, gzip, plain, zstd};
use support::tar::{archive, dir, file, symlink};
use support::{World, names, run};

/// What tells the child, which is this very program, which image to pull into which store.
const CHILD: &str = "CRASH_TEST_CHILD";
const KILLS: u32 = 50;

/// A pull that somebody kills.
#[tokio::test]
#[ignore = "started by the test below"]
async fn the_child() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let (reference, store) = asked.split_once(' ').unwrap();
    let reference: ImageReference = reference.parse().unwrap();
    let plain_http = vec![reference.repository().host().to_owned()];
    let client = HttpRegistry::new(RegistryConfig { plain_http, ..RegistryConfig::default() }).unwrap();
    let store = TreeStore::open(Path::new(store)).unwrap();
    run(&reference, &client, &store, &Limits::default()).await.unwrap();
}

fn child(world: &World, store: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "the_child"])
        .env(CHILD, format!("{} {}", world.reference("v1"), store.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Layers of a few thousand files and some megabytes, of every compression.
fn layers() -> Vec<LayerBlob> {
    let layer = |name: &str, files: usize| {
        let mut items = vec![dir(name)];
        for n in 0..files {
            let content: Vec<u8> = (0..3000).map(|at| (at * n >> 5) as u8).collect();
            items.push(file(&format!("{name}/f{n}"), &content));
            items.push(symlink(&format!("{name}/s{n}"), "f0"));
        }
        archive(items)
    };
    vec![gzip(&layer("a", 300)), zstd(&layer("b", 1500)), plain(&layer("c", 600)), gzip(&layer("d", 900))]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_pull_leaves_a_store_that_the_next_one_uses() {
    let world = World::new();
    image::push(&world.client, &world.repository, "v1", &layers()).await;
    let honest = world.pull("v1").await.unwrap().measurement().clone();
    // In memory, where stores are in production, and where syncing does not wait for others.
    let home = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = home.path().join("killed");
    let started = Instant::now();
    assert!(child(&world, &store).wait().unwrap().success());
    let whole = started.elapsed();

    // The moments are the same in every run, as shares of a pull's time.
    let mut state = 0x5eed_u64;
    let (mut early, mut partial, mut complete) = (0, 0, 0);
    for kill in 0..KILLS {
        std::fs::remove_dir_all(&store).unwrap();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = whole.mul_f64(((state >> 33) % 1000) as f64 / 1000.0);
        let mut killed = child(&world, &store);
        std::thread::sleep(moment);
        killed.kill().unwrap();
        killed.wait().unwrap();
        match std::fs::read_dir(store.join("layers")) {
            Err(_) => early += 1,
            Ok(_) if names(&store.join("layers")).iter().any(|name| name.contains("partial")) => partial += 1,
            Ok(_) => complete += 1,
        }
        let next = TreeStore::open(&store).unwrap();
        let image = run(&world.reference("v1"), &world.client, &next, &Limits::default()).await;
        assert_eq!(image.unwrap().measurement(), &honest, "kill {kill} after {moment:?}");
        let left = names(&store.join("layers"));
        assert!(left.len() == 4 && left.iter().all(|name| name.len() == 64), "kill {kill}: {left:?}");
    }
    println!("{early} before the store was made, {partial} with a layer half-written, {complete} between or after");
    assert!(partial > KILLS / 5, "the moments miss the pull: {partial} of {KILLS}");
    assert!(whole > Duration::from_millis(5));
}
