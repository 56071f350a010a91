//! The registry client over HTTP.

mod blob;
mod lookaside;
mod push;
mod retry;
mod session;
mod tls;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use protocols::digest::Sha256Digest;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LINK};

use self::blob::HttpBlob;
pub(crate) use self::session::host_of;
use self::session::{Action, Call, Session, malformed};
use crate::MAX_MANIFEST;
use crate::auth::AuthFile;
use crate::auth::credentials::Credentials;
use crate::config::RegistryConfig;
use crate::error::RegistryError;
use crate::events::{Event, NoEvents, RegistryEvents};
use crate::oci::{Descriptor, Document};
use crate::reference::{Repository, Target};
use crate::registries_conf::Asked;
use crate::storage::{BlobStream, ManifestBytes, Registry};

/// What we read for a manifest.
const ACCEPT_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// How long a repository's registry is not asked again whether it has the referrers API.
const NO_API_FOR: Duration = Duration::from_secs(60);
/// The most repositories of which that is remembered.
const MAX_WITHOUT_API: usize = 1024;
/// The most pages of a list of referrers.
const MAX_PAGES: usize = 8;

/// Registries over HTTP(S), any number of hosts, with their mirrors.
#[derive(Debug)]
pub struct HttpRegistry {
    session: Arc<Session>,
    /// Repositories whose registry had no referrers API, and when that was found.
    without_api: Mutex<HashMap<Repository, Instant>>,
}

impl HttpRegistry {
    /// Reads the auth file and the roots; connects nowhere.
    ///
    /// # Errors
    /// [`RegistryError::Config`].
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        Self::with_events(config, Arc::new(NoEvents))
    }

    /// As [`HttpRegistry::new`]; `events` hears of retries, resumes and mirrors that fail.
    ///
    /// # Errors
    /// [`RegistryError::Config`].
    pub fn with_events(config: RegistryConfig, events: Arc<dyn RegistryEvents>) -> Result<Self, RegistryError> {
        config.check()?;
        let file = match &config.auth_file {
            None => AuthFile::default(),
            Some(path) => {
                let refused =
                    |e: &dyn std::fmt::Display| RegistryError::Config { reason: format!("{}: {e}", path.display()) };
                AuthFile::parse(&config.read(path)?).map_err(|e| refused(&e))?
            }
        };
        let sources = config.registries_conf.credential_sources().to_vec();
        let credentials = Credentials { file, sources, helper_dirs: config.credential_helper_dirs.clone() };
        let clients = tls::Clients::new(&config)?;
        let session = Arc::new(Session::new(config, clients, credentials, events));
        Ok(Self { session, without_api: Mutex::default() })
    }

    /// Where a repository is written to.
    fn location(&self, repository: &Repository) -> Result<Repository, RegistryError> {
        self.session.config.registries_conf.location(repository)
    }

    /// A manifest from one place.
    async fn manifest_at(
        &self,
        repository: &Repository,
        target: &Target,
        mirror: bool,
    ) -> Result<ManifestBytes, RegistryError> {
        let url = self.session.endpoint(repository, &format!("manifests/{target}"))?;
        let mut call = Call::new(Method::GET, repository, url, Action::Pull, manifest_name(repository, target));
        call.accept = Some(ACCEPT_MANIFEST);
        call.mirror = mirror;
        let (headers, bytes) = self.session.fetch(&call, MAX_MANIFEST).await?;
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let media_type = header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let claimed = header("docker-content-digest").and_then(|text| text.parse().ok());
        let digest = Sha256Digest::of(&bytes);
        Ok(ManifestBytes { bytes, media_type, digest, claimed })
    }

    /// What refers to `subject`, from one place: every type, by its API or by the fallback tag.
    async fn referrers_at(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
        mirror: bool,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        if !self.has_no_api(repository) {
            if let Some(found) = self.listed(repository, subject, artifact_type, mirror).await? {
                return Ok(found);
            }
            self.remember_no_api(repository);
        }
        let url = self.session.endpoint(repository, &format!("manifests/{}", fallback_tag(subject)))?;
        let mut call = Call::new(Method::GET, repository, url, Action::Pull, format!("referrers of {subject}"));
        call.accept = Some(crate::oci::INDEX);
        call.mirror = mirror;
        match self.read_index(&call).await {
            Err(RegistryError::NotFound { .. }) => Ok(Vec::new()),
            other => Ok(other?.1),
        }
    }

    fn has_no_api(&self, repository: &Repository) -> bool {
        let without = self.without_api.lock().unwrap_or_else(PoisonError::into_inner);
        without.get(repository).is_some_and(|found| found.elapsed() < NO_API_FOR)
    }

    fn remember_no_api(&self, repository: &Repository) {
        let mut without = self.without_api.lock().unwrap_or_else(PoisonError::into_inner);
        without.retain(|_, found| found.elapsed() < NO_API_FOR);
        if without.len() < MAX_WITHOUT_API {
            without.insert(repository.clone(), Instant::now());
        }
    }

    async fn read_index(&self, call: &Call<'_>) -> Result<(HeaderMap, Vec<Descriptor>), RegistryError> {
        let (headers, bytes) = self.session.fetch(call, MAX_MANIFEST).await?;
        match Document::parse(&bytes) {
            Ok(Document::Index(index)) => Ok((headers, index.manifests)),
            Ok(Document::Manifest(_)) => Err(malformed(call, "a manifest in place of an index")),
            Err(e) => Err(malformed(call, &e.to_string())),
        }
    }

    /// The referrers API; `None` where the registry has none.
    async fn listed(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
        mirror: bool,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let mut url = self.session.endpoint(repository, &format!("referrers/{subject}"))?;
        url.query_pairs_mut().append_pair("artifactType", artifact_type);
        let mut call = Call::new(Method::GET, repository, url, Action::Pull, format!("referrers of {subject}"));
        call.mirror = mirror;
        let mut all = Vec::new();
        for page in 0..MAX_PAGES {
            let (headers, found) = match self.read_index(&call).await {
                Err(RegistryError::NotFound { .. }) if page == 0 => return Ok(None),
                other => other?,
            };
            all.extend(found);
            match next_page(&headers).and_then(|next| call.url.join(&next).ok()) {
                None => return Ok(Some(all)),
                Some(next) if next.origin() == call.url.origin() => call.url = next,
                Some(_) => return Err(malformed(&call, "the next page is at another host")),
            }
        }
        Err(malformed(&call, "more than 8 pages of referrers"))
    }
}

/// A manifest in errors.
fn manifest_name(repository: &Repository, target: &Target) -> String {
    let separator = if matches!(target, Target::Digest(_)) { '@' } else { ':' };
    format!("manifest {}{separator}{target}", repository.name())
}

/// The tag that stands for the list of referrers where a registry has no API for it.
fn fallback_tag(subject: &Sha256Digest) -> Target {
    Target::Tag(format!("sha256-{}", subject.hex()))
}

/// `Link: <url>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (target, parameters) = link.trim_start().strip_prefix('<')?.split_once('>')?;
    let next = parameters.split(';').any(|p| matches!(p.trim(), r#"rel="next""# | "rel=next"));
    next.then(|| target.to_owned())
}

/// A mirror that failed, and why.
fn mirror_failed(mirror: &Repository, what: &str, reason: impl std::fmt::Display) -> Event {
    Event::MirrorFailed { mirror: mirror.to_string(), what: what.to_owned(), reason: reason.to_string() }
}

#[async_trait]
impl Registry for HttpRegistry {
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        let (asked, wanted) = match target {
            Target::Tag(_) => (Asked::ByName, None),
            Target::Digest(digest) => (Asked::ByDigest, Some(digest)),
        };
        let places = self.session.config.registries_conf.places(repository, asked)?;
        for mirror in &places.mirrors {
            let what = manifest_name(mirror, target);
            match self.manifest_at(mirror, target, true).await {
                Ok(found) if wanted.is_none_or(|wanted| *wanted == found.digest) => return Ok(found),
                Ok(found) => {
                    self.session.tell(&mirror_failed(mirror, &what, format!("bytes with digest {}", found.digest)));
                }
                Err(e) => self.session.tell(&mirror_failed(mirror, &what, e)),
            }
        }
        self.manifest_at(&places.location, target, false).await
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        let places = self.session.config.registries_conf.places(repository, Asked::ByDigest)?;
        Ok(Box::new(HttpBlob::open(Arc::clone(&self.session), places, *digest, size).await?))
    }

    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        // A registry may pass over the filter, and a fallback index lists every type.
        let ours = |mut found: Vec<Descriptor>| {
            found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(artifact_type));
            let mut seen = std::collections::BTreeSet::new();
            found.retain(|descriptor| seen.insert(descriptor.digest));
            found
        };
        let places = self.session.config.registries_conf.places(repository, Asked::ByName)?;
        for mirror in &places.mirrors {
            let what = format!("referrers of {subject}");
            match self.referrers_at(mirror, subject, artifact_type, true).await.map(ours) {
                // Not every mirror copies them, so nothing at a mirror is no answer.
                Ok(found) if found.is_empty() => self.session.tell(&mirror_failed(mirror, &what, "none there")),
                Ok(found) => return Ok(found),
                Err(e) => self.session.tell(&mirror_failed(mirror, &what, e)),
            }
        }
        self.referrers_at(&places.location, subject, artifact_type, false).await.map(ours)
    }

    fn lookaside(&self, repository: &Repository) -> Option<String> {
        self.session.config.registries_d_json.place(repository).map(ToString::to_string)
    }

    async fn lookaside_signature(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        number: usize,
        limit: usize,
    ) -> Result<Option<Bytes>, RegistryError> {
        let Some(place) = self.session.config.registries_d_json.place(repository) else { return Ok(None) };
        self.session.lookaside(&place.signature(repository, digest, number), limit).await
    }
}
