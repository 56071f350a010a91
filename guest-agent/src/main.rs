//! The daemon: parse, build, serve, drain.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use guest_agent::app::App;
use guest_agent::config::Config;
use tracing_subscriber::EnvFilter;

/// How long broken-off work may hold up the process's end.
const EXIT_TIME: Duration = Duration::from_secs(2);

/// Launches containers that a golden value vouches for, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "guest-agent", version)]
struct Arguments {
    /// The measured configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/trusted-container-launcher/guest-agent.toml")]
    config: PathBuf,
    /// Check the configuration and stop.
    #[arg(long)]
    check_config: bool,
    /// How messages are written to stderr.
    #[arg(long, value_enum, default_value = "text")]
    log: LogForm,
    /// Which messages are written: error, warn, info, debug, trace, or a filter by module.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_logging(&arguments)?;
    let config = Config::read(&arguments.config).with_context(|| arguments.config.display().to_string())?;
    if arguments.check_config {
        println!("{}", config.digest);
        return Ok(());
    }
    // Launches wait for the network, the register and the runtime far more than for a processor.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async { App::build(config).await?.serve().await });
    // What was drained is done; a pull that still waits for its registry is not worth waiting for.
    runtime.shutdown_timeout(EXIT_TIME);
    ended
}

fn start_logging(arguments: &Arguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log_level).context("--log-level")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log {
        LogForm::Text => builder.with_ansi(false).init(),
        LogForm::Json => builder.json().init(),
    }
    Ok(())
}
