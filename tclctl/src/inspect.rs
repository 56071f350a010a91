//! `list`, `stop`, `status` and `evidence`.

use protocols::rpc::launch as rpc;
use serde_json::{Value, json};

use crate::agent::{Agent, soon};
use crate::cli::{AgentArguments, EvidenceArguments, StopArguments};
use crate::outcome::Failure;
use crate::output::{Output, columns};

/// One line per container.
pub(crate) async fn list(arguments: &AgentArguments, output: &Output) -> Result<(), Failure> {
    let agent = Agent::connect(&arguments.agent).await?;
    let listed = agent.client().list(soon(), &rpc::Empty::new()).await.map_err(|error| agent.failure(&error))?;
    let value = || {
        let container = |c: &rpc::Container| {
            json!({"container_id": c.container_id, "seq": c.seq, "manifest": c.manifest, "state": c.state,
                   "status": c.status, "mode": c.mode})
        };
        Value::Array(listed.containers.iter().map(container).collect())
    };
    let lines = || {
        let mut rows = vec![["CONTAINER", "SEQ", "STATE", "STATUS", "MODE", "MANIFEST"].map(str::to_owned).to_vec()];
        for c in &listed.containers {
            let status = if c.state == "ended" { c.status.to_string() } else { String::new() };
            rows.push(vec![
                c.container_id.clone(),
                c.seq.to_string(),
                c.state.clone(),
                status,
                c.mode.clone(),
                c.manifest.clone(),
            ]);
        }
        columns(&rows)
    };
    output.tell(value, lines)
}

/// Stops a container.
pub(crate) async fn stop(arguments: &StopArguments) -> Result<(), Failure> {
    let agent = Agent::connect(&arguments.agent.agent).await?;
    let request = rpc::StopRequest {
        container_id: arguments.id.clone(),
        signal: arguments.signal,
        grace_seconds: arguments.grace,
        ..Default::default()
    };
    // The answer comes after the grace period.
    let patience = std::time::Duration::from_secs(30 + u64::from(arguments.grace));
    let context = ttrpc::context::with_duration(patience);
    agent.client().stop(context, &request).await.map_err(|error| agent.failure(&error))?;
    Ok(())
}

/// What the agent says about itself.
pub(crate) async fn status(arguments: &AgentArguments, output: &Output) -> Result<(), Failure> {
    let agent = Agent::connect(&arguments.agent).await?;
    let now = agent.client().status(soon(), &rpc::Empty::new()).await.map_err(|error| agent.failure(&error))?;
    let value = || {
        json!({"version": now.version, "environment": now.environment, "tee": now.tee, "simulated": now.simulated,
               "poisoned": now.poisoned, "guest": now.guest, "records": now.records, "delivered": now.delivered})
    };
    let lines = || {
        let stamp = if now.simulated { " (SIMULATED)" } else { "" };
        let row = |name: &str, value: String| vec![name.to_owned(), value];
        let mut lines = columns(&[
            row("agent", format!("{}, {}", now.version, now.environment)),
            row("platform", format!("{}{stamp}", now.tee)),
            row("guest", now.guest.clone()),
            row("log", format!("{} records, {} with the attestor's receipt", now.records, now.delivered)),
        ]);
        if now.poisoned {
            lines.push(
                "POISONED: log and register disagree; nothing is launched until the guest is replaced".to_owned(),
            );
        }
        lines
    };
    output.tell(value, lines)
}

/// A challenge that evidence may be asked over.
pub(crate) fn challenge(text: &str) -> Result<Vec<u8>, Failure> {
    let bytes = hex::decode(text).ok().filter(|bytes| (16..=64).contains(&bytes.len()));
    bytes.ok_or_else(|| Failure::Usage("--challenge: expected 16 to 64 bytes in hex".to_owned()))
}

/// Evidence over a challenge.
pub(crate) async fn evidence(arguments: &EvidenceArguments, output: &Output) -> Result<(), Failure> {
    let challenge = challenge(arguments.challenge.as_deref().unwrap_or_default())?;
    let agent = Agent::connect(&arguments.agent.agent).await?;
    let request = rpc::EvidenceRequest { challenge, ..Default::default() };
    let told = agent.client().evidence(soon(), &request).await.map_err(|error| agent.failure(&error))?;
    let evidence: Value = serde_json::from_str(&told.evidence)
        .map_err(|error| Failure::Fault(format!("the agent's evidence is not JSON: {error}")))?;
    let value = json!({"tee": told.tee, "evidence": evidence, "simulated": told.simulated});
    output.tell(|| value.clone(), || vec![value.to_string()])
}
