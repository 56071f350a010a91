//! OCI image layouts (image-spec 1.1).

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::error::file;
use crate::{Epoch, PackagingError, Result, Tree};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What a container of an image does.
#[derive(Debug, Clone)]
pub struct Settings<'s> {
    /// `uid:gid`.
    pub user: &'s str,
    /// The program.
    pub entrypoint: &'s [&'s str],
    /// Its arguments where nobody gives others.
    pub arguments: &'s [&'s str],
    /// Environment, `NAME=value`.
    pub environment: &'s [&'s str],
    /// Labels, which the manifest has as annotations too.
    pub labels: &'s [(&'s str, &'s str)],
    /// TCP ports that it listens on.
    pub ports: &'s [u16],
}

struct Layout<'l> {
    folder: &'l Path,
}

impl Layout<'_> {
    /// Stores a blob and describes it; gives its digest too.
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Result<(String, Value)> {
        let hash = hex::encode(Sha256::digest(bytes));
        let path = self.folder.join("blobs/sha256").join(&hash);
        fs::write(&path, bytes).map_err(file(&path))?;
        let digest = format!("sha256:{hash}");
        let described = json!({"mediaType": media_type, "digest": &digest, "size": bytes.len()});
        Ok((digest, described))
    }
}

/// Writes an image of these layers, lowest first, and gives its manifest's digest, which is what to sign.
///
/// # Errors
/// [`PackagingError`]; a folder that is there already is one.
pub fn write(folder: &Path, name: &str, layers: &[Tree], settings: &Settings<'_>, epoch: Epoch) -> Result<String> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent).map_err(file(parent))?;
    }
    fs::create_dir(folder).map_err(file(folder))?;
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(file(&blobs))?;
    let layout = Layout { folder };
    let mut described = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in layers {
        let archive = layer.tar(epoch)?;
        diff_ids.push(format!("sha256:{}", hex::encode(Sha256::digest(&archive))));
        // No name, no time: nothing in the header hangs on the build.
        let mut packed = GzBuilder::new().write(Vec::new(), Compression::default());
        packed.write_all(&archive).map_err(PackagingError::Archive)?;
        let (_, layer) = layout.blob(LAYER, &packed.finish().map_err(PackagingError::Archive)?)?;
        described.push(layer);
    }
    let labels: Value = settings.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let ports: Value = settings.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
    let created = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(epoch.0)).to_string();
    let config = json!({
        "created": created,
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {
            "User": settings.user,
            "Entrypoint": settings.entrypoint,
            "Cmd": settings.arguments,
            "Env": settings.environment,
            "Labels": labels,
            "ExposedPorts": ports,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": layers.iter().map(|_| json!({"created": created})).collect::<Vec<_>>(),
    });
    let (_, config) = layout.blob(CONFIG, config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": described,
        "annotations": labels,
    });
    let (digest, mut manifest) = layout.blob(MANIFEST, manifest.to_string().as_bytes())?;
    if let Some(described) = manifest.as_object_mut() {
        described.insert("annotations".to_owned(), json!({"org.opencontainers.image.ref.name": name}));
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    for (name, value) in [("index.json", index), ("oci-layout", json!({"imageLayoutVersion": "1.0.0"}))] {
        let path = folder.join(name);
        fs::write(&path, value.to_string()).map_err(file(&path))?;
    }
    Ok(digest)
}
