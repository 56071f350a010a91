//! `key-broker`: parse, build, serve, drain.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use broker_store::Summary;
use clap::{Parser, Subcommand};
use key_broker::broker::Broker;
use key_broker::config::{Config, LogFormat, Settings, public_key_pem};
use key_broker::http::{operations, router};
use key_broker::maintain::{self, BackupArguments, RekeyArguments};
use key_broker::server::{Listener, serve};
use key_broker::tls::Tls;
use key_broker::trace::{Exporter, exporter};
use protocols::digest::Sha256Digest;
use protocols::time::Timestamp;
use registry::{HttpRegistry, SparingRegistry};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// The remote attestor of Trusted Container Launcher.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Print the public key that agents pin, and end.
    #[arg(long)]
    print_key: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a signing key, and print its public half.
    Keygen {
        /// The new file; an existing one is never overwritten.
        file: PathBuf,
        /// Make a key that a store's secrets are sealed under; nothing is printed.
        #[arg(long)]
        store_key: bool,
    },
    /// Seal a store's secrets under another store key; name that one in the configuration afterwards.
    Rekey(RekeyArguments),
    /// Write everything in a store into a new file. A store that is a file is free only while no attestor serves.
    Backup(BackupArguments),
    /// Restore a backup into an empty store, whole or not at all.
    Restore(BackupArguments),
}

/// How often is looked whether collateral nears its end: that is days before it ends.
const RENEWAL: Duration = Duration::from_secs(600);
/// How often is looked what was posted to other replicas.
const POSTED: Duration = Duration::from_secs(2);
/// How often is looked whether the files of the certificate changed.
const CERTIFICATE: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(command) = &arguments.command {
        return maintenance(command);
    }
    let path = arguments.config.context("--config is needed")?;
    let settings = Config::read(&path)?.settings().with_context(|| path.display().to_string())?;
    if arguments.print_key {
        return print(&public_key_pem(&settings.signing)?);
    }
    let traces = log(&settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let exporting = traces.map(|traces| tokio::spawn(traces.run(stopped)));
        let served = Box::pin(run(settings, path)).await;
        drop(stop);
        if let Some(exporting) = exporting {
            exporting.await?;
        }
        served
    })
}

/// Begins to log, and to gather spans where they are wanted; gives what posts them.
fn log(settings: &Settings) -> anyhow::Result<Option<Exporter>> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let wanted = EnvFilter::try_from_env("KEY_BROKER_LOG").unwrap_or_else(|_| "info".into());
    let (spans, exporter) = settings.traces.as_ref().map(exporter).transpose()?.unzip();
    // Our own spans alone: what libraries put into theirs is not ours to tell.
    let own = Targets::new().with_target("key_broker", tracing::Level::INFO);
    tracing_subscriber::registry()
        .with(lines.with_filter(wanted))
        .with(spans.map(|spans| spans.with_filter(own)))
        .init();
    Ok(exporter)
}

async fn run(mut settings: Settings, config: PathBuf) -> anyhow::Result<()> {
    let store = settings.store.open().await?;
    let reuse = Duration::from_secs(settings.revocation_seconds);
    let registry = Arc::new(SparingRegistry::new(HttpRegistry::new(settings.registry.clone())?).reusing(reuse));
    let listener = TcpListener::bind(settings.listen).await.with_context(|| settings.listen.to_string())?;
    let tls = settings.tls.clone().map(|identity| Arc::new(Tls::new(identity)));
    if tls.is_none() && !settings.listen.ip().is_loopback() {
        tracing::warn!("listening beyond loopback without TLS: only a TLS front may reach it");
    }
    if let Some(path) = settings.admin.establish()? {
        tracing::warn!(file = %path.display(), "no administrator is configured: a token was made, and only its hash is kept");
    }
    let watched = match settings.operations {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| address.to_string())?),
        None => None,
    };
    let environment = settings.evidence.environment;
    let broker = Arc::new(Broker::new(settings, store, registry, Arc::new(Timestamp::now)).await?);
    let policy = broker.policy();
    let mut hangup = signal(SignalKind::hangup())?;
    tracing::info!(listen = %listener.local_addr()?, %environment, %policy, tls = tls.is_some(), "serving");
    let reloaded = Arc::clone(&broker);
    let shown = tls.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match reload(&reloaded, shown.as_deref(), config.clone()).await {
                Ok(policy) => tracing::info!(%policy, "reloaded"),
                Err(error) => tracing::error!("NOT reloaded, what was in force stays: {error:#}"),
            }
        }
    });
    let renewed = Arc::clone(&broker);
    tokio::spawn(async move {
        let mut every = tokio::time::interval(RENEWAL);
        loop {
            every.tick().await;
            renewed.renew_endorsements().await;
        }
    });
    // A reload can begin or end it.
    let looking = Arc::clone(&broker);
    tokio::spawn(async move {
        let mut every = tokio::time::interval(POSTED);
        loop {
            every.tick().await;
            if let Err(error) = looking.refresh_posted().await {
                tracing::error!("posted policies were not looked for, what was in force stays: {error}");
            }
        }
    });
    if let Some(tls) = tls.clone() {
        tokio::spawn(renew_certificate(tls));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let draining = Arc::clone(&broker);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("draining");
        draining.drain();
    };
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let watching = match watched {
        Some(listener) => {
            tracing::info!(operations = %listener.local_addr()?, "health and metrics");
            // Until everything else has ended: it tells of the drain.
            Some(tokio::spawn(serve(listener, operations(Arc::clone(&broker)), async { _ = ended.await })))
        }
        None => None,
    };
    let listener = Listener::from(listener).tls(tls).counted(broker.metrics());
    serve(listener, router(broker), stop).await;
    drop(end);
    if let Some(watching) = watching {
        watching.await?;
    }
    Ok(())
}

/// Reads the configuration and every file it names again, and puts all of it in force or nothing.
async fn reload(broker: &Broker, tls: Option<&Tls>, config: PathBuf) -> anyhow::Result<Sha256Digest> {
    let read = tokio::task::spawn_blocking(move || -> anyhow::Result<Settings> {
        let mut settings = Config::read(&config)?.settings().with_context(|| config.display().to_string())?;
        settings.admin.establish()?;
        Ok(settings)
    });
    let settings = read.await??;
    let identity = settings.tls.clone();
    let policy = broker.reload(settings).await?;
    if let (Some(tls), Some(identity)) = (tls, identity) {
        tls.put(identity);
    }
    Ok(policy)
}

/// Shows a certificate that was renewed in its files, without being told.
async fn renew_certificate(tls: Arc<Tls>) {
    let mut every = tokio::time::interval(CERTIFICATE);
    loop {
        every.tick().await;
        let read = Arc::clone(&tls);
        match tokio::task::spawn_blocking(move || read.refresh()).await {
            Ok(Ok(false)) | Err(_) => {}
            Ok(Ok(true)) => tracing::info!("another certificate is shown"),
            Ok(Err(error)) => tracing::error!("the certificate that was shown stays: {error}"),
        }
    }
}

fn maintenance(command: &Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let told = |done: &str, summary: Summary| print(&format!("{done}: {} rows of {}\n", summary.rows, summary.created));
    match command {
        Command::Keygen { file, store_key: true } => maintain::make_store_key(file),
        Command::Keygen { file, store_key: false } => print(&maintain::make_signing_key(file)?),
        Command::Rekey(arguments) => runtime.block_on(maintain::rekey(arguments)),
        Command::Backup(arguments) => told("written", runtime.block_on(maintain::backup(arguments))?),
        Command::Restore(arguments) => told("restored", runtime.block_on(maintain::restore(arguments))?),
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
