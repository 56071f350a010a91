//! An OCI image layout, a directory, in place of a registry: `oci:DIR[:NAME]` or `oci:DIR@sha256:…`.
//!
//! The directory is trusted no more than a registry. Only regular files in it are opened, never through a
//! symbolic link; sizes are compared before a byte is read, digests by whoever asked.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use protocols::digest::Sha256Digest;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::Deserialize;

use crate::MAX_MANIFEST;
use crate::error::RegistryError;
use crate::oci::{Descriptor, Document};
use crate::reference::{ImageReference, Repository, Target};
use crate::storage::{BlobStream, ManifestBytes, Registry};

/// The annotation of an entry of `index.json` that holds its name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The repository that references to a layout's images name. Its host is reserved (RFC 6761): no registry has it.
const REPOSITORY: &str = "oci-layout.localhost/image";
/// Bytes of a blob that are read at once.
const CHUNK: u64 = 256 * 1024;

/// A layout's directory and the entry that is meant, as `oci:DIR[:NAME]` and `oci:DIR@sha256:…` write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutReference {
    /// The directory.
    pub dir: PathBuf,
    /// The entry's name; `None` for the only image there is, or where a digest is given.
    pub name: Option<String>,
    /// The digest of the manifest or index.
    pub digest: Option<Sha256Digest>,
}

impl LayoutReference {
    /// Reads `oci:…`; `None` for every other text. The directory's path holds no colon.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("oci:").filter(|rest| !rest.is_empty())?;
        if let Some((dir, hex)) = rest.split_once("@sha256:") {
            let digest = format!("sha256:{hex}").parse().ok()?;
            return Some(Self { dir: PathBuf::from(dir), name: None, digest: Some(digest) });
        }
        let (dir, name) = rest.split_once(':').map_or((rest, None), |(dir, name)| (dir, Some(name)));
        let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
        (!dir.is_empty()).then(|| Self { dir: PathBuf::from(dir), name, digest: None })
    }
}

/// An opened layout. It serves its blobs whatever repository is asked for.
#[derive(Debug)]
pub struct OciLayout {
    dir: Arc<OwnedFd>,
    /// `oci:DIR`, in errors.
    name: String,
    entries: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

impl OciLayout {
    /// Opens a layout and reads its index. Blocking.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] where there is none, [`RegistryError::Malformed`] for one of another version
    /// or form.
    pub fn open(dir: &Path) -> Result<Self, RegistryError> {
        let name = format!("oci:{}", dir.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(dir, flags, Mode::empty()).map_err(|e| failed(&name, "the layout", e))?;
        let mut layout = Self { dir: Arc::new(opened), name, entries: Vec::new() };
        let bytes = layout.small("oci-layout", "the layout")?;
        let marker: Marker = serde_json::from_slice(&bytes).map_err(|e| layout.malformed("oci-layout", e))?;
        if !marker.image_layout_version.starts_with("1.") {
            return Err(layout.malformed("oci-layout", format!("version {}", marker.image_layout_version)));
        }
        let bytes = layout.small("index.json", "index.json")?;
        layout.entries = match Document::parse(&bytes) {
            Ok(Document::Index(index)) => index.manifests,
            Ok(Document::Manifest(_)) => return Err(layout.malformed("index.json", "a manifest in place of an index")),
            Err(e) => return Err(layout.malformed("index.json", e)),
        };
        Ok(layout)
    }

    /// The names of the entries, in the index's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| entry.annotations.get(REF_NAME)).map(String::as_str)
    }

    /// A reference by digest to the entry of this name; without one, to the only image there is.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], also when it is not plain which entry is meant; the error lists the names.
    pub fn reference(&self, name: Option<&str>) -> Result<ImageReference, RegistryError> {
        let found = match name {
            Some(name) => self.named(name)?,
            None => {
                // What refers to an image lies beside it and is not meant.
                let mut images = self.entries.iter().filter(|entry| entry.artifact_type.is_none());
                match (images.next(), images.next()) {
                    (Some(only), None) => only,
                    _ => return Err(self.not_found("one image without a name being given".to_owned())),
                }
            }
        };
        self.pinned(found.digest)
    }

    /// A reference to the manifest or index of this digest.
    ///
    /// # Errors
    /// Never in practice: every digest makes a reference.
    pub fn pinned(&self, digest: Sha256Digest) -> Result<ImageReference, RegistryError> {
        format!("{REPOSITORY}@{digest}").parse().map_err(|e| self.malformed("reference", e))
    }

    fn named(&self, name: &str) -> Result<&Descriptor, RegistryError> {
        let mut found = self.entries.iter().filter(|entry| entry.annotations.get(REF_NAME).is_some_and(|n| n == name));
        let first = found.next().ok_or_else(|| self.not_found(format!("image {name:?}")))?;
        match found.find(|other| other.digest != first.digest) {
            None => Ok(first),
            Some(_) => Err(self.malformed("index.json", format!("two images of the name {name:?}"))),
        }
    }

    fn not_found(&self, what: String) -> RegistryError {
        let names = self.names().take(20).collect::<Vec<_>>().join(", ");
        RegistryError::NotFound { host: self.name.clone(), what: format!("{what} (there are: {names})") }
    }

    fn malformed(&self, what: &str, reason: impl fmt::Display) -> RegistryError {
        RegistryError::Malformed { host: self.name.clone(), what: what.to_owned(), reason: reason.to_string() }
    }

    /// Opens a regular file of the layout and gives its size.
    fn file(&self, path: &str, what: &str) -> Result<(File, u64), RegistryError> {
        // NONBLOCK: a FIFO would hold us before we could see that it is one.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let opened = rustix::fs::openat2(&self.dir, path, flags, Mode::empty(), resolve);
        let file = File::from(opened.map_err(|e| failed(&self.name, what, e))?);
        let metadata = file.metadata().map_err(|e| unavailable(&self.name, what, e))?;
        if metadata.is_file() { Ok((file, metadata.len())) } else { Err(self.malformed(what, "not a regular file")) }
    }

    /// Reads a whole file of at most [`MAX_MANIFEST`].
    fn small(&self, path: &str, what: &str) -> Result<Vec<u8>, RegistryError> {
        let (file, size) = self.file(path, what)?;
        let limit = MAX_MANIFEST as u64;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| unavailable(&self.name, what, e))?;
        if size.max(bytes.len() as u64) > limit {
            return Err(RegistryError::TooLarge { host: self.name.clone(), what: what.to_owned(), limit });
        }
        Ok(bytes)
    }

    fn document(&self, digest: &Sha256Digest) -> Result<Vec<u8>, RegistryError> {
        self.small(&blob_path(digest), &format!("manifest {digest}"))
    }
}

fn blob_path(digest: &Sha256Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A file that does not open. A link in a layout is a trick, or a layout of a form that is not read here.
fn failed(host: &str, what: &str, error: rustix::io::Errno) -> RegistryError {
    let (host, what) = (host.to_owned(), what.to_owned());
    match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => RegistryError::NotFound { host, what },
        rustix::io::Errno::LOOP | rustix::io::Errno::XDEV => {
            RegistryError::Malformed { host, what, reason: "a symbolic link in the layout".to_owned() }
        }
        other => RegistryError::Unavailable { host, what, reason: other.to_string() },
    }
}

fn unavailable(host: &str, what: &str, error: impl fmt::Display) -> RegistryError {
    RegistryError::Unavailable { host: host.to_owned(), what: what.to_owned(), reason: error.to_string() }
}

#[async_trait]
impl Registry for OciLayout {
    async fn manifest(&self, _: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        let (wanted, media_type) = match target {
            Target::Tag(name) => self.named(name).map(|entry| (entry.digest, entry.media_type.clone()))?,
            Target::Digest(digest) => {
                let entry = self.entries.iter().find(|entry| entry.digest == *digest);
                (*digest, entry.map(|entry| entry.media_type.clone()).unwrap_or_default())
            }
        };
        let bytes = Bytes::from(self.document(&wanted)?);
        Ok(ManifestBytes { digest: Sha256Digest::of(&bytes), bytes, media_type, claimed: Some(wanted) })
    }

    async fn blob(
        &self,
        _: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        let what = format!("blob {digest}");
        let (file, actual) = self.file(&blob_path(digest), &what)?;
        if actual != size {
            return Err(RegistryError::Size { host: self.name.clone(), what, expected: size, actual });
        }
        Ok(Box::new(FileBlob { file: Arc::new(file), host: self.name.clone(), what }))
    }

    async fn referrers(
        &self,
        _: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let mut found: Vec<Descriptor> = Vec::new();
        // What copies a registry with fallback tags into a layout brings their indexes with it.
        let fallback = format!("sha256-{}", subject.hex());
        for entry in &self.entries {
            let candidates = if entry.annotations.get(REF_NAME) == Some(&fallback) {
                match Document::parse(&self.document(&entry.digest)?) {
                    Ok(Document::Index(index)) => index.manifests,
                    _ => return Err(self.malformed(&fallback, "not an index")),
                }
            } else {
                vec![entry.clone()]
            };
            for mut candidate in candidates {
                // An entry that names another type needs no look at its manifest.
                if candidate.artifact_type.as_deref().is_some_and(|named| named != artifact_type)
                    || found.iter().any(|known| known.digest == candidate.digest)
                {
                    continue;
                }
                let Ok(Document::Manifest(manifest)) = Document::parse(&self.document(&candidate.digest)?) else {
                    continue;
                };
                let own = manifest.artifact_type.unwrap_or(manifest.config.media_type);
                if own == artifact_type && manifest.subject.is_some_and(|named| named.digest == *subject) {
                    candidate.artifact_type = Some(own);
                    found.push(candidate);
                }
            }
        }
        Ok(found)
    }
}

#[derive(Debug)]
struct FileBlob {
    file: Arc<File>,
    host: String,
    what: String,
}

#[async_trait]
impl BlobStream for FileBlob {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let file = Arc::clone(&self.file);
        let read = tokio::task::spawn_blocking(move || {
            let mut chunk = Vec::new();
            (&*file).take(CHUNK).read_to_end(&mut chunk).map(|_| chunk)
        });
        let chunk = read.await.map_err(std::io::Error::other).and_then(|chunk| chunk);
        let chunk = chunk.map_err(|e| unavailable(&self.host, &self.what, e))?;
        Ok((!chunk.is_empty()).then(|| Bytes::from(chunk)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_a_directory_and_an_entry() {
        let digest = Sha256Digest::of(b"x");
        let parsed = |text: &str| {
            let found = LayoutReference::parse(text)?;
            Some((found.dir.to_str().unwrap().to_owned(), found.name, found.digest))
        };
        assert_eq!(parsed("oci:/a/b"), Some(("/a/b".to_owned(), None, None)));
        assert_eq!(parsed("oci:b:v1:x/y"), Some(("b".to_owned(), Some("v1:x/y".to_owned()), None)));
        assert_eq!(parsed(&format!("oci:/a@{digest}")), Some(("/a".to_owned(), None, Some(digest))));
        for text in ["oci:", "oci::v1", "r.example/app", "oci-archive:/a", "oci:/a@sha256:12"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
