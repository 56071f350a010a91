//! The sandbox: made once, before everything in it, and ended with everything in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocols::rpc::kata::agent as pb;
use sandbox::storage::{Driver, FsGroup, GroupChange, Mounted, StorageRequest, Storages};
use sandbox::{CopyLimits, Dns, Modules, Namespaces, Shared};

use super::KataAgent;
use super::spec::{GUEST_PULL, MountSources, SandboxView};
use crate::error::{AgentError, blocking};

/// How long a container may take to be gone when its sandbox ends.
const END_TIME: std::time::Duration = std::time::Duration::from_secs(20);
/// Loads kernel modules.
const MODPROBE: &str = "/sbin/modprobe";

/// A made sandbox. Dropped, its namespaces and storages go.
#[derive(Debug)]
pub(super) struct Sandbox {
    pub(super) hostname: String,
    pub(super) shared: Shared,
    pub(super) storages: Storages,
    namespaces: Namespaces,
    /// The storages of the sandbox itself, and of each container.
    held: Mutex<BTreeMap<String, Vec<Mounted>>>,
    /// The pause container, whose PID namespace others may share.
    pause: Mutex<Option<String>>,
    /// Termination logs by container, as paths in the shared directory.
    logs: Mutex<BTreeMap<String, String>>,
    shared_dir: PathBuf,
    _dns: Option<Dns>,
}

/// What the sandbox has come to. Held for moments only, never over work.
#[derive(Debug, Default)]
pub(super) struct State(Mutex<Phase>);

#[derive(Debug, Default)]
enum Phase {
    #[default]
    None,
    Making,
    Ready(Arc<Sandbox>),
    Gone,
}

impl State {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sandbox, for calls that need it.
    pub(super) fn ready(&self) -> Result<Arc<Sandbox>, AgentError> {
        match &*self.phase() {
            Phase::Ready(sandbox) => Ok(Arc::clone(sandbox)),
            Phase::None => Err(AgentError::Order { what: "there is none yet" }),
            Phase::Making => Err(AgentError::Order { what: "it is being made" }),
            Phase::Gone => Err(AgentError::Order { what: "it has ended" }),
        }
    }

    /// Lets one caller make the sandbox.
    fn begin(&self) -> Result<Making<'_>, AgentError> {
        let mut phase = self.phase();
        match &*phase {
            Phase::None => {
                *phase = Phase::Making;
                Ok(Making { state: self, next: Phase::None })
            }
            Phase::Making | Phase::Ready(_) => Err(AgentError::Order { what: "there is one already" }),
            Phase::Gone => Err(AgentError::Order { what: "it has ended; a guest has one" }),
        }
    }

    /// Takes the sandbox for good.
    fn end(&self) -> Result<Arc<Sandbox>, AgentError> {
        let sandbox = self.ready()?;
        *self.phase() = Phase::Gone;
        Ok(sandbox)
    }
}

/// Gives the turn back unless the sandbox was made.
struct Making<'s> {
    state: &'s State,
    next: Phase,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        *self.state.phase() = std::mem::take(&mut self.next);
    }
}

impl Sandbox {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Mounted>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts what a container's request brings, all of it or nothing.
    pub(super) fn mount(&self, storages: &[pb::Storage]) -> Result<Vec<Mounted>, AgentError> {
        mount_all(&self.storages, storages)
    }

    /// Keeps a created container's storages until [`Sandbox::release`].
    pub(super) fn keep(&self, id: &str, mounted: Vec<Mounted>) {
        if !mounted.is_empty() {
            self.held().entry(id.to_owned()).or_default().extend(mounted);
        }
    }

    /// Termination logs by container.
    pub(super) fn logs(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a container and lets its storages go.
    pub(super) fn release(&self, id: &str) {
        self.logs().remove(id);
        let released = self.held().remove(id);
        drop(released); // unmounting takes its time: not under the lock
    }

    /// Remembers the pause container, whose PID namespace the others may share.
    pub(super) fn set_pause(&self, id: &str) {
        *self.pause.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_owned());
    }

    /// The container whose PID namespace others may share.
    pub(super) fn pause(&self) -> Option<String> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where sources of mounts may be at this moment, `mounted` by the same request among them.
    pub(super) fn sources(&self, mounted: &[Mounted]) -> Result<MountSources, AgentError> {
        let io = |source| AgentError::Io { what: "sources of mounts", source };
        let mut sources = MountSources::default();
        sources.share(&self.shared_dir).map_err(io)?;
        for storage in self.held().values().flatten().chain(mounted) {
            sources.storage(storage.mount_point()).map_err(io)?;
        }
        Ok(sources)
    }

    /// The sandbox as a container's request is read against it.
    pub(super) fn view<'v>(
        &'v self,
        sources: &'v MountSources,
        pause: Option<&'v str>,
        config: &'v crate::config::Kata,
    ) -> SandboxView<'v> {
        SandboxView {
            hostname: &self.hostname,
            ipc: self.namespaces.ipc(),
            uts: self.namespaces.uts(),
            pause,
            sources,
            capabilities: &config.capabilities,
            devices: &config.devices,
        }
    }
}

impl KataAgent {
    /// Makes the sandbox: directories, namespaces, storages, resolver. What fails leaves none.
    pub(super) async fn create_sandbox(&self, request: pb::CreateSandboxRequest) -> Result<pb::Empty, AgentError> {
        if !request.guest_hook_path.is_empty() {
            return Err(AgentError::Request { field: "guest_hook_path", what: "hooks are not run here" });
        }
        let mut making = self.sandbox.begin()?;
        let (roots, config) = (self.roots.clone(), self.storage_config.clone());
        let modules = Modules::new(self.config.kernel_modules.clone(), MODPROBE.into());
        let make = move || -> Result<Sandbox, AgentError> {
            roots.recreate()?;
            for module in &request.kernel_modules {
                modules.load(&module.name, &module.parameters)?;
            }
            let namespaces = Namespaces::create(&roots, &request.hostname)?;
            let shared = Shared::open_in(&roots, CopyLimits::default())?;
            let storages = Storages::new(&roots, config)?;
            let mounted = mount_all(&storages, &request.storages)?;
            Ok(Sandbox {
                hostname: request.hostname,
                shared,
                storages,
                namespaces,
                held: Mutex::new([(String::new(), mounted)].into()),
                pause: Mutex::default(),
                logs: Mutex::default(),
                shared_dir: roots.shared(),
                _dns: Dns::set(&roots, &request.dns)?,
            })
        };
        let sandbox = blocking(make).await??;
        tracing::info!(hostname = sandbox.hostname, "the sandbox is made");
        making.next = Phase::Ready(Arc::new(sandbox));
        Ok(pb::Empty::default())
    }

    /// Ends every container and the sandbox; then the agent seals its log and ends.
    pub(super) async fn destroy_sandbox(&self, _: pb::DestroySandboxRequest) -> Result<pb::Empty, AgentError> {
        let sandbox = self.sandbox.end()?;
        let mut ends = tokio::task::JoinSet::new();
        for container in self.agent.containers.all() {
            let agent = Arc::clone(&self.agent);
            ends.spawn(async move {
                let id = container.id.as_str();
                if let Err(error) = agent.remove_container(id, END_TIME).await {
                    tracing::error!(id, %error, "could not be ended with its sandbox");
                }
            });
        }
        while ends.join_next().await.is_some() {}
        blocking(move || drop(sandbox)).await?;
        self.ended.notify_one();
        Ok(pb::Empty::default())
    }

    /// New sizes of tmpfs storages.
    pub(super) async fn update_ephemeral_mounts(
        &self,
        request: pb::UpdateEphemeralMountsRequest,
    ) -> Result<pb::Empty, AgentError> {
        let sandbox = self.sandbox.ready()?;
        let resize = move || -> Result<(), AgentError> {
            let requests = request.storages.iter().map(storage_request).collect::<Result<Vec<_>, _>>()?;
            Ok(sandbox.storages.resize(&requests)?)
        };
        blocking(resize).await??;
        Ok(pb::Empty::default())
    }
}

/// Mounts all that are the sandbox's to mount, or none.
fn mount_all(storages: &Storages, requests: &[pb::Storage]) -> Result<Vec<Mounted>, AgentError> {
    let ours = requests.iter().filter(|storage| storage.driver != GUEST_PULL);
    ours.map(|storage| Ok(storages.add(&storage_request(storage)?)?)).collect()
}

fn storage_request(storage: &pb::Storage) -> Result<StorageRequest, AgentError> {
    let driver: Driver = storage.driver.parse()?;
    let fs_group = storage.fs_group.as_ref().map(|group| FsGroup {
        gid: group.group_id,
        change: match group.group_change_policy.enum_value() {
            Ok(protocols::rpc::kata::types::FSGroupChangePolicy::OnRootMismatch) => GroupChange::OnRootMismatch,
            _ => GroupChange::Always,
        },
    });
    Ok(StorageRequest {
        driver,
        source: storage.source.clone(),
        fstype: storage.fstype.clone(),
        options: storage.options.clone(),
        mount_point: storage.mount_point.clone(),
        fs_group,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(result: Result<impl Sized, AgentError>) -> &'static str {
        match result {
            Err(AgentError::Order { what }) => what,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it fits"),
        }
    }

    #[test]
    fn one_sandbox_is_made_and_a_failed_try_gives_the_turn_back() {
        let state = State::default();
        assert_eq!(order(state.ready()), "there is none yet");
        let making = state.begin().unwrap();
        assert_eq!(order(state.begin()), "there is one already");
        assert_eq!(order(state.ready()), "it is being made");
        drop(making);
        let mut making = state.begin().unwrap();
        making.next = Phase::Gone;
        drop(making);
        assert_eq!(order(state.begin()), "it has ended; a guest has one");
        assert_eq!(order(state.ready()), "it has ended");
    }

    #[test]
    fn a_storage_is_taken_with_its_group() {
        let group = pb::FSGroup { group_id: 7, ..Default::default() };
        let storage = pb::Storage {
            driver: "ephemeral".to_owned(),
            fs_group: protobuf::MessageField::some(group),
            ..Default::default()
        };
        let taken = storage_request(&storage).unwrap();
        assert_eq!((taken.driver, taken.fs_group.unwrap().gid), (Driver::Ephemeral, 7));
        let unknown = pb::Storage { driver: "nfs".to_owned(), ..Default::default() };
        assert!(storage_request(&unknown).is_err());
    }
}
