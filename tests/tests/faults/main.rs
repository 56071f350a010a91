//! The faults a launch must survive: each ends in a stable code and an exit status, with no container
//! process ever there, nothing mounted and nothing half-written. One test for each, named for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod attestor;
mod golden;
mod image;
mod platform;
mod registry;

/// Both ways a launch is decided.
const MODES: [&str; 2] = ["local", "remote"];
