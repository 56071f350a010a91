//! The registry client over HTTP.

use async_trait::async_trait;
use bytes::Bytes;
use protocols::digest::Sha256Digest;

use crate::config::RegistryConfig;
use crate::error::RegistryError;
use crate::oci::Descriptor;
use crate::reference::{Repository, Target};
use crate::storage::{BlobStream, ManifestBytes, Registry, RegistryPush};

/// Registries over HTTP(S), any number of hosts.
#[derive(Debug)]
pub struct HttpRegistry {
    config: RegistryConfig,
}

impl HttpRegistry {
    /// Reads the auth file and the roots; connects nowhere.
    ///
    /// # Errors
    /// [`RegistryError::Config`].
    pub fn new(config: RegistryConfig) -> Result<Self, RegistryError> {
        Ok(Self { config })
    }

    fn stub<T>(&self) -> Result<T, RegistryError> {
        Err(RegistryError::Config { reason: format!("not built yet {:?}", self.config.stall()) })
    }
}

#[async_trait]
impl Registry for HttpRegistry {
    async fn manifest(&self, _: &Repository, _: &Target) -> Result<ManifestBytes, RegistryError> {
        self.stub()
    }

    async fn blob(&self, _: &Repository, _: &Sha256Digest, _: u64) -> Result<Box<dyn BlobStream>, RegistryError> {
        self.stub()
    }

    async fn referrers(&self, _: &Repository, _: &Sha256Digest, _: &str) -> Result<Vec<Descriptor>, RegistryError> {
        self.stub()
    }
}

#[async_trait]
impl RegistryPush for HttpRegistry {
    async fn push_blob(&self, _: &Repository, _: &str, _: Bytes) -> Result<Descriptor, RegistryError> {
        self.stub()
    }

    async fn push_manifest(&self, _: &Repository, _: &Target, _: &str, _: Bytes) -> Result<bool, RegistryError> {
        self.stub()
    }

    async fn attach(&self, _: &Repository, _: Bytes) -> Result<Descriptor, RegistryError> {
        self.stub()
    }
}
