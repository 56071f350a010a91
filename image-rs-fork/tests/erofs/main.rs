//! Layers written as EROFS images, mounted by the kernel and compared with what `tar` makes of the same archive.
//!
//! Needs root, a kernel with EROFS and overlayfs, and Debian's `erofs-utils`, `cryptsetup-bin` and `tar`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

mod archive;
mod layer;
mod listing;

mod corpus;
mod equal;
mod format;
mod images;
mod inherit;
mod odd;
