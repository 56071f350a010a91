//! The Kata agent protocol: `grpc.AgentService` and `grpc.Health`, as the shims of kata-containers 4.1.0 speak them.
//!
//! A call passes, in this order: `wire` (how much may be in flight, malformed bytes, panics), `gated` (the policy,
//! for every method of the service), and its handler here. Nothing below this module knows a protobuf message.

pub mod address;
mod containers;
mod files;
mod gated;
mod guest;
mod health;
mod listen;
mod network;
mod pod;
mod policy;
mod processes;
pub mod spec;
mod stats;
mod status;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use ::sandbox::Roots;
use ::sandbox::storage::StorageConfig;
use agent_policy::PolicyEngine;
use protocols::rpc::kata::agent_ttrpc::create_agent_service;
use protocols::rpc::kata::health_ttrpc::create_health;
use tokio::sync::Notify;
use ttrpc::r#async::{Server, Service};

use crate::agent::Agent;
use crate::config::Kata;

pub(crate) use status::of as status;

pub use files::copy_request;
pub use wire::bounded;

/// The most storages at one time.
const MAX_STORAGES: usize = 256;

/// What the handlers work on.
#[derive(Debug)]
pub(crate) struct KataAgent {
    agent: Arc<Agent>,
    config: Arc<Kata>,
    policy: Arc<PolicyEngine>,
    roots: Roots,
    storage_config: StorageConfig,
    sandbox: pod::State,
    ended: Arc<Notify>,
}

impl KataAgent {
    fn new(config: Kata, agent: Arc<Agent>, policy: Arc<PolicyEngine>) -> Self {
        let guest = Roots::guest();
        let roots = Roots {
            run: config.run_dir.clone(),
            namespaces: config.namespaces_dir.clone(),
            resolv_conf: config.resolv_conf.clone(),
            ..guest
        };
        let mut storage_config =
            StorageConfig { device_timeout: config.device_time, most: MAX_STORAGES, ..Default::default() };
        storage_config.permitted.extend(config.storage_drivers.iter().copied());
        let (config, ended) = (Arc::new(config), Arc::default());
        Self { agent, config, policy, roots, storage_config, sandbox: pod::State::default(), ended }
    }
}

/// Both services, every method but health's behind the gate.
///
/// [`Ended`] tells when the host has ended the sandbox: then the agent has nothing left to do.
#[must_use]
pub fn services(config: Kata, agent: Arc<Agent>, policy: Arc<PolicyEngine>) -> (HashMap<String, Service>, Ended) {
    let agent = Arc::new(KataAgent::new(config, agent, policy));
    let ended = Ended(Arc::clone(&agent.ended));
    let mut services = bounded(create_agent_service(Arc::new(gated::Gated::new(agent))));
    // Not bounded with the rest: a shim whose probe goes unanswered takes the guest for dead.
    services.extend(create_health(Arc::new(health::Health)));
    (services, ended)
}

/// The sandbox's end.
#[derive(Debug)]
pub struct Ended(Arc<Notify>);

impl Ended {
    /// Of a guest that is no sandbox.
    pub(crate) fn never() -> Self {
        Self(Arc::default())
    }

    /// Waits for it.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}

/// A server of both services at the configured address.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn server(config: Kata, agent: Arc<Agent>, policy: Arc<PolicyEngine>) -> std::io::Result<(Server, Ended)> {
    let listener = listen::listen(&config.listen, config.hybrid_vsock)?;
    let (services, ended) = services(config, agent, policy);
    Ok((Server::new().add_listener(listener).register_service(services), ended))
}
