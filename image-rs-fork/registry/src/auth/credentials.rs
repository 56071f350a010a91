//! One question over auth file and helpers: what is this registry shown?

use std::path::PathBuf;

use super::helper::{HelperName, ask};
use super::{AuthError, AuthFile, Credential};
use crate::registries_conf::CredentialSource;

/// Every source of credentials of one configuration, in order.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) file: AuthFile,
    pub(crate) sources: Vec<CredentialSource>,
    /// Where helpers are looked for; all absolute.
    pub(crate) helper_dirs: Vec<PathBuf>,
}

impl Credentials {
    /// The credential for a repository; `None` for anonymous. A helper that fails is an error, never anonymous.
    pub(crate) async fn find(&self, host: &str, repository: &str) -> Result<Option<Credential>, AuthError> {
        for source in &self.sources {
            let found = match source {
                CredentialSource::Helper(name) => self.ask(name, host).await?,
                CredentialSource::AuthFile => self.in_file(host, repository).await?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// A helper for exactly this host goes before the file's entries, the helper for all others after them.
    async fn in_file(&self, host: &str, repository: &str) -> Result<Option<Credential>, AuthError> {
        if let Some(name) = self.file.helper(host) {
            return self.ask(name, host).await;
        }
        if let Some(credential) = self.file.credential(host, repository) {
            return Ok(Some(credential.clone()));
        }
        match self.file.store() {
            Some(name) => self.ask(name, host).await,
            None => Ok(None),
        }
    }

    async fn ask(&self, name: &HelperName, host: &str) -> Result<Option<Credential>, AuthError> {
        // The name under which `docker login` stores what belongs to Docker Hub.
        let host = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
        ask(name, &self.helper_dirs, host).await
    }
}
