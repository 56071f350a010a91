//! Which layer is worked on when: several at once, the largest first, each blob once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use registry::{Registry, Repository};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::blob::{self, Part};
use super::flight::Flight;
use crate::error::ImageError;
use crate::layer::Budget;
use crate::limits::Limits;
use crate::manifest::Layer;
use crate::ocicrypt::LayerSecret;
use crate::progress::{LayerEvent, LayerPlace, Progress};
use crate::store::{Candidate, LayerKey, LayerStore, LayerWriter, Room, StoredLayer};

/// Chunks between receiving and unpacking one layer, at most; each is what one read of the connection gives.
const CHUNKS: usize = 16;
/// Bytes in those chunks and in the one being unpacked. A larger chunk comes alone: connections read up to 400 KiB at
/// once, and each chunk that waits is another buffer of that size.
const WINDOW: u32 = 256 * 1024;
/// How far above the lowest layer that is not complete another may be begun: each that waits for those below it
/// keeps files open.
const AHEAD: usize = 8;
/// The most layers that one blob is unpacked into at once.
const COPIES: usize = 16;

/// One layer of the image.
#[derive(Clone, Copy)]
struct Place<'a> {
    index: usize,
    layer: &'a Layer,
}

/// What decrypts a layer's blob.
type Secret = Option<Arc<LayerSecret>>;

/// Layers of one blob: it is fetched once for all of them. Lowest first.
struct Group<'a> {
    places: Vec<Place<'a>>,
    secret: Secret,
}

impl Group<'_> {
    fn lowest(&self) -> usize {
        self.places.first().map_or(0, |place| place.index)
    }

    fn size(&self) -> u64 {
        self.places.first().map_or(0, |place| place.layer.size)
    }
}

/// Puts layers of one blob together, in the order of their lowest layers. Two images that share layers group these
/// in the same way, because nothing above a layer has a say.
fn group(layers: &[Layer], secrets: Vec<Option<LayerSecret>>) -> VecDeque<Group<'_>> {
    let mut groups: VecDeque<Group<'_>> = VecDeque::new();
    for ((index, layer), secret) in layers.iter().enumerate().zip(secrets) {
        let same = |other: &Layer| {
            other.blob == layer.blob
                && other.size == layer.size
                && other.diff_id == layer.diff_id
                && other.compression == layer.compression
                && other.encryption == layer.encryption
        };
        let place = Place { index, layer };
        let fitting = |group: &&mut Group<'_>| {
            group.places.len() < COPIES && group.places.first().is_some_and(|first| same(first.layer))
        };
        match groups.iter_mut().find(fitting) {
            Some(group) => group.places.push(place),
            None => groups.push_back(Group { places: vec![place], secret: secret.map(Arc::new) }),
        }
    }
    groups
}

/// A layer that needs nothing more but those below it.
enum Ready {
    Stored(StoredLayer),
    /// One of its archive is stored, which may be the same above these layers.
    Known(LayerKey, Option<Flight>, Secret),
    Unpacked(Box<dyn LayerWriter>, Option<Flight>),
}

/// A step that has ended.
enum Done<'a> {
    Group(Vec<(Place<'a>, Ready)>),
    Complete(Place<'a>, StoredLayer, bool),
}

type Step<'s, 'a> = Pin<Box<dyn Future<Output = Result<Done<'a>, ImageError>> + Send + 's>>;

pub(super) struct Puller<'a> {
    repository: &'a Repository,
    registry: &'a dyn Registry,
    store: &'a dyn LayerStore,
    progress: &'a dyn Progress,
    budget: Arc<Budget>,
    /// Layers worked on at once.
    parallel: usize,
    /// One permit for each job on a blocking thread.
    jobs: Arc<Semaphore>,
    /// One permit, for the layer that is being completed.
    completing: Arc<Semaphore>,
    /// Processors.
    processors: usize,
    /// Groups that are not unpacked yet.
    left: AtomicUsize,
}

impl<'a> Puller<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        registry: &'a dyn Registry,
        store: &'a dyn LayerStore,
        progress: &'a dyn Progress,
        limits: &Limits,
    ) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let processors = if limits.inline { 1 } else { processors };
        let parallel = usize::try_from(limits.parallel.clamp(1, 16)).unwrap_or(1);
        // With one processor a second layer only takes memory.
        let parallel = if processors == 1 { 1 } else { parallel };
        Self {
            repository,
            registry,
            store,
            progress,
            budget: Budget::new(limits),
            parallel,
            jobs: Arc::new(Semaphore::new(parallel)),
            completing: Arc::new(Semaphore::new(1)),
            processors,
            left: AtomicUsize::new(0),
        }
    }

    /// Fetches or finds every layer, and completes them lowest first. Returns when no job is left, however it ends.
    pub(super) async fn layers(
        &self,
        layers: &'a [Layer],
        secrets: Vec<Option<LayerSecret>>,
    ) -> Result<Vec<StoredLayer>, ImageError> {
        let mut ready = BTreeMap::new();
        let stored = self.steps(layers, secrets, &mut ready).await;
        // Jobs of other layers may still be at work or removing what they wrote.
        let _ended = self.jobs.acquire_many(u32::try_from(self.parallel).unwrap_or(1)).await;
        let _completed = self.completing.acquire().await;
        // What a writer wrote is removed with it, which takes its time.
        let left: Vec<Ready> = ready.into_values().map(|(_, layer)| layer).collect();
        blocking(move || {
            drop(left);
            Ok(())
        })
        .await?;
        stored
    }

    async fn steps(
        &self,
        layers: &'a [Layer],
        secrets: Vec<Option<LayerSecret>>,
        ready: &mut BTreeMap<usize, (Place<'a>, Ready)>,
    ) -> Result<Vec<StoredLayer>, ImageError> {
        let mut waiting = group(layers, secrets);
        self.left.store(waiting.len(), Ordering::Relaxed);
        let mut steps: FuturesUnordered<Step<'_, 'a>> = FuturesUnordered::new();
        let mut stored: Vec<StoredLayer> = Vec::with_capacity(layers.len());
        loop {
            let horizon = stored.len().saturating_add(AHEAD);
            let count = waiting.iter().take_while(|group| group.lowest() < horizon).count();
            let mut begin: Vec<_> = waiting.drain(..count).collect();
            // They ask for permits in this order.
            begin.sort_by_key(|group| Reverse(group.size()));
            begin.into_iter().for_each(|group| steps.push(Box::pin(self.group(group))));
            // Its place is free only once the layer below is complete, so there is one such step at a time.
            if let Some((place, next)) = ready.remove(&stored.len()) {
                let lower = stored.clone();
                steps.push(Box::pin(self.complete(place, next, lower)));
            }
            match steps.next().await {
                None => return Ok(stored),
                Some(done) => match done? {
                    Done::Group(group) => {
                        self.left.fetch_sub(1, Ordering::Relaxed);
                        ready.extend(group.into_iter().map(|(place, layer)| (place.index, (place, layer))));
                    }
                    Done::Complete(place, layer, reused) => {
                        self.tell(place, LayerEvent::Stored);
                        self.progress.layer(&place.layer.blob, reused);
                        stored.push(layer);
                    }
                },
            }
        }
    }

    fn tell(&self, place: Place<'_>, event: LayerEvent) {
        let Place { index, layer } = place;
        let registry = self.repository.host();
        match event {
            LayerEvent::Received(_) => {}
            event => tracing::debug!(layer = %layer.blob, index, size = layer.size, registry, ?event, "pull"),
        }
        self.progress.event(&LayerPlace { index, blob: &layer.blob, size: layer.size, registry }, event);
    }

    /// Waits for other pulls of the layer.
    async fn flight(&self, place: Place<'_>) -> Option<Flight> {
        let flight = self.store.flights()?.of(&place.layer.chain);
        if let Ok(free) = Arc::clone(&flight).try_lock_owned() {
            return Some(free);
        }
        self.tell(place, LayerEvent::Waiting);
        Some(flight.lock_owned().await)
    }

    async fn group(&self, group: Group<'a>) -> Result<Done<'a>, ImageError> {
        let mut done = Vec::with_capacity(group.places.len());
        let mut missing = Vec::new();
        for place in group.places {
            let layer = place.layer;
            let flight = self.flight(place).await;
            let key = LayerKey { chain: layer.chain, diff_id: layer.diff_id, subject: layer.subject.clone() };
            if let Some(stored) = self.find(place, &key).await? {
                self.progress.advance(layer.size);
                done.push((place, Ready::Stored(stored)));
            } else if self.store.knows(&key.diff_id) {
                done.push((place, Ready::Known(key, flight, group.secret.clone())));
            } else {
                missing.push((place, key, flight));
            }
        }
        if let Some((first, ..)) = missing.first() {
            let layer = first.layer;
            let mut writers = Vec::new();
            let permit = self.permit().await;
            for (place, key, _) in &missing {
                self.tell(*place, LayerEvent::Started);
                writers.push(self.store.begin(key, Room(Arc::clone(&self.budget)))?);
            }
            let places: Vec<_> = missing.iter().map(|(place, ..)| *place).collect();
            let writers = self.fetch(layer, group.secret, &places, writers, permit).await?;
            for ((place, _, flight), writer) in missing.into_iter().zip(writers) {
                self.tell(place, LayerEvent::Unpacked);
                done.push((place, Ready::Unpacked(writer, flight)));
            }
        }
        Ok(Done::Group(done))
    }

    /// A layer that is stored and still measures what it did.
    async fn find(&self, place: Place<'_>, key: &LayerKey) -> Result<Option<StoredLayer>, ImageError> {
        match self.store.stored(key)? {
            Some(candidate) => self.measure(place, candidate).await,
            None => Ok(None),
        }
    }

    /// `None` for a layer that is not what it was, and is gone now.
    async fn measure(
        &self,
        place: Place<'_>,
        candidate: Box<dyn Candidate>,
    ) -> Result<Option<StoredLayer>, ImageError> {
        let permit = self.permit().await;
        let measured = blocking(move || {
            let measured = candidate.measure();
            drop(permit);
            measured
        });
        match measured.await {
            Ok(stored) => {
                self.tell(place, LayerEvent::Reused);
                Ok(Some(stored))
            }
            Err(error @ ImageError::StoreCorrupt { .. }) => {
                tracing::warn!(layer = %place.layer.blob, %error, code = %error.code(), "fetched again");
                self.tell(place, LayerEvent::Corrupt);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Receives a blob and unpacks it into all of `writers`.
    async fn fetch(
        &self,
        layer: &Layer,
        secret: Secret,
        places: &[Place<'_>],
        mut writers: Vec<Box<dyn LayerWriter>>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Vec<Box<dyn LayerWriter>>, ImageError> {
        let mut stream = self.registry.blob(self.repository, &layer.blob, layer.size).await?;
        let (send, receive) = mpsc::channel(CHUNKS);
        let (about, budget) = (layer.clone(), Arc::clone(&self.budget));
        // A second thread for a layer pays only where a processor would have nothing to do.
        let split = self.left.load(Ordering::Relaxed).min(self.parallel) < self.processors;
        let job = blocking(move || {
            let unpacked = blob::unpack(receive, &about, secret.as_deref(), &budget, &mut writers, split);
            // Behind the writers: where nobody waits any more, what they wrote is removed before the permit is back.
            unpacked.map(|()| (writers, permit))
        });
        let receiving = async move {
            let (mut received, mut expected) = (0u64, 1);
            let window = Arc::new(Semaphore::new(WINDOW as usize));
            loop {
                // The next chunk will be about as large as the last. Nobody closes the semaphore.
                let room = Arc::clone(&window).acquire_many_owned(expected).await.ok();
                let Some(chunk) = stream.next().await? else { break };
                received = received.saturating_add(chunk.len() as u64);
                if received > layer.size {
                    let subject = layer.subject.clone();
                    return Err(ImageError::BlobSize { subject, expected: layer.size, actual: received });
                }
                for place in places {
                    self.progress.advance(chunk.len() as u64);
                    self.tell(*place, LayerEvent::Received(chunk.len() as u64));
                }
                expected = u32::try_from(chunk.len()).unwrap_or(WINDOW).clamp(1, WINDOW);
                // Nobody receives any more: the job has failed and says why itself.
                if send.send(Part::Chunk(chunk, room)).await.is_err() {
                    return Ok(());
                }
            }
            let _ = send.send(Part::End).await;
            Ok(())
        };
        let (received, unpacked) = futures_util::future::join(receiving, job).await;
        // When receiving failed, the job was abandoned and has only that to tell.
        received?;
        unpacked.map(|(writers, _permit)| writers)
    }

    /// Completes a layer by those below it.
    async fn complete(&self, place: Place<'a>, layer: Ready, lower: Vec<StoredLayer>) -> Result<Done<'a>, ImageError> {
        let (writer, flight) = match layer {
            Ready::Stored(layer) => return Ok(Done::Complete(place, layer, true)),
            Ready::Unpacked(writer, flight) => (writer, flight),
            Ready::Known(key, flight, secret) => {
                if let Some(candidate) = self.store.stored_above(&key, &lower)?
                    && let Some(layer) = self.measure(place, candidate).await?
                {
                    self.progress.advance(place.layer.size);
                    return Ok(Done::Complete(place, layer, true));
                }
                // Another layer above these: fetched after all, while those above it go on.
                let permit = self.permit().await;
                self.tell(place, LayerEvent::Started);
                let writers = vec![self.store.begin(&key, Room(Arc::clone(&self.budget)))?];
                let mut writers = self.fetch(place.layer, secret, &[place], writers, permit).await?;
                self.tell(place, LayerEvent::Unpacked);
                let Some(writer) = writers.pop() else {
                    let source = std::io::Error::other("the writer is gone");
                    return Err(ImageError::StoreIo { path: PathBuf::new(), doing: "store a layer", source });
                };
                (writer, flight)
            }
        };
        let permit = Arc::clone(&self.completing).acquire_owned().await.ok();
        let layer = blocking(move || {
            let layer = writer.commit(&lower);
            drop((permit, flight));
            layer
        });
        Ok(Done::Complete(place, layer.await?, false))
    }

    /// The right to one job; never refused, because nobody closes the semaphore.
    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.jobs).acquire_owned().await.ok()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| {
        let source = std::io::Error::other(e);
        Err(ImageError::StoreIo { path: PathBuf::new(), doing: "run a job", source })
    })
}
