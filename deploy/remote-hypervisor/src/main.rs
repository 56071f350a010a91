//! The service: read the configuration, serve, end every guest.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use remote_hypervisor::{Config, Service};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Starts a guest in QEMU for each pod of a Kata shim with the remote hypervisor. For development and tests.
#[derive(Debug, Parser)]
#[command(name = "remote-hypervisor", version)]
struct Arguments {
    /// The configuration: docs/remote-hypervisor.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which messages are written: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_new(&arguments.log_level)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let config = Config::read(&arguments.config)?;
    let listen = config.listen.clone();
    let service = Service::start(config).await?;
    tracing::info!(socket = %listen.display(), "serving");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    service.stop().await
}
