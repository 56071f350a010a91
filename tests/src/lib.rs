//! The harness of the whole-launch tests: a [`World`] with a real registry, a real TPM simulator, a real
//! attestor and a real agent driving the real runc, in a temporary folder of its own.
//!
//! The harness fails a test by panicking: whatever is missing on the machine is a failure, never a skip.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod command;
pub mod entry;
#[path = "../../image-rs-fork/tests/support/erofs_image.rs"]
pub mod erofs_image;
pub mod golden;
pub mod image;
pub mod initdata;
pub mod kata;
pub mod oci11;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod tls;
pub mod tpm;
pub mod tpm_relay;
pub mod vm;
pub mod vsock;
pub mod world;

pub use command::Seen;
pub use proxy::{Action, Proxy};
pub use world::{Options, Tee, World};
