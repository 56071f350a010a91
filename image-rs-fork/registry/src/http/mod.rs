//! The registry client over HTTP.

mod push;
mod session;
mod tls;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use protocols::digest::Sha256Digest;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, LINK};
use reqwest::{Method, Response, Url};

use self::session::{Action, Authorization, AuthorizationKey, Call, host_of, malformed, next_chunk};
use crate::MAX_MANIFEST;
use crate::auth::AuthFile;
use crate::config::RegistryConfig;
use crate::error::RegistryError;
use crate::oci::{Descriptor, Document};
use crate::reference::{Repository, Target};
use crate::storage::{BlobStream, ManifestBytes, Registry};

/// What we read for a manifest.
const ACCEPT_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// The most pages of a list of referrers.
const MAX_PAGES: usize = 8;

/// Registries over HTTP(S), any number of hosts.
#[derive(Debug)]
pub struct HttpRegistry {
    config: RegistryConfig,
    client: reqwest::Client,
    auth: AuthFile,
    authorizations: Mutex<HashMap<AuthorizationKey, Authorization>>,
}

impl HttpRegistry {
    /// Reads the auth file and the roots; connects nowhere.
    ///
    /// # Errors
    /// [`RegistryError::Config`].
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        let auth = match &config.auth_file {
            None => AuthFile::default(),
            Some(path) => {
                let refused =
                    |e: &dyn std::fmt::Display| RegistryError::Config { reason: format!("{}: {e}", path.display()) };
                AuthFile::parse(&std::fs::read(path).map_err(|e| refused(&e))?).map_err(|e| refused(&e))?
            }
        };
        let client = tls::client(&config)?;
        Ok(Self { config, client, auth, authorizations: Mutex::new(HashMap::new()) })
    }

    /// The registry's address: plain HTTP exactly where the configuration lists the host.
    fn base(&self, repository: &Repository) -> Result<Url, RegistryError> {
        let host = repository.host();
        let scheme = if self.config.allows_plain_http(host) { "http" } else { "https" };
        let api_host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let refused = |_| RegistryError::Config { reason: format!("{host} makes no address") };
        Url::parse(&format!("{scheme}://{api_host}/")).map_err(refused)
    }

    fn endpoint(&self, repository: &Repository, rest: &str) -> Result<Url, RegistryError> {
        let mut url = self.base(repository)?;
        url.set_path(&format!("/v2/{}/{rest}", api_name(repository)));
        Ok(url)
    }

    fn get<'a>(repository: &'a Repository, url: Url, what: String) -> Call<'a> {
        Call { method: Method::GET, repository, url, action: Action::Pull, accept: None, body: None, what }
    }

    async fn read_index(&self, call: &Call<'_>, response: Response) -> Result<Vec<Descriptor>, RegistryError> {
        let bytes = self.bounded(response, call.repository.host(), &call.what, MAX_MANIFEST).await?;
        match Document::parse(&bytes) {
            Ok(Document::Index(index)) => Ok(index.manifests),
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
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let mut url = self.endpoint(repository, &format!("referrers/{subject}"))?;
        url.query_pairs_mut().append_pair("artifactType", artifact_type);
        let mut call = Self::get(repository, url, format!("referrers of {subject}"));
        let mut all = Vec::new();
        for page in 0..MAX_PAGES {
            let response = match self.send(&call).await {
                Err(RegistryError::NotFound { .. }) if page == 0 => return Ok(None),
                other => other?,
            };
            let next = next_page(response.headers()).and_then(|next| call.url.join(&next).ok());
            all.extend(self.read_index(&call, response).await?);
            match next {
                None => return Ok(Some(all)),
                Some(next) if next.origin() == call.url.origin() => call.url = next,
                Some(_) => return Err(malformed(&call, "the next page is at another host")),
            }
        }
        Err(malformed(&call, "more than 8 pages of referrers"))
    }
}

/// Docker Hub's single names live below `library/`.
fn api_name(repository: &Repository) -> String {
    let name = repository.name();
    if repository.host() == "docker.io" && !name.contains('/') { format!("library/{name}") } else { name.to_owned() }
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

#[async_trait]
impl Registry for HttpRegistry {
    async fn manifest(&self, repository: &Repository, target: &Target) -> Result<ManifestBytes, RegistryError> {
        let url = self.endpoint(repository, &format!("manifests/{target}"))?;
        let mut call = Self::get(repository, url, manifest_name(repository, target));
        call.accept = Some(ACCEPT_MANIFEST);
        let response = self.send(&call).await?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let media_type = header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let claimed = header("docker-content-digest").and_then(|text| text.parse().ok());
        let bytes = self.bounded(response, repository.host(), &call.what, MAX_MANIFEST).await?;
        let digest = Sha256Digest::of(&bytes);
        Ok(ManifestBytes { bytes, media_type, digest, claimed })
    }

    async fn blob(
        &self,
        repository: &Repository,
        digest: &Sha256Digest,
        size: u64,
    ) -> Result<Box<dyn BlobStream>, RegistryError> {
        let url = self.endpoint(repository, &format!("blobs/{digest}"))?;
        let call = Self::get(repository, url, format!("blob {digest}"));
        let response = self.send(&call).await?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(malformed(&call, "a part in place of the whole blob"));
        }
        if response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(malformed(&call, "a content encoding that was not asked for"));
        }
        let (host, what) = (host_of(response.url()), call.what);
        if let Some(actual) = response.content_length()
            && actual != size
        {
            return Err(RegistryError::Size { host, what, expected: size, actual });
        }
        // A registry that trickles must not hold a launch for ever: at least 16 KiB a second.
        let allowance = self.config.request().saturating_add(Duration::from_secs(size >> 14));
        let until = Instant::now().checked_add(allowance);
        Ok(Box::new(HttpBlob { response, stall: self.config.stall(), until, host, what }))
    }

    async fn referrers(
        &self,
        repository: &Repository,
        subject: &Sha256Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let mut found = match self.listed(repository, subject, artifact_type).await? {
            Some(found) => found,
            None => {
                let target = fallback_tag(subject);
                let url = self.endpoint(repository, &format!("manifests/{target}"))?;
                let mut call = Self::get(repository, url, format!("referrers of {subject}"));
                call.accept = Some(crate::oci::INDEX);
                match self.send(&call).await {
                    Err(RegistryError::NotFound { .. }) => return Ok(Vec::new()),
                    other => self.read_index(&call, other?).await?,
                }
            }
        };
        // A registry may pass over the filter, and a fallback index lists every type.
        found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(artifact_type));
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|descriptor| seen.insert(descriptor.digest));
        Ok(found)
    }
}

#[derive(Debug)]
struct HttpBlob {
    response: Response,
    stall: Duration,
    until: Option<Instant>,
    host: String,
    what: String,
}

#[async_trait]
impl BlobStream for HttpBlob {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let chunk = match self.until {
            Some(until) if until < Instant::now() => Err("slower than 16 KiB a second".to_owned()),
            _ => next_chunk(&mut self.response, self.stall).await,
        };
        chunk.map_err(|reason| RegistryError::Unavailable { host: self.host.clone(), what: self.what.clone(), reason })
    }
}
