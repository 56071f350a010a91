//! What the tests of this crate share.
#![allow(dead_code)] // each test crate uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

pub(crate) mod docker_registry;
pub(crate) mod gnupg;
pub(crate) mod image;
pub(crate) mod signing;
#[path = "../../src/layer/build.rs"]
pub(crate) mod tar;

use std::path::{Path, PathBuf};

use image_rs_fork::registry::{HttpRegistry, ImageReference, Registry, RegistryConfig, Repository};
use image_rs_fork::{
    ErofsStore, ImageError, ImagePolicy, LayerStore, Limits, MeasuredImage, NoKeys, NoProgress, SignaturePolicy,
    TreeStore, Unenforced, fetch, pull,
};
use protocols::image::Layout;
use protocols::time::Timestamp;

use self::docker_registry::DockerRegistry;

/// A real registry, a client of it, and a store.
pub(crate) struct World {
    pub(crate) server: DockerRegistry,
    pub(crate) client: HttpRegistry,
    pub(crate) repository: Repository,
    pub(crate) home: tempfile::TempDir,
    pub(crate) store: TreeStore,
}

impl World {
    pub(crate) fn new() -> Self {
        let server = DockerRegistry::start();
        let config = RegistryConfig { plain_http: vec![server.host()], stall_seconds: 5, ..RegistryConfig::default() };
        let client = HttpRegistry::new(config).unwrap();
        let repository = format!("{}/team/app", server.host()).parse().unwrap();
        let home = tempfile::tempdir().unwrap();
        let store = TreeStore::open(&home.path().join("store")).unwrap();
        Self { server, client, repository, home, store }
    }

    pub(crate) fn reference(&self, tag: &str) -> ImageReference {
        image::reference(&self.repository, tag)
    }

    pub(crate) async fn pull(&self, tag: &str) -> Result<MeasuredImage, ImageError> {
        run(&self.reference(tag), &self.client, &self.store, &Limits::default()).await
    }

    /// The error of a pull that must fail and leave nothing.
    #[track_caller]
    pub(crate) fn nothing_stored(&self) {
        assert_eq!(names(&self.home.path().join("store/layers")), Vec::<String>::new());
    }
}

pub(crate) async fn run(
    reference: &ImageReference,
    registry: &dyn Registry,
    store: &dyn LayerStore,
    limits: &Limits,
) -> Result<MeasuredImage, ImageError> {
    run_with(SignaturePolicy::insecure_accept_anything(), reference, registry, store, limits).await
}

pub(crate) async fn run_with(
    signatures: SignaturePolicy,
    reference: &ImageReference,
    registry: &dyn Registry,
    store: &dyn LayerStore,
    limits: &Limits,
) -> Result<MeasuredImage, ImageError> {
    let verified =
        fetch(reference, registry).await?.verify(&ImagePolicy::host(signatures, Timestamp::now()), registry).await?;
    pull(verified, registry, store, &NoKeys, limits, &NoProgress).await
}

/// A store in one layout, and the directory of its layers. What it mounts may be altered by others.
pub(crate) fn open(layout: Layout, root: &Path) -> (Box<dyn LayerStore>, PathBuf) {
    match layout {
        Layout::TreeV1 => (Box::new(TreeStore::open(root).unwrap()), root.join("layers")),
        Layout::ErofsV1 => {
            let store = ErofsStore::open(root, None, Unenforced::Allowed).unwrap();
            (Box::new(store), root.join(layout.as_str()).join("images"))
        }
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The mounts below a directory.
pub(crate) fn mounts_below(dir: &Path) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with(dir.to_str().unwrap()))).count()
}
