//! OCI distribution client: manifests, blobs, referrers, auth. No unpacking, and no judgement: what a
//! registry answers is bytes until their digest has been checked.
//!
//! The registry is untrusted. Every answer is bounded, a stalled connection ends, credentials never
//! travel in the clear or to another host, plain HTTP is used only for hosts the configuration names, and TLS
//! is always verified. Mirrors, proxies and credentials come from the configuration, never the environment.

pub mod auth;
mod config;
mod error;
mod events;
pub mod golden;
mod http;
mod layout;
pub mod oci;
mod reference;
mod registries_conf;
mod registries_d;
mod sparing;
mod storage;

pub use config::RegistryConfig;
pub use error::RegistryError;
pub use events::{Event, RegistryEvents};
pub use http::HttpRegistry;
pub use layout::{LayoutReference, OciLayout};
pub use oci::Descriptor;
pub use reference::{ImageReference, ReferenceError, Repository, Target};
pub use registries_conf::{MAX_REGISTRIES_CONF, RegistriesConf, RegistriesConfError};
pub use registries_d::{MAX_REGISTRIES_D, RegistriesD, RegistriesDError};
pub use sparing::SparingRegistry;
pub use storage::{BlobStream, ManifestBytes, Registry, RegistryPush};

/// The largest manifest or index we read, in bytes (the OCI distribution specification's own bound).
pub const MAX_MANIFEST: usize = 4 * 1024 * 1024;
