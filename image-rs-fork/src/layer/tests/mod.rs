//! Odd layers: what they become on disk, and that disk, stream and measurement agree. They need root.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::build::{Item, archive, dir, file, hardlink, item, pax, symlink};
use super::sink::NoSink;
use super::table::Table;
use super::unpack::Unpacker;
use super::*;
use crate::tree::disk::Disk;
use crate::tree::walk::walk;

mod attributes;
mod entries;
mod format;
mod limits;
mod paths;
mod whiteouts;

/// A layer on disk, whose three measurements have been found equal.
struct Layer {
    home: tempfile::TempDir,
    table: Arc<Table>,
}

impl Layer {
    fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn stat(&self, path: &str) -> fs::Metadata {
        fs::symlink_metadata(self.path(path)).unwrap()
    }

    fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok()
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let stat = self.stat(path);
        stat.file_type().is_char_device() && stat.rdev() == 0
    }

    fn is_opaque(&self, path: &str) -> bool {
        let mut value = [0u8; 8];
        rustix::fs::lgetxattr(self.path(path), "trusted.overlay.opaque", value.as_mut_slice())
            .is_ok_and(|n| value[..n] == *b"y")
    }
}

fn measure(bytes: &[u8], lower: &[Arc<Table>]) -> Result<Table, LayerError> {
    let mut unpacker = Unpacker::new(NoSink, Budget::new(&Limits::default()));
    unpacker.unpack(bytes)?;
    Ok(unpacker.finish(lower)?.0)
}

fn on_disk(home: &Path, bytes: &[u8], lower: &[Arc<Table>]) -> Result<Table, LayerError> {
    let mut unpacker = Unpacker::new(
        Disk::new(home, crate::space::Space::new(home, None, |_| Ok(())).begin())?,
        Budget::new(&Limits::default()),
    );
    unpacker.unpack(bytes)?;
    Ok(unpacker.finish(lower)?.0)
}

#[track_caller]
fn layer_on(lower: &[&Layer], items: impl IntoIterator<Item = Item>) -> Layer {
    let bytes = archive(items);
    let lower: Vec<_> = lower.iter().map(|layer| Arc::clone(&layer.table)).collect();
    let home = tempfile::tempdir().unwrap();
    let table = on_disk(home.path(), &bytes, &lower).unwrap();
    let measured = measure(&bytes, &lower).unwrap();
    assert_eq!(table.digest().unwrap(), measured.digest().unwrap(), "unpacked and measured");
    assert_eq!(
        walk(home.path(), Table::new()).unwrap().digest().unwrap(),
        measured.digest().unwrap(),
        "measured and walked"
    );
    Layer { home, table: Arc::new(table) }
}

#[track_caller]
fn layer(items: impl IntoIterator<Item = Item>) -> Layer {
    layer_on(&[], items)
}

/// Refused when unpacked and when measured, with the same words.
#[track_caller]
fn refused(items: impl IntoIterator<Item = Item>, problem: &str) -> ImageError {
    let bytes = archive(items);
    let outside = tempfile::tempdir().unwrap();
    let home = outside.path().join("layer");
    fs::create_dir(&home).unwrap();
    let unpacked = on_disk(&home, &bytes, &[]).unwrap_err().into_image("layer");
    let measured = measure(&bytes, &[]).unwrap_err().into_image("layer");
    assert_eq!(unpacked.to_string(), measured.to_string());
    assert!(measured.to_string().contains(problem), "{measured}");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing outside the layer");
    measured
}
