//! The agent: the launch service and the one launch pipeline; it drives an OCI runtime.
//!
//! A library so that tests and doctests reach the stage types; nothing else depends on it. [`app`] puts everything
//! together for the daemon.

#![allow(clippy::result_large_err)] // a refusal ends the call it is about

pub mod agent;
pub mod app;
pub mod attestor;
mod bundle;
pub mod cgroup;
pub mod clock;
pub mod config;
pub mod container_id;
pub mod containers;
mod courier;
mod drain;
pub mod error;
pub mod gate;
mod image_service;
mod images;
mod initdata;
pub mod io;
pub mod journal;
pub mod kata;
pub mod launch;
mod paths;
pub mod processes;
mod restart;
pub mod runtime;
pub mod server;
pub mod service;
pub mod start;

pub use initdata::BoundInitdata;

/// Release of the agent.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
