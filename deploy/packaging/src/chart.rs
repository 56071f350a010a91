//! The Helm chart's archive.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};

use crate::error::file;
use crate::{Epoch, PackagingError, Result, Tree};

/// Name of the chart and of the folder in its archive.
const NAME: &str = "trusted-container-launcher";

/// Packs the chart of `workspace` into `out`, as `helm package` would, with the same bytes each time; gives the archive.
///
/// # Errors
/// [`PackagingError`].
pub fn archive(workspace: &Path, out: &Path, epoch: Epoch) -> Result<PathBuf> {
    let mut tree = Tree::default();
    tree.copy_folder(NAME, &workspace.join("deploy/helm").join(NAME))?;
    let mut packed = GzBuilder::new().write(Vec::new(), Compression::best());
    packed.write_all(&tree.tar(epoch)?).map_err(PackagingError::Archive)?;
    let packed = packed.finish().map_err(PackagingError::Archive)?;
    let path = out.join(format!("{NAME}-{}.tgz", env!("CARGO_PKG_VERSION")));
    fs::write(&path, packed).map_err(file(&path))?;
    Ok(path)
}
