//! Handlers about the guest itself.

use protobuf::MessageField;
use protocols::rpc::kata::agent as pb;

use super::KataAgent;
use crate::error::AgentError;

impl KataAgent {
    /// There is no shared file system that could have gone stale.
    pub(super) async fn remove_stale_virtiofs_share_mounts(
        &self,
        _: pb::RemoveStaleVirtiofsShareMountsRequest,
    ) -> Result<pb::Empty, AgentError> {
        Ok(pb::Empty::default())
    }

    pub(super) async fn get_guest_details(
        &self,
        _: pb::GuestDetailsRequest,
    ) -> Result<pb::GuestDetailsResponse, AgentError> {
        let agent = pb::AgentDetails {
            version: crate::VERSION.to_owned(),
            init_daemon: std::process::id() == 1,
            // The profile is always the agent's own: what a host sends is not taken.
            supports_seccomp: false,
            ..Default::default()
        };
        Ok(pb::GuestDetailsResponse { agent_details: MessageField::some(agent), ..Default::default() })
    }
}
