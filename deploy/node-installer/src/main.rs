//! `node-installer`: what the chart's DaemonSet runs on every node that is to have guests.

mod cluster;
mod node;
mod settings;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Cluster;
use crate::node::Guest;
use crate::settings::Settings;

/// Puts a guest image and the configuration of Kata and containerd onto this node, or takes them away.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install, label the node, and wait to be ended.
    Install(Place),
    /// Take the label and everything else away, and wait to be ended.
    Remove(Place),
    /// Whether the other process of this container has done its work.
    Ready {
        /// What it writes when it has.
        #[arg(long, default_value = "/run/node-installer/done")]
        done: PathBuf,
    },
    /// Have every pod of a DaemonSet remove, and wait until all have.
    Retire {
        /// Its name.
        set: String,
    },
}

#[derive(Debug, Args)]
struct Place {
    /// What to install where.
    #[arg(long, default_value = "/configuration/settings.json")]
    settings: PathBuf,
    /// The node's root folder.
    #[arg(long, default_value = "/host")]
    host: PathBuf,
    /// The folder of the guest image.
    #[arg(long, default_value = "/guest")]
    guest: PathBuf,
    /// The node's name.
    #[arg(long)]
    node: String,
    /// What is written when all is done.
    #[arg(long, default_value = "/run/node-installer/done")]
    done: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.command {
        Command::Install(place) => runtime.block_on(work(&place, true)),
        Command::Remove(place) => runtime.block_on(work(&place, false)),
        Command::Retire { set } => runtime.block_on(async { Cluster::of_this_pod()?.retire(&set).await }),
        Command::Ready { done } => match fs::read(&done) {
            Ok(text) if text == b"done\n" => Ok(()),
            _ => bail!("not yet"),
        },
    }
}

async fn work(place: &Place, install: bool) -> Result<()> {
    let mut end = signal(SignalKind::terminate())?;
    let settings = Settings::read(&place.settings)?;
    let cluster = Cluster::of_this_pod()?;
    let guest = if install { Some(Guest::open(&place.guest)?) } else { None };
    let mut done = fs::File::create(&place.done).with_context(|| place.done.display().to_string())?;
    // From here on paths are the node's, whatever links it has in them, and its programs are run.
    enter(&place.host)?;
    match guest {
        Some(guest) => {
            node::install(&settings, guest)?;
            cluster.label(&place.node, &settings.label, true).await?;
            println!("installed");
        }
        None => {
            // No new pod comes here any more.
            cluster.label(&place.node, &settings.label, false).await?;
            node::remove(&settings)?;
            println!("removed");
        }
    }
    done.write_all(b"done\n")?;
    end.recv().await;
    Ok(())
}

fn enter(root: &Path) -> Result<()> {
    rustix::process::chroot(root).with_context(|| root.display().to_string())?;
    std::env::set_current_dir("/")?;
    Ok(())
}
