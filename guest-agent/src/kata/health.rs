//! `grpc.Health`, which no policy gates: it says that the agent answers, and which release it is.

use async_trait::async_trait;
use protocols::rpc::kata::health::{
    CheckRequest, HealthCheckResponse, VersionCheckResponse, health_check_response::ServingStatus,
};
use protocols::rpc::kata::health_ttrpc;
use ttrpc::r#async::TtrpcContext;

/// The version of the protocol, as every agent of it says.
const PROTOCOL: &str = "0.0.1";

/// The service.
#[derive(Debug)]
pub(super) struct Health;

#[async_trait]
impl health_ttrpc::Health for Health {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }

    async fn version(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<VersionCheckResponse> {
        Ok(VersionCheckResponse {
            grpc_version: PROTOCOL.to_owned(),
            agent_version: crate::VERSION.to_owned(),
            ..Default::default()
        })
    }
}
