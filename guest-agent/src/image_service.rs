//! CoCo's `api.ImagePullService`, for a stock Kata agent that runs the containers of this guest.
//!
//! The image takes the way of every launch up to its verdict; then it is recorded as handed over and appears as
//! `rootfs` in the bundle that was named. What the other agent runs from it, and with which arguments, is not known
//! here: the log says which images were given away and nothing beyond.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use image_rs_fork::MountedRootfs;
use protocols::rpc::cdh::{ImagePullRequest, ImagePullResponse};
use protocols::rpc::cdh_ttrpc::{ImagePullService, create_image_pull_service};
use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, statat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use tokio::sync::Mutex as AsyncMutex;
use ttrpc::r#async::transport::Listener;
use ttrpc::r#async::{Server, TtrpcContext};

use crate::agent::Agent;
use crate::config::ImageService as Settings;
use crate::container_id::ContainerId;
use crate::error::{AgentError, blocking};
use crate::{kata, server};

/// The most root file systems that are given away at one time.
const MAX_PROVIDED: usize = 256;
/// How often it is looked whether the other agent has unmounted one.
const RELEASE_PAUSE: Duration = Duration::from_secs(5);
const ROOTFS: &str = "rootfs";

/// A server at the configured socket, and what it gives away.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn server(settings: &Settings, agent: Arc<Agent>) -> std::io::Result<(Server, Given)> {
    let listener = Listener::new(server::roots(server::root_socket(&settings.socket)?));
    let bundles = settings.bundles.clone();
    let images = Arc::new(Images { agent, bundles, provided: Mutex::default(), closed: AtomicBool::new(false) });
    let weak = Arc::downgrade(&images);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(RELEASE_PAUSE).await;
            let Some(images) = weak.upgrade() else { return };
            images.release().await;
        }
    });
    let service = create_image_pull_service(Arc::new(Service(Arc::clone(&images))));
    Ok((Server::new().add_listener(listener).register_service(service), Given(images)))
}

/// The root file systems that were given away.
#[derive(Debug)]
pub(crate) struct Given(Arc<Images>);

impl Given {
    /// Takes all of them back and gives no more.
    pub(crate) async fn take_back(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        let given = std::mem::take(&mut *self.0.provided.lock().unwrap_or_else(PoisonError::into_inner));
        for entry in given.into_values() {
            // One that is still being pulled finds the service closed.
            if let Ok(mut entry) = entry.try_lock()
                && let Some(provided) = entry.take()
            {
                let _ = blocking(move || drop(provided)).await; // dropping cannot fail
            }
        }
    }
}

/// One bundle's root file system, locked while it is pulled.
type Entry = Arc<AsyncMutex<Option<Provided>>>;

#[derive(Debug)]
struct Images {
    agent: Arc<Agent>,
    bundles: PathBuf,
    provided: Mutex<BTreeMap<ContainerId, Entry>>,
    closed: AtomicBool,
}

/// A root file system that was handed over. Dropping it blocks.
#[derive(Debug)]
struct Provided {
    reference: String,
    /// In the bundle.
    target: PathBuf,
    /// By its device the mount is known again.
    device: u64,
    /// Unmounted and removed when this is dropped.
    _rootfs: MountedRootfs,
}

impl Provided {
    /// Whether the other agent still has it mounted.
    fn in_use(&self) -> bool {
        rustix::fs::lstat(&self.target).is_ok_and(|stat| stat.st_dev == self.device)
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        // What is written into it goes with this agent: nobody may go on with half of it.
        if self.in_use()
            && let Err(error) = unmount(&self.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        {
            tracing::error!(target = %self.target.display(), %error, "a root file system stays mounted");
        }
    }
}

impl Images {
    /// The container whose bundle `path` is.
    fn container(&self, path: &str) -> Result<ContainerId, AgentError> {
        let refused = AgentError::Request { field: "bundle_path", what: "is no container's bundle" };
        let Ok(rest) = Path::new(path).strip_prefix(&self.bundles) else { return Err(refused) };
        match rest.to_str().map(ContainerId::new) {
            Some(Ok(id)) => Ok(id),
            _ => Err(refused),
        }
    }

    fn entry(&self, id: &ContainerId) -> Result<Entry, AgentError> {
        let mut provided = self.provided.lock().unwrap_or_else(PoisonError::into_inner);
        if provided.len() >= MAX_PROVIDED && !provided.contains_key(id) {
            return Err(AgentError::Container { id: id.to_string(), what: "too many images are given away" });
        }
        Ok(Arc::clone(provided.entry(id.clone()).or_default()))
    }

    /// Gives an image to a bundle. Whoever asks for the same again waits for it, and finds it there.
    async fn provide(&self, request: &ImagePullRequest) -> Result<(), AgentError> {
        let id = self.container(&request.bundle_path)?;
        let entry = self.entry(&id)?;
        let mut entry = entry.lock().await;
        match entry.take_if(|provided| !provided.in_use()) {
            Some(unmounted) => blocking(move || drop(unmounted)).await?,
            None => match entry.as_ref() {
                Some(provided) if provided.reference == request.image_url => return Ok(()),
                Some(_) => return Err(AgentError::Container { id: id.to_string(), what: "it has another image" }),
                None => {}
            },
        }
        let rootfs = self.agent.provide(id.as_str(), &request.image_url).await?;
        let (bundles, reference) = (self.bundles.clone(), request.image_url.clone());
        if self.closed.load(Ordering::Relaxed) {
            blocking(move || drop(rootfs)).await?;
            return Err(AgentError::Draining);
        }
        *entry = Some(blocking(move || show(rootfs, reference, &bundles, &id)).await??);
        Ok(())
    }

    /// Takes down what the other agent has unmounted.
    async fn release(&self) {
        let ended = {
            let mut provided = self.provided.lock().unwrap_or_else(PoisonError::into_inner);
            // One that is locked is being pulled.
            let gone = |entry: &Entry| entry.try_lock().is_ok_and(|e| e.as_ref().is_none_or(|p| !p.in_use()));
            // With a second holder somebody is about to lock it.
            provided.extract_if(.., |_, entry| Arc::strong_count(entry) == 1 && gone(entry)).collect::<Vec<_>>()
        };
        if !ended.is_empty() {
            let _ = blocking(move || drop(ended)).await; // dropping cannot fail
        }
    }
}

/// Mounts a root file system in its bundle, never by way of a link.
fn show(rootfs: MountedRootfs, reference: String, bundles: &Path, id: &ContainerId) -> Result<Provided, AgentError> {
    let lost = |error: Errno| AgentError::Bundle { what: format!("{} of {id}: {error}", bundles.display()) };
    let beneath = |parent: &OwnedFd, name: &str| {
        match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        openat(parent, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    std::fs::create_dir_all(bundles).map_err(|error| AgentError::Bundle { what: error.to_string() })?;
    let parent = rustix::fs::open(bundles, flags, Mode::empty()).map_err(lost)?;
    let bundle = beneath(&parent, id.as_str()).map_err(lost)?;
    let target = beneath(&bundle, ROOTFS).map_err(lost)?;
    let parent_device = statat(&bundle, "", AtFlags::EMPTY_PATH).map_err(lost)?.st_dev;
    if statat(&target, "", AtFlags::EMPTY_PATH).map_err(lost)?.st_dev != parent_device {
        return Err(AgentError::Container { id: id.to_string(), what: "its bundle has a root file system mounted" });
    }
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let device = rustix::fs::stat(rootfs.path()).map_err(lost)?.st_dev;
    let tree = open_tree(rustix::fs::CWD, rootfs.path(), flags).map_err(lost)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &target, "", flags).map_err(lost)?;
    Ok(Provided { reference, target: bundles.join(id.as_str()).join(ROOTFS), device, _rootfs: rootfs })
}

struct Service(Arc<Images>);

#[async_trait]
impl ImagePullService for Service {
    async fn pull_image(&self, _: &TtrpcContext, request: ImagePullRequest) -> ttrpc::Result<ImagePullResponse> {
        let images = Arc::clone(&self.0);
        // A caller whose time is over comes again and finds what was pulled meanwhile.
        let pull = tokio::spawn(async move { images.provide(&request).await });
        let pulled = pull.await.unwrap_or_else(|error| Err(error.into()));
        pulled.map_err(|error| kata::status("PullImage", &error))?;
        Ok(ImagePullResponse::default())
    }
}
