//! Debian's docker-registry, real and on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{Service, address, program};

/// `user:secret`, as bcrypt for the registry's password file.
pub const USER: &str = "user";
/// The user's password.
pub const PASSWORD: &str = "secret";
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// A running registry and its storage.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:port`.
    pub address: String,
    storage: PathBuf,
    _service: Service,
}

impl Registry {
    /// Starts a registry in `folder`; with a password when `locked`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(folder: &Path, locked: bool) -> Self {
        let storage = folder.join("registry");
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: \"{}\"}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
            storage.display()
        );
        if locked {
            let passwords = folder.join("htpasswd");
            fs::write(&passwords, HTPASSWD).unwrap();
            config.push_str(&format!("auth:\n  htpasswd: {{realm: tests, path: \"{}\"}}\n", passwords.display()));
        }
        let path = folder.join("registry.yml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(program("docker-registry"));
        command.arg("serve").arg(&path).env("OTEL_TRACES_EXPORTER", "none");
        let mut service = Service::start("docker-registry", &command, &folder.join("registry.log"));
        let address = service.wait_for(|log| address(log, "listening on "));
        Self { address, storage, _service: service }
    }

    /// The folder with everything it stores.
    #[must_use]
    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// The data file of a blob.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }

    /// The file that says where a tag points.
    #[must_use]
    pub fn tag_link(&self, repository: &str, tag: &str) -> PathBuf {
        self.storage
            .join("docker/registry/v2/repositories")
            .join(repository)
            .join("_manifests/tags")
            .join(tag)
            .join("current/link")
    }

    /// Changes a stored blob behind the registry's back.
    ///
    /// # Panics
    /// When it is not stored.
    pub fn edit_blob(&self, digest: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let path = self.blob(digest);
        let mut bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        edit(&mut bytes);
        fs::write(&path, bytes).unwrap();
    }
}
