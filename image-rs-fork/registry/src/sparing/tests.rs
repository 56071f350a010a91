use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::*;

/// Answers every manifest with the number of requests so far, or with fixed bytes by digest.
struct Counting {
    asked: AtomicUsize,
    /// One permit lets one request go on.
    gate: Semaphore,
    document: Bytes,
}

impl Counting {
    fn new(document: &'static [u8]) -> SparingRegistry<Self> {
        let document = Bytes::from_static(document);
        SparingRegistry::new(Self { asked: AtomicUsize::new(0), gate: Semaphore::new(1000), document })
    }

    async fn count(&self) -> usize {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.gate.acquire().await.unwrap().forget();
        number
    }
}

struct Once(Option<Bytes>);

#[async_trait]
impl BlobStream for Once {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        Ok(self.0.take())
    }
}

#[async_trait]
impl Registry for Counting {
    async fn manifest(&self, _: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        let number = self.count().await;
        let bytes = match target {
            Target::Tag(_) => Bytes::from(number.to_string()),
            Target::Digest(_) => self.document.clone(),
        };
        let digest = Sha256Digest::of(&bytes);
        Ok(ManifestBytes { bytes, media_type: "a/b".to_owned(), digest, claimed: Some(digest) })
    }

    async fn blob(&self, _: &Repository, _: &Sha256Digest, _: u64) -> Result<Box<dyn BlobStream>, RegistryError> {
        self.count().await;
        Ok(Box::new(Once(Some(self.document.clone()))))
    }

    async fn referrers(
        &self,
        _: &Repository,
        subject: &Sha256Digest,
        _: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let number = self.count().await;
        Err(RegistryError::NotFound { host: number.to_string(), what: subject.to_string() })
    }
}

fn repository(name: &str) -> Repository {
    let reference: crate::ImageReference = format!("registry.example/{name}:1").parse().unwrap();
    reference.repository().clone()
}

fn tag() -> Target {
    Target::Tag("1".to_owned())
}

fn asked(registry: &SparingRegistry<Counting>) -> usize {
    registry.inner.asked.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_document_is_asked_for_once_in_each_repository() {
    let registry = Counting::new(b"document");
    let descriptor = Descriptor::of("a/b", b"document");
    let target = Target::Digest(descriptor.digest);
    for _ in 0..3 {
        let found = registry.manifest(&repository("a"), &target).await.unwrap();
        assert_eq!((&found.bytes[..], found.media_type.as_str()), (&b"document"[..], "a/b"));
    }
    assert_eq!(asked(&registry), 1);
    // Whoever may read it in one repository is not known to be allowed to in another.
    registry.manifest(&repository("b"), &target).await.unwrap();
    assert_eq!(asked(&registry), 2);
    for _ in 0..3 {
        assert_eq!(registry.small_blob(&repository("c"), &descriptor, 100).await.unwrap(), b"document");
    }
    assert_eq!(asked(&registry), 3);
    // What is kept is held to the same limit and size.
    let error = registry.small_blob(&repository("c"), &descriptor, 7).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { .. }), "{error}");
    let longer = Descriptor { size: 9, ..descriptor };
    assert!(registry.small_blob(&repository("c"), &longer, 100).await.is_err());
}

#[tokio::test]
async fn bytes_of_another_digest_are_not_kept() {
    let registry = Counting::new(b"another document");
    let target = Target::Digest(Sha256Digest::of(b"document"));
    for _ in 0..2 {
        let found = registry.manifest(&repository("a"), &target).await.unwrap();
        assert_eq!(found.digest, Sha256Digest::of(b"another document"), "the caller sees what came");
    }
    assert!(registry.small_blob(&repository("a"), &Descriptor::of("a/b", b"document"), 100).await.is_err());
    assert_eq!(asked(&registry), 3);
    assert_eq!(registry.kept().bytes, 0);
}

#[tokio::test]
async fn what_a_name_stands_for_is_asked_every_time() {
    let registry = Counting::new(b"");
    for number in 1..4 {
        let found = registry.manifest(&repository("a"), &tag()).await.unwrap();
        assert_eq!(found.bytes, number.to_string());
    }
    assert!(registry.tags.turns.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_is_used_again_for_as_long_as_was_set() {
    let registry = Counting::new(b"").reusing(Duration::from_secs(3600));
    for _ in 0..3 {
        assert_eq!(registry.manifest(&repository("a"), &tag()).await.unwrap().bytes, "1");
    }
    assert_eq!(registry.manifest(&repository("b"), &tag()).await.unwrap().bytes, "2", "of that repository alone");
    let before = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
    registry.tags.answered.lock().unwrap().values_mut().for_each(|(began, _)| *began = before);
    assert_eq!(registry.manifest(&repository("a"), &tag()).await.unwrap().bytes, "3", "its time is over");
    // Nothing was there: asked again.
    for number in 4..6 {
        let answer = registry.referrers(&repository("a"), &Sha256Digest::of(b""), "a/b").await.unwrap_err();
        assert!(matches!(answer, RegistryError::NotFound { host, .. } if host == number.to_string()));
    }
    assert!(registry.referrers.answered.lock().unwrap().is_empty());
}

#[test]
fn answers_kept_for_a_second_use_are_bounded() {
    let shared = Shared { reuse: Duration::from_secs(3600), ..Shared::default() };
    let failed = || Err::<(), _>(RegistryError::Config { reason: String::new() });
    let now = Instant::now();
    (0..MAX_NAMES + 9).for_each(|key| shared.remember(key, now, failed()));
    assert_eq!(shared.answered.lock().unwrap().len(), MAX_NAMES);
    assert!(shared.answered(&MAX_NAMES, now).is_none() && shared.answered(&0, now).is_some());
    let before = now.checked_sub(Duration::from_secs(3600)).unwrap();
    shared.answered.lock().unwrap().values_mut().for_each(|(began, _)| *began = before);
    shared.remember(MAX_NAMES, now, failed());
    assert_eq!(shared.answered.lock().unwrap().len(), 1, "what may not be used any more made room");
}

#[tokio::test]
async fn those_who_ask_during_a_request_share_the_next_one() {
    let registry = Arc::new(Counting::new(b""));
    registry.inner.gate.forget_permits(1000);
    let ask = || {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { registry.manifest(&repository("a"), &tag()).await.unwrap().bytes })
    };
    let first = ask();
    while asked(&registry) == 0 {
        tokio::task::yield_now().await;
    }
    let later: Vec<_> = (0..8).map(|_| ask()).collect();
    while registry.tags.turns.lock().unwrap().values().all(|turn| Arc::strong_count(turn) < 10) {
        tokio::task::yield_now().await;
    }
    registry.inner.gate.add_permits(1000);
    assert_eq!(first.await.unwrap(), "1");
    for later in later {
        assert_eq!(later.await.unwrap(), "2", "an answer that was under way before is not theirs");
    }
    assert_eq!(asked(&registry), 2);
    assert!(registry.tags.turns.lock().unwrap().is_empty());
}

#[tokio::test]
async fn one_who_stops_waiting_stops_nobody_else() {
    let registry = Arc::new(Counting::new(b""));
    registry.inner.gate.forget_permits(1000);
    let (one, two) = (Arc::clone(&registry), Arc::clone(&registry));
    let subject = Sha256Digest::of(b"");
    let first = tokio::spawn(async move { one.referrers(&repository("a"), &subject, "a/b").await });
    while asked(&registry) == 0 {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn(async move { two.referrers(&repository("a"), &subject, "a/b").await });
    tokio::task::yield_now().await;
    first.abort();
    registry.inner.gate.add_permits(1000);
    let answer = second.await.unwrap().unwrap_err();
    assert!(matches!(answer, RegistryError::NotFound { host, .. } if host == "2"));
    assert!(registry.referrers.turns.lock().unwrap().is_empty());
}

#[test]
fn what_is_kept_is_bounded() {
    let mut kept = Kept::default();
    let key = |number: usize| (repository("a"), Sha256Digest::of(&number.to_le_bytes()));
    let put = |kept: &mut Kept, number| kept.put(key(number), Bytes::from(vec![1; MAX_DOCUMENT]), String::new());
    for number in 0..8 {
        put(&mut kept, number);
    }
    assert!(kept.get(&key(0)).is_some());
    put(&mut kept, 8);
    assert_eq!((kept.bytes, kept.documents.len()), (MAX_KEPT, 8));
    assert!(kept.get(&key(0)).is_some() && kept.get(&key(1)).is_none(), "the least recently used made room");
    kept.put(key(9), Bytes::from(vec![1; MAX_DOCUMENT + 1]), String::new());
    assert!(kept.get(&key(9)).is_none());
}
