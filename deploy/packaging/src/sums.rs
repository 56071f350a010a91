//! One file to sign for many.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::Result;
use crate::error::file;

/// The file's name.
pub const NAME: &str = "SHA256SUMS";

/// Writes the SHA-256 of every other file beneath `folder` into `SHA256SUMS` there, as `sha256sum --check` reads it.
///
/// # Errors
/// [`crate::PackagingError::File`].
pub fn write(folder: &Path) -> Result<PathBuf> {
    let mut lines = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(&inside).map_err(file(&inside))? {
            let path = entry.map_err(file(&inside))?.path();
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name != NAME {
                let bytes = fs::read(&path).map_err(file(&path))?;
                lines.push((name, hex::encode(Sha256::digest(bytes))));
            }
        }
    }
    // The same order on every disk.
    lines.sort();
    let text: String = lines.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
    let path = folder.join(NAME);
    fs::write(&path, text).map_err(file(&path))?;
    Ok(path)
}
