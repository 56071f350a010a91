//! Why an image was refused, with the facts.

use std::path::PathBuf;

use protocols::digest::Sha256Digest;
use protocols::image::{Layout, Platform};
use protocols::reason::{self, Code, Refusal};
use registry::{ReferenceError, RegistryError};

/// A stage that did not end with a checked value.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The reference does not follow the grammar.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The registry did not give what it was asked for.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The manifest's bytes have another digest than the reference, descriptor or header says.
    #[error("{subject}: the manifest has digest {actual}, not {expected}")]
    ManifestDigest {
        /// The reference or the index entry.
        subject: String,
        /// The digest it was asked for by.
        expected: Sha256Digest,
        /// The digest of the bytes.
        actual: Sha256Digest,
    },
    /// The manifest, index or config cannot be read or breaks a rule.
    #[error("{subject}: {problem}")]
    Manifest {
        /// The document, by digest.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No manifest, or a config, for another platform.
    #[error("{subject} has no image for {expected}: {actual}")]
    Platform {
        /// The index or manifest.
        subject: String,
        /// The platform of the policy.
        expected: Platform,
        /// What there is.
        actual: String,
    },
    /// The signature policy does not accept the image.
    #[error("{subject} is not accepted by the signature policy: {actual}")]
    Signature {
        /// The reference.
        subject: String,
        /// What would have been accepted.
        expected: String,
        /// What there is, and why it does not count.
        actual: String,
    },
    /// A blob's bytes have another digest than the manifest says.
    #[error("{subject} has digest {actual}, not {expected}")]
    BlobDigest {
        /// Layer or config, digest and registry.
        subject: String,
        /// By the manifest.
        expected: Sha256Digest,
        /// Of the bytes.
        actual: Sha256Digest,
    },
    /// A blob is shorter or longer than the manifest says.
    #[error("{subject} has {actual} bytes, not {expected}")]
    BlobSize {
        /// Layer or config, digest and registry.
        subject: String,
        /// By the manifest.
        expected: u64,
        /// Seen; the rest of a longer blob is not read.
        actual: u64,
    },
    /// An unpacked layer has another digest than the config says.
    #[error("{subject} unpacks to {actual}, not {expected}")]
    DiffId {
        /// The layer.
        subject: String,
        /// By the config.
        expected: Sha256Digest,
        /// Of the unpacked bytes.
        actual: Sha256Digest,
    },
    /// No key opens an encrypted layer.
    #[error("{subject}: {problem}")]
    Key {
        /// The layer.
        subject: String,
        /// What each wrapped key's provider said.
        problem: String,
    },
    /// Whoever has an encrypted layer's key could not be asked.
    #[error("{0}")]
    KeyUnavailable(Box<Refusal>),
    /// An encrypted layer is not what its key's owner encrypted, or not encrypted in a way we know.
    #[error("{subject}: {problem}")]
    Decrypt {
        /// The layer.
        subject: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A layer cannot be unpacked exactly.
    #[error("{subject}: {problem}")]
    LayerFormat {
        /// The layer.
        subject: String,
        /// What is wrong, and at which entry.
        problem: String,
    },
    /// A layer reaches outside its directory or sets reserved attributes.
    #[error("{subject}: {problem}")]
    Unsafe {
        /// The layer.
        subject: String,
        /// What it tries, and at which entry.
        problem: String,
    },
    /// The image is larger than [`crate::Limits`] allow.
    #[error("{subject}: more than {limit} {what}")]
    Limit {
        /// The image or layer.
        subject: String,
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A zstd layer needs a larger window than there is memory for.
    #[error("{subject}: a zstd window of {window} bytes, more than {limit}")]
    ZstdWindow {
        /// The layer.
        subject: String,
        /// Bytes it asks for.
        window: u64,
        /// Bytes it may ask for.
        limit: u64,
    },
    /// No room in the store.
    #[error("no room at {}", path.display())]
    StoreFull {
        /// Where.
        path: PathBuf,
    },
    /// The store's own quota leaves no room, even without the layers that nobody uses.
    #[error("{}: {wanted} bytes more than the quota of {quota} bytes leaves, {in_use} in use", path.display())]
    StoreQuota {
        /// The store.
        path: PathBuf,
        /// Bytes it may take.
        quota: u64,
        /// Bytes it takes.
        in_use: u64,
        /// Bytes that are wanted beside those.
        wanted: u64,
    },
    /// The store cannot be read or written.
    #[error("{}: {doing}: {source}", path.display())]
    StoreIo {
        /// Where.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A stored layer is not what was measured when it was stored.
    #[error("{subject} measures {actual}, not {expected}")]
    StoreCorrupt {
        /// The stored layer.
        subject: String,
        /// Measured when it was stored.
        expected: String,
        /// Found now.
        actual: String,
    },
    /// This kernel does not mount the store's layout.
    #[error("this kernel does not mount the layout {}: {problem}", layout.as_str())]
    StoreLayout {
        /// The layout.
        layout: Layout,
        /// What it said.
        problem: String,
    },
    /// What was measured could be altered afterwards, by whoever has the storage.
    #[error("{} lies neither in guest memory nor beneath dm-verity", path.display())]
    StoreUnenforced {
        /// Where.
        path: PathBuf,
    },
}

impl ImageError {
    /// The stable reason code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Reference(_) => reason::IMAGE_REFERENCE,
            Self::Registry(e) => e.code(),
            Self::ManifestDigest { .. } => reason::IMAGE_MANIFEST_DIGEST,
            Self::Manifest { .. } => reason::IMAGE_MANIFEST,
            Self::Platform { .. } => reason::IMAGE_PLATFORM,
            Self::Signature { .. } => reason::IMAGE_SIGNATURE,
            Self::BlobDigest { .. } => reason::IMAGE_BLOB_DIGEST,
            Self::BlobSize { .. } => reason::IMAGE_BLOB_SIZE,
            Self::DiffId { .. } => reason::IMAGE_DIFF_ID,
            Self::Key { .. } => reason::IMAGE_KEY,
            Self::KeyUnavailable(refusal) => refusal.code,
            Self::Decrypt { .. } => reason::IMAGE_DECRYPT,
            Self::LayerFormat { .. } => reason::IMAGE_LAYER_FORMAT,
            Self::Unsafe { .. } => reason::IMAGE_UNSAFE,
            Self::Limit { .. } => reason::IMAGE_LIMIT,
            Self::ZstdWindow { .. } => reason::IMAGE_ZSTD_WINDOW,
            Self::StoreFull { .. } => reason::STORE_FULL,
            Self::StoreQuota { .. } => reason::STORE_QUOTA,
            Self::StoreIo { .. } => reason::STORE_IO,
            Self::StoreCorrupt { .. } => reason::STORE_CORRUPT,
            Self::StoreLayout { .. } => reason::STORE_LAYOUT,
            Self::StoreUnenforced { .. } => reason::STORE_UNENFORCED,
        }
    }

    /// The refusal a launch ends with.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let (subject, expected, actual) = match self {
            Self::Reference(e) => return e.refusal(),
            Self::Registry(e) => return e.refusal(),
            Self::ManifestDigest { subject, expected, actual }
            | Self::BlobDigest { subject, expected, actual }
            | Self::DiffId { subject, expected, actual } => (subject.clone(), expected.to_string(), actual.to_string()),
            Self::Manifest { subject, problem } => (subject.clone(), "a valid document".to_owned(), problem.clone()),
            Self::Platform { subject, expected, actual } => (subject.clone(), expected.to_string(), actual.clone()),
            Self::Signature { subject, expected, actual } => (subject.clone(), expected.clone(), actual.clone()),
            Self::BlobSize { subject, expected, actual } => {
                (subject.clone(), format!("{expected} bytes"), format!("{actual} bytes"))
            }
            Self::KeyUnavailable(refusal) => return Refusal::clone(refusal),
            Self::Key { subject, problem } => (subject.clone(), "a key that opens it".to_owned(), problem.clone()),
            Self::Decrypt { subject, problem } => {
                (subject.clone(), "an authentic encrypted layer".to_owned(), problem.clone())
            }
            Self::LayerFormat { subject, problem } => (subject.clone(), "a tar archive".to_owned(), problem.clone()),
            Self::Unsafe { subject, problem } => (subject.clone(), "safe entries".to_owned(), problem.clone()),
            Self::Limit { subject, what, limit } => {
                (subject.clone(), format!("at most {limit} {what}"), "more".to_owned())
            }
            Self::ZstdWindow { subject, window, limit } => {
                (subject.clone(), format!("a window of at most {limit} bytes"), format!("{window} bytes"))
            }
            Self::StoreFull { path } => (path.display().to_string(), "room".to_owned(), "none left".to_owned()),
            Self::StoreQuota { path, quota, in_use, wanted } => {
                (path.display().to_string(), format!("at most {quota} bytes"), format!("{in_use} and {wanted} more"))
            }
            Self::StoreIo { path, doing, source } => {
                (path.display().to_string(), format!("to be able to {doing}"), source.to_string())
            }
            Self::StoreCorrupt { subject, expected, actual } => (subject.clone(), expected.clone(), actual.clone()),
            Self::StoreLayout { layout, problem } => {
                (layout.as_str().to_owned(), "a layout this kernel mounts".to_owned(), problem.clone())
            }
            Self::StoreUnenforced { path } => {
                (path.display().to_string(), "a directory on tmpfs or ramfs".to_owned(), "other storage".to_owned())
            }
        };
        Refusal::new(self.code(), subject, expected, actual)
    }
}
