//! The Kata agent protocol: `grpc.AgentService` and `grpc.Health`, as the shims of kata-containers 4.1.0 speak them.
//!
//! A call passes, in this order: [`wire`] (how much may be in flight, malformed bytes, panics), [`gated`] (the policy,
//! for every method of the service), and its handler here. Nothing below this module knows a protobuf message.

pub mod address;
mod gated;
mod guest;
mod health;
mod listen;
mod policy;
mod status;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use protocols::rpc::kata::agent_ttrpc::create_agent_service;
use protocols::rpc::kata::health_ttrpc::create_health;
use ttrpc::r#async::{Server, Service};

use crate::agent::Agent;
use crate::config::Kata;
pub use policy::Policy;

/// What the handlers work on.
#[derive(Debug)]
pub(crate) struct KataAgent {
    #[expect(dead_code, reason = "the handlers of containers use it")]
    agent: Arc<Agent>,
}

/// Both services, every method behind the gate.
#[must_use]
pub fn services(agent: Arc<Agent>, policy: Arc<dyn Policy>) -> HashMap<String, Service> {
    let agent = Arc::new(KataAgent { agent });
    let mut services = wire::bounded(create_agent_service(Arc::new(gated::Gated::new(agent, policy))));
    // Not bounded with the rest: a shim whose probe goes unanswered takes the guest for dead.
    services.extend(create_health(Arc::new(health::Health)));
    services
}

/// A server of both services at the configured address.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn server(config: &Kata, agent: Arc<Agent>) -> std::io::Result<Server> {
    let listener = listen::listen(&config.listen, config.hybrid_vsock)?;
    Ok(Server::new().add_listener(listener).register_service(services(agent, Arc::new(policy::Closed))))
}
