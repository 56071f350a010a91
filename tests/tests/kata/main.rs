//! The Kata service over its socket: a pod as a real shim sent it, refusals, hostile requests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod clients;
mod containerd;
mod hostile;
mod hypervisor;
mod pod;
mod refused;
mod service;
mod stuck;
