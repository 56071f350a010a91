//! Where everything lasts, and the key that its secrets are sealed under.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_store::{EmbeddedStore, LocalKey, PostgresOptions, PostgresStore, Store, StoreError};
use protocols::environment::Environment;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use zeroize::Zeroizing;

use super::{Config, ConfigError, read, value};

/// The most connections to a database.
const MAX_CONNECTIONS: usize = 256;

/// `store`: a file's path, or `[store.postgres]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// One file, for one replica.
    File(PathBuf),
    /// A PostgreSQL database, which several replicas share.
    Postgres(PostgresConfig),
}

impl StoreConfig {
    /// The file, where it is one.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

impl<'de> Deserialize<'de> for StoreConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            postgres: PostgresConfig,
        }
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = StoreConfig;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a file's path, or a table `postgres`")
            }
            fn visit_str<E>(self, path: &str) -> Result<StoreConfig, E> {
                Ok(StoreConfig::File(path.into()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<StoreConfig, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(StoreConfig::Postgres(table.postgres))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `[store.postgres]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Host name or address, or the absolute path of the directory of a server's socket.
    pub host: String,
    /// Absent: 5432.
    #[serde(default = "PostgresConfig::default_port")]
    pub port: u16,
    /// The role.
    pub user: String,
    /// The database; it must be there, its tables are made.
    pub database: String,
    /// File with the role's password; absent: none is sent.
    pub password_file: Option<PathBuf>,
    /// PEM file of the certificates that the server's must chain to. Absent: no TLS, which production refuses beyond this
    /// machine.
    pub root: Option<PathBuf>,
    /// Connections at most, 1 to 256; absent: 16.
    #[serde(default = "PostgresConfig::default_connections")]
    pub connections: usize,
}

impl PostgresConfig {
    const fn default_port() -> u16 {
        5432
    }

    const fn default_connections() -> usize {
        16
    }

    fn options(&self, environment: Environment) -> Result<PostgresOptions, ConfigError> {
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return Err(value("store.postgres.connections", "must be from 1 to 256"));
        }
        let password = self.password_file.as_deref().map(read).transpose()?;
        let options = PostgresOptions {
            host: self.host.clone(),
            port: self.port,
            user: self.user.clone(),
            database: self.database.clone(),
            password: password.map(|text| Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned())),
            roots: self.root.as_deref().map(read).transpose()?.map(String::into_bytes),
            connections: self.connections,
        };
        // Whoever is between could read and alter all that the attestor remembers.
        if environment == Environment::Production && options.roots.is_none() && options.is_remote() {
            let what = "must be given in production, for a database that is not on this machine";
            return Err(value("store.postgres.root", what));
        }
        Ok(options)
    }
}

/// `store_key`: 64 hexadecimal digits in a file, or in an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKeyConfig {
    /// A file; `key-broker keygen --store-key FILE` makes one.
    File(PathBuf),
    /// A variable of the program's environment.
    Env(String),
}

impl StoreKeyConfig {
    /// Reads the key.
    ///
    /// # Errors
    /// [`ConfigError`] when there is none, or it is none.
    pub fn key(&self) -> Result<LocalKey, ConfigError> {
        let text = match self {
            Self::File(path) => Zeroizing::new(read(path)?),
            Self::Env(name) => {
                let given = std::env::var(name);
                Zeroizing::new(given.map_err(|_| value("store_key", format!("{name} is not in the environment")))?)
            }
        };
        LocalKey::from_hex(&text).map_err(|error| value("store_key", error))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Postgres(Box<PostgresOptions>),
}

/// The store, checked and not opened yet.
#[derive(Debug)]
pub struct StoreSettings {
    place: Place,
    named: StoreKeyConfig,
    key: LocalKey,
}

impl StoreSettings {
    /// Whether both mean the same store and the same key.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.place == other.place && self.named == other.named
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &LocalKey {
        &self.key
    }

    /// Opens it; makes it when there is nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        // Boxed: connecting is large, and whoever waits for it would carry it along.
        Ok(match &self.place {
            Place::File(path) => Arc::new(Box::pin(EmbeddedStore::open(path, &self.key)).await?),
            Place::Postgres(options) => Arc::new(Box::pin(PostgresStore::open(options, &self.key)).await?),
        })
    }
}

impl Config {
    /// Checks what the file says of the store, and reads what that names.
    ///
    /// # Errors
    /// [`ConfigError`] names the field or file.
    pub fn store(&self) -> Result<StoreSettings, ConfigError> {
        let place = match &self.store {
            StoreConfig::File(path) => Place::File(path.clone()),
            StoreConfig::Postgres(postgres) => Place::Postgres(Box::new(postgres.options(self.environment)?)),
        };
        Ok(StoreSettings { place, named: self.store_key.clone(), key: self.store_key.key()? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test fails by panicking
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Both {
        store: StoreConfig,
        store_key: StoreKeyConfig,
    }

    fn parse(text: &str) -> Result<Both, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    const POSTGRES: &str = "store_key = { env = 'K' }\n[store.postgres]\nhost = 'db.example'\nuser = 'u'\n\
        database = 'd'\n";

    #[test]
    fn a_store_is_a_file_or_a_database() {
        let file = parse("store = '/f'\nstore_key = { file = '/k' }").unwrap();
        assert_eq!(file.store, StoreConfig::File("/f".into()));
        assert_eq!(file.store_key, StoreKeyConfig::File("/k".into()));
        let database = parse(POSTGRES).unwrap();
        assert!(matches!(&database.store, StoreConfig::Postgres(one) if one.port == 5432 && one.connections == 16));
        assert_eq!(database.store_key, StoreKeyConfig::Env("K".into()));
        for wrong in [
            "store = 1\nstore_key = { file = '/k' }",
            "store = '/f'",
            "store = '/f'\nstore_key = { file = '/k', env = 'K' }",
            "store = '/f'\nstore_key = '/k'",
            "store_key = { file = '/k' }\n[store.sqlite]\nfile = '/f'",
            &format!("{POSTGRES}passwort = 'p'"),
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn production_reaches_another_machine_by_tls_alone() {
        let options = |host: &str, environment| {
            let mut config = match parse(POSTGRES).unwrap().store {
                StoreConfig::Postgres(config) => config,
                StoreConfig::File(_) => unreachable!("it is a database"),
            };
            config.host = host.to_owned();
            config.options(environment).map(|_| ()).map_err(|error| error.to_string())
        };
        for host in ["localhost", "127.0.0.1", "::1", "/run/postgresql"] {
            assert_eq!(options(host, Environment::Production), Ok(()), "{host}");
        }
        for host in ["db.example", "192.0.2.1", "localhost.example"] {
            assert!(options(host, Environment::Production).unwrap_err().contains("store.postgres.root"), "{host}");
            assert_eq!(options(host, Environment::Development), Ok(()), "{host}");
        }
    }
}
