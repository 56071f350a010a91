//! Connections: where to, over what, and what every one of them is told first.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Client, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_postgres::NoTls;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

use super::LOCK_OPEN;
use crate::StoreError;

/// The longest to wait for a free connection, and for a new one.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest that sent bytes may stay unacknowledged, and a silent connection unasked.
const SILENCE: Duration = Duration::from_secs(10);
/// Bounds that the database itself keeps, below those of ours.
const SESSION: &str = "-c statement_timeout=6000 -c lock_timeout=4000 -c idle_in_transaction_session_timeout=10000";
/// What is acknowledged must be on the database's disk, whatever its default; a stricter default stays.
const DURABLE: &str = "SELECT CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') \
    THEN set_config('synchronous_commit', 'on', false) END, pg_try_advisory_lock_shared($1)";

/// How to reach the database.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// A host's name or address, or the absolute path of the directory of a server's socket.
    pub host: String,
    /// TCP port, or the number in the socket's name.
    pub port: u16,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// For password authentication; absent: none is sent.
    pub password: Option<Zeroizing<String>>,
    /// PEM certificates one of which must have signed the server's, which must name `host`. Absent: no TLS.
    pub roots: Option<Vec<u8>>,
    /// Connections at most.
    pub connections: usize,
}

impl std::fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, user, database, .. } = self;
        write!(f, "PostgresOptions({user}@{host}:{port}/{database})")
    }
}

impl PostgresOptions {
    /// Whether the way to the database leaves this machine.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        let loopback = self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        !(self.host.starts_with('/') || self.host == "localhost" || loopback)
    }
}

pub(super) fn pool(options: &PostgresOptions) -> Result<Pool, StoreError> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(&options.host)
        .port(options.port)
        .user(&options.user)
        .dbname(&options.database)
        .application_name("key-broker")
        .options(SESSION)
        .connect_timeout(CONNECT)
        .tcp_user_timeout(SILENCE)
        .keepalives_idle(SILENCE)
        .ssl_mode(SslMode::Disable);
    if let Some(password) = &options.password {
        config.password(password.as_bytes());
    }
    let settings = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = match &options.roots {
        None => Manager::from_config(config, NoTls, settings),
        Some(roots) => {
            config.ssl_mode(SslMode::Require);
            Manager::from_config(config, MakeRustlsConnect::new(tls(roots)?), settings)
        }
    };
    let first = Hook::async_fn(|client: &mut deadpool_postgres::ClientWrapper, _| {
        Box::pin(async move {
            let told = client.query_one(DURABLE, &[&LOCK_OPEN]).await.map_err(HookError::Backend)?;
            match told.try_get(1) {
                Ok(true) => Ok(()),
                _ => Err(HookError::message("a restore is going on")),
            }
        })
    });
    Pool::builder(manager)
        .max_size(options.connections)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(CONNECT))
        .create_timeout(Some(CONNECT))
        .recycle_timeout(Some(CONNECT))
        .post_create(first)
        .build()
        .map_err(|error| StoreError::Io(error.to_string()))
}

fn tls(roots: &[u8]) -> Result<rustls::ClientConfig, StoreError> {
    let io = |error: &dyn std::fmt::Display| StoreError::Io(format!("the database's root certificates: {error}"));
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(roots) {
        store.add(certificate.map_err(|error| io(&error))?).map_err(|error| io(&error))?;
    }
    if store.is_empty() {
        return Err(io(&"none is in the file"));
    }
    Ok(rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| io(&error))?
        .with_root_certificates(store)
        .with_no_client_auth())
}

pub(super) async fn get(pool: &Pool) -> Result<Client, StoreError> {
    use deadpool_postgres::PoolError;
    pool.get().await.map_err(|error| match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => super::pg(error),
        other => StoreError::Io(format!("no connection to the database: {other}")),
    })
}
