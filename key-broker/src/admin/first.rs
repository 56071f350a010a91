//! The token of a first start: made where configuration names no administrator, written once, kept as its hash.

use std::path::{Path, PathBuf};

use protocols::digest::Sha256Digest;
use zeroize::Zeroizing;

use super::{NamedToken, Role};
use crate::challenge::random;
use crate::config::{ConfigError, admin_token};
use crate::files::create;

/// Where the token is written, and its hash beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstToken {
    path: PathBuf,
}

impl FirstToken {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn hash_path(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".sha256");
        name.into()
    }

    /// The token that an earlier start made, if one did.
    pub(crate) fn made(&self) -> Result<Option<NamedToken>, ConfigError> {
        let path = self.hash_path();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let unread = |_| ConfigError::Value { field: "admin", what: format!("{}: no SHA-256", path.display()) };
                Ok(Some(named(text.trim().parse().map_err(unread)?)))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ConfigError::File { path, error }),
        }
    }

    /// Makes it. A start that was interrupted after the token is taken up where it ended.
    pub(super) fn make(&self) -> Result<NamedToken, ConfigError> {
        let bytes = random::<32>().map(Zeroizing::new);
        let bytes = bytes.map_err(|error| ConfigError::Value { field: "admin", what: error.to_string() })?;
        let token = Zeroizing::new(hex::encode(bytes.as_slice()));
        match create(&self.path, format!("{}\n", *token).as_bytes()) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(ConfigError::File { path: self.path.clone(), error });
            }
            Ok(()) | Err(_) => {}
        }
        let hash = admin_token(&self.path)?;
        let path = self.hash_path();
        create(&path, format!("{hash}\n").as_bytes()).map_err(|error| ConfigError::File { path, error })?;
        Ok(named(hash))
    }
}

fn named(hash: Sha256Digest) -> NamedToken {
    NamedToken { name: "first".to_owned(), hash, roles: vec![Role::Admin] }
}
