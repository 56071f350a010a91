//! Packages of the workspace's programs, from programs that were built: the same input gives the same bytes.
//!
//! - [`deb`]: Debian packages, described by `[package.metadata.deb]` of each crate.
//! - [`oci`]: container images as OCI layouts; [`attestor`] is the one of the attestor, [`node`] the one for nodes.
//! - [`guest`]: overlays for guest images, and the guest extension image.
//! - [`chart`]: the Helm chart's archive. [`sums`]: what to sign of all that was made.
//!
//! Absent here: building programs, signing, and anything that reaches a network.

pub mod attestor;
pub mod chart;
pub mod deb;
mod error;
pub mod guest;
pub mod node;
pub mod oci;
mod programs;
pub mod sums;
mod tool;
mod tree;

pub use error::PackagingError;
pub use programs::Programs;
pub use tree::Tree;

/// Seconds since 1970 that every file in a package bears (`SOURCE_DATE_EPOCH`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch(pub u64);

type Result<T> = std::result::Result<T, PackagingError>;
