//! Services over HTTP: one address, bounded answers, bounded patience.

use std::sync::Arc;
use std::time::Duration;

use protocols::time::Timestamp;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde_json::json;
use tokio::time::Instant;
use verifier::tdx::TdxCollateral;

use crate::directory::{counts, goes_back, is_fresh};
use crate::intel::{PCK_CRL_CHAIN, QE_CHAIN, TCB_CHAIN, decoded, list, signed};
use crate::{Directory, EndorsementError, PlatformName, VekName};

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest one request may take, its answer included.
    pub request: Duration,
    /// The longest everything for one endorsement may take, waits included.
    pub total: Duration,
    /// How often one request is sent at most.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles. A server that asks for more gets it, within `total`.
    pub wait: Duration,
    /// The longest answer, in bytes.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(10),
            total: Duration::from_secs(30),
            attempts: 4,
            wait: Duration::from_millis(500),
            bytes: 512 * 1024,
        }
    }
}

/// A service with AMD's paths (Key Distribution Service) or Intel's (PCCS), at one address.
#[derive(Debug, Clone)]
pub struct Service {
    client: reqwest::Client,
    base: Url,
    limits: Limits,
}

/// An answer in parts.
struct Answer {
    headers: HeaderMap,
    body: Vec<u8>,
}

/// One attempt that gave nothing.
enum Failed {
    /// For good.
    Ended(EndorsementError),
    /// It may pass, after this time at the earliest.
    Passing(String, Option<Duration>),
}

impl Service {
    /// The service at `address`: https, or http on this very machine. It connects nowhere yet.
    ///
    /// # Errors
    /// [`EndorsementError::Address`].
    pub fn new(address: &str, limits: Limits) -> Result<Self, EndorsementError> {
        let refused = |what| EndorsementError::Address { address: address.to_owned(), what };
        let mut base = Url::parse(address).map_err(|_| refused("not a URL"))?;
        let local = match base.host_str() {
            None | Some("") => return Err(refused("without a host")),
            Some("localhost") => true,
            Some(host) => {
                host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        };
        match base.scheme() {
            "https" => {}
            "http" if local => {}
            _ => return Err(refused("neither https nor http on this machine")),
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(refused("more than a place"));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| refused("TLS cannot be had"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // The one configured address answers, or nobody.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .http1_only()
            .user_agent(concat!("trusted-container-launcher/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| refused("no client for it"))?;
        Ok(Self { client, base, limits })
    }

    /// A VCEK's certificate, DER: from the directory, or else from the service. The caller keeps it once the verifier
    /// accepted it.
    ///
    /// # Errors
    /// [`EndorsementError`].
    pub async fn vek(&self, name: &VekName, kept: &Directory) -> Result<Vec<u8>, EndorsementError> {
        if let Some(known) = kept.vek(name)? {
            return Ok(known);
        }
        Ok(self.get(&name.path()?, self.deadline()).await?.body)
    }

    /// The revocation list of a VEK's product, DER, as it is now.
    ///
    /// # Errors
    /// [`EndorsementError`].
    pub async fn crl(&self, name: &VekName) -> Result<Vec<u8>, EndorsementError> {
        Ok(self.get(&name.crl_path(), self.deadline()).await?.body)
    }

    /// A platform's collateral as JSON: from the directory while more than a quarter of its life is left, else from the
    /// service; and where that gives none, from the directory all the same for as long as it counts.
    ///
    /// # Errors
    /// [`EndorsementError`].
    pub async fn collateral(
        &self,
        name: &PlatformName,
        kept: &Directory,
        now: Timestamp,
    ) -> Result<Vec<u8>, EndorsementError> {
        let known = kept.collateral(name)?;
        if let Some(known) = known.as_ref().filter(|known| is_fresh(known, now)) {
            return Ok(known.clone());
        }
        match self.fetch_collateral(name).await {
            // A service that goes back in time would bring back what was revoked since.
            Ok(fetched) => {
                Ok(known.filter(|known| counts(known, now) && goes_back(known, &fetched)).unwrap_or(fetched))
            }
            Err(error) => known.filter(|known| counts(known, now)).ok_or(error),
        }
    }

    async fn fetch_collateral(&self, name: &PlatformName) -> Result<Vec<u8>, EndorsementError> {
        let until = self.deadline();
        let [pck_crl, root_crl, qe_identity] = name.paths();
        let pck_crl = self.get(pck_crl, until).await?;
        let root_crl = self.get(root_crl, until).await?;
        let identity = self.get(qe_identity, until).await?;
        let tcb = self.get(&name.tcb_path(), until).await?;
        let malformed = |what: String| EndorsementError::Malformed { url: self.base.to_string(), what };
        let chain = |answer: &Answer, header: &str| {
            let text = answer.headers.get(header).and_then(|value| value.to_str().ok());
            text.and_then(decoded).ok_or_else(|| malformed(format!("no {header}")))
        };
        let (tcb_info, tcb_info_signature) = signed(&tcb.body, "tcbInfo").map_err(malformed)?;
        let (qe, qe_signature) = signed(&identity.body, "enclaveIdentity").map_err(malformed)?;
        let json = json!({
            "pck_crl_issuer_chain": chain(&pck_crl, PCK_CRL_CHAIN)?,
            "root_ca_crl": list(&root_crl.body),
            "pck_crl": list(&pck_crl.body),
            "tcb_info_issuer_chain": chain(&tcb, TCB_CHAIN)?,
            "tcb_info": tcb_info,
            "tcb_info_signature": tcb_info_signature,
            "qe_identity_issuer_chain": chain(&identity, QE_CHAIN)?,
            "qe_identity": qe,
            "qe_identity_signature": qe_signature,
        })
        .to_string()
        .into_bytes();
        let read = TdxCollateral::parse(&json).map_err(|error| malformed(error.to_string()))?;
        if read.fmspc() != &name.fmspc {
            return Err(malformed("TCB info of another kind of platform".to_owned()));
        }
        Ok(json)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.limits.total
    }

    /// GET, again where the failure may pass: 408, 429, 5xx, and connections that break.
    async fn get(&self, path: &str, until: Instant) -> Result<Answer, EndorsementError> {
        let url = self.base.join(path).map_err(|_| EndorsementError::Unnamed("no address can be made for it"))?;
        let mut wait = self.limits.wait;
        let mut attempt = 1;
        loop {
            let (what, asked) = match self.once(&url).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Ended(error)) => return Err(error),
                Err(Failed::Passing(what, asked)) => (what, asked),
            };
            let pause = asked.unwrap_or_default().max(wait);
            // The server may ask for more patience than there is.
            let next = Instant::now().checked_add(pause).filter(|next| *next < until);
            let Some(next) = next.filter(|_| attempt < self.limits.attempts) else {
                return Err(EndorsementError::Unavailable { url: url.to_string(), what });
            };
            tokio::time::sleep_until(next).await;
            wait = wait.saturating_mul(2);
            attempt += 1;
        }
    }

    async fn once(&self, url: &Url) -> Result<Answer, Failed> {
        let broken = |error: reqwest::Error| {
            let what =
                if error.is_timeout() { "no whole answer in time".to_owned() } else { error.without_url().to_string() };
            Failed::Passing(what, None)
        };
        let mut response = self.client.get(url.clone()).timeout(self.limits.request).send().await.map_err(broken)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Failed::Ended(EndorsementError::Missing { url: url.to_string() })),
            status
                if status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status) =>
            {
                let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
                let asked = header.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
                return Err(Failed::Passing(format!("status {status}"), asked));
            }
            status => {
                let what = format!("status {status}");
                return Err(Failed::Ended(EndorsementError::Unavailable { url: url.to_string(), what }));
            }
        }
        let headers = response.headers().clone();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len().saturating_add(chunk.len()) > self.limits.bytes {
                let what = format!("longer than {} bytes", self.limits.bytes);
                return Err(Failed::Ended(EndorsementError::Malformed { url: url.to_string(), what }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { headers, body })
    }
}
