//! A store of images that people pull into, mount from and prune, without an agent.
//!
//! Beside the layers, which are `image_rs_fork`'s: `images/<digest>` are manifests and configs, `images/refs.json`
//! says what a reference was pulled as, `mounts/` holds what `tclctl mount` has mounted. Nothing in these records
//! is believed: documents are read by digest and layers are measured again.

mod mounts;
mod only_stored;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use image_rs_fork::{ImageError, LayerStore, MeasuredImage, TreeStore};
use protocols::digest::Sha256Digest;
use protocols::image::{Layout, Platform};
use protocols::reason::{self, Refusal};
use protocols::time::Timestamp;
use registry::ImageReference;
use serde::{Deserialize, Serialize};

pub(crate) use self::mounts::{Mount, absolute, find_mount, forget};
pub(crate) use self::only_stored::OnlyStored;
pub(crate) use self::source::{Recorded, Recorder};
use crate::outcome::Failure;

const IMAGES: &str = "images";
const REFS: &str = "refs.json";

/// Every failure of the pipeline, made by this command.
pub(crate) fn coded(error: &ImageError) -> Failure {
    Failure::by_command(error.refusal())
}

/// What a reference was pulled as.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The platform manifest.
    pub(crate) manifest: Sha256Digest,
    /// The image's config.
    pub(crate) config: Sha256Digest,
    pub(crate) platform: Platform,
    /// The layout it was last pulled in.
    pub(crate) layout: Layout,
    /// DiffIDs, lowest first.
    pub(crate) layers: Vec<Sha256Digest>,
    /// Bytes of the layers' blobs.
    pub(crate) size: u64,
    pub(crate) pulled: Timestamp,
}

/// An open store; nobody else has it open meanwhile.
pub(crate) struct Store {
    root: PathBuf,
    layers: Box<dyn LayerStore>,
}

impl Store {
    /// Opens or makes it.
    pub(crate) fn open(root: &Path, layout: Layout) -> Result<Self, Failure> {
        let layers: Box<dyn LayerStore> = match layout {
            Layout::TreeV1 => Box::new(TreeStore::open(root).map_err(|error| coded(&error))?),
            Layout::ErofsV1 => return Err(Failure::Usage("--layout".to_owned())),
        };
        Ok(Self { root: root.to_owned(), layers })
    }

    pub(crate) fn layers(&self) -> &dyn LayerStore {
        &*self.layers
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The documents of pulled images, in place of a registry.
    pub(crate) fn documents(&self) -> Recorded {
        Recorded::new(&self.root.join(IMAGES))
    }

    /// Notes what `reference` was pulled as; the documents first, so that no reference names what is not there.
    pub(crate) fn record(
        &self,
        reference: &ImageReference,
        image: &MeasuredImage,
        size: u64,
        source: &Recorder<'_>,
    ) -> Result<(), Failure> {
        let measured = image.measurement();
        let folder = self.root.join(IMAGES);
        folder_for_root(&folder)?;
        for digest in [&measured.manifest, &measured.config] {
            let Some(bytes) = source.document(digest) else {
                return Err(Failure::Fault(format!("{digest} was pulled without its bytes")));
            };
            replace(&folder.join(digest.hex()), &bytes)?;
        }
        let mut references = references(&self.root)?;
        let record = Record {
            manifest: measured.manifest,
            config: measured.config,
            platform: measured.platform.clone(),
            layout: measured.rootfs.layout,
            layers: measured.layers.clone(),
            size,
            pulled: Timestamp::now(),
        };
        references.insert(reference.to_string(), record);
        write_references(&self.root, &references)
    }
}

/// What every reference in the store at `root` was pulled as.
pub(crate) fn references(root: &Path) -> Result<BTreeMap<String, Record>, Failure> {
    let path = root.join(IMAGES).join(REFS);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| Failure::file(&path, error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(Failure::file(&path, error)),
    }
}

fn write_references(root: &Path, references: &BTreeMap<String, Record>) -> Result<(), Failure> {
    let bytes = serde_json::to_vec_pretty(references).map_err(|error| Failure::Fault(error.to_string()))?;
    replace(&root.join(IMAGES).join(REFS), &bytes)
}

/// What `reference` was pulled as: by its own words, or by the digest they stood for.
pub(crate) fn find(root: &Path, reference: &ImageReference) -> Result<Record, Failure> {
    let mut references = references(root)?;
    if let Some(record) = references.remove(&reference.to_string()) {
        return Ok(record);
    }
    let same = |(text, record): &(String, Record)| {
        Some(&record.manifest) == reference.digest()
            && text.parse::<ImageReference>().is_ok_and(|other| other.repository() == reference.repository())
    };
    references.into_iter().find(same).map(|(_, record)| record).ok_or_else(|| {
        let (expected, actual) = ("an image that was pulled into it", "none by this reference");
        let subject = format!("{reference} in {}", root.display());
        Failure::by_command(Refusal::new(reason::IMAGE_NOT_FOUND, subject, expected, actual))
    })
}

/// A directory for root alone.
pub(crate) fn folder_for_root(path: &Path) -> Result<(), Failure> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).map_err(|error| Failure::file(path, error))
}

/// Writes a file in one step: it is the old one or the new one, whenever the machine stops.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(path);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| Failure::file(folder, error))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(|error| Failure::file(path, error))?;
    file.persist(path).map_err(|error| Failure::file(path, error.error))?;
    Ok(())
}
