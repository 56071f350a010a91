//! What a killed agent left behind is ended before anything is served.
//!
//! Containers under this agent's runtime directory are killed and deleted, mounts and bundles removed, and every
//! launch that the log holds open is closed in it.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocols::events::{Event, Exit, ExitReason, Failed, hash_str};
use protocols::reason;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::container_id::ContainerId;
use crate::error::AgentError;
use crate::journal::Journal;
use crate::launch::Places;
use crate::runtime::Runtime;

/// How long a killed command may take to be gone.
const KILL_TIME: Duration = Duration::from_secs(5);

/// Ends the containers of an earlier life and gives their ids.
///
/// # Errors
/// [`AgentError`] when something cannot be ended: the agent must not serve beside it.
pub(crate) async fn end_leftovers(runtime: &Runtime, places: &Places) -> Result<BTreeSet<ContainerId>, AgentError> {
    let io = |source: std::io::Error| AgentError::Io { what: "leftovers of an earlier agent", source };
    // A runtime command that still works could make a container after the others were deleted.
    kill_commands(runtime.root()).await.map_err(io)?;
    let ids = ids_in(runtime.root()).map_err(io)?;
    for id in &ids {
        tracing::info!(%id, "ending a container of an earlier agent");
        runtime.delete(id).await?;
    }
    let rootfs = places.rootfs.clone();
    for id in ids_in(&rootfs).map_err(io)? {
        let dir = rootfs.join(id.as_str());
        crate::error::blocking(move || image_rs_fork::remove_rootfs(&dir)).await??;
    }
    for id in ids_in(&places.mounts).map_err(io)? {
        crate::bundle::binds::remove(&places.mounts.join(id.as_str())).map_err(io)?;
    }
    for id in ids_in(&places.bundles).map_err(io)? {
        std::fs::remove_dir_all(places.bundles.join(id.as_str())).map_err(io)?;
    }
    Ok(ids)
}

/// Closes every launch that the log holds open: `Exit` where there was a container, `Failed` where there was none.
///
/// # Errors
/// [`AgentError::Attester`] when it cannot be recorded.
pub(crate) async fn close_launches(journal: &Arc<Journal>, ended: &BTreeSet<ContainerId>) -> Result<(), AgentError> {
    let mut unknown: BTreeSet<_> = ended.iter().map(|id| hash_str(id.as_str())).collect();
    let open = journal
        .rules(|state| {
            let entry = |(seq, launch): (&u64, &verifier::log::OpenLaunch)| {
                (*seq, launch.container.as_ref().map(|container| container.cid_h))
            };
            state.open().iter().map(entry).collect::<Vec<_>>()
        })
        .await?;
    for (seq, cid_h) in open {
        let event: Event = match cid_h {
            Some(cid_h) => {
                unknown.remove(&cid_h);
                Exit { seq: Some(seq), cid_h, status: None, reason: ExitReason::AgentRestart }.into()
            }
            None => Failed { seq, code: reason::RUNTIME_INTERRUPTED }.into(),
        };
        journal.record(event).await?;
    }
    for cid_h in unknown {
        journal.record(Exit { seq: None, cid_h, status: None, reason: ExitReason::AgentRestart }).await?;
    }
    Ok(())
}

/// The entries of a directory that are container ids; none when there is no directory.
fn ids_in(dir: &Path) -> std::io::Result<BTreeSet<ContainerId>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other?,
    };
    let mut ids = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        ids.extend(name.to_str().and_then(|name| ContainerId::new(name).ok()));
    }
    Ok(ids)
}

/// Kills the runtime commands of an earlier agent: processes with `--root <root>` in their arguments.
async fn kill_commands(root: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid.filter(|pid| *pid != rustix::process::getpid() && is_command(*pid, root)) else { continue };
        let Ok(fd) = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) else { continue };
        // The id may have changed hands before the descriptor was opened.
        if !is_command(pid, root) {
            continue;
        }
        let _ = rustix::process::pidfd_send_signal(&fd, Signal::KILL); // it may be gone already
        let fd = crate::io::watch(fd, tokio::io::Interest::READABLE)?;
        let gone = tokio::time::timeout(KILL_TIME, fd.readable()).await;
        gone.map_err(|_| std::io::Error::other("a runtime command does not end"))??.retain_ready();
    }
    Ok(())
}

fn is_command(pid: Pid, root: &Path) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())) else { return false };
    let root = root.as_os_str().as_encoded_bytes();
    let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
    words.windows(2).any(|pair| matches!(pair, [b"--root", given] if *given == root))
}
