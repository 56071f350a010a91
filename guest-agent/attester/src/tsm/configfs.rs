//! The file operations on configfs, behind a seam: a plain directory has no kernel that answers.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::MAX_BLOB;

/// What is done to the directory of one report.
pub trait TsmFs: Debug + Send + Sync {
    /// Whether reports are offered at all.
    fn is_present(&self) -> bool;

    /// Makes the report `name`.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, name: &str) -> io::Result<()>;

    /// Writes a whole attribute at once.
    ///
    /// # Errors
    /// The system's.
    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()>;

    /// Reads a whole attribute, however long, by one open file. More than [`MAX_BLOB`] bytes are cut one byte
    /// above that, for the caller to see.
    ///
    /// # Errors
    /// The system's.
    fn read(&self, name: &str, attribute: &str) -> io::Result<Vec<u8>>;

    /// Removes the report `name`.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// The kernel's own.
#[derive(Debug, Clone)]
pub struct Configfs {
    root: PathBuf,
}

impl Configfs {
    /// Reports beneath `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub(super) fn path(&self, name: &str, attribute: &str) -> PathBuf {
        self.root.join(name).join(attribute)
    }
}

impl TsmFs for Configfs {
    fn is_present(&self) -> bool {
        self.root.is_dir()
    }

    fn create(&self, name: &str) -> io::Result<()> {
        fs::create_dir(self.root.join(name))
    }

    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(self.path(name, attribute))?;
        // A second write would be another input, or be refused.
        if file.write(bytes)? == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn read(&self, name: &str, attribute: &str) -> io::Result<Vec<u8>> {
        let limit = u64::try_from(MAX_BLOB).map_or(u64::MAX, |limit| limit + 1);
        let mut bytes = Vec::new();
        File::open(self.path(name, attribute))?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        // Attributes go with their directory; in a directory that is not configfs this fails, as it should.
        fs::remove_dir(self.root.join(name))
    }
}
