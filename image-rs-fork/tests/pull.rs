//! Whole pulls from a real registry: what is accepted, and what it becomes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;
use std::sync::Mutex;

use bytes::Bytes;
use image_rs_fork::registry::{RegistryPush as _, oci};
use image_rs_fork::{
    ImagePolicy, Limits, MeasureOnly, NoKeys, Progress, SignaturePolicy, TreeStore, fetch, pull, remove_rootfs,
};
use protocols::digest::Sha256Digest;
use protocols::image::{ImageProcess, Platform};
use protocols::reason;
use protocols::time::Timestamp;
use serde_json::json;
use support::image::{self, LayerBlob, gzip, gzip_member, plain, zstd};
use support::tar::{archive, dir, file, item, symlink};
use support::{World, mounts_below, names, run};

fn busybox() -> LayerBlob {
    let busybox = std::fs::read("/bin/busybox").expect("busybox must be installed (Debian package busybox-static)");
    gzip(&archive([dir("bin"), file("bin/busybox", &busybox).mode(0o755), symlink("bin/sh", "busybox")]))
}

#[tokio::test]
async fn an_image_is_pulled_measured_mounted_and_runs() {
    let world = World::new();
    let pushed = image::push(&world.client, &world.repository, "v1", &[busybox()]).await;
    let image = world.pull("v1").await.unwrap();
    let measurement = image.measurement();
    assert_eq!(measurement.manifest, pushed.digest);
    assert_eq!(image.descriptor(), &pushed);
    assert_eq!(image.reference().to_string(), format!("{}:v1@{}", world.repository, pushed.digest));
    assert_eq!(image.created(), Timestamp::parse("2024-01-02T03:04:05Z"));
    assert_eq!(measurement.layers, [busybox().diff_id]);
    assert_eq!(
        measurement.process,
        ImageProcess {
            args: ["/bin/busybox", "echo", "hello"].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            user: String::new(),
            cwd: "/".to_owned()
        }
    );

    let dir = world.home.path().join("container");
    let rootfs = image.mount(&dir).unwrap();
    let output =
        Command::new("chroot").arg(rootfs.path()).args(["/bin/sh", "-c", "echo ran > /out; busybox cat /out"]).output();
    assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), "ran\n");
    rootfs.unmount().unwrap();
    assert!(!dir.exists());

    // The layer itself was not written to, and is used again without being fetched.
    let again = world.pull("v1").await.unwrap();
    assert_eq!(again.measurement(), measurement);
    let measured = run(&world.reference("v1"), &world.client, &MeasureOnly, &Limits::default()).await.unwrap();
    assert_eq!(measured.measurement(), measurement, "measured without a disk");
    assert!(measured.mount(&dir).is_err());
    assert!(!dir.exists());
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Progress for Told {
    fn start(&self, layers: usize, bytes: u64) {
        self.0.lock().unwrap().push(format!("start {layers} {bytes}"));
    }
    fn advance(&self, bytes: u64) {
        self.0.lock().unwrap().push(format!("bytes {bytes}"));
    }
    fn layer(&self, _: &Sha256Digest, reused: bool) {
        self.0.lock().unwrap().push(format!("layer {reused}"));
    }
}

#[tokio::test]
async fn a_stored_layer_is_measured_again_and_not_fetched() {
    let world = World::new();
    let layer = plain(&archive([file("f", b"content")]));
    image::push(&world.client, &world.repository, "v1", std::slice::from_ref(&layer)).await;
    world.pull("v1").await.unwrap();
    // Without its blob the layer cannot be fetched any more.
    std::fs::remove_file(world.server.blob_file(&Sha256Digest::of(&layer.blob).hex())).unwrap();
    let told = Told::default();
    let found = fetch(&world.reference("v1"), &world.client).await.unwrap();
    let verified = found
        .verify(&ImagePolicy::host(SignaturePolicy::insecure_accept_anything(), Timestamp::now()), &world.client)
        .await
        .unwrap();
    pull(verified, &world.client, &world.store, &NoKeys, &Limits::default(), &told).await.unwrap();
    let size = layer.blob.len();
    assert_eq!(*told.0.lock().unwrap(), [format!("start 1 {size}"), format!("bytes {size}"), "layer true".to_owned()]);
}

#[tokio::test]
async fn a_stored_layer_that_was_altered_is_never_used_but_fetched_again() {
    let world = World::new();
    image::push(&world.client, &world.repository, "v1", &[gzip(&archive([file("f", b"content")]))]).await;
    let honest = world.pull("v1").await.unwrap();
    let layers = world.home.path().join("store/layers");
    let stored = layers.join(&names(&layers)[0]);
    for alter in [
        &(|| std::fs::write(stored.join("fs/f"), "altered").unwrap()) as &dyn Fn(),
        &|| std::fs::write(stored.join("measurement"), Sha256Digest::of(b"").to_string()).unwrap(),
        &|| std::fs::remove_file(stored.join("measurement")).unwrap(),
        &|| std::fs::remove_dir_all(stored.join("fs")).unwrap(),
    ] {
        alter();
        assert_eq!(world.pull("v1").await.unwrap().measurement(), honest.measurement());
        assert_eq!(std::fs::read(stored.join("fs/f")).unwrap(), b"content");
        assert_eq!(names(&layers).len(), 1);
    }
}

#[tokio::test]
async fn lower_layers_show_through_as_the_image_means() {
    let world = World::new();
    let bottom = archive([
        dir("./").mode(0o711),
        dir("etc").mode(0o700).owner(5, 6),
        file("etc/kept", b"kept"),
        file("etc/gone", b"gone"),
        dir("opaque"),
        file("opaque/hidden", b"hidden"),
        dir("again"),
        file("again/hidden", b"hidden"),
        file("replaced", b"file"),
        dir("emptied"),
        file("emptied/x", b""),
    ]);
    let top = archive([
        file("etc/.wh.gone", b""),
        file("etc/new", b"new"),
        dir("opaque"),
        file("opaque/.wh..wh..opq", b""),
        file("opaque/shown", b"shown"),
        file(".wh.again", b""),
        dir("again"),
        file("again/shown", b"shown"),
        dir("replaced"),
        file("replaced/f", b"f"),
        file(".wh.emptied", b""),
    ]);
    let layers = [gzip(&bottom), zstd(&top)];
    image::push(&world.client, &world.repository, "v1", &layers).await;
    let image = world.pull("v1").await.unwrap();
    let rootfs = image.mount(&world.home.path().join("container")).unwrap();
    let at = |path: &str| rootfs.path().join(path);
    assert_eq!(names(&at("")), ["again", "etc", "opaque", "replaced"]);
    assert_eq!(std::fs::metadata(at("")).unwrap().permissions().mode() & 0o7777, 0o711, "the root's own attributes");
    let etc = std::fs::metadata(at("etc")).unwrap();
    assert_eq!((etc.mode() & 0o7777, etc.uid(), etc.gid()), (0o700, 5, 6), "not widened by the layer without an entry");
    assert_eq!(names(&at("etc")), ["kept", "new"]);
    assert_eq!(names(&at("opaque")), ["shown"]);
    assert_eq!(names(&at("again")), ["shown"]);
    assert_eq!(names(&at("replaced")), ["f"]);
}

#[tokio::test]
async fn an_opaque_root_hides_all_layers_below() {
    let world = World::new();
    let layers = [
        plain(&archive([file("hidden", b"")])),
        plain(&archive([file(".wh..wh..opq", b""), file("shown", b"")])),
        plain(&archive([file("also", b"")])),
    ];
    image::push(&world.client, &world.repository, "v1", &layers).await;
    let rootfs = world.pull("v1").await.unwrap().mount(&world.home.path().join("container")).unwrap();
    assert_eq!(names(rootfs.path()), ["also", "shown"]);
}

#[tokio::test]
async fn the_same_layer_twice_has_the_last_word_twice() {
    let world = World::new();
    let (a, b) = (gzip(&archive([file("f", b"a")])), gzip(&archive([file("f", b"b")])));
    image::push(&world.client, &world.repository, "v1", &[a.clone(), b, a]).await;
    let rootfs = world.pull("v1").await.unwrap().mount(&world.home.path().join("container")).unwrap();
    assert_eq!(std::fs::read(rootfs.path().join("f")).unwrap(), b"a");
}

#[tokio::test]
async fn a_hundred_and_thirty_layers_can_be_mounted() {
    let world = World::new();
    let layers: Vec<_> = (0..130).map(|n| plain(&archive([file(&format!("f{n}"), b"")]))).collect();
    image::push(&world.client, &world.repository, "v1", &layers).await;
    let rootfs = world.pull("v1").await.unwrap().mount(&world.home.path().join("container")).unwrap();
    assert_eq!(names(rootfs.path()).len(), 130);
}

#[tokio::test]
async fn a_mount_ends_with_its_value_and_a_kept_one_by_its_directory() {
    let world = World::new();
    image::push(&world.client, &world.repository, "v1", &[plain(&archive([file("f", b"")]))]).await;
    let image = world.pull("v1").await.unwrap();
    let dir = world.home.path().join("container");
    drop(image.mount(&dir).unwrap());
    assert!(!dir.exists());
    let kept = image.mount(&dir).unwrap().keep();
    assert!(kept.join("f").exists());
    assert!(image.mount(&dir).is_err(), "a directory that exists is not taken over");
    assert_eq!(mounts_below(&dir), 1);
    remove_rootfs(&dir).unwrap();
    remove_rootfs(&dir).unwrap();
    assert_eq!((dir.exists(), mounts_below(&dir)), (false, 0));
}

#[tokio::test]
async fn compression_changes_nothing_but_the_blob() {
    let world = World::new();
    let tar = archive([dir("d"), file("d/f", &[b'x'; 200_000]), item(b'6', "pipe")]);
    let (first, rest) = tar.split_at(70_000);
    let diff_id = Sha256Digest::of(&tar);
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
    let frames = [zstd::encode_all(first, 1).unwrap(), skippable.clone(), zstd::encode_all(rest, 1).unwrap()].concat();
    let variants = [
        plain(&tar),
        gzip(&tar),
        zstd(&tar),
        LayerBlob { media_type: image::GZIP, blob: [gzip_member(first), gzip_member(rest)].concat(), diff_id },
        LayerBlob { media_type: image::ZSTD, blob: [skippable.as_slice(), &frames, &skippable].concat(), diff_id },
        LayerBlob { media_type: "application/vnd.docker.image.rootfs.diff.tar.gzip", ..gzip(&tar) },
    ];
    let mut rootfs = Vec::new();
    for (n, layer) in variants.into_iter().enumerate() {
        let tag = format!("v{n}");
        image::push(&world.client, &world.repository, &tag, &[layer]).await;
        let image = run(&world.reference(&tag), &world.client, &MeasureOnly, &Limits::default()).await.unwrap();
        rootfs.push(image.measurement().rootfs);
    }
    assert_eq!(rootfs.len(), 6);
    assert!(rootfs.iter().all(|found| *found == rootfs[0]));
}

#[tokio::test]
async fn a_docker_image_is_measured_like_an_oci_image() {
    let world = World::new();
    let layer = gzip(&archive([file("f", b"content")]));
    image::push(&world.client, &world.repository, "oci", std::slice::from_ref(&layer)).await;
    let config = Bytes::from(image::config(std::slice::from_ref(&layer), image::architecture()));
    let kind = "application/vnd.docker.container.image.v1+json";
    let config = world.client.push_blob(&world.repository, kind, config).await.unwrap();
    let kind = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let layer = world.client.push_blob(&world.repository, kind, Bytes::from(layer.blob)).await.unwrap();
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": oci::DOCKER_MANIFEST, "config": config, "layers": [layer] });
    let mut pushed =
        image::push_document(&world.client, &world.repository, "docker", oci::DOCKER_MANIFEST, &manifest).await;
    pushed.platform = Some(oci::DescriptorPlatform {
        architecture: image::architecture().to_owned(),
        os: "linux".to_owned(),
        variant: None,
    });
    let list = json!({ "schemaVersion": 2, "mediaType": oci::DOCKER_LIST, "manifests": [pushed] });
    image::push_document(&world.client, &world.repository, "list", oci::DOCKER_LIST, &list).await;
    let oci = world.pull("oci").await.unwrap();
    for tag in ["docker", "list"] {
        let docker = world.pull(tag).await.unwrap();
        assert_eq!(docker.descriptor().digest, pushed.digest);
        assert_eq!(docker.descriptor().media_type, oci::DOCKER_MANIFEST);
        assert_eq!(docker.measurement().config, oci.measurement().config);
        assert_eq!(docker.measurement().rootfs, oci.measurement().rootfs);
    }
}

#[tokio::test]
async fn an_index_leads_to_the_platforms_manifest() {
    let world = World::new();
    let layer = [plain(&archive([file("f", b"")]))];
    let mut entries = Vec::new();
    for architecture in ["amd64", "arm64", "s390x"] {
        let config = image::config(&layer, architecture);
        let mut pushed = image::push_with(&world.client, &world.repository, architecture, config, &layer).await;
        pushed.platform = Some(oci::DescriptorPlatform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: None,
        });
        entries.push(pushed);
    }
    let index = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": entries });
    let index = image::push_document(&world.client, &world.repository, "all", oci::INDEX, &index).await;
    let platform = |architecture: &str, variant: Option<&str>| Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.map(str::to_owned),
    };
    for (architecture, variant, expected) in
        [("amd64", None, 0), ("arm64", None, 1), ("arm64", Some("v8"), 1), ("s390x", None, 2)]
    {
        let found = fetch(&world.reference("all"), &world.client).await.unwrap();
        let policy = ImagePolicy::for_platform(
            platform(architecture, variant),
            SignaturePolicy::insecure_accept_anything(),
            Timestamp::now(),
        );
        let verified = found.verify(&policy, &world.client).await.unwrap();
        assert_eq!(verified.descriptor().digest, entries[expected].digest);
        assert_eq!(verified.reference().digest(), Some(&index.digest), "pinned to what the tag stood for");
        assert_eq!(verified.platform(), &platform(architecture, None), "as the config says, whoever asks");
    }
    for (architecture, variant) in [("riscv64", None), ("arm64", Some("v9"))] {
        let found = fetch(&world.reference("all"), &world.client).await.unwrap();
        let policy = ImagePolicy::for_platform(
            platform(architecture, variant),
            SignaturePolicy::insecure_accept_anything(),
            Timestamp::now(),
        );
        let error = found.verify(&policy, &world.client).await.unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_PLATFORM, "{error}");
        assert!(error.to_string().contains("linux/amd64, linux/arm64, linux/s390x"), "{error}");
    }
}

#[tokio::test]
async fn a_tag_that_moves_after_it_was_resolved_changes_nothing() {
    let world = World::new();
    let first = image::push(&world.client, &world.repository, "v1", &[gzip(&archive([file("f", b"first")]))]).await;
    let found = fetch(&world.reference("v1"), &world.client).await.unwrap();
    image::push(&world.client, &world.repository, "v1", &[gzip(&archive([file("f", b"second")]))]).await;
    let verified = found
        .verify(&ImagePolicy::host(SignaturePolicy::insecure_accept_anything(), Timestamp::now()), &world.client)
        .await
        .unwrap();
    let image = pull(verified, &world.client, &world.store, &NoKeys, &Limits::default(), &image_rs_fork::NoProgress)
        .await
        .unwrap();
    assert_eq!(image.measurement().manifest, first.digest);
    let rootfs = image.mount(&world.home.path().join("container")).unwrap();
    assert_eq!(std::fs::read(rootfs.path().join("f")).unwrap(), b"first");
}

#[tokio::test]
async fn a_store_is_opened_by_one_and_cleared_of_leftovers() {
    let home = tempfile::tempdir().unwrap();
    let store = TreeStore::open(home.path()).unwrap();
    let error = TreeStore::open(home.path()).unwrap_err();
    assert_eq!(error.code(), reason::STORE_IO);
    assert!(error.to_string().contains("another process"), "{error}");
    drop(store);
    let leftover = home.path().join("layers/00.partial-7/fs");
    std::fs::create_dir_all(&leftover).unwrap();
    let _store = TreeStore::open(home.path()).unwrap();
    assert!(names(&home.path().join("layers")).is_empty());
    assert_eq!(std::fs::metadata(home.path().join("layers")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn two_pulls_of_one_image_at_once_agree() {
    let world = World::new();
    let layers: Vec<_> = (0..4).map(|n| gzip(&archive([file(&format!("f{n}"), &[n; 100_000])]))).collect();
    image::push(&world.client, &world.repository, "v1", &layers).await;
    let (one, two) = futures_util::future::join(world.pull("v1"), world.pull("v1")).await;
    assert_eq!(one.unwrap().measurement(), two.unwrap().measurement());
    let stored = names(&world.home.path().join("store/layers"));
    assert_eq!(stored.len(), 4, "{stored:?}");
}
