//! The HTTP client: TLS by rustls with ring, system roots and the configured one, no redirects of its own.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::config::RegistryConfig;
use crate::error::RegistryError;

/// The clients for plain HTTP and for TLS. The system's roots are read when TLS is first used.
#[derive(Debug)]
pub(super) struct Clients {
    plain: reqwest::Client,
    tls: OnceLock<reqwest::Client>,
    roots: rustls::RootCertStore,
    proxy: Option<String>,
    no_proxy: Vec<String>,
    connect: Duration,
}

impl Clients {
    /// Reads the configured roots; connects nowhere.
    pub(super) fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let mut roots = rustls::RootCertStore::empty();
        for path in &config.roots {
            let refused =
                |e: &dyn std::fmt::Display| RegistryError::Config { reason: format!("root {}: {e}", path.display()) };
            let pem = config.read(path)?;
            let mut count = 0usize;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.map_err(|e| refused(&e))?).map_err(|e| refused(&e))?;
                count = count.saturating_add(1);
            }
            if count == 0 {
                return Err(refused(&"no certificate in it"));
            }
        }
        // Without a root it connects by TLS to nobody.
        let plain = client(rustls::RootCertStore::empty(), None, &[], config.connect())?;
        let (proxy, no_proxy) = (config.proxy.clone(), config.no_proxy.clone());
        let mut clients = Self { plain, tls: OnceLock::new(), roots, proxy, no_proxy, connect: config.connect() };
        if clients.proxy.is_some() {
            // The proxy itself may speak TLS.
            clients.plain = clients.tls()?;
        }
        Ok(clients)
    }

    /// The client for an address.
    pub(super) fn of(&self, url: &reqwest::Url) -> Result<reqwest::Client, RegistryError> {
        if url.scheme() == "http" { Ok(self.plain.clone()) } else { self.tls() }
    }

    fn tls(&self) -> Result<reqwest::Client, RegistryError> {
        if let Some(client) = self.tls.get() {
            return Ok(client.clone());
        }
        let mut roots = self.roots.clone();
        // A system without certificates is usual in a small guest: then only the configured root counts.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let client = client(roots, self.proxy.as_deref(), &self.no_proxy, self.connect)?;
        Ok(self.tls.get_or_init(|| client).clone())
    }
}

/// Builds a client. Redirects are followed by hand, because they decide who sees credentials; the proxy is
/// the configured one, never the environment's, because the environment is not measured.
fn client(
    roots: rustls::RootCertStore,
    address: Option<&str>,
    no_proxy: &[String],
    connect: Duration,
) -> Result<reqwest::Client, RegistryError> {
    let refused = |reason: String| RegistryError::Config { reason };
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| refused(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = match address {
        None => reqwest::Client::builder().no_proxy(),
        Some(address) => reqwest::Client::builder().proxy(proxy(address, no_proxy)?),
    };
    builder
        .tls_backend_preconfigured(tls)
        .connect_timeout(connect)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .user_agent(concat!("trusted-container-launcher/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| refused(e.to_string()))
}

/// The proxy for every request but those to `except`.
fn proxy(address: &str, except: &[String]) -> Result<reqwest::Proxy, RegistryError> {
    // The address can hold a password: it is not repeated.
    let refused = |reason: &str| RegistryError::Config { reason: format!("proxy: {reason}") };
    let url = reqwest::Url::parse(address).map_err(|_| refused("not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(refused("not http://host:port or https://host:port"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(refused("more than scheme, user, host and port"));
    }
    if let Some(entry) = except.iter().find(|entry| entry.is_empty() || entry.contains([',', ' '])) {
        return Err(RegistryError::Config { reason: format!("no_proxy: {entry:?} is not one host, address or block") });
    }
    let proxy = reqwest::Proxy::all(url).map_err(|_| refused("it cannot be used"))?;
    Ok(proxy.no_proxy(reqwest::NoProxy::from_string(&except.join(","))))
}

/// The errors behind an error, the error itself first.
fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        // An io::Error hides the error it wraps from `source`.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        wrapped.map(|e| e as &(dyn std::error::Error + 'static)).or_else(|| error.source())
    })
}

/// Whether TLS failed because the other side speaks something else, plain HTTP as a rule.
pub(super) fn speaks_plain(error: &(dyn std::error::Error + 'static)) -> bool {
    let plain = rustls::InvalidMessage::InvalidContentType;
    chain(error)
        .any(|error| matches!(error.downcast_ref(), Some(rustls::Error::InvalidMessage(message)) if *message == plain))
}

/// Whether TLS itself refused the other side.
pub(super) fn refuses(error: &(dyn std::error::Error + 'static)) -> bool {
    chain(error).any(|error| error.is::<rustls::Error>())
}

/// The innermost cause in words; the outer ones repeat the address.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if error.is_timeout() { "it took too long".to_owned() } else { innermost.to_string() }
}
