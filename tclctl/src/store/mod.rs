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

use image_rs_fork::{Candidate, ErofsStore, ImageError, LayerKey, LayerStore, MeasuredImage, TreeStore, Unenforced};
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
use crate::output::Output;

const IMAGES: &str = "images";
const REFS: &str = "refs.json";

/// The layouts a store may hold.
pub(crate) const LAYOUTS: &[Layout] = &[Layout::TreeV1, Layout::ErofsV1];

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
    /// Opens or makes it, with a quota in bytes where one is given.
    pub(crate) fn open(root: &Path, layout: Layout, quota: Option<u64>) -> Result<Self, Failure> {
        let layers: Box<dyn LayerStore> = match layout {
            Layout::TreeV1 => Box::new(TreeStore::open_within(root, quota).map_err(|error| coded(&error))?),
            Layout::ErofsV1 => Box::new(erofs(root, quota)?),
        };
        Ok(Self { root: root.to_owned(), layers })
    }

    /// The same in the layout that suits this kernel, which is said aloud where it is not the usual one.
    pub(crate) fn open_suitable(root: &Path, quota: Option<u64>, output: &Output) -> Result<Self, Failure> {
        let layers = erofs(root, quota)?;
        match layers.probe() {
            Ok(()) => Ok(Self { root: root.to_owned(), layers: Box::new(layers) }),
            Err(error) => {
                drop(layers);
                output.note(&format!("layout tree, since this kernel does not mount erofs: {error}"));
                Self::open(root, Layout::TreeV1, quota)
            }
        }
    }

    pub(crate) fn layers(&self) -> &dyn LayerStore {
        &*self.layers
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Holds the layers of images that are mounted, as long as the answer lives: they give way to nothing.
    pub(crate) fn hold_mounted(&self) -> Result<Vec<Box<dyn Candidate>>, Failure> {
        let mut held = Vec::new();
        for (_, mount) in Mount::all(&self.root)? {
            held.extend(self.hold(&mount.layers)?);
        }
        Ok(held)
    }

    fn hold(&self, diff_ids: &[Sha256Digest]) -> Result<Vec<Box<dyn Candidate>>, Failure> {
        let mut held = Vec::new();
        let mut chain: Option<Sha256Digest> = None;
        for diff_id in diff_ids {
            let this = chain.map_or(*diff_id, |below| Sha256Digest::of(format!("{below} {diff_id}").as_bytes()));
            chain = Some(this);
            let key = LayerKey { chain: this, diff_id: *diff_id, subject: format!("layer {diff_id}") };
            held.extend(self.layers.stored(&key).map_err(|error| coded(&error))?);
        }
        Ok(held)
    }

    /// Removes layers and documents that no reference and no mount needs; says how many layers.
    pub(crate) fn prune(&self) -> Result<usize, Failure> {
        let references = references(&self.root)?;
        let mut held = self.hold_mounted()?;
        for record in references.values() {
            held.extend(self.hold(&record.layers)?);
        }
        let removed = self.layers.prune().map_err(|error| coded(&error))?;
        drop(held);
        let mut needed: Vec<String> = vec![REFS.to_owned()];
        needed.extend(references.values().flat_map(|record| [record.manifest.hex(), record.config.hex()]));
        let folder = self.root.join(IMAGES);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !needed.iter().any(|name| entry.file_name() == name.as_str()) {
                fs::remove_file(entry.path()).map_err(|error| Failure::file(&entry.path(), error))?;
            }
        }
        Ok(removed)
    }

    /// Replaces the record of all references.
    pub(crate) fn write_references(&self, references: &BTreeMap<String, Record>) -> Result<(), Failure> {
        let bytes = serde_json::to_vec_pretty(references).map_err(|error| Failure::Fault(error.to_string()))?;
        folder_for_root(&self.root.join(IMAGES))?;
        replace(&self.root.join(IMAGES).join(REFS), &bytes)
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
        self.write_references(&references)
    }
}

/// People may look at what nothing keeps as it was measured; they are told.
fn erofs(root: &Path, quota: Option<u64>) -> Result<ErofsStore, Failure> {
    ErofsStore::open(root, quota, Unenforced::Allowed).map_err(|error| coded(&error))
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
