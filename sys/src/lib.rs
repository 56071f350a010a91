//! The one crate that may hold `unsafe` code: system calls that `rustix` does not offer.
//!
//! There is none yet. What the agent asks of the kernel today is safe in `rustix`:
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
//! Device-mapper ioctls, fs-verity ioctls and vector lanes for SHA-256 belong here when they come. Then this
//! crate leaves the workspace's lint table for one of its own with `unsafe_code = "deny"`, and each module
//! that needs it says `#![allow(unsafe_code)]` with a `SAFETY` comment at every block.
