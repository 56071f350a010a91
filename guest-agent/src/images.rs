//! The image store in its layout, and what keeps its layers as they were measured.

use std::path::Path;
use std::sync::Arc;

use image_disk::ImageDisk;
use image_rs_fork::{Enforcement, ErofsStore, ImageError, LayerStore, TreeStore, Unenforced};
use protocols::environment::Environment;
use protocols::image::Layout;

use crate::config::Config;
use crate::error::AgentError;

/// The open store, and the disk that it lies on where it lies on one.
pub(crate) struct Images {
    pub(crate) store: Arc<dyn LayerStore>,
    // Unmounted when the store is closed.
    pub(crate) disk: Option<ImageDisk>,
}

/// Makes the configured disk anew and mounts it, then opens the store. Blocking.
///
/// # Errors
/// `store.device` when the configured disk cannot be had; those of the store.
pub(crate) fn open(config: &Config) -> Result<Images, AgentError> {
    let disk = match &config.image_disk {
        Some(settings) => {
            let io = |source| AgentError::Io { what: "image_dir", source };
            crate::paths::private_dir(&config.image_dir).map_err(io)?;
            Some(ImageDisk::open(settings, &config.image_dir, config.device_time)?)
        }
        None => None,
    };
    Ok(Images { store: open_store(config)?, disk })
}

/// Opens the store in the configured layout; where none is configured, in `erofs-v1` when this kernel mounts it and
/// else in `tree-v1`. Blocking.
///
/// # Errors
/// `store.io`, `store.full`; `store.layout` when the configured layout cannot be mounted; `store.unenforced` in
/// production for storage that somebody else could alter.
fn open_store(config: &Config) -> Result<Arc<dyn LayerStore>, ImageError> {
    if config.image_layout != Some(Layout::TreeV1) {
        let unenforced = match config.environment {
            Environment::Production => Unenforced::Refused,
            Environment::Development => Unenforced::Allowed,
        };
        let store = ErofsStore::open(&config.image_dir, config.image_quota, unenforced)?;
        match (store.probe(), config.image_layout) {
            (Ok(()), _) => {
                let enforcement = store.enforcement();
                tracing::info!(layout = "erofs-v1", enforcement = enforcement.as_str(), "the image store is open");
                let dirs: &[&Path] = match enforcement {
                    Enforcement::DmVerity => &[&config.state_dir],
                    Enforcement::GuestMemory | Enforcement::Nothing => &[&config.image_dir, &config.state_dir],
                };
                enforce_memory(config.environment, dirs)?;
                return Ok(Arc::new(store));
            }
            // Another layout is no answer to another storage.
            (Err(error @ ImageError::StoreUnenforced { .. }), _) | (Err(error), Some(_)) => return Err(error),
            (Err(error), None) => tracing::warn!(%error, "the image store takes the layout tree-v1"),
        }
    }
    let store = TreeStore::open_within(&config.image_dir, config.image_quota)?;
    tracing::info!(layout = "tree-v1", "the image store is open");
    // Layers in one, what containers write over them in the other.
    enforce_memory(config.environment, &[&config.image_dir, &config.state_dir])?;
    Ok(Arc::new(store))
}

/// Without dm-verity only guest memory keeps what was measured as it was measured: a production agent takes no other
/// storage, one in development says so.
fn enforce_memory(environment: Environment, dirs: &[&Path]) -> Result<(), ImageError> {
    let mut elsewhere = Vec::new();
    for dir in dirs {
        if image_rs_fork::in_memory(dir)? {
            continue;
        }
        if environment == Environment::Production {
            return Err(ImageError::StoreUnenforced { path: dir.to_path_buf() });
        }
        elsewhere.push(dir.display().to_string());
    }
    if !elsewhere.is_empty() {
        tracing::warn!(
            dirs = elsewhere.join(", "),
            code = %protocols::reason::STORE_UNENFORCED,
            "what containers execute can be altered after it was measured; production refuses this"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_path(dirs: &[&Path]) -> Option<std::path::PathBuf> {
        match enforce_memory(Environment::Production, dirs) {
            Ok(()) => None,
            Err(ImageError::StoreUnenforced { path }) => Some(path),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn production_keeps_everything_in_guest_memory() {
        let (memory, disk) = (Path::new("/dev/shm"), Path::new("/var/tmp"));
        assert_eq!(refused_path(&[memory, memory]), None);
        assert_eq!(refused_path(&[disk, memory]).as_deref(), Some(disk), "layers on a disk");
        assert_eq!(refused_path(&[memory, disk]).as_deref(), Some(disk), "written files on a disk");
        assert!(enforce_memory(Environment::Development, &[disk, disk]).is_ok());
    }

    #[test]
    fn the_configured_layout_is_taken_and_erofs_where_none_is() {
        for (configured, layout) in
            [(None, Layout::ErofsV1), (Some(Layout::ErofsV1), Layout::ErofsV1), (Some(Layout::TreeV1), Layout::TreeV1)]
        {
            let memory = tempfile::tempdir_in("/dev/shm").unwrap();
            let mut config = Config::parse(crate::config::tests::production().as_bytes()).unwrap();
            (config.state_dir, config.image_dir) = (memory.path().to_owned(), memory.path().join("images"));
            config.image_layout = configured;
            assert_eq!(open(&config).unwrap().store.layout(), layout);
        }
    }
}
