//! Signatures from a lookaside: files, or another server that never sees credentials.

use std::io::Read as _;
use std::path::Path;

use bytes::Bytes;
use reqwest::header::LOCATION;
use reqwest::{StatusCode, Url};

use super::retry::{Backoff, Failed};
use super::session::{MAX_REDIRECTS, Session, host_of, status_error};
use crate::error::RegistryError;
use crate::registries_d::Lookaside;

impl Session {
    /// One signature; `None` where there is none.
    pub(super) async fn lookaside(&self, place: &Lookaside, limit: usize) -> Result<Option<Bytes>, RegistryError> {
        let found = match place {
            Lookaside::Directory(path) => {
                let (path, what) = (path.clone(), place.to_string());
                let read = tokio::task::spawn_blocking(move || read(&path, &what, limit)).await;
                read.map_err(|e| unavailable(&place.to_string(), e))?
            }
            Lookaside::Http(url) => self.get(url, &place.to_string(), limit).await,
        };
        match found {
            Ok(bytes) => Ok(Some(bytes)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn get(&self, url: &Url, what: &str, limit: usize) -> Result<Bytes, RegistryError> {
        let mut backoff = Backoff::request(&self.config);
        loop {
            match self.get_once(url, what, limit).await {
                Ok(bytes) => return Ok(bytes),
                Err(failed) => self.wait(&mut backoff, &host_of(url), what, failed).await?,
            }
        }
    }

    async fn get_once(&self, url: &Url, what: &str, limit: usize) -> Result<Bytes, Failed> {
        let malformed = |url: &Url, reason: &str| {
            Failed::from(RegistryError::Malformed {
                host: host_of(url),
                what: what.to_owned(),
                reason: reason.to_owned(),
            })
        };
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.check_scheme(&url, "a lookaside")?;
            let request = self.clients.of(&url)?.get(url.clone());
            let response = self.within(self.config.request(), what, &url, request).await?;
            let status = response.status();
            if status.is_success() {
                return self.bounded(response, &host_of(&url), what, limit).await;
            }
            if !status.is_redirection() || status == StatusCode::NOT_MODIFIED {
                return Err(status_error(host_of(&url), what.to_owned(), &response));
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| malformed(&url, "a redirect without a usable Location"))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(RegistryError::PlainHttp { host: host_of(&next), what: "a redirect from TLS" }.into());
            }
            url = next;
        }
        Err(malformed(&url, "too many redirects"))
    }
}

fn unavailable(what: &str, reason: impl std::fmt::Display) -> RegistryError {
    RegistryError::Unavailable { host: "the lookaside".to_owned(), what: what.to_owned(), reason: reason.to_string() }
}

fn read(path: &Path, what: &str, limit: usize) -> Result<Bytes, RegistryError> {
    let host = || "the lookaside".to_owned();
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            RegistryError::NotFound { host: host(), what: what.to_owned() }
        }
        _ => unavailable(what, e),
    };
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(unavailable(what, "not a file"));
    }
    let mut bytes = Vec::new();
    let most = (limit as u64).saturating_add(1);
    std::fs::File::open(path).map_err(failed)?.take(most).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(RegistryError::TooLarge { host: host(), what: what.to_owned(), limit: limit as u64 });
    }
    Ok(Bytes::from(bytes))
}
