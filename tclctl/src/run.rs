//! `tclctl run`: one launch, its streams, its signals and its exit status.

use std::path::Path;

use protocols::rpc::launch as rpc;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::agent::{self, Agent, patiently, soon};
use crate::cli::{ModeArgument, RunArguments};
use crate::outcome::{Ending, Failure};
use crate::output::Output;
use crate::progress::Progress;
use crate::streams::{self, Stream};
use crate::terminal::Raw;

/// Launches, stays until the end, and writes the status file whatever happened.
pub(crate) async fn run(arguments: RunArguments, output: &Output) -> Result<Ending, Failure> {
    let status_file = arguments.status_file.clone();
    let mut about = json!({});
    let ending = launch(arguments, output, &mut about).await;
    if let Some(path) = status_file {
        write_status(&path, &ending, &mut about)?;
    }
    ending
}

async fn launch(arguments: RunArguments, output: &Output, about: &mut serde_json::Value) -> Result<Ending, Failure> {
    let request = request(&arguments)?;
    let container = request.container_id.clone();
    *about = json!({"container_id": container, "reference": arguments.reference});
    let agent = Agent::connect(&arguments.agent.agent).await?;
    let signals = forward_signals(&agent, &container)?;
    let progress = Progress::follow(&agent, &container);
    let launched = agent.client().launch(patiently(), &request).await;
    drop(progress);
    let launched = launched.map_err(|error| agent.failure(&error))?;
    if let Some(members) = about.as_object_mut() {
        members.extend([
            ("seq".to_owned(), json!(launched.seq)),
            ("manifest".to_owned(), json!(launched.manifest)),
            ("mode".to_owned(), json!(launched.mode)),
            ("simulated".to_owned(), json!(launched.simulated)),
        ]);
    }
    if let Some(sent) = launched.refusal.as_ref() {
        return Err(agent::refusal(sent).decided(&launched.decision));
    }
    if launched.simulated {
        output.note(&format!("SIMULATED: {container} was measured by a simulated platform ({} mode)", launched.mode));
    }
    let raw = if arguments.tty { Raw::enter() } else { None };
    let status = attend(&agent, &container, arguments.interactive).await;
    drop(raw);
    signals.abort();
    // The record was kept so that the last output could be read; nobody needs it now.
    let _ = agent.client().remove(soon(), &named(&container)).await;
    Ok(Ending::Workload(status?))
}

/// Carries the streams and waits for the end.
async fn attend(agent: &Agent, container: &str, interactive: bool) -> Result<u8, Failure> {
    let stdin = interactive.then(|| tokio::spawn(streams::feed(agent.clone(), container.to_owned())));
    let stdout = tokio::spawn(streams::carry(agent.clone(), container.to_owned(), Stream::Stdout));
    let stderr = tokio::spawn(streams::carry(agent.clone(), container.to_owned(), Stream::Stderr));
    let ended = agent.client().wait(patiently(), &named(container)).await.map_err(|error| agent.failure(&error));
    for stream in [stdout, stderr] {
        if ended.is_err() {
            stream.abort();
        } else {
            stream.await.map_err(|error| Failure::Fault(error.to_string()))??;
        }
    }
    if let Some(stdin) = stdin {
        stdin.abort();
    }
    Ok(u8::try_from(ended?.status).unwrap_or(u8::MAX))
}

fn named(container: &str) -> rpc::ContainerRequest {
    rpc::ContainerRequest { container_id: container.to_owned(), ..Default::default() }
}

/// Passes SIGINT, SIGTERM and SIGHUP on to the workload, or to a launch that is still under way.
fn forward_signals(agent: &Agent, container: &str) -> Result<JoinHandle<()>, Failure> {
    let catch = |kind| signal(kind).map_err(|error| Failure::Fault(format!("signals: {error}")));
    let mut interrupt = catch(SignalKind::interrupt())?;
    let mut terminate = catch(SignalKind::terminate())?;
    let mut hangup = catch(SignalKind::hangup())?;
    let (agent, container) = (agent.clone(), container.to_owned());
    Ok(tokio::spawn(async move {
        loop {
            let number = tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                _ = hangup.recv() => SignalKind::hangup(),
            };
            let request = rpc::StopRequest {
                container_id: container.clone(),
                signal: u32::try_from(number.as_raw_value()).unwrap_or_default(),
                ..Default::default()
            };
            let _ = agent.client().stop(soon(), &request).await;
        }
    }))
}

fn request(arguments: &RunArguments) -> Result<rpc::LaunchRequest, Failure> {
    for entry in &arguments.env {
        if entry.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
            return Err(Failure::Usage(format!("--env {entry}: expected NAME=VALUE")));
        }
    }
    let container_id = match &arguments.name {
        Some(name) => name.clone(),
        None => {
            let mut random = [0u8; 6];
            getrandom::fill(&mut random).map_err(|error| Failure::Fault(format!("no randomness: {error}")))?;
            format!("tcl-{}", hex::encode(random))
        }
    };
    Ok(rpc::LaunchRequest {
        reference: arguments.reference.clone(),
        container_id,
        mode: match arguments.mode {
            Some(ModeArgument::Local) => "local".to_owned(),
            Some(ModeArgument::Remote) => "remote".to_owned(),
            None => String::new(),
        },
        args: arguments.command.clone(),
        env: arguments.env.clone(),
        user: arguments.user.clone().unwrap_or_default(),
        cwd: arguments.workdir.clone().unwrap_or_default(),
        mounts: arguments.mount.iter().map(|text| mount(text)).collect::<Result<_, _>>()?,
        terminal: arguments.tty,
        stdin: arguments.interactive,
        keep: true,
        ..Default::default()
    })
}

/// Reads `type=bind,source=/a,destination=/b,readonly`.
fn mount(text: &str) -> Result<rpc::Mount, Failure> {
    let mut mount = rpc::Mount { type_: "bind".to_owned(), ..Default::default() };
    let mut readonly = false;
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("type", kind)) => kind.clone_into(&mut mount.type_),
            Some(("source" | "src", source)) => source.clone_into(&mut mount.source),
            Some(("destination" | "dst" | "target", destination)) => destination.clone_into(&mut mount.destination),
            None if part == "readonly" || part == "ro" => readonly = true,
            _ => mount.options.push(part.to_owned()),
        }
    }
    if !mount.destination.starts_with('/') {
        return Err(Failure::Usage(format!("--mount {text}: destination=/PATH is missing")));
    }
    match mount.type_.as_str() {
        "bind" if !mount.source.starts_with('/') => {
            return Err(Failure::Usage(format!("--mount {text}: source=/PATH is missing")));
        }
        "bind" => mount.options.insert(0, "rbind".to_owned()),
        "tmpfs" if mount.source.is_empty() => "tmpfs".clone_into(&mut mount.source),
        _ => {}
    }
    mount.options.push(if readonly { "ro" } else { "rw" }.to_owned());
    Ok(mount)
}

/// `{"producer": "workload" | "refused" | …, "status": N, …}`, replacing the file in one step.
fn write_status(path: &Path, ending: &Result<Ending, Failure>, about: &mut serde_json::Value) -> Result<(), Failure> {
    let told = match ending {
        Ok(Ending::Workload(status)) => json!({"producer": "workload", "status": status}),
        Ok(Ending::Done) => json!({"producer": "workload", "status": 0}),
        Err(failure) => failure.json(),
    };
    if let (Some(members), Some(more)) = (about.as_object_mut(), told.as_object()) {
        members.extend(more.clone());
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| Failure::file(path, error))?;
    std::io::Write::write_all(&mut file, format!("{about}\n").as_bytes())
        .map_err(|error| Failure::file(path, error))?;
    file.persist(path).map_err(|error| Failure::file(path, error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_mount_needs_both_ends() {
        let told = mount("type=bind,source=/a,destination=/b,readonly,nosuid").unwrap();
        assert_eq!((told.source.as_str(), told.destination.as_str()), ("/a", "/b"));
        assert_eq!(told.options, ["rbind", "nosuid", "ro"]);
        for wrong in ["source=/a", "destination=/b", "source=a,destination=/b", ""] {
            assert_eq!(mount(wrong).unwrap_err().status(), 64, "{wrong}");
        }
        assert_eq!(mount("type=tmpfs,destination=/t").unwrap().source, "tmpfs");
    }

    #[test]
    fn the_status_file_tells_a_workloads_77_from_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status");
        write_status(&path, &Ok(Ending::Workload(77)), &mut json!({"container_id": "c"})).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(told, json!({"container_id": "c", "producer": "workload", "status": 77}));
        let refusal = protocols::reason::Refusal::new(protocols::reason::GOLDEN_MISSING, "s", "e", "a");
        write_status(&path, &Err(refusal.into()), &mut json!({})).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((&told["producer"], &told["status"]), (&json!("refused"), &json!(77)));
        assert_eq!(told["refusal"]["code"], "golden.missing");
    }
}
