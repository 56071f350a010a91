//! The one launch pipeline, each stage a type that only the stage before it makes:
//!
//! `FetchedManifest` → `VerifiedManifest` → `MeasuredImage` (all three of `image-rs-fork`) → [`AppraisedImage`] →
//! [`LoadedContainer`] → [`MeasuredLaunch`] → [`CreatedContainer`] → [`StartedContainer`].
//!
//! Where another agent of this guest runs containers, an [`AppraisedImage`] is mounted, recorded and handed over instead.
//!
//! The pause container of a pod comes in at [`LoadedContainer`], from the [`PauseBundle`] that the configuration pins.
//!
//! A stage that fails takes down what it and the stages before it have made.

mod admission;
mod appraised;
mod created;
mod decide;
mod loaded;
mod measured;
mod pause;
mod pod;
mod process;
mod provided;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use image_rs_fork::registry::{ImageReference, Registry};
use image_rs_fork::{ImagePolicy, LayerStore, MeasuredImage, fetch, pull};
use protocols::events::{Event, Failed, Image, PullImage, hash_str};
use protocols::image::ProcessRequest;
use protocols::reason::{self, Refusal};
use protocols::tcl::Mode;

pub use appraised::AppraisedImage;
pub(crate) use created::Leftovers;
pub(crate) use created::Reach;
pub use created::{Broken, CreatedContainer, StartedContainer};
use loaded::Pod;
pub use loaded::{ContainerSpec, LoadedContainer, Places};
pub use measured::{Ledger, MeasuredLaunch};
pub use pause::PauseBundle;
pub use pod::{
    CapabilitySets, NumericUser, Opened, POD_FILES, POD_SHM, PidNamespace, Place, PodMount, PodSpec, Resources, Rlimit,
    Source,
};
pub(crate) use pod::{DEFAULT_PATH, DEFAULT_TERM, MAX_PIDS};
pub use process::{Asked, merge};

use crate::attestor::{BrokerKeys, RemoteAttestor};
use crate::clock::Clock;
use crate::config::{Config, Receipts};
use crate::container_id::ContainerId;
use crate::containers::{Container, Containers, Stage};
use crate::error::AgentError;
use crate::journal::Journal;
use crate::runtime::Runtime;
use decide::{Case, Decider};

/// A launch as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchRequest {
    /// The image reference as given.
    pub reference: String,
    /// The container's id; empty: the agent chooses.
    pub id: String,
    /// `local`, `remote`, or empty for the configured default.
    pub mode: String,
    /// The process beyond the image's own.
    pub process: Asked,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its input stays open.
    pub stdin: bool,
    /// Whether its entry stays until it is removed.
    pub keep: bool,
    /// Where root file system and process come from.
    pub source: Source,
    /// Where it runs.
    pub place: Place,
}

/// Everything launches need, shared by all of them.
pub struct Pipeline {
    config: Arc<Config>,
    registry: Arc<dyn Registry>,
    store: Arc<dyn LayerStore>,
    journal: Arc<Journal>,
    attestor: Arc<dyn RemoteAttestor>,
    runtime: Arc<Runtime>,
    containers: Arc<Containers>,
    decider: Decider,
    /// The pause bundle, where one is configured.
    pause: Option<PauseBundle>,
    next_seq: AtomicU64,
    /// Held from the look at what goes on to the entry that adds to it.
    admission: tokio::sync::Mutex<()>,
}

/// What a pipeline is made of.
#[allow(missing_docs, missing_debug_implementations)] // the fields are the pipeline's own
pub struct Parts {
    pub config: Arc<Config>,
    pub registry: Arc<dyn Registry>,
    pub store: Arc<dyn LayerStore>,
    pub journal: Arc<Journal>,
    pub attestor: Arc<dyn RemoteAttestor>,
    pub runtime: Arc<Runtime>,
    pub containers: Arc<Containers>,
    /// The pause bundle of the guest image, where the measured configuration names one.
    pub pause: Option<PauseBundle>,
    /// One more than the highest launch number in the log.
    pub next_seq: u64,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("next_seq", &self.next_seq).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, registry, store, journal, attestor, runtime, containers, pause, next_seq } = parts;
        let decider = Decider {
            config: Arc::clone(&config),
            journal: Arc::clone(&journal),
            attestor: Arc::clone(&attestor),
            clock: Arc::new(Clock::default()),
            order: tokio::sync::Mutex::new(()),
        };
        let next_seq = AtomicU64::new(next_seq);
        let admission = tokio::sync::Mutex::new(());
        Self { config, registry, store, journal, attestor, runtime, containers, decider, pause, next_seq, admission }
    }

    /// Makes the entry of a launch, or refuses it before anything is fetched.
    ///
    /// # Errors
    /// `policy.mode`, `log.poisoned`, `log.sealed`, `log.full`, `log.queue_full`, `runtime.unavailable`, or an id that
    /// cannot be or is taken.
    pub async fn begin(&self, request: &LaunchRequest) -> Result<Arc<Container>, AgentError> {
        self.journal.ready()?;
        self.runtime.digest()?;
        let mode = self.mode(&request.mode)?;
        let id = match request.id.as_str() {
            "" => ContainerId::random()?,
            given => ContainerId::new(given)?,
        };
        let _admission = self.admission.lock().await;
        self.admit(&id, self.receipts(mode)).await?;
        let container =
            self.containers.begin(id, || self.next_seq.fetch_add(1, Ordering::Relaxed), mode, request.keep)?;
        container.set_request(request.clone());
        Ok(container)
    }

    /// Runs the launch of an entry up to a container that waits for its start. When it fails, the log says so as
    /// far as it can, and nothing of the container is left but its refused entry.
    ///
    /// # Errors
    /// The first check or step that failed.
    pub async fn create(
        &self,
        container: &Container,
        request: LaunchRequest,
    ) -> Result<(CreatedContainer, Reach), AgentError> {
        // Only the way to the runtime is broken off: what it has created is ended as any other container.
        let removed = || container.misfit("it was removed while it was launched");
        let image = match request.source {
            Source::Pause => None,
            Source::Image => Some(tokio::select! {
                image = self.measure(container, &request.reference) => image?,
                () = container.removed() => return Err(removed()),
            }),
        };
        let pause = image.is_none();
        // The first record of this launch: from here on its end is recorded too.
        let loaded = tokio::select! {
            loaded = self.load(container, request, image) => loaded,
            () = container.removed() => Err(removed()),
        };
        let created = match loaded {
            Ok(loaded) => self.loaded(container, loaded).await,
            Err(error) => {
                if pause {
                    // Nothing of it is in the log yet, and that another bundle was to run belongs there.
                    let failed = Failed { seq: container.seq, code: error.code() };
                    self.journal.record(failed).await?;
                }
                Err(error)
            }
        };
        match created {
            Ok(created) => Ok(created),
            Err(error) => Err(self.broken(container, error.into()).await),
        }
    }

    /// Lets a created container run. When it fails, the log says so, and nothing of the container is left.
    ///
    /// # Errors
    /// As for [`CreatedContainer::start`].
    pub async fn start(
        &self,
        container: &Container,
        created: CreatedContainer,
    ) -> Result<StartedContainer, AgentError> {
        match created.start(&self.ledger(container.mode)).await {
            Ok(started) => Ok(started),
            Err(broken) => Err(self.broken(container, broken).await),
        }
    }

    /// Records why a launch came to nothing, and gives the reason.
    async fn broken(&self, container: &Container, broken: Broken) -> AgentError {
        let Broken { error, exit } = broken;
        let failed = || Failed { seq: container.seq, code: error.code() }.into();
        let end = exit.map_or_else(failed, |exit| Event::from(*exit));
        self.end(container, end).await;
        error
    }

    /// Records the end of a launch that came to nothing, in the background if it must be tried again: until then
    /// the log holds it open, and no other launch gets its id.
    async fn end(&self, container: &Container, end: Event) {
        let seq = container.seq;
        if let Err(error) = self.journal.try_end(seq, end.clone()).await {
            tracing::error!(id = %container.id, %error, "the end of the launch could not be recorded yet");
            let journal = Arc::clone(&self.journal);
            tokio::spawn(async move {
                if let Err(error) = journal.end(seq, end).await {
                    tracing::error!(seq, %error, "the end of the launch cannot be recorded");
                }
            });
        }
    }

    async fn measure(&self, container: &Container, reference: &str) -> Result<MeasuredImage, AgentError> {
        let reference: ImageReference = reference.parse().map_err(image_rs_fork::ImageError::from)?;
        let registry = self.registry.as_ref();
        let fetched = fetch(&reference, registry).await?;
        let verified =
            fetched.verify(&ImagePolicy::host(self.config.signatures.clone(), self.decider.now()), registry).await?;
        container.enter(Stage::Pull);
        let keys = BrokerKeys::new(self.attestor.as_ref());
        let pulled = pull(verified, registry, self.store.as_ref(), &keys, &self.config.limits, &container.pull);
        let image = match self.config.pull_time {
            Some(time) => tokio::time::timeout(time, pulled)
                .await
                .map_err(|_| AgentError::PullTime { seconds: time.as_secs() })??,
            None => pulled.await?,
        };
        container.set_manifest(image.measurement().manifest);
        Ok(image)
    }

    /// Has an image judged and laid out; without one, the pause bundle.
    async fn load(
        &self,
        container: &Container,
        request: LaunchRequest,
        image: Option<MeasuredImage>,
    ) -> Result<LoadedContainer, AgentError> {
        match image {
            Some(image) => self.appraised(container, request, image).await,
            None => self.pause(container, request).await,
        }
    }

    async fn appraised(
        &self,
        container: &Container,
        mut request: LaunchRequest,
        image: MeasuredImage,
    ) -> Result<LoadedContainer, AgentError> {
        let measured = image.measurement();
        let asked = std::mem::take(&mut request.process);
        let process = match &mut request.place {
            Place::Own => merge(&measured.process, asked),
            Place::Pod(pod) => pod::merge_pod(&measured.process, asked, pod, request.terminal),
        };
        let appraised = self.judged(container, &request.reference, image, process).await?;
        container.enter(Stage::Measure);
        appraised.load(self.spec(container, request)?, self.places()).await
    }

    /// Records the image and has it judged.
    async fn judged(
        &self,
        container: &Container,
        reference: &str,
        image: MeasuredImage,
        process: ProcessRequest,
    ) -> Result<AppraisedImage, AgentError> {
        let (seq, mode) = (container.seq, container.mode);
        let measured = image.measurement();
        let known = Image {
            seq,
            ref_h: hash_str(reference),
            manifest: measured.manifest,
            config: measured.config,
            rootfs: measured.rootfs,
        };
        let pulled = PullImage { digest: measured.manifest, image: reference.to_owned() };
        // `PullImage` names no launch: between the two, another launch of this image would be taken for this one.
        self.journal.record_all([known.into(), pulled.into()]).await?;

        let stage = match mode {
            Mode::Local => Stage::Appraise,
            Mode::Remote => Stage::Golden,
        };
        container.enter(stage);
        let case = Case { container, reference, image, process };
        self.decider.decide(mode, self.registry.as_ref(), case).await
    }

    /// Lays out the pause container: from the pinned bundle, with that bundle's own process.
    async fn pause(&self, container: &Container, request: LaunchRequest) -> Result<LoadedContainer, AgentError> {
        container.enter(Stage::Measure);
        let Some(pause) = self.pause.clone() else {
            let expected = "a pause bundle in the measured configuration";
            return Err(Refusal::new(reason::POLICY_PAUSE, "pause bundle", expected, "none").into());
        };
        pause.load(self.spec(container, request)?, self.places(), self.config.digest).await
    }

    async fn loaded(
        &self,
        container: &Container,
        loaded: LoadedContainer,
    ) -> Result<(CreatedContainer, Reach), AgentError> {
        let ledger = self.ledger(container.mode);
        let launch = loaded.measure(&ledger).await?;
        container.enter(Stage::Create);
        launch.create(&ledger).await
    }

    /// What the container is besides its image and process.
    fn spec(&self, container: &Container, request: LaunchRequest) -> Result<ContainerSpec, AgentError> {
        let pod = match request.place {
            Place::Own => None,
            Place::Pod(spec) => {
                let pid = match &spec.pid {
                    PidNamespace::New => None,
                    PidNamespace::Of(id) => Some(self.containers.get(id)?.pid_namespace()?),
                };
                Some(Pod { spec: *spec, pid })
            }
        };
        let LaunchRequest { terminal, stdin, .. } = request;
        Ok(ContainerSpec { id: container.id.clone(), seq: container.seq, terminal, stdin, pod })
    }

    /// Where what a container of this mode does is written down.
    pub(crate) fn ledger(&self, mode: Mode) -> Ledger<'_> {
        Ledger {
            journal: &self.journal,
            attestor: self.attestor.as_ref(),
            receipts: self.receipts(mode),
            runtime: &self.runtime,
        }
    }

    fn mode(&self, asked: &str) -> Result<Mode, AgentError> {
        let modes = &self.config.modes;
        let mode = match asked {
            "" => Some(modes.default),
            "local" => Some(Mode::Local),
            "remote" => Some(Mode::Remote),
            _ => None,
        };
        mode.filter(|mode| modes.permitted.contains(mode)).ok_or_else(|| AgentError::Mode {
            asked: asked.chars().take(32).collect(),
            permitted: modes.permitted.iter().copied().collect(),
        })
    }

    fn receipts(&self, mode: Mode) -> Receipts {
        match (mode, &self.config.local) {
            (Mode::Local, Some(local)) => local.receipts,
            _ => Receipts::Wait,
        }
    }

    fn places(&self) -> Places {
        Places::beneath(&self.config.state_dir)
    }
}
