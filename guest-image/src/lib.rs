//! Guest images: built from Debian's packages and our programs, the same bytes each time, with what a platform will
//! measure of them; and the machine that starts one. `docs/guest-image.md` is for those who use it.
//!
//! Nothing here runs in a guest; [`build`] runs tools of the machine (apt, dpkg-deb, depmod, strip, mkfs.erofs,
//! veritysetup, zstd) and `tclctl`.

mod build;
mod contents;
mod error;
pub mod health;
mod kernel;
mod libraries;
pub mod machine;
mod manifest;
mod packages;
mod pause;
mod programs;
mod root;
mod tree;
mod uki;

pub use build::{Flavour, Options, Snp, bare, build, names};
pub use error::ImageError;
pub use kernel::Kernel;
pub use packages::{Lock, Package};
pub use pause::pause_bundle;
pub use programs::{found, sha256};
pub use root::Verity;
pub use tree::Tree;
