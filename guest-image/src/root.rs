//! A read-only root file system whose every block a root hash vouches for.

use std::fs::{File, OpenOptions};
use std::path::Path;

use crate::error::{ImageError, io};
use crate::programs::output;
use crate::tree::Tree;

const BLOCK: u64 = 4096;
/// Any; a file system of the same files is the same one.
const UUID: &str = "00000000-0000-4000-8000-000000000000";

/// A root image's identity, which the command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verity {
    /// The root hash, 64 hex digits: dm-verity version 1, SHA-256, blocks of 4096 bytes, no salt.
    pub hash: String,
    /// Blocks of data; the hash tree follows them, without superblock.
    pub blocks: u64,
}

impl Verity {
    /// The word on the kernel's command line.
    #[must_use]
    pub fn parameter(&self) -> String {
        format!("tcl.root={},{}", self.hash, self.blocks)
    }
}

/// Writes an EROFS of the tree, and behind it its hash tree.
pub(crate) fn write(tree: &Tree, to: &Path) -> Result<Verity, ImageError> {
    let folder = tempfile::tempdir().map_err(io(Path::new("a temporary folder")))?;
    tree.lay_out(folder.path()).map_err(io(folder.path()))?;
    let image = to.as_os_str();
    let options = ["-zlz4hc", "-T0", "-U", UUID, "--all-root", "-x-1"];
    let arguments: Vec<_> = options.iter().map(AsRef::as_ref).chain([image, folder.path().as_os_str()]).collect();
    output("mkfs.erofs", &arguments)?;
    let size = File::open(to).and_then(|file| file.metadata()).map_err(io(to))?.len();
    let blocks = size.div_ceil(BLOCK);
    let padded = OpenOptions::new().write(true).open(to).and_then(|file| file.set_len(blocks * BLOCK));
    padded.map_err(io(to))?;
    let options = ["format", "--hash=sha256", "--data-block-size=4096", "--hash-block-size=4096", "--no-superblock"];
    let sizes = ["--salt=-".to_owned(), format!("--data-blocks={blocks}"), format!("--hash-offset={}", blocks * BLOCK)];
    let arguments: Vec<_> =
        options.iter().map(AsRef::as_ref).chain(sizes.iter().map(AsRef::as_ref)).chain([image, image]).collect();
    let told = output("veritysetup", &arguments)?;
    let hash = told.lines().find_map(|line| line.strip_prefix("Root hash:")).map(str::trim);
    let hash = hash.ok_or_else(|| ImageError::input("veritysetup", "tells no root hash"))?.to_owned();
    Ok(Verity { hash, blocks })
}
