//! One guest in QEMU on a plain machine, without KVM and without drivers of the host: for development and tests.
//!
//! A [`Machine`] says what is booted; [`Machine::start`] starts a software TPM, a vsock device in user space and QEMU in
//! one folder, and gives a [`Running`] that ends them all when it is dropped. Nothing here is trusted by a guest.

mod connect;
mod error;
mod machine;
mod process;
mod running;

pub use connect::connect;
pub use error::VmError;
pub use machine::{Boot, Disk, Machine, Programs};
pub use running::Running;
