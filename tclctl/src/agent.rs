//! The agent's launch service, called over its socket.

use std::time::Duration;

use protocols::reason::{self, Code, Refusal, Source};
use protocols::rpc::launch as rpc;
use protocols::rpc::launch_ttrpc::LauncherClient;
use ttrpc::context::{self, Context};

use crate::outcome::{Failure, one_line};

/// How long anything but a launch may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to the agent.
#[derive(Clone)]
pub(crate) struct Agent {
    client: LauncherClient,
    address: String,
}

impl Agent {
    /// Connects to `unix:///path`.
    pub(crate) async fn connect(address: &str) -> Result<Self, Failure> {
        if !address.starts_with("unix:///") && !address.starts_with("vsock://") {
            return Err(Failure::Usage(format!("--agent {address}: expected unix:///PATH or vsock://CID:PORT")));
        }
        match ttrpc::asynchronous::Client::connect(address).await {
            Ok(client) => Ok(Self { client: LauncherClient::new(client), address: address.to_owned() }),
            Err(error) => Err(unreachable(address, &error.to_string())),
        }
    }

    /// The generated client.
    pub(crate) const fn client(&self) -> &LauncherClient {
        &self.client
    }

    /// What a call's error means to the caller.
    pub(crate) fn failure(&self, error: &ttrpc::Error) -> Failure {
        let ttrpc::Error::RpcStatus(status) = error else { return unreachable(&self.address, &error.to_string()) };
        let message = status.message();
        // The agent puts a stable code before its words.
        let coded = message.split([' ', ':']).find_map(|word| Some((Code::parse(word)?, word)));
        if let Some((code, word)) = coded {
            let rest = message.split_once(word).map_or(message, |(_, rest)| rest).trim_start_matches([' ', ':']);
            return Refusal::new(code, "the agent", code.check(), rest).into();
        }
        Failure::Fault(format!("the agent answers: {message}"))
    }

    /// The event log and its register.
    pub(crate) async fn event_log(&self) -> Result<rpc::EventLogResponse, Failure> {
        self.client.event_log(soon(), &rpc::Empty::new()).await.map_err(|error| self.failure(&error))
    }
}

/// A call that should be answered at once.
pub(crate) fn soon() -> Context {
    context::with_duration(PATIENCE)
}

/// A call that may take as long as the workload.
pub(crate) fn patiently() -> Context {
    Context::default()
}

fn unreachable(address: &str, what: &str) -> Failure {
    let what = what.trim_end_matches('.').to_owned();
    Refusal::new(reason::AGENT_UNAVAILABLE, address, "an answer", what).by(Source::Command).into()
}

/// A refusal as the agent sent it. A code this release does not know keeps its words and counts as refused.
pub(crate) fn refusal(sent: &rpc::Refusal) -> Failure {
    let source = match sent.source.as_str() {
        "attestor" => Source::Attestor,
        "command" => Source::Command,
        _ => Source::Guest,
    };
    let Some(code) = Code::parse(&sent.code) else {
        let (code, actual) = (one_line(&sent.code), one_line(&sent.actual));
        let refusal =
            Refusal::new(reason::ATTESTOR_PROTOCOL, "the agent's answer", "a known reason code", code + " " + &actual);
        return refusal.by(source).into();
    };
    let refusal = Refusal {
        code,
        check: sent.check.clone(),
        subject: sent.subject.clone(),
        expected: sent.expected.clone(),
        actual: sent.actual.clone(),
        remedy: sent.remedy.clone(),
        source,
    };
    refusal.into()
}
