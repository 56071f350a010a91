//! One request after another to one registry: authentication, redirects, status codes, deadlines, retries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE, WWW_AUTHENTICATE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;

use super::retry::{Backoff, Failed, retry_after};
use super::tls;
use crate::auth::credentials::Credentials;
use crate::auth::{Challenge, Credential, parse_challenges};
use crate::config::RegistryConfig;
use crate::error::RegistryError;
use crate::events::{Event, RegistryEvents, trace};
use crate::reference::Repository;

/// The most redirects of one request.
pub(super) const MAX_REDIRECTS: usize = 5;
/// The largest answer of a token server, in bytes.
const MAX_TOKEN: usize = 256 * 1024;
/// The most header values kept; beyond, all are asked for anew.
const MAX_CACHED: usize = 256;

/// What a token must allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Pull,
    Push,
}

/// An `Authorization` value that worked, and when it ends.
#[derive(Debug, Clone)]
pub(super) struct Authorization {
    value: HeaderValue,
    until: Option<Instant>,
}

type AuthorizationKey = (String, String, Action);

/// What every request of one client shares.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) config: RegistryConfig,
    pub(super) events: Arc<dyn RegistryEvents>,
    pub(super) clients: tls::Clients,
    credentials: Credentials,
    authorizations: Mutex<HashMap<AuthorizationKey, Authorization>>,
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) repository: &'a Repository,
    pub(super) url: Url,
    pub(super) action: Action,
    pub(super) accept: Option<&'static str>,
    pub(super) body: Option<(&'a str, Bytes)>,
    /// The first byte wanted; zero asks for the whole.
    pub(super) offset: u64,
    /// Whether it is asked at a mirror, which is not asked again.
    pub(super) mirror: bool,
    /// What is asked for, in errors.
    pub(super) what: String,
}

impl<'a> Call<'a> {
    /// A request without a body, for the whole of something at its location.
    pub(super) const fn new(
        method: Method,
        repository: &'a Repository,
        url: Url,
        action: Action,
        what: String,
    ) -> Self {
        Self { method, repository, url, action, accept: None, body: None, offset: 0, mirror: false, what }
    }
}

impl Session {
    pub(super) fn new(
        config: RegistryConfig,
        clients: tls::Clients,
        credentials: Credentials,
        events: Arc<dyn RegistryEvents>,
    ) -> Self {
        Self { config, events, clients, credentials, authorizations: Mutex::default() }
    }

    /// The registry's address: plain HTTP exactly where the configuration lists the host.
    fn base(&self, repository: &Repository) -> Result<Url, RegistryError> {
        let host = repository.host();
        let scheme = if self.config.allows_plain_http(host) { "http" } else { "https" };
        let api_host = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let refused = |_| RegistryError::Config { reason: format!("{host} makes no address") };
        Url::parse(&format!("{scheme}://{api_host}/")).map_err(refused)
    }

    /// The address of something in a repository.
    pub(super) fn endpoint(&self, repository: &Repository, rest: &str) -> Result<Url, RegistryError> {
        let mut url = self.base(repository)?;
        url.set_path(&format!("/v2/{}/{rest}", repository.full_name()));
        Ok(url)
    }

    /// Tells of an event.
    pub(super) fn tell(&self, event: &Event) {
        trace(event);
        self.events.event(event);
    }

    /// Waits before a next try, or gives the error when there is none.
    pub(super) async fn wait(
        &self,
        backoff: &mut Backoff,
        host: &str,
        what: &str,
        failed: Failed,
    ) -> Result<(), RegistryError> {
        let Some(wait) = backoff.next(failed.again) else { return Err(failed.error) };
        let (host, what) = (host.to_owned(), what.to_owned());
        self.tell(&Event::Retry { host, what, reason: failed.error.to_string(), wait });
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Only what changes nothing is sent again, and only to the last place there is.
    fn backoff(&self, call: &Call<'_>) -> Backoff {
        let reads = call.method == Method::GET || call.method == Method::HEAD;
        if reads && !call.mirror { Backoff::request(&self.config) } else { Backoff::none(&self.config) }
    }

    /// Sends one request, again where a failure may pass, and gives a 2xx answer.
    pub(super) async fn send(&self, call: &Call<'_>) -> Result<Response, RegistryError> {
        let mut backoff = self.backoff(call);
        loop {
            match self.attempt(call).await {
                Ok(response) => return Ok(response),
                Err(failed) => self.wait(&mut backoff, call.repository.host(), &call.what, failed).await?,
            }
        }
    }

    /// As [`Session::send`], with the whole answer of at most `limit` bytes.
    pub(super) async fn fetch(&self, call: &Call<'_>, limit: usize) -> Result<(HeaderMap, Bytes), RegistryError> {
        let mut backoff = self.backoff(call);
        loop {
            let attempt = async {
                let response = self.attempt(call).await?;
                let headers = response.headers().clone();
                Ok((headers, self.bounded(response, call.repository.host(), &call.what, limit).await?))
            };
            match attempt.await {
                Ok(fetched) => return Ok(fetched),
                Err(failed) => self.wait(&mut backoff, call.repository.host(), &call.what, failed).await?,
            }
        }
    }

    /// Sends one request once, authenticating where the registry asks for it, and gives a 2xx answer.
    pub(super) async fn attempt(&self, call: &Call<'_>) -> Result<Response, Failed> {
        let mut asked = false;
        loop {
            let response = self.follow(call).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let at_registry = same_origin(response.url(), &self.base(call.repository)?);
            if status == StatusCode::UNAUTHORIZED && at_registry && !asked {
                asked = true;
                if self.authenticate(call, &response).await? {
                    continue;
                }
            }
            return Err(status_error(host_of(response.url()), call.what.clone(), &response));
        }
    }

    /// Sends one request and follows its redirects. Only the registry's own origin sees credentials.
    async fn follow(&self, call: &Call<'_>) -> Result<Response, Failed> {
        let origin = self.base(call.repository)?;
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            if !same_origin(&url, &origin) {
                self.check_scheme(&url, "a redirect")?;
            }
            let mut request = self.clients.of(&url)?.request(call.method.clone(), url.clone());
            if let Some(accept) = call.accept {
                request = request.header(ACCEPT, accept);
            }
            if same_origin(&url, &origin)
                && let Some(value) = self.cached(call)
            {
                request = request.header(AUTHORIZATION, value);
            }
            if call.offset > 0 {
                request = request.header(RANGE, format!("bytes={}-", call.offset));
            }
            if let Some((kind, body)) = &call.body {
                request = request.header(CONTENT_TYPE, *kind).body(body.clone());
            }
            let response = self.within(self.allowance(call), &call.what, &url, request).await?;
            let redirect = response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED;
            if !redirect {
                return Ok(response);
            }
            if call.method != Method::GET && call.method != Method::HEAD {
                return Err(malformed(call, "a redirect of a request that changes something").into());
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| malformed(call, "a redirect without a usable Location"))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(RegistryError::PlainHttp { host: host_of(&next), what: "a redirect from TLS" }.into());
            }
            url = next;
        }
        Err(malformed(call, "too many redirects").into())
    }

    /// A body may take its time, but not for ever: at least 64 KiB a second.
    fn allowance(&self, call: &Call<'_>) -> Duration {
        let bytes = call.body.as_ref().map_or(0, |(_, body)| body.len() as u64);
        self.config.request().saturating_add(Duration::from_secs(bytes >> 16))
    }

    pub(super) async fn within(
        &self,
        allowance: Duration,
        what: &str,
        url: &Url,
        request: reqwest::RequestBuilder,
    ) -> Result<Response, Failed> {
        let host = host_of(url);
        let unavailable = |host, reason| RegistryError::Unavailable { host, what: what.to_owned(), reason };
        match tokio::time::timeout(allowance, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) if tls::speaks_plain(&e) => {
                Err(RegistryError::PlainHttp { host, what: "the server does not speak TLS" }.into())
            }
            // A certificate does not get better within seconds.
            Ok(Err(e)) if tls::refuses(&e) => Err(unavailable(host, tls::cause(&e)).into()),
            Ok(Err(e)) => Err(Failed::passing(unavailable(host, tls::cause(&e)))),
            Err(_) => Err(Failed::passing(unavailable(host, format!("no answer in {} s", allowance.as_secs())))),
        }
    }

    /// TLS, or plain HTTP to a listed host; nothing else is ever connected to.
    pub(super) fn check_scheme(&self, url: &Url, what: &'static str) -> Result<(), RegistryError> {
        let host = host_of(url);
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.config.allows_plain_http(&host) => Ok(()),
            "http" => Err(RegistryError::PlainHttp { host, what }),
            _ => Err(RegistryError::Malformed { host, what: what.to_owned(), reason: "an unknown scheme".to_owned() }),
        }
    }

    fn cached(&self, call: &Call<'_>) -> Option<HeaderValue> {
        let cache = self.authorizations.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = cache.get(&key(call))?;
        found.until.is_none_or(|until| Instant::now() < until).then(|| found.value.clone())
    }

    /// Answers a 401: `true` when the request should be sent again.
    async fn authenticate(&self, call: &Call<'_>, response: &Response) -> Result<bool, Failed> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let mut challenges = Vec::new();
        for header in headers {
            let text = header.to_str().map_err(|_| malformed(call, "a challenge that is not text"))?;
            challenges.extend(parse_challenges(text).map_err(|e| malformed(call, &e.to_string()))?);
        }
        let found = self.credentials.find(call.repository.host(), &call.repository.full_name()).await;
        let credential = found.map_err(|e| RegistryError::Config { reason: e.to_string() })?;
        let credential = credential.as_ref();
        let authorization = if let Some(Credential::Bearer(token)) = credential {
            Some(bearer(call, token, None)?)
        } else if let Some(challenge) = challenges.iter().find(|c| c.scheme == "bearer") {
            Some(self.token(call, challenge, credential).await?)
        } else if let (Some(_), Some(Credential::Basic { username, password })) =
            (challenges.iter().find(|c| c.scheme == "basic"), credential)
        {
            Some(basic(call, username, password)?)
        } else {
            None
        };
        let mut cache = self.authorizations.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        let Some(authorization) = authorization else {
            cache.remove(&key(call));
            return Ok(false);
        };
        cache.insert(key(call), authorization);
        Ok(true)
    }

    /// Fetches a bearer token from the challenge's realm. The scope is what we need, not what the
    /// registry would like us to ask for.
    async fn token(
        &self,
        call: &Call<'_>,
        challenge: &Challenge,
        credential: Option<&Credential>,
    ) -> Result<Authorization, Failed> {
        let realm =
            challenge.parameters.get("realm").ok_or_else(|| malformed(call, "a bearer challenge without realm"))?;
        let mut url = Url::parse(realm).map_err(|_| malformed(call, "a realm that is not a URL"))?;
        self.check_scheme(&url, "the token server")?;
        let actions = if call.action == Action::Push { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{actions}", call.repository.full_name());
        let service = challenge.parameters.get("service").map_or("", String::as_str);
        let request = if let Some(Credential::Identity(refresh)) = credential {
            // A form is encoded as a query is.
            let mut form = url.clone();
            form.query_pairs_mut()
                .clear()
                .append_pair("grant_type", "refresh_token")
                .append_pair("refresh_token", refresh)
                .append_pair("service", service)
                .append_pair("scope", &scope)
                .append_pair("client_id", "trusted-container-launcher");
            let request =
                self.clients.of(&url)?.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            request.body(form.query().unwrap_or_default().to_owned())
        } else {
            if !service.is_empty() {
                url.query_pairs_mut().append_pair("service", service);
            }
            url.query_pairs_mut().append_pair("scope", &scope);
            let request = self.clients.of(&url)?.get(url.clone());
            match credential {
                Some(Credential::Basic { username, password }) => {
                    request.header(AUTHORIZATION, basic(call, username, password)?.value)
                }
                _ => request,
            }
        };
        let what = format!("a token for {}", call.what);
        let response = self.within(self.config.request(), &what, &url, request).await?;
        let host = host_of(&url);
        match response.status() {
            status if status.is_success() => {}
            // Token servers answer wrong credentials with 400 as well.
            StatusCode::BAD_REQUEST => return Err(RegistryError::Denied { host, what, status: 400 }.into()),
            StatusCode::NOT_FOUND => {
                let reason = "no token server there".to_owned();
                return Err(RegistryError::Malformed { host, what, reason }.into());
            }
            _ => return Err(status_error(host, what, &response)),
        }
        let body = self.bounded(response, &host, &what, MAX_TOKEN).await?;
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        // The parser's message could quote the token.
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| malformed(call, "the token server's answer"))?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| malformed(call, "the token server gave no token"))?;
        // The specification's default is 60 s; a tenth is left for the request itself.
        let seconds = answer.expires_in.unwrap_or(60).clamp(1, 3600);
        let until = Instant::now().checked_add(Duration::from_millis(seconds.saturating_mul(900)));
        Ok(bearer(call, &token, until)?)
    }

    /// Reads a whole answer of at most `limit` bytes.
    pub(super) async fn bounded(
        &self,
        mut response: Response,
        host: &str,
        what: &str,
        limit: usize,
    ) -> Result<Bytes, Failed> {
        let too_large =
            || RegistryError::TooLarge { host: host.to_owned(), what: what.to_owned(), limit: limit as u64 };
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(too_large().into());
        }
        let unavailable = |reason: String| {
            Failed::passing(RegistryError::Unavailable { host: host.to_owned(), what: what.to_owned(), reason })
        };
        let read = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = self.chunk(&mut response).await.map_err(unavailable)? {
                if bytes.len().saturating_add(chunk.len()) > limit {
                    return Err(too_large().into());
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(Bytes::from(bytes))
        };
        let allowance = self.config.request();
        let late = |_| unavailable(format!("not complete after {} s", allowance.as_secs()));
        tokio::time::timeout(allowance, read).await.map_err(late)?
    }

    async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, String> {
        next_chunk(response, self.config.stall()).await
    }
}

/// The next chunk of an answer, or why there is none.
pub(super) async fn next_chunk(response: &mut Response, stall: Duration) -> Result<Option<Bytes>, String> {
    match tokio::time::timeout(stall, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(e)) => Err(format!("the connection broke: {}", tls::cause(&e))),
        Err(_) => Err(format!("stalled: no byte for {} s", stall.as_secs())),
    }
}

fn key(call: &Call<'_>) -> AuthorizationKey {
    (call.repository.host().to_owned(), call.repository.name().to_owned(), call.action)
}

fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// `host[:port]` as a configuration would write it.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

pub(super) fn malformed(call: &Call<'_>, reason: &str) -> RegistryError {
    RegistryError::Malformed {
        host: call.repository.host().to_owned(),
        what: call.what.clone(),
        reason: reason.to_owned(),
    }
}

/// An answer that is not 2xx. Servers in trouble and servers that ask for patience are asked again.
pub(super) fn status_error(host: String, what: String, response: &Response) -> Failed {
    let status = response.status();
    let reason = format!("status {}", status.as_u16());
    match status {
        StatusCode::NOT_FOUND => RegistryError::NotFound { host, what }.into(),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            RegistryError::Denied { host, what, status: status.as_u16() }.into()
        }
        StatusCode::NOT_IMPLEMENTED => RegistryError::Unavailable { host, what, reason }.into(),
        status
            if status.is_server_error()
                || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) =>
        {
            Failed { error: RegistryError::Unavailable { host, what, reason }, again: retry_after(response.headers()) }
        }
        _ => RegistryError::Malformed { host, what, reason }.into(),
    }
}

fn header(call: &Call<'_>, text: &str, until: Option<Instant>) -> Result<Authorization, RegistryError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| malformed(call, "a credential with control characters"))?;
    value.set_sensitive(true);
    Ok(Authorization { value, until })
}

fn bearer(call: &Call<'_>, token: &str, until: Option<Instant>) -> Result<Authorization, RegistryError> {
    header(call, &format!("Bearer {token}"), until)
}

fn basic(call: &Call<'_>, username: &str, password: &str) -> Result<Authorization, RegistryError> {
    let encoded = protocols::encoding::b64(format!("{username}:{password}").as_bytes());
    header(call, &format!("Basic {encoded}"), None)
}
