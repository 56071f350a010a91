//! What to install where; the chart writes it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// The settings file, JSON. Paths are the node's.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// The folder that everything of ours lies in.
    pub(crate) folder: PathBuf,
    /// The label that a node with a guest image has.
    pub(crate) label: Label,
    pub(crate) kata: Kata,
    pub(crate) containerd: Containerd,
}

/// A node's label.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Label {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Kata Containers, as it is installed on the node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kata {
    /// The shim; it must be there.
    pub(crate) shim: PathBuf,
    /// The configuration that ours is laid over; it must be there.
    pub(crate) base: PathBuf,
    /// The drop-in; `@GUEST@` in it stands for the guest image's folder.
    pub(crate) drop_in: String,
}

/// containerd.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Containerd {
    /// Its own configuration, which must import `folder`.
    pub(crate) configuration: PathBuf,
    /// Where its drop-ins lie.
    pub(crate) folder: PathBuf,
    /// The drop-in; `@KATA@` in it stands for our Kata configuration.
    pub(crate) drop_in: String,
    /// What makes it read its configuration; empty: somebody else does.
    pub(crate) restart: Vec<String>,
}

impl Settings {
    /// Reads and checks them.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let settings: Self = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let Self { folder, kata, containerd, .. } = &settings;
        for path in [folder, &kata.shim, &kata.base, &containerd.configuration, &containerd.folder] {
            if !path.is_absolute() {
                bail!("{}: must be an absolute path", path.display());
            }
        }
        // All of it is removed some day.
        if folder.components().count() < 3 {
            bail!("folder: {} is no folder of our own", folder.display());
        }
        Ok(settings)
    }
}
