//! Reference -> verified manifest -> measured layers -> mountable root file system.
//!
//! Each stage is a type that only the stage before it can make:
//! [`fetch`] gives a [`FetchedManifest`] (bytes), [`FetchedManifest::verify`] a [`VerifiedManifest`]
//! (digest, signatures, platform, config), [`pull`] a [`MeasuredImage`] (every blob and diffID checked, the root file
//! system measured). A tag is resolved once, by `fetch`; everything after goes by digest.
//!
//! What is measured is described in `docs/measurement.md`.

pub mod erofs;
pub mod framing;
pub mod ocicrypt;
pub mod tar;
pub mod verity;

mod config;
mod erofs_store;
mod error;
mod layer;
mod limits;
mod manifest;
mod measure;
mod mount;
mod policy;
mod progress;
mod pull;
mod space;
mod store;
mod store_dir;
mod tree;

pub use registry;

pub use config::ImageConfig;
pub use erofs_store::ErofsStore;
pub use error::ImageError;
pub use limits::Limits;
pub use manifest::{FetchedManifest, ImagePolicy, VerifiedManifest, fetch, host_platform};
pub use measure::{MeasureOnly, measure_archive};
pub use mount::{Enforcement, MountedRootfs, Unenforced, remove_rootfs};
pub use ocicrypt::{KeyError, KeyProvider, NoKeys, WrappedKey};
pub use policy::{MAX_POLICY, MAX_SIGNATURES, PolicyError, SignaturePolicy};
pub use progress::{LayerEvent, LayerPlace, NoProgress, Progress};
pub use pull::{Flights, MeasuredImage, pull};
pub use store::{Candidate, LayerKey, LayerStore, LayerWriter, Room, StoredLayer};
pub use tree::{TreeStore, in_memory, measure_directory};
