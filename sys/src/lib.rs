//! The one crate that may hold `unsafe` code: what neither `rustix` nor another safe library offers.
//!
//! What the agent asks of the kernel is safe in `rustix`:
//!
//! | need | where it is |
//! |---|---|
//! | child subreaper, process descriptors, waiting on them | `rustix::process::{set_child_subreaper, pidfd_open, waitid}` |
//! | who is at the other end of a unix socket | `rustix::net::sockopt::socket_peercred` |
//! | sealed memory files, beneath-only path walks, locks | `rustix::fs::{memfd_create, fcntl_add_seals, openat2, flock}` |
//! | mounting without paths | `rustix::mount::{fsopen, fsmount, move_mount, open_tree}` |
//! | executing what a descriptor holds | the path `/proc/self/fd/N` |
//! | vsock listeners | `tokio-vsock`, which also tells the peer |
//!
//! Each module that needs it says `#![allow(unsafe_code)]` with a `SAFETY` comment at every block.

pub mod code;
pub mod device_mapper;
mod error;
pub mod loop_device;
pub mod namespace;
mod node;
pub mod sev_guest;
pub mod sha256_lanes;
pub mod working_directory;

pub use error::DeviceError;
pub use node::BlockDevice;
