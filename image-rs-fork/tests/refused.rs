//! Whole pulls that must fail: each with its code, and with nothing stored, mounted or half-written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod support;

use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use image_rs_fork::registry::{
    BlobStream, Descriptor, HttpRegistry, ManifestBytes, Registry, RegistryError, RegistryPush as _, Repository, Target,
};
use image_rs_fork::registry::{golden, oci};
use image_rs_fork::{
    ImageError, ImagePolicy, LayerStore as _, Limits, NoKeys, NoProgress, SignaturePolicy, TreeStore, fetch, pull,
};
use protocols::digest::Sha256Digest;
use protocols::image::Layout;
use protocols::reason::{self, Class, Code};
use protocols::time::Timestamp;
use serde_json::json;
use support::image::{self, LayerBlob, gzip, gzip_member, plain, zstd};
use support::tar::{archive, dir, file, hardlink, open_archive, pax, symlink};
use support::{World, names, run};

fn content() -> Vec<u8> {
    archive([dir("d"), file("d/f", &[b'x'; 300_000])])
}

/// Pushes an image of one good and one special layer, pulls it, and expects `code`.
async fn layer_refused(world: &World, layer: LayerBlob, code: Code) -> ImageError {
    image::push(&world.client, &world.repository, "bad", &[gzip(&content()), layer]).await;
    let error = world.pull("bad").await.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    let stored = names(&world.home.path().join("store/layers"));
    assert!(stored.len() <= 1 && stored.iter().all(|name| name.len() == 64), "only the good layer: {stored:?}");
    error
}

#[tokio::test]
async fn a_blob_altered_in_the_registry() {
    let world = World::new();
    for layer in [plain(&content()), gzip(&content()), zstd(&content())] {
        image::push(&world.client, &world.repository, "v1", std::slice::from_ref(&layer)).await;
        let path = world.server.blob_file(&Sha256Digest::of(&layer.blob).hex());
        // Wherever the change breaks decompression, archive or content, the blob is what is wrong.
        for at in [0, 5, layer.blob.len() / 2, layer.blob.len() - 1] {
            let mut altered = layer.blob.clone();
            altered[at] ^= 0x20;
            std::fs::write(&path, altered).unwrap();
            let error = world.pull("v1").await.unwrap_err();
            assert_eq!(error.code(), reason::IMAGE_BLOB_DIGEST, "byte {at}: {error}");
            let refusal = error.refusal();
            assert!(refusal.subject.contains(&Sha256Digest::of(&layer.blob).to_string()), "{refusal}");
            assert!(refusal.subject.contains(&world.server.host()), "{refusal}");
            world.nothing_stored();
        }
        std::fs::write(&path, &layer.blob).unwrap();
    }
}

#[tokio::test]
async fn a_blob_cut_or_lengthened_in_the_registry() {
    let world = World::new();
    let layer = gzip(&content());
    image::push(&world.client, &world.repository, "v1", std::slice::from_ref(&layer)).await;
    let path = world.server.blob_file(&Sha256Digest::of(&layer.blob).hex());
    let longer = [layer.blob.as_slice(), &[0]].concat();
    for other in [&layer.blob[..layer.blob.len() - 1], &longer, &[]] {
        std::fs::write(&path, other).unwrap();
        let error = world.pull("v1").await.unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_BLOB_SIZE, "{error}");
        world.nothing_stored();
    }
}

/// A registry that serves one blob in its own way.
struct Serving<'a> {
    real: &'a HttpRegistry,
    digest: Sha256Digest,
    chunks: Mutex<Vec<Result<Bytes, RegistryError>>>,
    /// After the chunks: nothing more, ever.
    hang: bool,
}

struct Chunks {
    chunks: std::vec::IntoIter<Result<Bytes, RegistryError>>,
    hang: bool,
}

#[async_trait]
impl BlobStream for Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        match self.chunks.next() {
            Some(chunk) => chunk.map(Some),
            None if self.hang => std::future::pending().await,
            None => Ok(None),
        }
    }
}

#[async_trait]
impl Registry for Serving<'_> {
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        self.real.manifest(repository, target).await
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        if *digest != self.digest {
            return self.real.blob(repository, digest, size).await;
        }
        let chunks = std::mem::take(&mut *self.chunks.lock().unwrap()).into_iter();
        Ok(Box::new(Chunks { chunks, hang: self.hang }))
    }

    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        self.real.referrers(repository, subject, artifact_type).await
    }
}

#[tokio::test]
async fn an_endless_blob_is_cut_off_at_its_size() {
    let world = World::new();
    let layer = gzip(&content());
    image::push(&world.client, &world.repository, "v1", std::slice::from_ref(&layer)).await;
    let chunks = vec![Ok(Bytes::from(layer.blob.clone())), Ok(Bytes::from_static(&[0; 100]))];
    let digest = Sha256Digest::of(&layer.blob);
    // Should anybody ask for more than one chunk too many, the test would hang.
    let registry = Serving { real: &world.client, digest, chunks: Mutex::new(chunks), hang: true };
    let error = run(&world.reference("v1"), &registry, &world.store, &Limits::default()).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_BLOB_SIZE, "{error}");
    world.nothing_stored();
}

#[tokio::test]
async fn a_connection_that_breaks_in_a_blob() {
    let world = World::new();
    let layer = gzip(&content());
    image::push(&world.client, &world.repository, "v1", std::slice::from_ref(&layer)).await;
    let broken = RegistryError::Unavailable { host: "h".to_owned(), what: "w".to_owned(), reason: "r".to_owned() };
    let chunks = vec![Ok(Bytes::copy_from_slice(&layer.blob[..100])), Err(broken)];
    let digest = Sha256Digest::of(&layer.blob);
    let registry = Serving { real: &world.client, digest, chunks: Mutex::new(chunks), hang: false };
    let error = run(&world.reference("v1"), &registry, &world.store, &Limits::default()).await.unwrap_err();
    assert_eq!(error.code().class(), Class::Unavailable, "{error}");
    world.nothing_stored();
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_nothing() {
    let world = World::new();
    let layer = plain(&content());
    image::push(&world.client, &world.repository, "v1", std::slice::from_ref(&layer)).await;
    let chunks = vec![Ok(Bytes::copy_from_slice(&layer.blob[..100_000]))];
    let digest = Sha256Digest::of(&layer.blob);
    let registry = Serving { real: &world.client, digest, chunks: Mutex::new(chunks), hang: true };
    let (reference, limits) = (world.reference("v1"), Limits::default());
    let pulling = run(&reference, &registry, &world.store, &limits);
    assert!(tokio::time::timeout(Duration::from_millis(500), pulling).await.is_err());
    let layers = world.home.path().join("store/layers");
    for _ in 0..100 {
        if names(&layers).is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.nothing_stored();
}

#[tokio::test]
async fn a_layer_with_another_diff_id() {
    let world = World::new();
    let layer = LayerBlob { diff_id: Sha256Digest::of(b"another layer"), ..gzip(&content()) };
    let error = layer_refused(&world, layer, reason::IMAGE_DIFF_ID).await;
    assert!(error.to_string().contains(&Sha256Digest::of(&content()).to_string()), "{error}");
    // Other bytes of the same archive: a member boundary within it changes the blob, never the diffID.
    let mut longer = content();
    longer.resize(longer.len() + 512, 0);
    let layer = LayerBlob { diff_id: Sha256Digest::of(&content()), ..gzip(&longer) };
    layer_refused(&world, layer, reason::IMAGE_DIFF_ID).await;
}

#[tokio::test]
async fn a_layer_that_is_not_what_its_media_type_says() {
    let world = World::new();
    for (media_type, blob) in [
        (image::GZIP, content()),
        (image::ZSTD, content()),
        (image::TAR, gzip(&content()).blob),
        (image::TAR, zstd(&content()).blob),
        (image::GZIP, zstd(&content()).blob),
        (image::GZIP, Vec::new()),
        (image::ZSTD, Vec::new()),
    ] {
        let layer = LayerBlob { media_type, blob, diff_id: Sha256Digest::of(&content()) };
        layer_refused(&world, layer, reason::IMAGE_LAYER_FORMAT).await;
    }
}

#[tokio::test]
async fn a_layer_with_something_after_its_end() {
    let world = World::new();
    let diff_id = Sha256Digest::of(&content());
    let garbage = [gzip(&content()).blob, b"garbage".to_vec()].concat();
    let cut = gzip(&content()).blob[..100].to_vec();
    let cut_zstd = zstd(&content()).blob[..20].to_vec();
    let garbage_zstd = [zstd(&content()).blob, b"garbage".to_vec()].concat();
    for (media_type, blob) in
        [(image::GZIP, garbage), (image::GZIP, cut), (image::ZSTD, cut_zstd), (image::ZSTD, garbage_zstd)]
    {
        layer_refused(&world, LayerBlob { media_type, blob, diff_id }, reason::IMAGE_LAYER_FORMAT).await;
    }
    // Behind one block of zeros another header is refused, behind two nothing is looked at.
    let open = open_archive([file("f", b"")]);
    let hidden = [open.clone(), vec![0; 512], archive([file("hidden", b"")])].concat();
    layer_refused(&world, gzip(&hidden), reason::IMAGE_LAYER_FORMAT).await;
    layer_refused(
        &world,
        gzip(b"no archive at all, but bytes enough to be read as one header block".repeat(20).as_slice()),
        reason::IMAGE_LAYER_FORMAT,
    )
    .await;
    let ignored = [open, vec![0; 1024], archive([file("hidden", b"")])].concat();
    image::push(&world.client, &world.repository, "v1", &[gzip(&ignored)]).await;
    let image = world.pull("v1").await.unwrap();
    image::push(&world.client, &world.repository, "v2", &[gzip(&archive([file("f", b"")]))]).await;
    assert_eq!(image.measurement().rootfs, world.pull("v2").await.unwrap().measurement().rootfs);
}

#[tokio::test]
async fn a_layer_that_reaches_outside() {
    let world = World::new();
    let witness = world.home.path().join("witness");
    std::fs::write(&witness, "untouched").unwrap();
    let climb = format!("{}{}", "../".repeat(20), witness.to_str().unwrap());
    let link = [file("f", b""), hardlink("h", &climb)];
    layer_refused(&world, gzip(&archive(link)), reason::IMAGE_UNSAFE).await;
    let circle = [symlink("a", "b"), symlink("b", "a"), file("a/x", b"")];
    layer_refused(&world, gzip(&archive(circle)), reason::IMAGE_LAYER_FORMAT).await;
    let reserved = [pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]), dir("d")];
    layer_refused(&world, gzip(&archive(reserved)), reason::IMAGE_UNSAFE).await;
    // A symbolic link may name anything, and what is written through it stays inside; so does a path that climbs.
    let through = [symlink("out", world.home.path().to_str().unwrap()), file("out/witness", b"altered")];
    for (tag, layer) in [("v1", archive(through)), ("v2", archive([file(&climb, b"altered")]))] {
        image::push(&world.client, &world.repository, tag, &[gzip(&layer)]).await;
        world.pull(tag).await.unwrap();
        assert_eq!(std::fs::read_to_string(&witness).unwrap(), "untouched");
    }
}

#[tokio::test]
async fn decompression_bombs_and_images_above_their_limits() {
    let world = World::new();
    // 96 MiB of zeros in 1 MB: above the free 64 MiB the ratio counts.
    let zeros = vec![0u8; 96 << 20];
    image::push(&world.client, &world.repository, "bomb", &[gzip(&zeros)]).await;
    let bomb = Limits { ratio: 10, ..Limits::default() };
    let layers = [gzip(&content()), gzip(&archive([dir("e"), file("e/f", &[b'y'; 300_000])]))];
    image::push(&world.client, &world.repository, "v1", &layers).await;
    let cases = [
        ("bomb", bomb),
        ("v1", Limits { layer_bytes: 300_000, ..Limits::default() }),
        ("v1", Limits { image_bytes: 500_000, ..Limits::default() }),
        ("v1", Limits { blob_bytes: 100, ..Limits::default() }),
        ("v1", Limits { entries: 3, ..Limits::default() }),
        ("v1", Limits { layers: 1, ..Limits::default() }),
    ];
    for (tag, limits) in cases {
        let store = TreeStore::open(&world.home.path().join("limited")).unwrap();
        let error = run(&world.reference(tag), &world.client, &store, &limits).await.unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_LIMIT, "{limits:?}: {error}");
        drop(store);
        let left = names(&world.home.path().join("limited/layers"));
        assert!(left.iter().all(|name| name.len() == 64), "no partial layer: {left:?}");
        std::fs::remove_dir_all(world.home.path().join("limited")).unwrap();
    }
}

#[tokio::test]
async fn a_zstd_window_that_would_take_the_guests_memory() {
    let world = World::new();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, &content()).unwrap();
    let (blob, diff_id) = (encoder.finish().unwrap(), Sha256Digest::of(&content()));
    let error = layer_refused(&world, LayerBlob { media_type: image::ZSTD, blob, diff_id }, reason::IMAGE_ZSTD_WINDOW);
    assert!(error.await.to_string().contains("window"));
}

#[tokio::test]
async fn a_store_without_room() {
    let world = World::new();
    image::push(&world.client, &world.repository, "v1", &[gzip(&archive([file("f", &[b'x'; 4 << 20])]))]).await;
    let small = world.home.path().join("small");
    std::fs::create_dir(&small).unwrap();
    for layout in [Layout::TreeV1, Layout::ErofsV1] {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&small).status().unwrap();
        assert!(mount.success());
        let (store, layers) = support::open(layout, &small);
        let result = run(&world.reference("v1"), &world.client, store.as_ref(), &Limits::default()).await;
        let left = names(&layers);
        drop(store);
        assert!(Command::new("umount").arg(&small).status().unwrap().success());
        let error = result.unwrap_err();
        assert_eq!(error.code(), reason::STORE_FULL, "{layout:?}: {error}");
        assert_eq!(left, Vec::<String>::new(), "{layout:?}");
    }
}

#[tokio::test]
async fn a_manifest_altered_in_the_registry() {
    let world = World::new();
    let pushed = image::push(&world.client, &world.repository, "v1", &[gzip(&content())]).await;
    let path = world.server.blob_file(&pushed.digest.hex());
    let altered = std::fs::read_to_string(&path).unwrap().replace("\"schemaVersion\":2", "\"schemaVersion\":2 ");
    std::fs::write(&path, altered).unwrap();
    // By digest, and by tag, where the registry's own header gives it away.
    for reference in [world.reference("v1").pinned(pushed.digest), world.reference("v1")] {
        let error = run(&reference, &world.client, &world.store, &Limits::default()).await.unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_MANIFEST_DIGEST, "{error}");
    }
    world.nothing_stored();
}

#[tokio::test]
async fn an_index_entry_altered_in_the_registry() {
    let world = World::new();
    let mut entry = image::push(&world.client, &world.repository, "v1", &[gzip(&content())]).await;
    let architecture = image::architecture().to_owned();
    entry.platform = Some(oci::DescriptorPlatform { architecture, os: "linux".to_owned(), variant: None });
    let index = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [entry] });
    image::push_document(&world.client, &world.repository, "all", oci::INDEX, &index).await;
    let path = world.server.blob_file(&entry.digest.hex());
    let altered = std::fs::read_to_string(&path).unwrap().replace("\"schemaVersion\":2", "\"schemaVersion\":2 ");
    std::fs::write(&path, altered).unwrap();
    let error = world.pull("all").await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_MANIFEST_DIGEST, "{error}");
}

#[tokio::test]
async fn a_config_altered_or_cut_in_the_registry() {
    let world = World::new();
    let layers = [gzip(&content())];
    let config = image::config(&layers, image::architecture());
    image::push(&world.client, &world.repository, "v1", &layers).await;
    let path = world.server.blob_file(&Sha256Digest::of(&config).hex());
    let altered = String::from_utf8(config.clone()).unwrap().replace("hello", "howdy");
    std::fs::write(&path, altered).unwrap();
    assert_eq!(world.pull("v1").await.unwrap_err().code(), reason::IMAGE_BLOB_DIGEST);
    std::fs::write(&path, &config[1..]).unwrap();
    assert_eq!(world.pull("v1").await.unwrap_err().code(), reason::IMAGE_BLOB_SIZE);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(world.pull("v1").await.unwrap_err().code(), reason::IMAGE_NOT_FOUND);
}

#[tokio::test]
async fn an_image_for_another_platform() {
    let world = World::new();
    let layers = [gzip(&content())];
    image::push_with(&world.client, &world.repository, "v1", image::config(&layers, "sparc"), &layers).await;
    let error = world.pull("v1").await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_PLATFORM, "{error}");
}

#[tokio::test]
async fn documents_that_are_no_image() {
    let world = World::new();
    let layers = [gzip(&content())];
    // The config names two layers, the manifest has one.
    let config = image::config(&[layers[0].clone(), layers[0].clone()], image::architecture());
    image::push_with(&world.client, &world.repository, "count", config, &layers).await;
    image::push_with(&world.client, &world.repository, "empty", image::config(&[], image::architecture()), &[]).await;
    let unknown = LayerBlob { media_type: "application/vnd.oci.image.layer.v1.tar+xz", ..gzip(&content()) };
    image::push(&world.client, &world.repository, "type", &[unknown]).await;
    image::push_with(&world.client, &world.repository, "config", b"{}".to_vec(), &layers).await;
    for tag in ["count", "empty", "type", "config"] {
        let error = world.pull(tag).await.unwrap_err();
        assert_eq!(error.code(), reason::IMAGE_MANIFEST, "{tag}: {error}");
    }
    let subject = image::push(&world.client, &world.repository, "v1", &layers).await;
    let artifact = golden::push(&world.client, &world.repository, &subject, b"e").await.unwrap();
    let reference = world.reference("v1").pinned(artifact.digest);
    let error = run(&reference, &world.client, &world.store, &Limits::default()).await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_MANIFEST, "an artifact is no image: {error}");
    world.nothing_stored();
}

#[tokio::test]
async fn an_index_inside_an_index() {
    let world = World::new();
    let entry = image::push(&world.client, &world.repository, "v1", &[gzip(&content())]).await;
    let inner = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [entry] });
    let mut inner = image::push_document(&world.client, &world.repository, "inner", oci::INDEX, &inner).await;
    let architecture = image::architecture().to_owned();
    inner.platform = Some(oci::DescriptorPlatform { architecture, os: "linux".to_owned(), variant: None });
    let outer = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": [inner] });
    image::push_document(&world.client, &world.repository, "outer", oci::INDEX, &outer).await;
    let error = world.pull("outer").await.unwrap_err();
    assert_eq!(error.code(), reason::IMAGE_MANIFEST, "{error}");
}

#[tokio::test]
async fn what_is_not_in_the_registry() {
    let mut world = World::new();
    assert_eq!(world.pull("v1").await.unwrap_err().code(), reason::IMAGE_NOT_FOUND);
    let layer = gzip(&content());
    image::push(&world.client, &world.repository, "v1", std::slice::from_ref(&layer)).await;
    std::fs::remove_file(world.server.blob_file(&Sha256Digest::of(&layer.blob).hex())).unwrap();
    assert_eq!(world.pull("v1").await.unwrap_err().code(), reason::IMAGE_NOT_FOUND);
    world.nothing_stored();
    world.server.stop();
    assert_eq!(world.pull("v1").await.unwrap_err().code().class(), Class::Unavailable);
}

#[tokio::test]
async fn a_failed_mount_leaves_no_directory() {
    let world = World::new();
    image::push(&world.client, &world.repository, "v1", &[gzip(&content())]).await;
    let image = world.pull("v1").await.unwrap();
    let layers = world.home.path().join("store/layers");
    std::fs::remove_dir_all(layers.join(&names(&layers)[0])).unwrap();
    let dir = world.home.path().join("container");
    let error = image.mount(&dir).unwrap_err();
    assert_eq!((error.code(), dir.exists()), (reason::STORE_IO, false));
    assert_eq!(world.store.layout().as_str(), "tree-v1");
}

#[tokio::test]
async fn a_policy_is_asked_before_any_layer_is_fetched() {
    let world = World::new();
    let layer = gzip(&content());
    let pushed = image::push(&world.client, &world.repository, "v1", std::slice::from_ref(&layer)).await;
    std::fs::remove_file(world.server.blob_file(&Sha256Digest::of(&layer.blob).hex())).unwrap();
    let verified = fetch(&world.reference("v1"), &world.client).await.unwrap();
    let verified = verified
        .verify(&ImagePolicy::host(SignaturePolicy::insecure_accept_anything(), Timestamp::now()), &world.client)
        .await
        .unwrap();
    assert_eq!(verified.descriptor().digest, pushed.digest);
    assert!(pull(verified, &world.client, &world.store, &NoKeys, &Limits::default(), &NoProgress).await.is_err());
    // A member that is unknown changes nothing, and neither does an extra gzip member of nothing.
    let empty = [gzip(&content()).blob, gzip_member(b"")].concat();
    let layer = LayerBlob { blob: empty, ..gzip(&content()) };
    image::push(&world.client, &world.repository, "v2", &[layer]).await;
    world.pull("v2").await.unwrap();
    let _ = world.client.push_blob(&world.repository, "x", Bytes::new()).await.unwrap();
}
