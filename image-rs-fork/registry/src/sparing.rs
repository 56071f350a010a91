//! A registry that is asked as little as can be: small documents are kept by digest, and what several ask for at once is
//! asked for once.
//!
//! What is kept is bytes whose digest was compared, for the repository they came from, never a judgement. What a name
//! stands for (tags, lists of referrers) is asked for every time, and an answer shared only with those who asked before
//! its request began; unless the caller sets a time for which it may be used again. A failure is never used again, nor is
//! that nothing refers to a subject: what is missed is often pushed a moment later.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use protocols::digest::Sha256Digest;

use crate::error::RegistryError;
use crate::oci::Descriptor;
use crate::reference::{Repository, Target};
use crate::storage::{BlobStream, ManifestBytes, Registry};

/// The largest document kept, in bytes.
const MAX_DOCUMENT: usize = 128 * 1024;
/// The most bytes kept; the least recently used make room.
const MAX_KEPT: usize = 1024 * 1024;
/// The most answers to names kept for a second use.
const MAX_NAMES: usize = 1024;

/// Asks `R`, and keeps what has a digest.
#[derive(Debug)]
pub struct SparingRegistry<R> {
    inner: R,
    kept: Mutex<Kept>,
    tags: Shared<(Repository, String), ManifestBytes>,
    referrers: Shared<(Repository, Sha256Digest, String), Vec<Descriptor>>,
}

impl<R: Registry> SparingRegistry<R> {
    /// Nothing is kept yet.
    #[must_use]
    pub fn new(inner: R) -> Self {
        Self { inner, kept: Mutex::default(), tags: Shared::default(), referrers: Shared::default() }
    }

    /// Uses what names stand for again for `time` after it was asked for.
    #[must_use]
    pub fn reusing(mut self, time: Duration) -> Self {
        self.tags.reuse = time;
        self.referrers.reuse = time;
        self
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl<R: Registry> Registry for SparingRegistry<R> {
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        let digest = match target {
            Target::Tag(tag) => {
                let asked = self.inner.manifest(repository, target);
                let lasts = |answer: &Result<_, _>| matches!(answer, Ok(_) | Err(RegistryError::NotFound { .. }));
                return self.tags.ask((repository.clone(), tag.clone()), asked, lasts).await;
            }
            Target::Digest(digest) => *digest,
        };
        let key = (repository.clone(), digest);
        if let Some((bytes, media_type)) = self.kept().get(&key) {
            return Ok(ManifestBytes { bytes, media_type, digest, claimed: None });
        }
        let found = self.inner.manifest(repository, target).await?;
        if found.digest == digest {
            self.kept().put(key, found.bytes.clone(), found.media_type.clone());
        }
        Ok(found)
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        self.inner.blob(repository, digest, size).await
    }

    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let asked = self.inner.referrers(repository, subject, artifact_type);
        let lasts = |answer: &Result<Vec<_>, _>| answer.as_ref().is_ok_and(|found| !found.is_empty());
        self.referrers.ask((repository.clone(), *subject, artifact_type.to_owned()), asked, lasts).await
    }

    fn lookaside(&self, repository: &Repository) -> Option<String> {
        self.inner.lookaside(repository)
    }

    async fn lookaside_signature(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        number: usize,
        limit: usize,
    ) -> Result<Option<Bytes>, RegistryError> {
        self.inner.lookaside_signature(repository, digest, number, limit).await
    }

    async fn small_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let key = (repository.clone(), descriptor.digest);
        if descriptor.size <= limit
            && let Some((bytes, _)) = self.kept().get(&key)
            && bytes.len() as u64 == descriptor.size
        {
            return Ok(bytes.into());
        }
        let found = self.inner.small_blob(repository, descriptor, limit).await?;
        self.kept().put(key, Bytes::copy_from_slice(&found), String::new());
        Ok(found)
    }
}

/// Documents by repository and digest.
#[derive(Debug, Default)]
struct Kept {
    documents: HashMap<(Repository, Sha256Digest), Document>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Document {
    bytes: Bytes,
    media_type: String,
    used: u64,
}

impl Kept {
    fn get(&mut self, key: &(Repository, Sha256Digest)) -> Option<(Bytes, String)> {
        self.uses += 1;
        let document = self.documents.get_mut(key)?;
        document.used = self.uses;
        Some((document.bytes.clone(), document.media_type.clone()))
    }

    fn put(&mut self, key: (Repository, Sha256Digest), bytes: Bytes, media_type: String) {
        if bytes.is_empty() || bytes.len() > MAX_DOCUMENT {
            return;
        }
        self.uses += 1;
        self.bytes += bytes.len();
        if let Some(before) = self.documents.insert(key, Document { bytes, media_type, used: self.uses }) {
            self.bytes -= before.bytes.len();
        }
        while self.bytes > MAX_KEPT {
            let oldest = self.documents.iter().min_by_key(|(_, document)| document.used).map(|(key, _)| key.clone());
            let Some(gone) = oldest.and_then(|key| self.documents.remove(&key)) else { break };
            self.bytes -= gone.bytes.len();
        }
    }
}

/// An answer, and when its request began.
type Answer<V> = (Instant, Result<V, RegistryError>);

/// The last answer to one question. Locked while a request is under way.
type Turn<V> = tokio::sync::Mutex<Option<Answer<V>>>;

/// Questions that are being asked, and answers that may be used again.
#[derive(Debug)]
struct Shared<K, V> {
    turns: Mutex<HashMap<K, Arc<Turn<V>>>>,
    answered: Mutex<HashMap<K, Answer<V>>>,
    reuse: Duration,
}

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Self { turns: Mutex::default(), answered: Mutex::default(), reuse: Duration::ZERO }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Shared<K, V> {
    /// The answer to `question`, which is asked unless somebody has begun to ask it since this call, or so shortly
    /// before that the answer may be used again, if it `lasts`.
    async fn ask(
        &self,
        key: K,
        question: impl Future<Output = Result<V, RegistryError>>,
        lasts: impl FnOnce(&Result<V, RegistryError>) -> bool,
    ) -> Result<V, RegistryError> {
        let called = Instant::now();
        if let Some(answer) = self.answered(&key, called) {
            return answer;
        }
        let place = Place::take(&self.turns, key.clone());
        let mut last = place.turn.lock().await;
        if let Some((began, answer)) = &*last
            && *began >= called
        {
            return answer.clone();
        }
        let began = Instant::now();
        let answer = question.await;
        *last = Some((began, answer.clone()));
        if !self.reuse.is_zero() && lasts(&answer) {
            self.remember(key, began, answer.clone());
        }
        answer
    }

    fn answered(&self, key: &K, now: Instant) -> Option<Result<V, RegistryError>> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, answer) = answered.get(key)?;
        (now.saturating_duration_since(*began) < self.reuse).then(|| answer.clone())
    }

    fn remember(&self, key: K, began: Instant, answer: Result<V, RegistryError>) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if answered.len() >= MAX_NAMES {
            answered.retain(|_, (began, _)| began.elapsed() < self.reuse);
        }
        if answered.len() < MAX_NAMES || answered.contains_key(&key) {
            answered.insert(key, (began, answer));
        }
    }
}

/// One caller's hold on a question; the last to leave forgets the answer.
struct Place<'s, K: Eq + Hash, V> {
    turns: &'s Mutex<HashMap<K, Arc<Turn<V>>>>,
    key: K,
    turn: Arc<Turn<V>>,
}

impl<'s, K: Eq + Hash + Clone, V> Place<'s, K, V> {
    fn take(turns: &'s Mutex<HashMap<K, Arc<Turn<V>>>>, key: K) -> Self {
        let turn = Arc::clone(turns.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default());
        Self { turns, key, turn }
    }
}

impl<K: Eq + Hash, V> Drop for Place<'_, K, V> {
    fn drop(&mut self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this one.
        if Arc::strong_count(&self.turn) == 2 {
            turns.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests;
