//! The guest image, from Debian's packages to a pod in it: built twice to the same bytes, booted by firmware into a
//! measured launch, and refused when it was altered.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod altered;
mod boot;
mod build;
mod overhead;
mod scene;
