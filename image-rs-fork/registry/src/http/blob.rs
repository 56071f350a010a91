//! A blob on its way: it goes on after a break, at the same registry or at the next place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use protocols::digest::Sha256Digest;
use reqwest::header::{CONTENT_ENCODING, CONTENT_RANGE};
use reqwest::{Method, Response, StatusCode};

use super::mirror_failed;
use super::retry::{Backoff, Failed};
use super::session::{Action, Call, Session, host_of, malformed, next_chunk};
use crate::error::RegistryError;
use crate::events::Event;
use crate::reference::Repository;
use crate::registries_conf::Places;
use crate::storage::BlobStream;

/// Bytes a connection must bring before what was lost in waiting counts as made good.
const PROGRESS: u64 = 64 * 1024;

/// What has been received was handed on: a break may change the source of the rest, never what came before.
/// Whether all of it is the blob, its digest tells.
#[derive(Debug)]
pub(super) struct HttpBlob {
    session: Arc<Session>,
    /// Where to ask, the next place first; never empty.
    mirrors: std::vec::IntoIter<Repository>,
    place: Repository,
    at_mirror: bool,
    location: Repository,
    digest: Sha256Digest,
    size: u64,
    /// Bytes handed on.
    offset: u64,
    /// Bytes of the answer that were handed on before.
    skip: u64,
    /// Bytes handed on when the budget for breaks was last renewed.
    renewed: u64,
    backoff: Backoff,
    response: Option<Response>,
    until: Option<Instant>,
}

impl HttpBlob {
    /// Asks for the blob.
    pub(super) async fn open(
        session: Arc<Session>,
        places: Places,
        digest: Sha256Digest,
        size: u64,
    ) -> Result<Self, RegistryError> {
        let Places { mirrors, location } = places;
        let mut mirrors = mirrors.into_iter();
        let first = mirrors.next();
        // A registry that trickles must not hold a launch for ever: at least 16 KiB a second.
        let allowance = session.config.request().saturating_add(Duration::from_secs(size >> 14));
        let backoff = Backoff::request(&session.config);
        let mut blob = Self {
            session,
            mirrors,
            at_mirror: first.is_some(),
            place: first.unwrap_or_else(|| location.clone()),
            location,
            digest,
            size,
            offset: 0,
            skip: 0,
            renewed: 0,
            backoff,
            response: None,
            until: Instant::now().checked_add(allowance),
        };
        while let Err(failed) = blob.request().await {
            blob.recover(failed).await?;
        }
        blob.backoff = Backoff::resume(&blob.session.config);
        Ok(blob)
    }

    fn what(&self) -> String {
        format!("blob {}", self.digest)
    }

    fn call(&self) -> Result<Call<'_>, RegistryError> {
        let url = self.session.endpoint(&self.place, &format!("blobs/{}", self.digest))?;
        let mut call = Call::new(Method::GET, &self.place, url, Action::Pull, self.what());
        call.offset = self.offset;
        call.mirror = self.at_mirror;
        Ok(call)
    }

    /// Asks the present place for what is missing, and checks that its answer is about that.
    async fn request(&mut self) -> Result<(), Failed> {
        let call = self.call()?;
        let response = self.session.attempt(&call).await?;
        let headers = response.headers();
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(malformed(&call, "a content encoding that was not asked for").into());
        }
        let (skip, expected) = match response.status() {
            // Ranges are optional: the whole comes again, and what is known of it is passed over.
            StatusCode::OK => (self.offset, self.size),
            StatusCode::PARTIAL_CONTENT if self.offset > 0 => {
                let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                if !range.is_some_and(|range| is_rest(range, self.offset, self.size)) {
                    return Err(malformed(&call, "another range than was asked for").into());
                }
                (0, self.size.saturating_sub(self.offset))
            }
            _ => return Err(malformed(&call, "a part in place of the whole blob").into()),
        };
        if let Some(actual) = response.content_length()
            && actual != expected
        {
            let (host, what) = (host_of(response.url()), self.what());
            return Err(RegistryError::Size { host, what, expected, actual }.into());
        }
        if self.offset > 0 {
            let host = self.place.host().to_owned();
            self.session.tell(&Event::Resume { host, what: self.what(), offset: self.offset });
        }
        self.skip = skip;
        self.response = Some(response);
        Ok(())
    }

    /// Steps to the next place after a failure at a mirror, or waits to ask the location again.
    async fn recover(&mut self, failed: Failed) -> Result<(), RegistryError> {
        self.response = None;
        if self.at_mirror {
            self.session.tell(&mirror_failed(&self.place, &self.what(), failed.error));
            let next = self.mirrors.next();
            self.at_mirror = next.is_some();
            self.place = next.unwrap_or_else(|| self.location.clone());
            return Ok(());
        }
        if self.late() {
            return Err(failed.error);
        }
        let what = self.what();
        self.session.wait(&mut self.backoff, self.place.host(), &what, failed).await
    }

    fn late(&self) -> bool {
        self.until.is_some_and(|until| until < Instant::now())
    }

    /// The next bytes of the present answer, those handed on before left out.
    async fn receive(&mut self) -> Result<Option<Bytes>, Failed> {
        let late = self.late();
        let (host, what) = (self.place.host().to_owned(), self.what());
        let unavailable = |reason: String| RegistryError::Unavailable { host, what, reason };
        if late {
            return Err(unavailable("slower than 16 KiB a second".to_owned()).into());
        }
        let Some(response) = &mut self.response else {
            return Err(unavailable("no connection".to_owned()).into());
        };
        let chunk = next_chunk(response, self.session.config.stall()).await;
        let Some(mut chunk) = chunk.map_err(|reason| Failed::passing(unavailable(reason)))? else { return Ok(None) };
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
        chunk.advance(known);
        self.skip = self.skip.saturating_sub(known as u64);
        self.offset = self.offset.saturating_add(chunk.len() as u64);
        Ok(Some(chunk))
    }
}

#[async_trait]
impl BlobStream for HttpBlob {
    async fn next(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let failed = if self.response.is_none() {
                match self.request().await {
                    Ok(()) => continue,
                    Err(failed) => failed,
                }
            } else {
                match self.receive().await {
                    Ok(Some(chunk)) if chunk.is_empty() => continue,
                    Ok(chunk) => return Ok(chunk),
                    // All bytes are there: what broke was only the goodbye.
                    Err(_) if self.offset == self.size => return Ok(None),
                    Err(failed) => {
                        // The time for recovering counts from here, unless the last break brought next to nothing.
                        if self.renewed == 0 || self.offset.saturating_sub(self.renewed) >= PROGRESS {
                            self.renewed = self.offset.max(1);
                            self.backoff = Backoff::resume(&self.session.config);
                        }
                        failed
                    }
                }
            };
            self.recover(failed).await?;
        }
    }
}

/// Whether a `Content-Range` is `bytes offset-last/size` or `bytes offset-last/*`, up to the blob's end.
fn is_rest(range: &str, offset: u64, size: u64) -> bool {
    let Some((range, total)) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')) else {
        return false;
    };
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let Some((first, last)) = range.split_once('-') else { return false };
    number(first) == Some(offset)
        && number(last).and_then(|last| last.checked_add(1)) == Some(size)
        && (total == "*" || number(total) == Some(size))
}

#[cfg(test)]
mod tests {
    use super::is_rest;

    #[test]
    fn only_the_very_rest_is_taken() {
        assert!(is_rest("bytes 4-9/10", 4, 10) && is_rest("bytes 4-9/*", 4, 10));
        for range in [
            "bytes 3-9/10",
            "bytes 5-9/10",
            "bytes 4-8/10",
            "bytes 4-9/11",
            "bytes 4-10/10",
            "bytes */10",
            "bytes +4-9/10",
            "bytes -9/10",
            "items 4-9/10",
            "bytes 4-18446744073709551615/10",
            "",
        ] {
            assert!(!is_rest(range, 4, 10), "{range}");
        }
    }
}
