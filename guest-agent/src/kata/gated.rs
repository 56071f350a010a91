//! The policy gate: the only implementation of the agent's service, made by one table.
//!
//! Every line of the table is checked first and handled then; there is no other way to a handler. How a line is
//! handled:
//!
//! * `task`: work that changes something, in a task of its own, so that a caller who leaves does not break it off.
//! * `wait`: a long poll, given up with its caller.
//! * `read`: as `wait`, and judged when there is something to give. What the policy denies is dropped, so that its
//!   process does not wait for a reader, and looks like the end of the stream, as shims expect it.
//! * `propose`: the policy in force judges another one; the handler gets what it has allowed.
//! * `none`: not offered; still checked first, so that a denied caller learns nothing.

use std::sync::Arc;

use agent_policy::{Denied, PolicyEngine, input};
use async_trait::async_trait;
use protocols::rpc::kata::agent_ttrpc::AgentService;
use protocols::rpc::kata::{agent as pb, csi, types};
use serde_json::Value;
use ttrpc::r#async::TtrpcContext;

use super::{KataAgent, status};
use crate::error::{AgentError, blocking};

/// The service behind its policy.
#[derive(Debug)]
pub(super) struct Gated {
    agent: Arc<KataAgent>,
}

impl Gated {
    pub(super) const fn new(agent: Arc<KataAgent>) -> Self {
        Self { agent }
    }
}

/// A request as a rule sees it.
type Input<R> = fn(&'static str, &R) -> Result<Value, Denied>;

fn json<R: serde::Serialize>(rule: &'static str, request: &R) -> Result<Value, Denied> {
    input::message(rule, request)
}

/// Without the bytes of the file.
fn copy_file(_: &'static str, request: &pb::CopyFileRequest) -> Result<Value, Denied> {
    input::copy_file(request)
}

fn check<R>(policy: &PolicyEngine, rule: &'static str, input: Input<R>, request: &R) -> Result<(), AgentError> {
    Ok(policy.check_with(rule, || input(rule, request))?)
}

/// As [`check`], off the runtime's workers: a policy may look at every mount and variable of a container.
async fn check_apart<R: Send + 'static>(
    policy: Arc<PolicyEngine>,
    rule: &'static str,
    input: Input<R>,
    request: R,
) -> Result<R, AgentError> {
    blocking(move || check(&policy, rule, input, &request).map(|()| request)).await?
}

/// Reads until the policy allows what was read, or there is nothing more. A denied caller learns of no error.
async fn judged_read<F>(
    method: &'static str,
    read: impl Fn() -> F,
    judge: impl Fn() -> Result<(), AgentError>,
) -> Result<pb::ReadStreamResponse, AgentError>
where
    F: Future<Output = Result<pb::ReadStreamResponse, AgentError>>,
{
    loop {
        let answer = read().await;
        let Err(error) = judge() else { return answer };
        if answer.map_or(true, |answer| answer.data.is_empty()) {
            tracing::debug!(method, %error, "a denied read is shown the end of the stream");
            return Ok(pb::ReadStreamResponse::default());
        }
    }
}

macro_rules! gated {
    ($($kind:ident $method:ident($request:ident, $input:expr) -> $response:ty;)*) => {
        /// Every method, with the message whose name its rule has.
        #[cfg(test)]
        const METHODS: &[(&str, &str)] = &[$((stringify!($method), stringify!($request))),*];

        #[async_trait]
        impl AgentService for Gated {
            $(async fn $method(&self, _: &TtrpcContext, request: pb::$request) -> ttrpc::Result<$response> {
                let answer: Result<$response, AgentError> = gated!(@$kind self, $method, $request, $input, request);
                answer.map_err(|error| status::of(stringify!($method), &error))
            })*
        }
    };
    (@task $self:ident, $method:ident, $rule:ident, $input:expr, $request:ident) => {{
        let agent = Arc::clone(&$self.agent);
        let work = tokio::spawn(async move {
            let request = check_apart(Arc::clone(&agent.policy), stringify!($rule), $input, $request).await?;
            agent.$method(request).await
        });
        work.await.unwrap_or_else(|error| Err(error.into()))
    }};
    (@wait $self:ident, $method:ident, $rule:ident, $input:expr, $request:ident) => {
        match check_apart(Arc::clone(&$self.agent.policy), stringify!($rule), $input, $request).await {
            Ok(request) => $self.agent.$method(request).await,
            Err(error) => Err(error),
        }
    };
    (@read $self:ident, $method:ident, $rule:ident, $input:expr, $request:ident) => {
        judged_read(
            stringify!($method),
            || $self.agent.$method(&$request),
            || check(&$self.agent.policy, stringify!($rule), $input, &$request),
        )
        .await
    };
    (@propose $self:ident, $method:ident, $rule:ident, $input:expr, $request:ident) => {{
        let agent = Arc::clone(&$self.agent);
        let work = tokio::spawn(async move {
            let policy = Arc::clone(&agent.policy);
            let proposal = blocking(move || policy.propose(&$request.policy)).await??;
            agent.$method(proposal).await
        });
        work.await.unwrap_or_else(|error| Err(error.into()))
    }};
    (@none $self:ident, $method:ident, $rule:ident, $input:expr, $request:ident) => {
        check_apart(Arc::clone(&$self.agent.policy), stringify!($rule), $input, $request)
            .await
            .and(Err(AgentError::NotOffered { method: stringify!($method) }))
    };
}

gated! {
    task create_container(CreateContainerRequest, json) -> pb::Empty;
    task start_container(StartContainerRequest, json) -> pb::Empty;
    task remove_container(RemoveContainerRequest, json) -> pb::Empty;
    task exec_process(ExecProcessRequest, json) -> pb::Empty;
    task signal_process(SignalProcessRequest, json) -> pb::Empty;
    wait wait_process(WaitProcessRequest, json) -> pb::WaitProcessResponse;
    task update_container(UpdateContainerRequest, json) -> pb::Empty;
    task update_ephemeral_mounts(UpdateEphemeralMountsRequest, json) -> pb::Empty;
    wait stats_container(StatsContainerRequest, json) -> pb::StatsContainerResponse;
    task pause_container(PauseContainerRequest, json) -> pb::Empty;
    task resume_container(ResumeContainerRequest, json) -> pb::Empty;
    wait remove_stale_virtiofs_share_mounts(RemoveStaleVirtiofsShareMountsRequest, json) -> pb::Empty;
    wait write_stdin(WriteStreamRequest, json) -> pb::WriteStreamResponse;
    read read_stdout(ReadStreamRequest, json) -> pb::ReadStreamResponse;
    read read_stderr(ReadStreamRequest, json) -> pb::ReadStreamResponse;
    task close_stdin(CloseStdinRequest, json) -> pb::Empty;
    task tty_win_resize(TtyWinResizeRequest, json) -> pb::Empty;
    task update_interface(UpdateInterfaceRequest, json) -> types::Interface;
    task update_routes(UpdateRoutesRequest, json) -> pb::Routes;
    wait list_interfaces(ListInterfacesRequest, json) -> pb::Interfaces;
    wait list_routes(ListRoutesRequest, json) -> pb::Routes;
    task add_arp_neighbors(AddARPNeighborsRequest, json) -> pb::Empty;
    wait get_ip_tables(GetIPTablesRequest, json) -> pb::GetIPTablesResponse;
    task set_ip_tables(SetIPTablesRequest, json) -> pb::SetIPTablesResponse;
    wait get_metrics(GetMetricsRequest, json) -> pb::Metrics;
    none mem_agent_memcg_set(MemAgentMemcgConfig, json) -> pb::Empty;
    none mem_agent_compact_set(MemAgentCompactConfig, json) -> pb::Empty;
    task create_sandbox(CreateSandboxRequest, json) -> pb::Empty;
    task destroy_sandbox(DestroySandboxRequest, json) -> pb::Empty;
    task online_cpu_mem(OnlineCPUMemRequest, json) -> pb::Empty;
    task reseed_random_dev(ReseedRandomDevRequest, json) -> pb::Empty;
    wait get_guest_details(GuestDetailsRequest, json) -> pb::GuestDetailsResponse;
    task mem_hotplug_by_probe(MemHotplugByProbeRequest, json) -> pb::Empty;
    task set_guest_date_time(SetGuestDateTimeRequest, json) -> pb::Empty;
    task copy_file(CopyFileRequest, copy_file) -> pb::Empty;
    wait get_oom_event(GetOOMEventRequest, json) -> pb::OOMEvent;
    none add_swap(AddSwapRequest, json) -> pb::Empty;
    none add_swap_path(AddSwapPathRequest, json) -> pb::Empty;
    wait get_volume_stats(VolumeStatsRequest, json) -> csi::VolumeStatsResponse;
    none resize_volume(ResizeVolumeRequest, json) -> pb::Empty;
    propose set_policy(SetPolicyRequest, json) -> pb::Empty;
    wait get_diagnostic_data(GetDiagnosticDataRequest, json) -> pb::GetDiagnosticDataResponse;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rpc Name(Request) returns` of the description the service is generated from.
    fn described() -> Vec<(String, String)> {
        let proto = include_str!("../../../protocols/kata/protos/kata/agent.proto");
        let rpc = |line: &str| {
            let (name, rest) = line.trim().strip_prefix("rpc ")?.split_once('(')?;
            Some((name.to_lowercase(), rest.split_once(')')?.0.to_owned()))
        };
        proto.lines().filter_map(rpc).collect()
    }

    #[test]
    fn the_table_has_every_method_of_the_service_under_its_messages_rule() {
        let mut described = described();
        let table = METHODS.iter().map(|(method, rule)| (method.replace('_', ""), (*rule).to_owned()));
        let mut table: Vec<_> = table.collect();
        described.sort();
        table.sort();
        assert_eq!(described.len(), 42);
        assert_eq!(table, described);
    }

    #[test]
    fn a_rule_sees_the_fields_of_its_message() {
        let request = pb::SignalProcessRequest { container_id: "c".to_owned(), signal: 9, ..Default::default() };
        assert_eq!(
            json("SignalProcessRequest", &request).unwrap(),
            serde_json::json!({"container_id": "c", "exec_id": "", "signal": 9})
        );
    }
}
