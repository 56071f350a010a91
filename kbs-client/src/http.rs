//! The thin shell: one request, bounded in time and size, to the one configured address.

use std::sync::Arc;
use std::time::Duration;

use protocols::kbs::{MAX_BODY, SESSION_COOKIE};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderValue, RETRY_AFTER, SET_COOKIE};
use reqwest::{Method, Url};
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config::{Attestor, ConfigError};
use crate::error::ClientError;
use crate::messages::Answer;
use crate::named::Named;
use crate::pins::Pinned;
use crate::retry::Retry;

/// The largest answer: a resource of the largest request body, encrypted and in base64.
const MAX_ANSWER: usize = 2 * MAX_BODY;

/// What a request shows of its session.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Credential<'s> {
    None,
    Cookie(&'s str),
    Bearer(&'s str),
}

/// What a request carries.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    None,
    Json(Vec<u8>),
    Jose(String),
}

#[derive(Debug, Clone)]
pub(crate) struct Shell {
    client: reqwest::Client,
    base: Url,
    timeout: Duration,
    pub(crate) retry: Retry,
}

impl Shell {
    pub(crate) fn new(attestor: &Attestor) -> Result<Self, ConfigError> {
        let tls = |error: String| ConfigError::Tls(error);
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = &attestor.root {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            let found = found.map_err(|_| ConfigError::Root("not PEM certificates".to_owned()))?;
            if found.is_empty() {
                return Err(ConfigError::Root("no certificate in it".to_owned()));
            }
            for certificate in found {
                roots.add(certificate).map_err(|error| ConfigError::Root(error.to_string()))?;
            }
        }
        if roots.is_empty() && attestor.base.scheme() == "https" {
            return Err(tls("no trusted roots: neither the system's nor attestor.root".to_owned()));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(error.to_string()))?;
        let config = match attestor.server_keys.clone() {
            None => config.with_root_certificates(roots),
            Some(keys) => {
                let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let usual = usual.map_err(|error| tls(error.to_string()))?;
                config.dangerous().with_custom_certificate_verifier(Arc::new(Pinned { usual, keys }))
            }
        };
        let config = config.with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            // The one configured address answers, or nobody: no redirects, no proxies from the environment.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("trusted-container-launcher/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(attestor.timeout)
            // Well below what servers keep idle connections for: none is used that is just being closed.
            .pool_idle_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| tls(error.to_string()))?;
        Ok(Self { client, base: attestor.base.clone(), timeout: attestor.timeout, retry: Retry::NEVER })
    }

    /// Sends a request that may be made again, as often as [`Retry`] says.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        credential: Credential<'_>,
        body: Body,
    ) -> Result<Answer, ClientError> {
        let mut made = 0;
        loop {
            let sent = self.send(method.clone(), path, credential, body.clone()).await;
            made += 1;
            let asked = match &sent {
                Ok(answer) if Retry::worth(answer.status) => answer.retry_after,
                Err(ClientError::Unavailable { .. }) => None,
                _ => return sent,
            };
            let mut dice = [0; 8];
            // Without randomness the pause is the shortest.
            let _ = getrandom::fill(&mut dice);
            match self.retry.pause(made, u64::from_le_bytes(dice), asked) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return sent,
            }
        }
    }

    /// Sends one request; the timeout runs from connecting to the answer's last byte. `path` starts with a slash
    /// and is taken beneath the configured address.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        credential: Credential<'_>,
        body: Body,
    ) -> Result<Answer, ClientError> {
        let url = self
            .base
            .join(path.trim_start_matches('/'))
            .map_err(|_| ClientError::Request { what: "its path makes no address" })?;
        let mut request = self.client.request(method, url).timeout(self.timeout);
        request = match credential {
            Credential::None => request,
            Credential::Cookie(id) => request.header(COOKIE, secret(&format!("{SESSION_COOKIE}={id}"))?),
            Credential::Bearer(token) => request.header(AUTHORIZATION, secret(&format!("Bearer {token}"))?),
        };
        request = match body {
            Body::None => request,
            Body::Json(bytes) => request.header(CONTENT_TYPE, "application/json").body(bytes),
            Body::Jose(text) => request.header(CONTENT_TYPE, "application/jose").body(text),
        };
        let (named, request) = Named::name(request);
        let asked = request.send().await;
        let status = asked.as_ref().map_or(0, |response| response.status().as_u16());
        tracing::info!(id = named.as_str(), path, status, "asked the attestor");
        let mut response = asked.map_err(|error| self.failed(&error))?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = retry_after.map(Duration::from_secs);
        let cookie = response.headers().get_all(SET_COOKIE).iter().find_map(session_cookie);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(ClientError::protocol("an answer of more than 4 MiB"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, cookie, retry_after, body })
    }

    /// Says what went wrong without addresses or content.
    fn failed(&self, error: &reqwest::Error) -> ClientError {
        if error.is_timeout() {
            return ClientError::unavailable(format!("no answer within {} s", self.timeout.as_secs()));
        }
        if error.is_connect() {
            return ClientError::unavailable("no connection");
        }
        if error.is_builder() {
            return ClientError::Request { what: "it is not valid HTTP" };
        }
        ClientError::unavailable("the connection ended before the answer")
    }
}

fn secret(text: &str) -> Result<HeaderValue, ClientError> {
    let mut value =
        HeaderValue::from_str(text).map_err(|_| ClientError::protocol("a cookie or token that is no header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The session cookie's value of a `Set-Cookie` header; its attributes mean nothing to a client of one address.
fn session_cookie(header: &HeaderValue) -> Option<String> {
    let pair = header.to_str().ok()?.split(';').next()?;
    let (name, value) = pair.split_once('=')?;
    (name.trim() == SESSION_COOKIE).then(|| value.trim().to_owned())
}
