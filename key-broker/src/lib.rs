//! The remote attestor: challenges, appraises, keeps event logs, releases secrets and golden values.
//!
//! - [`config::Config`] -> [`config::Settings`]: everything parsed and checked before anything starts.
//! - [`broker::Broker`]: what is done; [`http::router`]: how it is asked; [`server::serve`]: bounds and drain.
//! - [`broker_store::Store`]: what must last.
//!
//! Absent here: sessions in memory (challenges and tokens are sealed and travel), signers or policy named by a
//! guest, and any verdict of its own: `verifier::appraise` decides, the same function as in the guest.

// A refusal ends a request: moving it is not worth a box at every boundary.
#![allow(clippy::result_large_err)]

pub mod admin;
mod audit;
pub mod broker;
pub mod challenge;
pub mod config;
mod decide;
mod deliver;
mod devices;
mod endorse;
pub mod error;
mod evidence;
mod files;
mod history;
pub mod http;
mod initdata;
mod limits;
pub mod maintain;
pub mod metrics;
mod posted;
mod record;
mod refusals;
mod release;
mod resources;
mod rules;
pub mod server;
mod sessions;
pub mod tls;
mod token;
pub mod trace;

pub use record::Recording;
pub use release::Release;
pub use rules::ReloadError;
