//! Which attestor is asked, and the key its answers are checked with.

use std::path::PathBuf;
use std::time::Duration;

use protocols::digest::Sha256Digest;
use protocols::environment::Environment;
use protocols::keys::VerifyingKey;
use serde::Deserialize;

use crate::error::ClientError;
use crate::verified::{ReceiptState, VerifiedReceipt};

/// The longest answer is waited for at most this long where the configuration names no time, in seconds.
const DEFAULT_TIMEOUT: u64 = 10;
/// The largest extra root file, in bytes.
const MAX_ROOT: u64 = 1024 * 1024;

/// `[attestor]` of a configuration file; unknown fields are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum AttestorConfig {
    /// Our own attestor: the log's head is bound in the handshake, verdicts and receipts are signed.
    Tcl {
        /// Base address; `http` only for loopback.
        url: String,
        /// Public key of verdicts and receipts, SPKI PEM, ECDSA P-256.
        key: String,
        /// Seconds one request may take, from connecting to the answer's last byte; 10 when absent.
        timeout_seconds: Option<u64>,
        /// PEM file of one more TLS root.
        root: Option<PathBuf>,
        /// What `root` must hold, so that it is measured with the configuration; production requires it.
        root_digest: Option<Sha256Digest>,
        /// SHA-256 of the SubjectPublicKeyInfo of every key that the server's certificate may have, beside its chain;
        /// absent: the chain alone decides.
        server_keys: Option<Vec<Sha256Digest>>,
    },
    /// A stock KBS: resources only.
    Trustee {
        /// Base address; `http` only for loopback.
        url: String,
        /// Seconds one request may take; 10 when absent.
        timeout_seconds: Option<u64>,
        /// PEM file of one more TLS root.
        root: Option<PathBuf>,
        /// As of our own attestor.
        server_keys: Option<Vec<Sha256Digest>>,
    },
}

/// What is wrong with an `[attestor]` section.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not an absolute `http` or `https` address without user, query or fragment.
    #[error("attestor.url: {0}")]
    Url(&'static str),
    /// `http` to another machine.
    #[error("attestor.url: plain http is for loopback addresses only")]
    PlainHttp,
    /// Not a P-256 public key.
    #[error("attestor.key: not an SPKI PEM public key on P-256")]
    Key,
    /// Zero, or more than an hour.
    #[error("attestor.timeout_seconds: must be from 1 to 3600")]
    Timeout,
    /// The root file cannot be used.
    #[error("attestor.root: {0}")]
    Root(String),
    /// No key is named, or plain HTTP is spoken, where nothing shows the server's key.
    #[error("attestor.server_keys: {0}")]
    ServerKeys(&'static str),
    /// No TLS client can be made.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Who answers, by kind.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Tcl(Box<p256::ecdsa::VerifyingKey>),
    Trustee,
}

/// A checked `[attestor]` section: everything needed to talk to it and to judge its answers.
#[derive(Debug, Clone)]
pub struct Attestor {
    pub(crate) base: reqwest::Url,
    pub(crate) kind: Kind,
    pub(crate) environment: Environment,
    pub(crate) timeout: Duration,
    pub(crate) root: Option<Vec<u8>>,
    pub(crate) server_keys: Option<Vec<Sha256Digest>>,
}

impl Attestor {
    /// Checks a section, reading the root file it names. `environment` is the agent's own: production accepts
    /// no development attestor.
    ///
    /// # Errors
    /// [`ConfigError`] names the field.
    pub fn new(config: &AttestorConfig, environment: Environment) -> Result<Self, ConfigError> {
        let (url, kind, timeout, root, digest, server_keys) = match config {
            AttestorConfig::Tcl { url, key, timeout_seconds, root, root_digest, server_keys } => {
                let Ok(VerifyingKey::EcdsaP256(key)) = VerifyingKey::from_pem(key) else {
                    return Err(ConfigError::Key);
                };
                (url, Kind::Tcl(Box::new(key)), timeout_seconds, root, *root_digest, server_keys)
            }
            AttestorConfig::Trustee { url, timeout_seconds, root, server_keys } => {
                (url, Kind::Trustee, timeout_seconds, root, None, server_keys)
            }
        };
        let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT);
        if !(1..=3600).contains(&timeout) {
            return Err(ConfigError::Timeout);
        }
        let root = root.as_ref().map(read_root).transpose()?;
        if let Some(expected) = digest {
            let actual = root.as_deref().map(Sha256Digest::of);
            if actual != Some(expected) {
                let actual = actual.map_or_else(|| "no file".to_owned(), |digest| digest.to_string());
                return Err(ConfigError::Root(format!("{actual}, where root_digest says {expected}")));
            }
        }
        let (base, server_keys) = (base(url)?, server_keys.clone());
        match &server_keys {
            Some(keys) if keys.is_empty() => return Err(ConfigError::ServerKeys("names none")),
            Some(_) if base.scheme() != "https" => return Err(ConfigError::ServerKeys("is for https alone")),
            _ => {}
        }
        Ok(Self { base, kind, environment, timeout: Duration::from_secs(timeout), root, server_keys })
    }

    /// Whether this is our own attestor, which decides launches and keeps logs.
    #[must_use]
    pub const fn decides(&self) -> bool {
        matches!(self.kind, Kind::Tcl(_))
    }

    /// Verifies a receipt kept from an earlier life of this agent, to go on after it.
    ///
    /// # Errors
    /// [`ClientError::Signature`] when the pinned key did not sign it, [`ClientError::Receipt`] when it is
    /// another guest's.
    pub fn restore(&self, guest: protocols::guest::GuestId, compact: &str) -> Result<ReceiptState, ClientError> {
        Ok(ReceiptState::after(&VerifiedReceipt::restore(self.key()?, guest, compact)?))
    }

    pub(crate) fn key(&self) -> Result<&p256::ecdsa::VerifyingKey, ClientError> {
        match &self.kind {
            Kind::Tcl(key) => Ok(key),
            Kind::Trustee => Err(ClientError::protocol("a stock KBS neither decides launches nor keeps logs")),
        }
    }
}

fn base(text: &str) -> Result<reqwest::Url, ConfigError> {
    let mut url = reqwest::Url::parse(text).map_err(|_| ConfigError::Url("not an address"))?;
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(ConfigError::Url("user, query and fragment have no place here"));
    }
    let host = url.host_str().ok_or(ConfigError::Url("no host"))?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(host) => {}
        "http" => return Err(ConfigError::PlainHttp),
        _ => return Err(ConfigError::Url("neither http nor https")),
    }
    // A base without the final slash would lose its last segment when paths are joined to it.
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// Loopback by literal address: a name may lead anywhere, `localhost` included.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read_root(path: &PathBuf) -> Result<Vec<u8>, ConfigError> {
    use std::io::Read as _;
    let named = |error: std::io::Error| ConfigError::Root(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(named)?.take(MAX_ROOT).read_to_end(&mut bytes).map_err(named)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEkjFdxhzsXhzcRGHY1FYIvHZp6L3+
c/rdxuBCtgPuF2zn0BLcjzogJsOXhSqpF8ULhfomhJljCz559WQ5wBlrgg==
-----END PUBLIC KEY-----";
    const ED25519: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA679MoVl5KsVYSx8Qzs+PWLowbDQovTimMfEb4iVRd6Y=
-----END PUBLIC KEY-----";

    fn attestor(url: &str, key: &str, timeout_seconds: Option<u64>) -> Result<Attestor, ConfigError> {
        pinned(url, key, timeout_seconds, None)
    }

    fn pinned(
        url: &str,
        key: &str,
        timeout_seconds: Option<u64>,
        server_keys: Option<Vec<Sha256Digest>>,
    ) -> Result<Attestor, ConfigError> {
        let (url, key, root, root_digest) = (url.into(), key.into(), None, None);
        let config = AttestorConfig::Tcl { url, key, timeout_seconds, root, root_digest, server_keys };
        Attestor::new(&config, Environment::Production)
    }

    #[test]
    fn pins_name_keys_and_are_for_tls() {
        let key = Sha256Digest::of(b"key");
        assert!(pinned("https://a.example", P256, None, Some(vec![key])).is_ok());
        for (url, keys) in [("https://a.example", vec![]), ("http://127.0.0.1", vec![key])] {
            assert!(matches!(pinned(url, P256, None, Some(keys)), Err(ConfigError::ServerKeys(_))), "{url}");
        }
    }

    #[test]
    fn plain_http_is_for_loopback_addresses_only() {
        for good in ["http://127.0.0.1:8080", "http://[::1]:8080", "https://attestor.example", "https://a.example/base"]
        {
            assert!(attestor(good, P256, None).is_ok(), "{good}");
        }
        for bad in ["http://192.0.2.1", "http://attestor.example", "http://localhost:8080", "http://127.0.0.1.example"]
        {
            assert!(matches!(attestor(bad, P256, None), Err(ConfigError::PlainHttp)), "{bad}");
        }
        for bad in ["", "ftp://127.0.0.1", "https://user@a.example", "https://a.example/?q", "unix:/run/x"] {
            assert!(matches!(attestor(bad, P256, None), Err(ConfigError::Url(_))), "{bad}");
        }
    }

    #[test]
    fn a_base_path_is_kept() {
        let base = attestor("https://a.example/base", P256, None).unwrap().base;
        assert_eq!(base.join("kbs/v0/auth").unwrap().as_str(), "https://a.example/base/kbs/v0/auth");
    }

    #[test]
    fn the_pinned_key_is_on_p256_and_the_timeout_is_real() {
        for key in ["", ED25519, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"] {
            assert!(matches!(attestor("https://a.example", key, None), Err(ConfigError::Key)));
        }
        for seconds in [0, 3601] {
            assert!(matches!(attestor("https://a.example", P256, Some(seconds)), Err(ConfigError::Timeout)));
        }
    }

    #[test]
    fn the_key_is_never_left_out_for_our_attestor_and_unknown_fields_are_refused() {
        let parse = serde_json::from_value::<AttestorConfig>;
        let tcl = serde_json::json!({ "kind": "tcl", "url": "https://a.example", "key": P256 });
        assert!(parse(tcl.clone()).is_ok());
        for (field, value) in [("key", None), ("kind", None), ("kind", Some("other")), ("keys", Some(""))] {
            let mut config = tcl.clone();
            match value {
                Some(value) => config[field] = value.into(),
                None => _ = config.as_object_mut().unwrap().remove(field),
            }
            assert!(parse(config).is_err(), "{field} {value:?}");
        }
        let stock = serde_json::json!({ "kind": "trustee", "url": "https://a.example" });
        let stock = Attestor::new(&parse(stock).unwrap(), Environment::Production).unwrap();
        assert!(!stock.decides());
        assert_eq!(stock.key().unwrap_err().code(), protocols::reason::ATTESTOR_PROTOCOL);
    }

    #[test]
    fn a_root_with_another_digest_than_the_configuration_says_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "a root").unwrap();
        let check = |root: Option<&PathBuf>, digest: &[u8]| {
            let (root, root_digest) = (root.cloned(), Some(Sha256Digest::of(digest)));
            let (url, key) = ("https://attestor.example".to_owned(), P256.to_owned());
            let server_keys = None;
            let config = AttestorConfig::Tcl { url, key, timeout_seconds: None, root, root_digest, server_keys };
            Attestor::new(&config, Environment::Production)
        };
        assert!(check(Some(&path), b"a root").is_ok());
        assert!(matches!(check(Some(&path), b"another"), Err(ConfigError::Root(_))));
        assert!(matches!(check(None, b"a root"), Err(ConfigError::Root(_))));
    }
}
