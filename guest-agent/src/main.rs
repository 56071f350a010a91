//! The daemon: parse, build, serve, drain; as a guest's first process, set the guest up before and switch it off after.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use boot::{FirstProcess, KernelParameters};
use clap::{Parser, ValueEnum};
use guest_agent::app::App;
use guest_agent::config::Measured;
use guest_agent::start;
use sandbox::Roots;
use sandbox::network::Network;
use tracing_subscriber::EnvFilter;

/// How long broken-off work may hold up the process's end.
const EXIT_TIME: Duration = Duration::from_secs(2);
/// The measured configuration where nothing names another file.
const CONFIGURATION: &str = "/etc/trusted-container-launcher/guest-agent.toml";
/// The kernel's command line.
const COMMAND_LINE: &str = "/proc/cmdline";
/// Where the Kata service listens, for those who start agents by hand.
const SERVER_ADDRESS: &str = "KATA_AGENT_SERVER_ADDR";

/// Launches containers that a golden value vouches for, and nothing else.
#[derive(Debug, Parser)]
#[command(name = "guest-agent", version)]
struct Arguments {
    /// The measured configuration; /etc/trusted-container-launcher/guest-agent.toml where neither this nor the kernel's
    /// parameters name one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration, print its digest, and stop.
    #[arg(long)]
    check_config: bool,
    /// Check the configuration as that of a guest with this initdata, a text; without one where this is not given.
    #[arg(long, value_name = "FILE", requires = "check_config")]
    initdata: Option<PathBuf>,
    /// Read `agent.` parameters from this command line: /proc/cmdline.
    #[arg(long, value_name = "FILE")]
    kernel_parameters: Option<PathBuf>,
    /// How messages are written to stderr.
    #[arg(long, value_enum, default_value = "text")]
    log: LogForm,
    /// Which messages are written: error, warn, info, debug, trace, or a filter by module; info where neither this nor
    /// the kernel's parameters say.
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

fn main() -> ExitCode {
    let Some(first) = FirstProcess::this() else {
        return told(run(&Arguments::parse(), false));
    };
    // The words behind the kernel's own are the host's: what they may say is said by parameters.
    let arguments =
        Arguments { kernel_parameters: Some(COMMAND_LINE.into()), ..Arguments::parse_from(["guest-agent"]) };
    let ended = first.set_up().map_err(anyhow::Error::from).and_then(|()| run(&arguments, true));
    told(ended);
    told(first.power_off().map_err(anyhow::Error::from))
}

fn told(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments, first: bool) -> anyhow::Result<()> {
    let parameters = arguments.kernel_parameters.as_deref().map(KernelParameters::read).transpose();
    let parameters = parameters.map_err(start::boot_error)?.unwrap_or_default();
    let named = parameters.config_file.as_deref().map(start::configuration_file);
    let path = match (&arguments.config, named) {
        (Some(path), _) => path.clone(),
        (None, Some(path)) => path?,
        (None, None) => PathBuf::from(CONFIGURATION),
    };
    let measured = Measured::read(&path).with_context(|| path.display().to_string())?;
    if arguments.check_config {
        println!("{}", start::check(&measured, arguments.initdata.as_deref(), &path)?.digest);
        return Ok(());
    }
    let level = measured.permitted(&parameters).log_level;
    start_logging(arguments, level.as_deref())?;
    let server_addr = std::env::var(SERVER_ADDRESS).ok();
    let config = start::configure(&measured, &parameters, server_addr.as_deref())?;

    // Launches wait for the network, the register and the runtime far more than for a processor.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        if first {
            start::look_for_unused(&measured);
            loopback_up().await;
        }
        App::build(config).await?.serve().await
    });
    // What was drained is done; a pull that still waits for its registry is not worth waiting for.
    runtime.shutdown_timeout(EXIT_TIME);
    ended
}

/// Containers and a registry's mirror in the guest may count on it; a guest without one still serves.
async fn loopback_up() {
    let up = async { Network::open(&Roots::guest(), EXIT_TIME)?.loopback_up().await };
    if let Err(error) = up.await {
        tracing::warn!(%error, "the loopback interface is down");
    }
}

fn start_logging(arguments: &Arguments, level: Option<&str>) -> anyhow::Result<()> {
    let level = arguments.log_level.as_deref().or(level).unwrap_or("info");
    let filter = EnvFilter::try_new(level).context("--log-level")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match arguments.log {
        LogForm::Text => builder.with_ansi(false).init(),
        LogForm::Json => builder.json().init(),
    }
    Ok(())
}
