//! The guests, by the ids of their sandboxes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use guest_vm::{Machine, Running};

use crate::bridge::Bridge;
use crate::config::Config;
use crate::initdata;

/// The longest id, in bytes: a SHA-256 in hexadecimal. It names a folder.
const MAX_ID: usize = 64;
/// How much of the id the folder's name has: sockets' paths are short.
const SHORT: usize = 12;

/// Every guest of this service.
#[derive(Debug)]
pub(crate) struct Pods {
    config: Config,
    pods: Mutex<HashMap<String, Pod>>,
}

#[derive(Debug)]
enum Pod {
    Created {
        machine: Box<Machine>,
        folder: PathBuf,
    },
    /// Somebody is starting it.
    Starting,
    Running {
        _bridge: Bridge,
        running: Running,
        folder: PathBuf,
    },
}

impl Pods {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, pods: Mutex::default() }
    }

    /// Prepares a guest, with the initdata's text where there is one; gives its agent's socket, which is there once the
    /// guest is started.
    pub(crate) fn create(&self, id: &str, initdata: Option<&str>) -> Result<PathBuf> {
        let folder = self.folder(id)?;
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        if pods.contains_key(id) {
            bail!("sandbox {id} has a guest already");
        }
        std::fs::create_dir_all(&self.config.run_dir).context("run_dir")?;
        std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        let disk = initdata.map(|text| {
            let disk = folder.join("initdata");
            initdata::write(text, &disk).context("initdata").map(|()| disk)
        });
        let machine = disk.transpose().and_then(|disk| self.config.machine(&folder, disk));
        let machine = machine.inspect_err(|_| drop(std::fs::remove_dir_all(&folder)))?;
        let socket = folder.join("agent.sock");
        pods.insert(id.to_owned(), Pod::Created { machine: Box::new(machine), folder });
        Ok(socket)
    }

    /// Starts it, and waits until its agent listens.
    pub(crate) async fn start(self: &Arc<Self>, id: &str) -> Result<()> {
        let (machine, folder) = {
            let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
            let pod = pods.get_mut(id).with_context(|| format!("sandbox {id} has no guest"))?;
            match std::mem::replace(pod, Pod::Starting) {
                Pod::Created { machine, folder } => (machine, folder),
                other => {
                    *pod = other;
                    bail!("the guest of sandbox {id} was started before");
                }
            }
        };
        let (at, port, patience) = (folder.clone(), self.config.port, self.config.start_time());
        let started = tokio::task::spawn_blocking(move || {
            let mut running = machine.start(&at)?;
            running.wait_for_port(port, patience)?;
            Ok::<_, guest_vm::VmError>(running)
        });
        let started = started.await.context("the task that starts the guest")?;
        let bridged = started.map_err(anyhow::Error::from).and_then(|running| {
            let bridge = Bridge::start(&folder.join("agent.sock"), &running.vsock(), port).context("agent.sock")?;
            Ok(Pod::Running { _bridge: bridge, running, folder: folder.clone() })
        });
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let failed: Result<()> = match bridged {
            Ok(pod) if pods.contains_key(id) => {
                pods.insert(id.to_owned(), pod);
                return Ok(());
            }
            // It ends here.
            Ok(_) => Err(anyhow::anyhow!("sandbox {id} was stopped")),
            Err(error) => Err(error),
        };
        pods.remove(id);
        tidy(&folder)?;
        failed
    }

    /// Ends it, and everything of it but its console, which is kept as `ID.console`. One that is not there has ended.
    pub(crate) fn stop(&self, id: &str) -> Result<()> {
        let pod = self.pods.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        let folder = match pod {
            Some(Pod::Running { running, folder, .. }) => {
                drop(running);
                folder
            }
            Some(Pod::Created { folder, .. }) => folder,
            Some(Pod::Starting) | None => return Ok(()),
        };
        tidy(&folder)
    }

    fn folder(&self, id: &str) -> Result<PathBuf> {
        let known = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !(1..=MAX_ID).contains(&id.len()) || !id.bytes().all(known) {
            bail!("not a sandbox's id");
        }
        Ok(self.config.run_dir.join(id.get(..SHORT).unwrap_or(id)))
    }
}

/// Removes an ended guest's folder, but for its console.
fn tidy(folder: &Path) -> Result<()> {
    if let Err(error) = std::fs::rename(folder.join("console"), folder.with_extension("console")) {
        tracing::debug!(%error, "no console is kept");
    }
    std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    #[tokio::test]
    async fn a_guest_is_made_once_started_once_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        std::fs::create_dir(&run_dir).unwrap();
        let pods = Arc::new(Pods::new(config(&run_dir, "vsock = \"/no/vsock\"\n").unwrap()));
        let socket = pods.create("pod", Some("text")).unwrap();
        assert_eq!(socket, run_dir.join("pod/agent.sock"));
        assert!(run_dir.join("pod/initdata").is_file());
        assert!(pods.create("pod", None).is_err(), "twice");
        let error = pods.start("pod").await.unwrap_err();
        assert!(error.to_string().starts_with("/no/vsock: "), "{error}");
        assert!(pods.start("pod").await.is_err(), "what failed is gone");
        assert!(pods.start("other").await.is_err());

        pods.create("another", None).unwrap();
        pods.stop("another").unwrap();
        assert!(!run_dir.join("another").exists());
        pods.stop("another").unwrap();
    }

    #[test]
    fn an_id_names_no_folder_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let pods = Pods::new(config(dir.path(), "").unwrap());
        for id in ["", "../x", "a/b", ".", &"a".repeat(65)] {
            assert!(pods.create(id, None).is_err(), "{id}");
        }
    }
}
