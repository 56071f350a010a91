//! `tls`: who ends TLS.

use std::net::SocketAddr;
use std::path::PathBuf;

use protocols::environment::Environment;
use serde::Deserialize;

use super::{ConfigError, value};
use crate::admin::Administrators;
use crate::tls::Identity;

/// `tls = "front"` or `[tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum TlsConfig {
    /// A front before this server.
    Front(Front),
    /// This server.
    Own(OwnTls),
}

/// The word for a front.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Front {
    /// Something before this server ends TLS; what is between the two is the operator's.
    Front,
}

/// `[tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnTls {
    /// PEM file: the server's certificate, then those between it and its root.
    pub certificate: PathBuf,
    /// PEM file: its private key.
    pub key: PathBuf,
}

impl TlsConfig {
    /// What the server shows, where it ends TLS itself.
    pub(super) fn identity(
        config: Option<&Self>,
        listen: SocketAddr,
        environment: Environment,
        admin: &Administrators,
    ) -> Result<Option<Identity>, ConfigError> {
        if let Some(Self::Own(own)) = config {
            return Identity::read(&own.certificate, &own.key, admin.roots().cloned().collect()).map(Some);
        }
        if admin.roots().next().is_some() {
            return Err(value(
                "admin.certificate",
                "needs [tls]: only the server that ends TLS sees client certificates",
            ));
        }
        if config.is_none() && environment == Environment::Production && !listen.ip().is_loopback() {
            let needed = "production beyond loopback needs [tls], or tls = \"front\" where a front ends TLS";
            return Err(value("tls", needed));
        }
        Ok(None)
    }
}
