//! The agent as a guest's first process: an emulated machine boots into it, a pod runs in control groups of version 2,
//! and the machine switches itself off when the sandbox ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod boot;
mod disk;
mod pod;
mod quote;
mod scene;
mod shim;
mod time;
