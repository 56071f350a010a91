//! Odd layers: what becomes of each in both layouts, as somebody in the container sees it, and what containerd makes
//! of the same. One table of cases in each module; `docs/layers.md` says the same in words.
//!
//! Needs root, a kernel with EROFS and overlayfs, and Debian's docker-registry and containerd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/erofs_image.rs"]
#[allow(unreachable_pub)] // other packages include it too
mod erofs_image;

mod case;
mod look;

mod devices;
mod ends;
mod framing;
mod limits;
mod links;
mod numbers;
mod paths;
mod pax;
mod replacement;
mod times;
mod whiteouts;
mod xattrs;

mod containerd;
mod layouts;
mod same;
