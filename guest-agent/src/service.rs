//! The ttrpc service: the policy gate, then one handler per method.
//!
//! [`Gated`] is the only thing that speaks ttrpc, so no handler can be reached around the gate. Work that changes
//! something runs in a task of its own: a caller who disconnects drops the handler's future, not the work.

use std::sync::Arc;

use async_trait::async_trait;
use protobuf::MessageField;
use protocols::image::MountRequest;
use protocols::reason::{self, Class, Code, Refusal, Source};
use protocols::rpc::launch as pb;
use protocols::rpc::launch_ttrpc::Launcher;
use ttrpc::r#async::TtrpcContext;

use crate::agent::{Agent, Outcome};
use crate::containers::{OutputStream, State};
use crate::error::AgentError;
use crate::gate::{Caller, Gate};
use crate::launch::{Asked, LaunchRequest};

/// The service for one kind of caller.
#[derive(Debug)]
pub struct Gated {
    agent: Arc<Agent>,
    gate: Arc<dyn Gate>,
    caller: Caller,
}

impl Gated {
    /// Puts the gate before the agent, for callers of one listener.
    #[must_use]
    pub const fn new(agent: Arc<Agent>, gate: Arc<dyn Gate>, caller: Caller) -> Self {
        Self { agent, gate, caller }
    }

    fn pass(&self, method: &str) -> ttrpc::Result<()> {
        self.gate.allow(self.caller, method).map_err(|refusal| self.status(&refusal))
    }

    fn failed(&self, error: &AgentError) -> ttrpc::Error {
        self.status(&error.refusal())
    }

    /// The whole explanation for the guest's root; for the host the code, which is always the first word.
    fn status(&self, refusal: &Refusal) -> ttrpc::Error {
        let message = match self.caller {
            Caller::Root => format!("{}: {refusal}", refusal.code),
            Caller::Host => refusal.code.to_string(),
        };
        ttrpc::Error::RpcStatus(ttrpc::get_status(rpc_code(refusal.code), message))
    }

    /// A refusal as this caller may see it.
    fn refusal(&self, refusal: Refusal) -> pb::Refusal {
        let shown = |text: String| if self.caller == Caller::Root { text } else { String::new() };
        pb::Refusal {
            code: refusal.code.to_string(),
            check: shown(refusal.check),
            subject: shown(refusal.subject),
            expected: shown(refusal.expected),
            actual: shown(refusal.actual),
            remedy: shown(refusal.remedy),
            source: match refusal.source {
                Source::Guest => "guest",
                Source::Attestor => "attestor",
                Source::Command => "command",
            }
            .to_owned(),
            ..Default::default()
        }
    }

    fn launch_response(&self, outcome: Outcome) -> pb::LaunchResponse {
        let mut response = pb::LaunchResponse {
            manifest: outcome.manifest().map(|digest| digest.to_string()).unwrap_or_default(),
            mode: outcome.mode().map(|mode| mode.to_string()).unwrap_or_default(),
            verdict: "pass".to_owned(),
            simulated: self.agent.journal.log().attester().register().simulated,
            ..Default::default()
        };
        if let Some(container) = outcome.container {
            response.container_id = container.id.to_string();
            response.seq = container.seq;
            response.decision = container.decision().unwrap_or_default().to_owned();
        }
        if let Err(error) = outcome.result {
            response.verdict = error.code().to_string();
            response.refusal = MessageField::some(self.refusal(error.refusal()));
        }
        response
    }

    /// Mounts from a caller: the host may not reach into the guest's own files.
    fn mounts(&self, mounts: Vec<pb::Mount>) -> Result<Vec<MountRequest>, AgentError> {
        let taken = |mount: pb::Mount| {
            if self.caller == Caller::Host && mount.type_ == "bind" {
                let refusal =
                    Refusal::new(reason::POLICY_GATE, "mounts", "no bind mounts for this caller", mount.destination);
                return Err(refusal.into());
            }
            let pb::Mount { destination, type_: kind, source, options, .. } = mount;
            Ok(MountRequest { destination, kind, source, options })
        };
        mounts.into_iter().map(taken).collect()
    }

    fn request(&self, request: pb::LaunchRequest) -> Result<LaunchRequest, AgentError> {
        Ok(LaunchRequest {
            process: Asked {
                mounts: self.mounts(request.mounts)?,
                args: request.args,
                env: request.env,
                user: request.user,
                cwd: request.cwd,
            },
            reference: request.reference,
            id: request.container_id,
            mode: request.mode,
            terminal: request.terminal,
            stdin: request.stdin,
            keep: request.keep,
            ..LaunchRequest::default()
        })
    }

    async fn read(&self, request: pb::ReadRequest, stream: OutputStream) -> ttrpc::Result<pb::ReadResponse> {
        let data = self.agent.read(&request.container_id, stream, request.len).await;
        Ok(pb::ReadResponse { data: data.map_err(|error| self.failed(&error))?, ..Default::default() })
    }

    /// Runs work in a task of its own and waits for it as long as the caller does.
    async fn apart<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, AgentError>> + Send + 'static,
    ) -> ttrpc::Result<T> {
        let done = tokio::spawn(work).await.unwrap_or_else(|error| Err(error.into()));
        done.map_err(|error| self.failed(&error))
    }
}

/// The transport's own code; the reason code is in the message.
fn rpc_code(code: Code) -> ttrpc::Code {
    match code.class() {
        _ if code == reason::POLICY_GATE => ttrpc::Code::PERMISSION_DENIED,
        _ if code == reason::RUNTIME_CONTAINER => ttrpc::Code::FAILED_PRECONDITION,
        Class::Refused => ttrpc::Code::FAILED_PRECONDITION,
        Class::Unavailable => ttrpc::Code::UNAVAILABLE,
        Class::Io | Class::Fault => ttrpc::Code::INTERNAL,
    }
}

#[async_trait]
impl Launcher for Gated {
    async fn launch(&self, _: &TtrpcContext, request: pb::LaunchRequest) -> ttrpc::Result<pb::LaunchResponse> {
        self.pass("Launch")?;
        let outcome = match self.request(request) {
            Ok(request) => self.agent.launch(request).await,
            Err(error) => Outcome { container: None, result: Err(error) },
        };
        Ok(self.launch_response(outcome))
    }

    async fn progress(&self, _: &TtrpcContext, request: pb::ProgressRequest) -> ttrpc::Result<pb::ProgressResponse> {
        self.pass("Progress")?;
        let container = self.agent.containers.get(&request.container_id).map_err(|error| self.failed(&error))?;
        let (bytes_done, bytes_total, layers_done, layers_total) = container.pull.read();
        Ok(pb::ProgressResponse {
            stage: container.state().stage().to_owned(),
            bytes_done,
            bytes_total,
            layers_done,
            layers_total,
            ..Default::default()
        })
    }

    async fn wait(&self, _: &TtrpcContext, request: pb::ContainerRequest) -> ttrpc::Result<pb::WaitResponse> {
        self.pass("Wait")?;
        let status = self.agent.wait(&request.container_id).await.map_err(|error| self.failed(&error))?;
        Ok(pb::WaitResponse { status, ..Default::default() })
    }

    async fn read_stdout(&self, _: &TtrpcContext, request: pb::ReadRequest) -> ttrpc::Result<pb::ReadResponse> {
        self.pass("ReadStdout")?;
        self.read(request, OutputStream::Stdout).await
    }

    async fn read_stderr(&self, _: &TtrpcContext, request: pb::ReadRequest) -> ttrpc::Result<pb::ReadResponse> {
        self.pass("ReadStderr")?;
        self.read(request, OutputStream::Stderr).await
    }

    async fn write_stdin(&self, _: &TtrpcContext, request: pb::WriteRequest) -> ttrpc::Result<pb::WriteResponse> {
        self.pass("WriteStdin")?;
        let written = self.agent.write(&request.container_id, &request.data).await;
        Ok(pb::WriteResponse { len: written.map_err(|error| self.failed(&error))?, ..Default::default() })
    }

    async fn stop(&self, _: &TtrpcContext, request: pb::StopRequest) -> ttrpc::Result<pb::Empty> {
        self.pass("Stop")?;
        let agent = Arc::clone(&self.agent);
        let stop = async move { agent.stop(&request.container_id, request.signal, request.grace_seconds).await };
        self.apart(stop).await.map(|()| pb::Empty::default())
    }

    async fn remove(&self, _: &TtrpcContext, request: pb::ContainerRequest) -> ttrpc::Result<pb::Empty> {
        self.pass("Remove")?;
        self.agent.remove(&request.container_id).map_err(|error| self.failed(&error))?;
        Ok(pb::Empty::default())
    }

    async fn list(&self, _: &TtrpcContext, _: pb::Empty) -> ttrpc::Result<pb::ListResponse> {
        self.pass("List")?;
        let entry = |container: Arc<crate::containers::Container>| {
            let state = container.state();
            pb::Container {
                container_id: container.id.to_string(),
                seq: container.seq,
                manifest: container.manifest().map(|digest| digest.to_string()).unwrap_or_default(),
                state: state.name().to_owned(),
                status: if let State::Ended(status) = state { status } else { 0 },
                mode: container.mode.to_string(),
                ..Default::default()
            }
        };
        let containers = self.agent.containers.all().into_iter().map(entry).collect();
        Ok(pb::ListResponse { containers, ..Default::default() })
    }

    async fn event_log(&self, _: &TtrpcContext, _: pb::Empty) -> ttrpc::Result<pb::EventLogResponse> {
        self.pass("EventLog")?;
        let export = self.agent.event_log().await.map_err(|error| self.failed(&error))?;
        let log = self.agent.journal.log();
        let register = log.attester().register();
        Ok(pb::EventLogResponse {
            log: export.log,
            register: export.register.to_string(),
            kind: register.kind.to_string(),
            mr: register.mr,
            guest: log.guest().map(|guest| guest.to_string()).unwrap_or_default(),
            delivered: self.agent.delivered(),
            simulated: register.simulated,
            environment: self.agent.environment.to_string(),
            ..Default::default()
        })
    }

    async fn evidence(&self, _: &TtrpcContext, request: pb::EvidenceRequest) -> ttrpc::Result<pb::EvidenceResponse> {
        self.pass("Evidence")?;
        let evidence = self.agent.evidence(&request.challenge).await.map_err(|error| self.failed(&error))?;
        let attester = self.agent.journal.log().attester();
        Ok(pb::EvidenceResponse {
            tee: attester.tee().as_str().to_owned(),
            evidence,
            simulated: attester.register().simulated,
            ..Default::default()
        })
    }

    async fn status(&self, _: &TtrpcContext, _: pb::Empty) -> ttrpc::Result<pb::StatusResponse> {
        self.pass("Status")?;
        let log = self.agent.journal.log();
        let attester = log.attester();
        Ok(pb::StatusResponse {
            version: crate::VERSION.to_owned(),
            environment: self.agent.environment.to_string(),
            tee: attester.tee().as_str().to_owned(),
            simulated: attester.register().simulated,
            poisoned: log.is_poisoned(),
            guest: log.guest().map(|guest| guest.to_string()).unwrap_or_default(),
            records: log.count(),
            delivered: self.agent.delivered(),
            ..Default::default()
        })
    }
}
