//! Endorsements that evidence needs and does not bring: a VCEK's certificate, a TDX platform's collateral. They are looked
//! for in a directory and then at a service, shown to the verifier, and kept in the directory once it accepted them.
//!
//! However many guests need one at a time, it is fetched once, on a task of its own. What could not be had is not asked
//! for again before a wait that doubles with each failure; what was had is remembered for a minute, so that evidence
//! which fails for another reason does not make the service answer again.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use endorsements::{Directory, EndorsementError, PlatformName, Service, VekName};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use protocols::time::Timestamp;
use tokio::time::Instant;

/// The most endorsements that are remembered.
const MAX_KNOWN: usize = 1024;
/// The most that are fetched at once: evidence that names ever new chips costs no more than this.
const MAX_FETCHES: usize = 16;
/// How long what was fetched is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The wait after a first failure, and the longest.
const WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Whose endorsement.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    /// The key that signed an SNP report.
    Vek(VekName),
    /// A kind of TDX platform.
    Platform(PlatformName),
}

impl Name {
    pub(crate) fn file(&self) -> String {
        match self {
            Self::Vek(name) => name.file(),
            Self::Platform(name) => name.file(),
        }
    }

    fn kept(&self, directory: &Directory) -> Result<Option<Vec<u8>>, EndorsementError> {
        match self {
            Self::Vek(name) => directory.vek(name),
            Self::Platform(name) => directory.collateral(name),
        }
    }
}

/// An endorsement, or why there is none.
pub(crate) type Found = Result<Arc<Vec<u8>>, Arc<str>>;

enum Known {
    Fetching(Shared<BoxFuture<'static, Found>>),
    Done { found: Found, until: Instant, wait: Duration },
}

/// Where endorsements come from, and what is known of them.
pub(crate) struct Endorser {
    directory: Directory,
    amd: Option<Service>,
    intel: Option<Service>,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

impl Endorser {
    pub(crate) fn new(directory: Directory, amd: Option<Service>, intel: Option<Service>) -> Self {
        Self { directory, amd, intel, known: Arc::default() }
    }

    /// From the directory, or else from the service. Nothing of it is verified.
    pub(crate) async fn find(&self, name: &Name, now: Timestamp) -> Found {
        self.look(name.file(), name.clone(), now).await
    }

    /// The same, whatever was found lately: the service is asked anew where the directory's nears its end.
    pub(crate) async fn renew(&self, name: &Name, now: Timestamp) -> Found {
        self.look(format!("{}, renewed", name.file()), name.clone(), now).await
    }

    async fn look(&self, known_as: String, name: Name, now: Timestamp) -> Found {
        let directory = self.directory.clone();
        let service = match name {
            Name::Vek(_) => &self.amd,
            Name::Platform(_) => &self.intel,
        };
        let Some(service) = service.clone() else {
            let found = tokio::task::spawn_blocking(move || name.kept(&directory)).await;
            return match found.unwrap_or(Ok(None)) {
                Ok(Some(bytes)) => Ok(Arc::new(bytes)),
                Ok(None) => Err(Arc::from("not in the directory, and no service is configured")),
                Err(error) => Err(Arc::from(error.to_string())),
            };
        };
        let fetch = async move {
            match &name {
                Name::Vek(name) => service.vek(name, &directory).await,
                Name::Platform(name) => service.collateral(name, &directory, now).await,
            }
        };
        self.once(known_as, fetch).await
    }

    /// Keeps what the verifier accepted. That it cannot be kept is told, and spoils no evidence.
    pub(crate) async fn keep(&self, name: &Name, bytes: Arc<Vec<u8>>) {
        let (directory, name) = (self.directory.clone(), name.clone());
        let kept = tokio::task::spawn_blocking(move || {
            if name.kept(&directory)?.as_ref() == Some(&*bytes) {
                return Ok(());
            }
            directory.keep(&name.file(), &bytes)
        });
        if let Ok(Err(error)) = kept.await {
            tracing::warn!("an endorsement is not kept: {error}");
        }
    }

    /// One fetch for all who ask for `name` at the same time.
    async fn once<F>(&self, name: String, fetch: F) -> Found
    where
        F: Future<Output = Result<Vec<u8>, EndorsementError>> + Send + 'static,
    {
        let fetching = {
            let mut known = lock(&self.known);
            let now = Instant::now();
            let wait = match known.get(&name) {
                Some(Known::Fetching(fetching)) => Err(fetching.clone()),
                Some(Known::Done { found, until, .. }) if now < *until => return found.clone(),
                Some(Known::Done { found: Err(_), wait, .. }) => Ok(wait.saturating_mul(2).min(LONGEST_WAIT)),
                Some(Known::Done { .. }) | None => Ok(WAIT),
            };
            match wait {
                Err(fetching) => fetching,
                Ok(wait) => {
                    make_room(&mut known)?;
                    let task = tokio::spawn(Self::fetch(Arc::clone(&self.known), name.clone(), wait, fetch));
                    let ended = |_| Err(Arc::from("the fetch ended early"));
                    let fetching = async move { task.await.unwrap_or_else(ended) }.boxed().shared();
                    known.insert(name, Known::Fetching(fetching.clone()));
                    fetching
                }
            }
        };
        fetching.await
    }

    /// Goes on when those who asked have given up: the next one finds what it found.
    async fn fetch<F>(known: Arc<Mutex<HashMap<String, Known>>>, name: String, wait: Duration, fetch: F) -> Found
    where
        F: Future<Output = Result<Vec<u8>, EndorsementError>> + Send,
    {
        let found = fetch.await.map(Arc::new).map_err(|error| {
            tracing::warn!(endorsement = name, "not to be had: {error}");
            Arc::from(error.to_string())
        });
        let until = Instant::now() + if found.is_ok() { REMEMBERED } else { wait };
        lock(&known).insert(name, Known::Done { found: found.clone(), until, wait });
        found
    }
}

/// Forgets what is nearest to its end where there is too much.
fn make_room(known: &mut HashMap<String, Known>) -> Result<(), Arc<str>> {
    let fetching = known.values().filter(|known| matches!(known, Known::Fetching(_))).count();
    if fetching >= MAX_FETCHES {
        return Err(Arc::from(format!("{fetching} endorsements are being fetched already")));
    }
    if known.len() >= MAX_KNOWN {
        let ends = known.iter().filter_map(|(name, known)| match known {
            Known::Fetching(_) => None,
            Known::Done { until, .. } => Some((*until, name.clone())),
        });
        if let Some((_, name)) = ends.min() {
            known.remove(&name);
        }
    }
    Ok(())
}

fn lock(known: &Mutex<HashMap<String, Known>>) -> MutexGuard<'_, HashMap<String, Known>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn endorser() -> Endorser {
        Endorser::new(Directory::new(std::path::Path::new("/nonexistent")), None, None)
    }

    fn missing() -> EndorsementError {
        EndorsementError::Missing { url: "there".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn one_fetch_answers_all_who_ask_at_the_same_time_and_goes_on_without_them() {
        let (endorser, fetches) = (endorser(), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let fetches = Arc::clone(&fetches);
            endorser.once("one".to_owned(), async move {
                fetches.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(vec![7])
            })
        };
        // The first one gives up; the fetch is not its own.
        tokio::time::timeout(Duration::from_millis(10), ask()).await.unwrap_err();
        let found = futures_util::future::join_all((0..50).map(|_| ask())).await;
        assert!(found.iter().all(|found| found.as_ref().is_ok_and(|bytes| **bytes == [7])));
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
        ask().await.unwrap();
        assert_eq!(fetches.load(Ordering::SeqCst), 1, "remembered");
        tokio::time::advance(REMEMBERED + Duration::from_secs(1)).await;
        ask().await.unwrap();
        assert_eq!(fetches.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_to_be_had_is_asked_for_ever_more_rarely() {
        let (endorser, fetches) = (endorser(), Arc::new(AtomicUsize::new(0)));
        let mut asked = Vec::new();
        for second in 0..1000 {
            let (counted, before) = (Arc::clone(&fetches), fetches.load(Ordering::SeqCst));
            let fetch = async move {
                counted.fetch_add(1, Ordering::SeqCst);
                Err(missing())
            };
            endorser.once("one".to_owned(), fetch).await.unwrap_err();
            if fetches.load(Ordering::SeqCst) > before {
                asked.push(second);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(asked, [0, 5, 15, 35, 75, 155, 315, 615, 915]);
    }

    #[tokio::test(start_paused = true)]
    async fn fetches_and_what_is_remembered_are_bounded() {
        let endorser = endorser();
        let slow = |number: usize| {
            endorser.once(format!("slow-{number}"), async {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Err(missing())
            })
        };
        let found = futures_util::future::join_all((0..MAX_FETCHES + 3).map(slow)).await;
        let refused = found.iter().filter(|found| found.as_ref().is_err_and(|why| why.contains("already"))).count();
        assert_eq!(refused, 3);
        for number in 0..MAX_KNOWN + 10 {
            endorser.once(format!("{number}"), async { Ok(vec![]) }).await.unwrap();
        }
        assert!(lock(&endorser.known).len() <= MAX_KNOWN);
    }
}
