//! Makes images and pushes them to a registry.
#![allow(dead_code)] // each test crate uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // tests fail loudly

use std::io::Write as _;

use bytes::Bytes;
use image_rs_fork::registry::oci;
use image_rs_fork::registry::{Descriptor, ImageReference, RegistryPush, Repository, Target};
use protocols::digest::Sha256Digest;
use serde_json::json;

pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// One layer as it is pushed.
#[derive(Clone)]
pub(crate) struct LayerBlob {
    pub(crate) media_type: &'static str,
    pub(crate) blob: Vec<u8>,
    pub(crate) diff_id: Sha256Digest,
}

pub(crate) fn plain(tar: &[u8]) -> LayerBlob {
    LayerBlob { media_type: TAR, blob: tar.to_vec(), diff_id: Sha256Digest::of(tar) }
}

pub(crate) fn gzip(tar: &[u8]) -> LayerBlob {
    LayerBlob { media_type: GZIP, blob: gzip_member(tar), diff_id: Sha256Digest::of(tar) }
}

pub(crate) fn zstd(tar: &[u8]) -> LayerBlob {
    let blob = zstd::encode_all(tar, 3).unwrap();
    LayerBlob { media_type: ZSTD, blob, diff_id: Sha256Digest::of(tar) }
}

pub(crate) fn gzip_member(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image for `linux/<architecture>`.
pub(crate) fn config(layers: &[LayerBlob], architecture: &str) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let value = json!({
        "architecture": architecture, "os": "linux", "created": "2024-01-02T03:04:05Z",
        "config": { "Entrypoint": ["/bin/busybox"], "Cmd": ["echo", "hello"], "Env": ["PATH=/bin"], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    serde_json::to_vec(&value).unwrap()
}

/// Pushes blobs and the manifest, and gives the manifest's descriptor.
pub(crate) async fn push_with(
    registry: &dyn RegistryPush,
    repository: &Repository,
    tag: &str,
    config: Vec<u8>,
    layers: &[LayerBlob],
) -> Descriptor {
    let kind = "application/vnd.oci.image.config.v1+json";
    let config = registry.push_blob(repository, kind, Bytes::from(config)).await.unwrap();
    let mut pushed = Vec::new();
    for layer in layers {
        pushed.push(registry.push_blob(repository, layer.media_type, Bytes::from(layer.blob.clone())).await.unwrap());
    }
    let manifest = json!({ "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": pushed });
    push_document(registry, repository, tag, oci::MANIFEST, &manifest).await
}

pub(crate) async fn push_document(
    registry: &dyn RegistryPush,
    repository: &Repository,
    tag: &str,
    media_type: &str,
    document: &serde_json::Value,
) -> Descriptor {
    let bytes = serde_json::to_vec(document).unwrap();
    let descriptor = Descriptor::of(media_type, &bytes);
    registry.push_manifest(repository, &Target::Tag(tag.to_owned()), media_type, Bytes::from(bytes)).await.unwrap();
    descriptor
}

/// Pushes an image for this machine.
pub(crate) async fn push(
    registry: &dyn RegistryPush,
    repository: &Repository,
    tag: &str,
    layers: &[LayerBlob],
) -> Descriptor {
    push_with(registry, repository, tag, config(layers, architecture()), layers).await
}

pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

pub(crate) fn reference(repository: &Repository, tag: &str) -> ImageReference {
    format!("{repository}:{tag}").parse().unwrap()
}
