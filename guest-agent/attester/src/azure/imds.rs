//! The instance metadata service: one request, bounded in time and size. The host answers it, so nothing it says is
//! believed: certificate and TD quote are verified by whoever verifies the evidence.

use std::sync::Arc;
use std::time::Duration;

use protocols::azure::{MAX_ANSWER, read_certification, read_td_quote, td_quote_request};
use protocols::tdx::LOCAL_REPORT_SIZE;
use reqwest::{Client, Url};

use super::refused;
use crate::AttesterError;

const CERTIFICATION: &str = "metadata/THIM/amd/certification";
const TD_QUOTE: &str = "acc/tdquote";

/// A client of the service. Each request makes its connection and its runtime anew: there are few.
#[derive(Debug)]
pub(super) struct Imds {
    certification: Url,
    td_quote: Url,
    timeout: Duration,
}

impl Imds {
    pub(super) fn new(base: &str, timeout: Duration) -> Result<Self, AttesterError> {
        let wrong = || AttesterError::Config { detail: format!("`{base}` is not an http:// address that ends in /") };
        let base = Url::parse(base).ok().filter(|url| url.scheme() == "http" && url.path() == "/").ok_or_else(wrong)?;
        let join = |path| base.join(path).map_err(|_| wrong());
        Ok(Self { certification: join(CERTIFICATION)?, td_quote: join(TD_QUOTE)?, timeout })
    }

    /// The VCEK's certificate, DER.
    pub(super) fn vcek(&self) -> Result<Vec<u8>, AttesterError> {
        let answer = self.ask(&self.certification, None)?;
        read_certification(&answer).map_err(|error| told(&self.certification, &error.to_string()))
    }

    /// The quote that the machine's quoting enclave makes of a TD report.
    pub(super) fn td_quote(&self, report: &[u8; LOCAL_REPORT_SIZE]) -> Result<Vec<u8>, AttesterError> {
        let answer = self.ask(&self.td_quote, Some(td_quote_request(report)))?;
        read_td_quote(&answer).map_err(|error| told(&self.td_quote, &error.to_string()))
    }

    /// GET, or POST of JSON.
    fn ask(&self, url: &Url, json: Option<Vec<u8>>) -> Result<Vec<u8>, AttesterError> {
        // On a thread of its own: a runtime may not be begun within another, and callers may have one.
        let answer = std::thread::scope(|scope| {
            let request = std::thread::Builder::new().name("imds".to_owned());
            let request = request.spawn_scoped(scope, || self.answer(url, json));
            request.map_err(|error| error.to_string())?.join().map_err(|_| "the request ended early".to_owned())?
        });
        answer.map_err(|detail| told(url, &detail))
    }

    fn answer(&self, url: &Url, json: Option<Vec<u8>>) -> Result<Vec<u8>, String> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(async {
            let within = tokio::time::timeout(self.timeout, fetch(url, json)).await;
            within.map_err(|_| format!("no whole answer within {} ms", self.timeout.as_millis()))?
        })
    }
}

async fn fetch(url: &Url, json: Option<Vec<u8>>) -> Result<Vec<u8>, String> {
    let client = client()?;
    let request = match json {
        None => client.get(url.clone()),
        Some(json) => client.post(url.clone()).header("Content-Type", "application/json").body(json),
    };
    let request = request.header("Metadata", "true").header("Accept", "application/json");
    let mut response = request.send().await.map_err(|error| failed(&error))?;
    if !response.status().is_success() {
        return Err(format!("status {}", response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("more than {MAX_ANSWER} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn told(url: &Url, detail: &str) -> AttesterError {
    refused(format!("the instance metadata service at {url}: {detail}"))
}

/// Without roots: the service has no TLS, and is never asked through a proxy or elsewhere than at its address.
fn client() -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| error.to_string())
}

fn failed(error: &reqwest::Error) -> String {
    if error.is_connect() { "no connection".to_owned() } else { "no HTTP answer".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_http_root_is_an_address() {
        let made = Imds::new(super::super::IMDS, Duration::from_secs(1)).unwrap();
        assert_eq!(made.certification.as_str(), "http://169.254.169.254/metadata/THIM/amd/certification");
        assert_eq!(made.td_quote.as_str(), "http://169.254.169.254/acc/tdquote");
        for base in ["", "169.254.169.254", "https://host/", "file:///", "http://host/below/"] {
            assert!(matches!(Imds::new(base, Duration::from_secs(1)), Err(AttesterError::Config { .. })), "{base}");
        }
    }
}
