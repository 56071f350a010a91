//! Initdata as a host attaches it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The text of an initdata with these files, under an algorithm.
#[must_use]
pub fn text(algorithm: &str, files: &[(&str, &str)]) -> String {
    let mut data = toml::Table::new();
    for (name, content) in files {
        data.insert((*name).to_owned(), toml::Value::from(*content));
    }
    let mut document = toml::Table::new();
    document.insert("version".into(), "0.1.0".into());
    document.insert("algorithm".into(), algorithm.into());
    document.insert("data".into(), toml::Value::Table(data));
    document.to_string()
}

/// The disk that carries a text: magic, length, gzip, padding.
///
/// # Panics
/// Never.
#[must_use]
pub fn disk(text: &str) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut disk = b"initdata".to_vec();
    disk.extend((gzip.len() as u64).to_le_bytes());
    disk.extend(gzip);
    disk.resize(disk.len().next_multiple_of(512), 0);
    disk
}

/// Writes the disk of a text as `vda` in `folder`, which stands for `/dev`.
///
/// # Panics
/// When it cannot be written.
pub fn attach(folder: &Path, text: &str) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("vda");
    std::fs::write(&path, disk(text)).unwrap();
    path
}
