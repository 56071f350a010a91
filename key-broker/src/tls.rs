//! TLS of the server: the certificate in force, and another put in its place whole.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use protocols::digest::Sha256Digest;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::config::{ConfigError, read_bytes};

/// A certificate chain and its key as files gave them, which fit together.
#[derive(Clone)]
pub struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    roots: Vec<CertificateDer<'static>>,
    config: Arc<ServerConfig>,
    /// Of the bytes of both files.
    read: Sha256Digest,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads PEM files of a chain, the server's own certificate first, and its private key. `roots` are those of client
    /// certificates; without any, none is asked for.
    ///
    /// # Errors
    /// [`ConfigError`] names the file.
    pub(crate) fn read(
        certificate: &Path,
        key: &Path,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, ConfigError> {
        let wrong =
            |path: &Path, what: &str| ConfigError::Value { field: "tls", what: format!("{}: {what}", path.display()) };
        let (chain_pem, key_pem) = (read_bytes(certificate)?, Zeroizing::new(read_bytes(key)?));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain_pem).collect();
        let chain = chain.map_err(|_| wrong(certificate, "not PEM certificates"))?;
        let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| wrong(key, "no private key in PEM"))?;
        let config = server(chain, private, &roots).map_err(|error| wrong(certificate, &error))?;
        let parts = [*Sha256Digest::of(&chain_pem).as_bytes(), *Sha256Digest::of(&key_pem).as_bytes()];
        let read = Sha256Digest::of(parts.as_flattened());
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), roots, config: Arc::new(config), read })
    }
}

fn server(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: &[CertificateDer<'static>],
) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| error.to_string())?;
    let builder = if roots.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone()).map_err(|error| format!("a root of client certificates: {error}"))?;
        }
        // Guests have no certificates; whoever shows one must have a good one.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).allow_unauthenticated();
        builder.with_client_cert_verifier(verifier.build().map_err(|error| error.to_string())?)
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The identity that new connections are shown.
#[derive(Debug)]
pub struct Tls {
    current: RwLock<Identity>,
}

impl Tls {
    /// Shows `identity`.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self { current: RwLock::new(identity) }
    }

    /// Shows another to new connections; those that are there keep theirs.
    pub fn put(&self, identity: Identity) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    /// Reads the files again; tells whether they hold something new, which is shown from now on.
    ///
    /// # Errors
    /// [`ConfigError`]: what was shown stays.
    pub fn refresh(&self) -> Result<bool, ConfigError> {
        let old = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let new = Identity::read(&old.certificate, &old.key, old.roots)?;
        if new.read == old.read {
            return Ok(false);
        }
        self.put(new);
        Ok(true)
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }
}
