//! The `[image_service]` table: whether a stock Kata agent in the guest may have its images from this one.

use std::path::PathBuf;

use serde::Deserialize;

use super::ConfigError;
use super::file::{MAX_SOCKET_PATH, field};

/// The image service of this guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageService {
    /// The unix socket of the guest's root.
    pub socket: PathBuf,
    /// Parent of the bundles in which root file systems may be asked for.
    pub bundles: PathBuf,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageServiceFile {
    socket: PathBuf,
    bundles: PathBuf,
}

pub(super) fn check(file: ImageServiceFile) -> Result<ImageService, ConfigError> {
    for (name, path) in [("image_service.socket", &file.socket), ("image_service.bundles", &file.bundles)] {
        if !path.is_absolute() {
            return Err(field(name, "must be an absolute path"));
        }
    }
    if file.socket.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(field("image_service.socket", "longer than 107 bytes"));
    }
    Ok(ImageService { socket: file.socket, bundles: file.bundles })
}
