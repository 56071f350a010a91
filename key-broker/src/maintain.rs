//! What is done from outside of a serving attestor: new keys, and a store's other key and backups.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use broker_store::{LocalKey, Summary};
use clap::Args;
use protocols::keys::{KeyKind, SigningKey};
use protocols::time::Timestamp;
use zeroize::Zeroizing;

use crate::config::{Config, StoreKeyConfig, StoreSettings};
use crate::files::create;

/// `backup` and `restore`.
#[derive(Debug, Args)]
pub struct BackupArguments {
    /// The backup: a new file, or the one to restore.
    file: PathBuf,
    /// The attestor's configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// `rekey`.
#[derive(Debug, Args)]
pub struct RekeyArguments {
    /// The attestor's configuration file, which still names the old store key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// File of the new store key.
    #[arg(long, value_name = "FILE", required_unless_present = "to_env", conflicts_with = "to_env")]
    to_file: Option<PathBuf>,
    /// Environment variable of the new store key.
    #[arg(long, value_name = "NAME")]
    to_env: Option<String>,
}

fn settings(config: &Path) -> anyhow::Result<StoreSettings> {
    Config::read(config)?.store().with_context(|| config.display().to_string())
}

/// Makes a signing key in a new file, and gives its public half as agents pin it, PEM.
///
/// # Errors
/// The file is there already, or cannot be written.
pub fn make_signing_key(file: &Path) -> anyhow::Result<String> {
    let key = SigningKey::generate(KeyKind::EcdsaP256)?;
    create(file, key.to_pem()?.as_bytes()).with_context(|| file.display().to_string())?;
    Ok(key.verifying_key().to_pem()?)
}

/// Makes a store key in a new file.
///
/// # Errors
/// The file is there already, or cannot be written.
pub fn make_store_key(file: &Path) -> anyhow::Result<()> {
    let line = Zeroizing::new(format!("{}\n", *LocalKey::generate_hex()?));
    create(file, line.as_bytes()).with_context(|| file.display().to_string())
}

/// Writes a backup.
///
/// # Errors
/// The store cannot be opened or read, or the file not be written.
pub async fn backup(arguments: &BackupArguments) -> anyhow::Result<Summary> {
    let store = settings(&arguments.config)?.open().await?;
    Ok(broker_store::backup(&*store, &arguments.file, Timestamp::now()).await?)
}

/// Restores a backup into an empty store.
///
/// # Errors
/// The store is not empty or in use, the backup was changed, or the store key is not the backup's.
pub async fn restore(arguments: &BackupArguments) -> anyhow::Result<Summary> {
    let settings = settings(&arguments.config)?;
    let store = settings.open().await?;
    Ok(broker_store::restore(store, &arguments.file, settings.key()).await?)
}

/// Wraps the data key under another store key.
///
/// # Errors
/// The store cannot be opened or written, or there is no new key.
pub async fn rekey(arguments: &RekeyArguments) -> anyhow::Result<()> {
    let new = match (&arguments.to_file, &arguments.to_env) {
        (Some(file), _) => StoreKeyConfig::File(file.clone()),
        (None, Some(name)) => StoreKeyConfig::Env(name.clone()),
        (None, None) => anyhow::bail!("no new key"),
    };
    let new = new.key()?;
    let store = settings(&arguments.config)?.open().await?;
    Ok(broker_store::rekey(&*store, &new).await?)
}
