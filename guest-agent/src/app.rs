//! Builds the agent from its configuration, serves, and drains.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use agent_policy::PolicyEngine;
use anyhow::Context as _;
use attester::{AttesterError, EventLog, InitFacts, Opened};
use image_disk::ImageDisk;
use image_rs_fork::registry::{HttpRegistry, Registry, SparingRegistry};
use kbs_client::Client;
use protocols::digest::Sha256Digest;
use protocols::events::Policy;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use ttrpc::r#async::Server;

use crate::agent::Agent;
use crate::attestor::{AttestorLink, RemoteAttestor};
use crate::cgroup::OomEvents;
use crate::config::Config;
use crate::containers::Containers;
use crate::error::AgentError;
use crate::images::Images;
use crate::initdata::BoundInitdata;
use crate::journal::{Journal, hash_file};
use crate::kata::{self, Ended};
use crate::launch::{Parts, PauseBundle, Pipeline, Places};
use crate::runtime::{Children, Runtime};
use crate::server::Servers;
use crate::{VERSION, courier, image_service, images, restart};

/// How often ended orphans are looked for when a signal came while a command ran.
const REAP_PAUSE: Duration = Duration::from_millis(200);

/// A built agent and its background tasks.
#[derive(Debug)]
pub struct App {
    agent: Arc<Agent>,
    config: Arc<Config>,
    policy: Option<Arc<PolicyEngine>>,
    tasks: Vec<JoinHandle<()>>,
    /// Unmounted when everything that uses it is gone.
    _disk: Option<ImageDisk>,
    /// Held as long as the agent lives.
    _lock: OwnedFd,
}

impl App {
    /// Builds everything: ends what an earlier agent left, opens the log, and says what was found.
    ///
    /// # Errors
    /// Whatever makes it impossible to serve; a poisoned log does not.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let registry = HttpRegistry::new(config.registry.clone()).context("registry")?;
        Self::with_registry(config, Arc::new(SparingRegistry::new(registry))).await
    }

    /// As [`App::build`], with images and golden values from `registry`, which is trusted no more than any other.
    ///
    /// # Errors
    /// As [`App::build`].
    pub async fn with_registry(config: Config, registry: Arc<dyn Registry>) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let state_dir = &config.state_dir;
        crate::paths::private_dir(state_dir).with_context(|| format!("state_dir {}", state_dir.display()))?;
        let lock = crate::paths::lock(state_dir).with_context(|| format!("state_dir {}", state_dir.display()))?;
        let policy = config.kata.as_ref().map(|kata| PolicyEngine::new(&kata.policy)).transpose();
        let policy = policy.map_err(AgentError::from).map_err(coded).context("kata.policy")?.map(Arc::new);
        let children = Arc::new(Children::default());
        Children::adopt().context("child subreaper")?;
        let runtime = Runtime::new(&config.runtime, state_dir, Arc::clone(&children)).context("state_dir")?;
        let runtime = Arc::new(runtime);
        // Two large files are hashed beside all that follows, in an emulated guest a good part of its start.
        let own = tokio::task::spawn_blocking(|| hash_file(Path::new("/proc/self/exe")));
        let early = Arc::clone(&runtime);
        let hashed = tokio::task::spawn_blocking(move || early.digest());
        let places = Places::beneath(state_dir);
        let ended = restart::end_leftovers(&runtime, &places).await.map_err(coded)?;
        // After those who used an earlier one: a disk is made anew.
        let opened = Arc::clone(&config);
        let images = crate::error::blocking(move || images::open(&opened)).await?;
        let Images { store, disk } = images.map_err(coded)?;

        let own = own.await?.context("the agent's own executable")?;
        let (log, opened) = open_log(Arc::clone(&config), own).await?;
        let journal = Arc::new(Journal::new(log));
        let poisoned = matches!(opened, Opened::Poisoned(_));
        match &opened {
            Opened::Poisoned(poison) => {
                tracing::error!(code = "log.poisoned", %poison, "nothing can be launched in this guest any more");
            }
            _ => restart::close_launches(&journal, &ended).await.map_err(coded)?,
        }
        if let Some(policy) = policy.as_ref().filter(|_| journal.ready().is_ok()) {
            journal.record(Policy { old: None, new: policy.digest() }).await.map_err(coded)?;
        }
        let next_seq = if poisoned { 0 } else { journal.rules(verifier::LogState::next_seq).await.map_err(coded)? };
        tracing::info!(version = VERSION, records = journal.log().count(), ?opened, "the event log is open");

        let client = Client::new(config.attestor.clone()).context("attestor")?;
        let (receipt_file, initdata) = (state_dir.join("receipt"), config.initdata.as_ref().map(BoundInitdata::shown));
        let attestor: Arc<dyn RemoteAttestor> =
            Arc::new(AttestorLink::new(client, Arc::clone(&journal), initdata, receipt_file));
        let containers = Arc::new(Containers::default());
        let pipeline = Arc::new(Pipeline::new(Parts {
            registry,
            store,
            config: Arc::clone(&config),
            journal: Arc::clone(&journal),
            attestor: Arc::clone(&attestor),
            runtime: Arc::clone(&runtime),
            containers: Arc::clone(&containers),
            pause: config
                .kata
                .as_ref()
                .map(|kata| PauseBundle { path: kata.pause.bundle.clone(), digest: kata.pause.digest }),
            next_seq,
        }));
        let agent = Arc::new(Agent {
            environment: config.environment,
            journal: Arc::clone(&journal),
            attestor: Arc::clone(&attestor),
            runtime,
            containers,
            pipeline,
            places,
            draining: AtomicBool::new(false),
            oom: OomEvents::default(),
        });
        if let Err(error) = hashed.await? {
            tracing::error!(%error, code = %error.code(), "nothing can be launched before it is there");
        }
        let mut tasks = vec![tokio::spawn(reap(children))];
        if !poisoned {
            tasks.push(tokio::spawn(courier::carry(attestor, journal.watch())));
        }
        Ok(Self { agent, config, policy, tasks, _disk: disk, _lock: lock })
    }

    /// The agent itself; whoever serves it puts a gate before it.
    #[must_use]
    pub const fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    fn kata(&self) -> std::io::Result<(Option<Server>, Ended)> {
        let (Some(config), Some(policy)) = (&self.config.kata, &self.policy) else { return Ok((None, Ended::never())) };
        let (server, ended) = kata::server(config.clone(), Arc::clone(&self.agent), Arc::clone(policy))?;
        Ok((Some(server), ended))
    }

    /// Serves until SIGTERM, SIGINT or the end of the sandbox, then drains.
    ///
    /// # Errors
    /// A listener cannot be made.
    pub async fn serve(self) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (kata, ended) = self.kata().context("kata.listen")?;
        let images = self.config.image_service.as_ref();
        let images = images.map(|settings| image_service::server(settings, Arc::clone(&self.agent))).transpose();
        let (images, given) = images.context("image_service.socket")?.unzip();
        let others = kata.into_iter().chain(images);
        let mut servers = Servers::start(&self.config.listen, &self.agent, others).await.context("listen")?;
        if let Err(error) = sys::code::let_go() {
            tracing::debug!(%error, "code of the start stays mapped");
        }
        tracing::info!(socket = %self.config.listen.unix.display(), "serving");
        if let Some(config) = &self.config.kata {
            tracing::info!(address = %config.listen, "serving the Kata agent protocol");
        }
        let mut reason = "shutdown";
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = ended.wait() => reason = "destroy_sandbox",
        }
        servers.stop_listening().await;
        if let Some(given) = given {
            given.take_back().await;
        }
        self.agent.drain(reason).await;
        servers.shut_down().await;
        for task in self.tasks {
            task.abort();
        }
        Ok(())
    }
}

async fn open_log(config: Arc<Config>, own: Sha256Digest) -> anyhow::Result<(EventLog, Opened)> {
    let open = move || -> anyhow::Result<_> {
        let attester = attester::open(&config.attester, config.environment, &config.state_dir)
            .map_err(AgentError::from)
            .map_err(coded)?;
        let initdata = config.initdata.as_ref().map(BoundInitdata::digest);
        // The attestor would take the guest for one in which that initdata is in force.
        if let Some(bound) = attester.initdata_bound().filter(|bound| initdata != Some(*bound)) {
            let actual = initdata.map_or_else(|| "none".to_owned(), |digest| digest.to_string());
            let error = AttesterError::Initdata { expected: bound.to_string(), actual };
            return Err(coded(error.into()));
        }
        let facts = InitFacts {
            agent: VERSION.to_owned(),
            agent_h: own,
            initdata,
            config: config.digest,
            environment: config.environment,
        };
        EventLog::open(&config.state_dir, attester, &facts).map_err(AgentError::from).map_err(coded)
    };
    crate::error::blocking(open).await?
}

/// Puts the stable code before the words of an error that keeps the agent from starting.
pub(crate) fn coded(error: AgentError) -> anyhow::Error {
    let code = error.code();
    anyhow::Error::new(error).context(code.to_string())
}

/// Reaps orphans whenever a child has ended.
async fn reap(children: Arc<Children>) {
    let Ok(mut child) = signal(SignalKind::child()) else { return };
    while child.recv().await.is_some() {
        while !children.reap_orphans() {
            tokio::time::sleep(REAP_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_production_agent_with_layers_on_a_disk_does_not_start() {
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        let disk = tempfile::tempdir_in("/var/tmp").unwrap();
        for (state, images) in [(memory.path(), disk.path()), (disk.path(), memory.path())] {
            let mut config = Config::parse(crate::config::tests::production().as_bytes()).unwrap();
            (config.state_dir, config.image_dir) = (state.join("state"), images.join("images"));
            let error = App::build(config).await.unwrap_err();
            assert_eq!(error.to_string(), "store.unenforced", "{error:#}");
            assert!(!state.join("state/log").exists(), "refused before anything was measured");
        }
    }
}
