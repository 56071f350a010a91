//! Handler of another policy.

use agent_policy::Proposal;
use protocols::events::Policy;
use protocols::rpc::kata::agent as pb;

use super::KataAgent;
use crate::error::{AgentError, blocking};

impl KataAgent {
    /// Puts a policy into force that the one in force has allowed: recorded first, whole or not at all.
    pub(super) async fn set_policy(&self, proposal: Proposal) -> Result<pb::Empty, AgentError> {
        let digests = proposal.digests();
        self.agent.journal.record(Policy { old: Some(digests.old), new: digests.new }).await?;
        let engine = std::sync::Arc::clone(&self.policy);
        blocking(move || engine.adopt(proposal)).await??;
        tracing::info!(old = %digests.old, new = %digests.new, "another policy is in force");
        Ok(pb::Empty::default())
    }
}
