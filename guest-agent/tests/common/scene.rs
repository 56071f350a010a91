//! One agent in this process, with what a test wants different.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use guest_agent::agent::Agent;
use guest_agent::app::App;
use guest_agent::config::Config;
use guest_agent::containers::OutputStream;
use guest_agent::error::AgentError;
use guest_agent::launch::LaunchRequest;
use protocols::event_log;
use protocols::events::Event;
use protocols::golden::ProcessPolicy;
use protocols::keys::{KeyKind, SigningKey};

use super::registry::{MemoryRegistry, REFERENCE};
use super::{PATIENCE, World, runc};

/// One agent at a time: every agent reaps the children of its whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// What a test wants different.
#[derive(Default)]
pub(crate) struct Wanted {
    /// The image's script.
    pub(crate) script: &'static str,
    /// Shell lines that run in place of the runtime's command `name`; `"$@"` are the arguments.
    pub(crate) runtime: Option<(&'static str, &'static str)>,
    pub(crate) process: Option<ProcessPolicy>,
    pub(crate) delay: Duration,
    /// The configured layout; empty: none is.
    pub(crate) layout: &'static str,
    /// Edits the configuration, given the world's folder.
    pub(crate) edit: Option<fn(String, &Path) -> String>,
}

/// Runs a test with an agent of its own.
pub(crate) fn with_agent<F: Future<Output = ()>>(wanted: Wanted, test: impl FnOnce(Scene) -> F) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let world = World::new();
        let key = SigningKey::generate(KeyKind::EcdsaP256).unwrap();
        let mut registry = MemoryRegistry::default();
        registry.delay = wanted.delay;
        registry.image(wanted.script);
        registry.sign(&key, 1, wanted.process).await;
        let path = match wanted.runtime {
            Some((command, lines)) => wrapper(&world, command, lines),
            None => runc(),
        };
        world.configure_with(&key.verifying_key(), |text| {
            let text =
                text.replace(&format!("path = \"{}\"", runc().display()), &format!("path = \"{}\"", path.display()));
            let images = format!("[images]\nlayout = \"{}\"\n", wanted.layout);
            let text = if wanted.layout.is_empty() { text } else { text.replace("[images]\n", &images) };
            match wanted.edit {
                Some(edit) => edit(text, &world.path("")),
                None => text,
            }
        });
        let config = Config::read(&world.path("agent.toml")).unwrap();
        let app = App::with_registry(config, Arc::new(registry)).await.unwrap();
        let scene = Scene { agent: Arc::clone(app.agent()), world };
        tokio::time::timeout(PATIENCE * 3, test(scene)).await.expect("in time");
    });
}

/// A runtime that does something else for one command.
fn wrapper(world: &World, command: &str, lines: &str) -> PathBuf {
    let path = world.path("runtime");
    let runc = runc().display().to_string();
    let script = format!("#!/bin/sh\nRUNC={runc}\nif [ \"$7\" = {command} ]; then\n{lines}\nfi\nexec $RUNC \"$@\"\n");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

pub(crate) struct Scene {
    pub(crate) agent: Arc<Agent>,
    pub(crate) world: World,
}

impl Scene {
    pub(crate) fn request(id: &str) -> LaunchRequest {
        LaunchRequest {
            reference: REFERENCE.to_owned(),
            id: id.to_owned(),
            mode: "local".to_owned(),
            keep: true,
            ..Default::default()
        }
    }

    pub(crate) async fn launch(&self, request: LaunchRequest) -> Result<(), AgentError> {
        self.agent.launch(request).await.result
    }

    pub(crate) async fn text(&self, id: &str) -> String {
        let mut text = Vec::new();
        loop {
            let part = self.agent.read(id, OutputStream::Stdout, 1 << 20).await.unwrap();
            if part.is_empty() {
                return String::from_utf8(text).unwrap();
            }
            text.extend(part);
        }
    }

    /// The log's events; it keeps every rule that verifiers hold it to, and its replay is the register.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let export = self.agent.event_log().await.unwrap();
        let records = event_log::parse(&export.log).unwrap();
        verifier::check_log(&records).unwrap().ends_at(&export.register).unwrap();
        records.iter().enumerate().map(|(place, record)| Event::of(record, place).unwrap()).collect()
    }

    pub(crate) async fn operations(&self) -> Vec<&'static str> {
        self.events().await.iter().map(Event::operation).collect()
    }

    /// Waits until the log ends with this event.
    pub(crate) async fn recorded(&self, operation: &str) {
        while self.operations().await.last() != Some(&operation) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Fails unless no container, mount, bundle or entry of `id` is left.
    pub(crate) fn nothing_left(&self, id: &str) {
        for place in ["runtime", "bundles", "rootfs", "mounts"] {
            let left: Vec<_> = std::fs::read_dir(self.world.path("state").join(place))
                .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
                .unwrap_or_default();
            assert!(left.is_empty(), "{left:?}");
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        for place in ["state", "images"] {
            assert!(!mounts.contains(&self.world.path(place).display().to_string()), "{mounts}");
        }
        assert!(self.agent.remove(id).is_err(), "its entry is gone");
    }
}
