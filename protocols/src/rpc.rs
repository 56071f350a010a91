//! Generated messages and ttrpc services: the launch API (`protos/launch.proto`), the image pull service that
//! stock Kata agents call (`protos/cdh.proto`), and the Kata agent protocol (a crate of its own, because generated code
//! is slow to compile).

#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    nonstandard_style,
    unused
)]
#![allow(clippy::all)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::wildcard_imports)]
#![allow(clippy::cast_possible_truncation)]

/// Messages.
pub mod launch {
    include!(concat!(env!("OUT_DIR"), "/launch.rs"));
}

/// Service and client.
pub mod launch_ttrpc {
    use super::launch;
    include!(concat!(env!("OUT_DIR"), "/launch_ttrpc.rs"));
}

/// Messages of the image pull service.
pub mod cdh {
    include!(concat!(env!("OUT_DIR"), "/cdh.rs"));
}

/// The image pull service and its client.
pub mod cdh_ttrpc {
    use super::cdh;
    include!(concat!(env!("OUT_DIR"), "/cdh_ttrpc.rs"));
}

/// The Kata agent protocol: `grpc.AgentService` and `grpc.Health` of kata-containers 4.1.0.
pub use kata_protocol as kata;
