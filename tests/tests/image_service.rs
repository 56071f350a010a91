//! The image service for a stock Kata agent in the guest: what it gives away was measured, appraised and recorded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use integration_tests::command::run;
use integration_tests::image::Recipe;
use integration_tests::{Options, World};
use protobuf::Message as _;
use protocols::rpc::cdh::{ImagePullRequest, ImagePullResponse};
use rustix::mount::{UnmountFlags, unmount};
use ttrpc::Code;
use ttrpc::r#async::Client;

/// A container's id as a shim makes it.
const ID: &str = "4f1d7d0c2b6a9e8f4f1d7d0c2b6a9e8f4f1d7d0c2b6a9e8f4f1d7d0c2b6a9e8f";

fn world() -> World {
    World::with(Options {
        agent: |table| {
            let state = PathBuf::from(table["state_dir"].as_str().unwrap());
            let folder = state.parent().unwrap().display().to_string();
            let text = format!("socket = \"{folder}/cdh.sock\"\nbundles = \"{folder}/bundles\"\n");
            table.insert("image_service".into(), toml::Value::Table(text.parse().unwrap()));
        },
        ..Options::default()
    })
}

/// What a Kata agent sends.
async fn pull(world: &World, image: &str, bundle: &Path) -> Result<(), (Code, String)> {
    let client = Client::connect(&format!("unix://{}", world.path("cdh.sock").display())).await.unwrap();
    let request = ImagePullRequest {
        image_url: image.to_owned(),
        bundle_path: bundle.display().to_string(),
        ..Default::default()
    };
    let request = ttrpc::Request {
        service: "api.ImagePullService".to_owned(),
        method: "PullImage".to_owned(),
        timeout_nano: 60_000_000_000,
        payload: request.write_to_bytes().unwrap(),
        ..Default::default()
    };
    match client.request(request).await {
        Ok(response) => {
            ImagePullResponse::parse_from_bytes(&response.payload).unwrap();
            Ok(())
        }
        Err(ttrpc::Error::RpcStatus(status)) => {
            Err((status.code(), status.message().split(':').next().unwrap().to_owned()))
        }
        Err(error) => panic!("{error}"),
    }
}

fn operations(world: &World) -> String {
    run(world.tclctl(&["--json", "log", "show"])).ok().stdout
}

fn mounted(rootfs: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|meta| meta.dev());
    device(rootfs).is_ok_and(|dev| dev != device(rootfs.parent().unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_passed_appears_in_the_bundle_and_goes_when_it_is_unmounted() {
    let world = world();
    let image = world.reference(&world.signed("echo out", "app"));
    let bundle = world.path("bundles").join(ID);
    pull(&world, &image, &bundle).await.unwrap();
    let rootfs = bundle.join("rootfs");
    assert!(mounted(&rootfs) && rootfs.join("bin/busybox").exists());
    std::fs::write(rootfs.join("written"), "by its container").unwrap();
    let log = operations(&world);
    assert!(log.contains("Provided") && !log.contains("\"Launch\""), "{log}");
    world.settle();
    assert!(world.verify_log().ok().stdout.contains("the log leads to the register"));

    // The same once more is there already, and another image in the same bundle is refused.
    pull(&world, &image, &bundle).await.unwrap();
    assert_eq!(operations(&world).matches("Provided").count(), log.matches("Provided").count());
    let other = world.reference(&world.signed("echo other", "other"));
    assert_eq!(pull(&world, &other, &bundle).await.unwrap_err().0, Code::INVALID_ARGUMENT);

    // As the other agent does when the container is removed.
    let held = world.path("state/rootfs").join(ID);
    assert!(held.exists());
    unmount(&rootfs, UnmountFlags::empty()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while held.exists() {
        assert!(Instant::now() < deadline, "what was unmounted is still held");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    pull(&world, &other, &bundle).await.unwrap();
    assert!(mounted(&rootfs) && !rootfs.join("written").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_without_a_golden_value_is_given_to_nobody() {
    let world = world();
    let unsigned = world.reference(&world.push(&Recipe::new("true"), "unsigned", "1"));
    let bundle = world.path("bundles").join(ID);
    let (code, reason) = pull(&world, &unsigned, &bundle).await.unwrap_err();
    assert_eq!((code, reason.as_str()), (Code::PERMISSION_DENIED, "golden.missing"));
    assert!(!bundle.join("rootfs").exists(), "nothing appeared");
    let log = operations(&world);
    assert!(log.contains("golden.missing") && !log.contains("Provided"), "{log}");
    assert!(!world.path("state/rootfs").join(ID).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_containers_own_bundle_gets_a_root_file_system() {
    let world = world();
    let image = world.reference(&world.signed("true", "app"));
    let bundles = world.path("bundles");
    for path in [
        bundles.clone(),
        bundles.join("a/b"),
        bundles.join(".."),
        bundles.join("../etc"),
        bundles.join(".hidden"),
        PathBuf::from("/etc"),
        PathBuf::from("relative"),
        PathBuf::new(),
    ] {
        let (code, reason) = pull(&world, &image, &path).await.unwrap_err();
        assert_eq!(code, Code::INVALID_ARGUMENT, "{} {reason}", path.display());
    }
    // A link in place of the bundle, or of its root file system, leads nowhere.
    let elsewhere = world.path("elsewhere");
    std::fs::create_dir_all(elsewhere.join("rootfs")).unwrap();
    std::fs::create_dir_all(bundles.join("half")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, bundles.join("linked")).unwrap();
    std::os::unix::fs::symlink(&elsewhere, bundles.join("half/rootfs")).unwrap();
    for id in ["linked", "half"] {
        assert!(pull(&world, &image, &bundles.join(id)).await.is_err(), "{id}");
        assert!(!elsewhere.join("rootfs/bin").exists() && !elsewhere.join("bin").exists());
        assert!(!world.path("state/rootfs").join(id).exists(), "nothing stays mounted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_the_same_time_pull_once_and_an_agent_that_ends_takes_its_mounts_along() {
    let mut world = world();
    let image = world.reference(&world.signed("true", "app"));
    let bundle = world.path("bundles").join(ID);
    let calls: [Result<(), _>; 4] =
        futures_util::future::join_all((0..4).map(|_| pull(&world, &image, &bundle))).await.try_into().unwrap();
    assert!(calls.iter().all(Result::is_ok), "{calls:?}");
    assert_eq!(operations(&world).matches("Provided").count(), 1);
    world.stop_agent();
    assert!(!mounted(&bundle.join("rootfs")));
}
