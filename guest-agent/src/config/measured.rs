//! The measured file by itself, before anything of the guest's owner or host is added.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use ::boot::KernelParameters;
use attester::Attester;
use protocols::digest::Sha256Digest;

use super::boot::{BootFile, InitdataRules};
use super::file::File;
use super::{Config, ConfigError};
use crate::error::AgentError;
use crate::initdata::{BoundInitdata, Brought};

/// The largest configuration file, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// A configuration file of the right form. Its values are checked when a [`Config`] is made of it.
#[derive(Clone)]
pub struct Measured {
    file: File,
    digest: Sha256Digest,
}

impl std::fmt::Debug for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measured").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Measured {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError::Read`], [`ConfigError::Form`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let named = |source| ConfigError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(named)?;
        file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(named)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(named(std::io::Error::other("larger than 256 KiB")));
        }
        Self::parse(&bytes)
    }

    /// Reads a file's bytes.
    ///
    /// # Errors
    /// [`ConfigError::Form`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ConfigError::Form("not UTF-8".to_owned()))?;
        let file = toml::from_str(text).map_err(|error| ConfigError::Form(error.to_string()))?;
        Ok(Self { file, digest: Sha256Digest::of(bytes) })
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub const fn digest(&self) -> Sha256Digest {
        self.digest
    }

    /// Whether and how initdata counts; none: it does not.
    #[must_use]
    pub const fn initdata_rules(&self) -> Option<&InitdataRules> {
        self.file.initdata.as_ref()
    }

    pub(crate) fn state_dir(&self) -> &Path {
        &self.file.state_dir
    }

    pub(crate) fn attester(&self) -> Result<Arc<dyn Attester>, AgentError> {
        Ok(attester::open(&self.file.attester, self.file.environment, &self.file.state_dir)?)
    }

    /// What of the kernel's command line counts; the rest is told and left out.
    #[must_use]
    pub fn permitted(&self, given: &KernelParameters) -> KernelParameters {
        BootFile::permitted(self.file.boot.as_ref(), given)
    }

    /// The configuration of a guest without initdata.
    ///
    /// # Errors
    /// [`ConfigError`] names the field.
    pub fn config(&self) -> Result<Config, ConfigError> {
        self.file.clone().check(self.digest, None, Brought::default())
    }

    /// The configuration of a guest with this initdata and what it brings.
    ///
    /// # Errors
    /// [`ConfigError`] names the field.
    pub(crate) fn config_with(&self, initdata: BoundInitdata, brought: Brought) -> Result<Config, ConfigError> {
        self.file.clone().check(self.digest, Some(initdata), brought)
    }

    /// The configuration with what an initdata would bring, for a look at it only.
    ///
    /// # Errors
    /// [`ConfigError`] names the field.
    pub(crate) fn config_rehearsed(&self, brought: Brought) -> Result<Config, ConfigError> {
        self.file.clone().check(self.digest, None, brought)
    }
}
