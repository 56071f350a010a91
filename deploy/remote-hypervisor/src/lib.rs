//! Starts a guest in QEMU for each pod of a Kata shim that has the `remote` hypervisor: ttrpc `hypervisor.Hypervisor` on
//! a unix socket.
//!
//! For development and tests, on a machine without KVM. It is the host's: a guest trusts nothing that comes from here.
//! Pods have QEMU's user network, not the cluster's.

mod bridge;
mod config;
mod initdata;
mod pods;
mod service;

/// Messages and service, generated from `protos/hypervisor.proto`.
#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    nonstandard_style,
    unused,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_imports,
    clippy::cast_possible_truncation
)]
mod generated {
    pub(crate) mod hypervisor {
        include!(concat!(env!("OUT_DIR"), "/hypervisor.rs"));
    }
    pub(crate) mod hypervisor_ttrpc {
        include!(concat!(env!("OUT_DIR"), "/hypervisor_ttrpc.rs"));
    }
}

pub use config::Config;
pub use service::{Service, VERSION};
