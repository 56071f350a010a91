//! What a Kata sandbox asks of Linux beside launches: files copied in, namespaces, storages, network, guest details.
//!
//! It knows no launch, no policy and no wire format: its types are plain, and whoever calls it has asked the policy.
//! Everything a host names is a claim: paths are walked by descriptor and through no link, options are allow-listed,
//! sizes are bounded, and what brings the host's data in is off until the measured configuration permits it by name.
//! Functions block unless they are `async`; nothing here starts a thread that outlives its call.

mod beneath;
mod devices;
mod dns;
mod error;
pub mod guest;
mod interface_stats;
mod iptables;
mod metrics;
mod modules;
mod namespaces;
pub mod network;
mod program;
mod roots;
mod shared;
pub mod storage;
pub mod uevent;

pub use dns::Dns;
pub use error::SandboxError;
pub use interface_stats::{InterfaceStats, interface_stats, parse as parse_interface_stats};
pub use iptables::Iptables;
pub use metrics::metrics;
pub use modules::Modules;
pub use namespaces::{Namespaces, PidNamespace};
pub use roots::Roots;
pub use shared::{Copied, CopyLimits, CopyRequest, FileKind, Ready, Shared};
